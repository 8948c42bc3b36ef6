#include "routing/snapshot.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace pointsman::routing {

std::string SocketAddress::to_string() const {
  if (!known()) return "?";
  char text[INET6_ADDRSTRLEN] = {};
  if (base.sa_family == AF_INET) {
    POINTSMAN_CHECK(inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text) != nullptr);
    return std::string(text) + ":" + std::to_string(ntohs(v4.sin_port));
  }
  POINTSMAN_CHECK(inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text) != nullptr);
  return "[" + std::string(text) + "]:" + std::to_string(ntohs(v6.sin6_port));
}

bool operator==(const SocketAddress& a, const SocketAddress& b) {
  if (a.size != b.size) return false;
  if (!a.known()) return true;
  if (a.base.sa_family != b.base.sa_family) return false;
  if (a.base.sa_family == AF_INET) {
    return a.v4.sin_addr.s_addr == b.v4.sin_addr.s_addr && a.v4.sin_port == b.v4.sin_port;
  }
  return std::memcmp(&a.v6.sin6_addr, &b.v6.sin6_addr, sizeof a.v6.sin6_addr) == 0 &&
         a.v6.sin6_port == b.v6.sin6_port && a.v6.sin6_scope_id == b.v6.sin6_scope_id;
}

SocketAddress SocketAddress::from_numeric(const std::string& host, std::uint16_t port) {
  SocketAddress address;
  if (host.find('\0') != std::string::npos) return address;  // inet_pton would read up to there
  in_addr ipv4{};
  in6_addr ipv6{};
  if (inet_pton(AF_INET, host.c_str(), &ipv4) == 1) {
    address.v4 = {};
    address.v4.sin_family = AF_INET;
    address.v4.sin_addr = ipv4;
    address.v4.sin_port = htons(port);
    address.size = sizeof address.v4;
  } else if (inet_pton(AF_INET6, host.c_str(), &ipv6) == 1) {
    address.v6.sin6_family = AF_INET6;
    address.v6.sin6_addr = ipv6;
    address.v6.sin6_port = htons(port);
    address.size = sizeof address.v6;
  }
  return address;
}

SocketAddress SocketAddress::with_port(std::uint16_t port) const {
  SocketAddress copy = *this;
  if (!known()) return copy;
  if (base.sa_family == AF_INET) {
    copy.v4.sin_port = htons(port);
  } else {
    copy.v6.sin6_port = htons(port);
  }
  return copy;
}

void SocketAddress::mapped_ip(std::uint8_t (&out)[16]) const {
  std::memset(out, 0, sizeof out);
  if (!known()) return;
  if (base.sa_family == AF_INET) {
    out[10] = out[11] = 0xFF;  // RFC 4291 section 2.5.5.2
    std::memcpy(out + 12, &v4.sin_addr, 4);
  } else {
    std::memcpy(out, &v6.sin6_addr, 16);
  }
}

std::string_view to_text(MemberRole role) {
  switch (role) {
    case MemberRole::kUnknown:
      return "unknown";
    case MemberRole::kPrimary:
      return "primary";
    case MemberRole::kReplica:
      return "replica";
  }
  POINTSMAN_CHECK(false);
  return {};
}

std::string_view to_text(MemberState state) {
  switch (state) {
    case MemberState::kOk:
      return "ok";
    case MemberState::kLagging:
      return "lagging";
    case MemberState::kUnknown:
      return "unknown";
    case MemberState::kDown:
      return "down";
  }
  POINTSMAN_CHECK(false);
  return {};
}

const PoolView* BranchView::find_pool(std::string_view pool, std::size_t* index) const {
  const auto found = std::find_if(pools.begin(), pools.end(), [&](const PoolView& p) { return p.name == pool; });
  if (found == pools.end()) return nullptr;
  if (index != nullptr) *index = static_cast<std::size_t>(found - pools.begin());
  return &*found;
}

Directory::Directory(std::shared_ptr<const Config> config) : config_(std::move(config)) {
  names_.reserve(config_->branches.size());
  index_.reserve(config_->branches.size());
  for (const auto& [name, branch] : config_->branches) {
    index_.emplace(name, static_cast<int>(names_.size()));  // the key is the map's own text, which config_ keeps alive
    names_.push_back(name);
  }
}

int Directory::find(std::string_view branch) const {
  const auto found = index_.find(branch);
  return found == index_.end() ? -1 : found->second;
}

}  // namespace pointsman::routing
