#include "proxy/fleet/sealed_destination.h"

#include <cstring>

#include "base/bytes.h"

namespace pointsman::proxy {
namespace {

constexpr std::uint8_t kFormat = 1;

void append_short(std::string& out, std::string_view text) {
  base::append_u8(out, static_cast<std::uint8_t>(text.size()));
  out += text;
}

/// Takes from the front; once something is missing everything that follows is empty, and good() tells.
class Cursor {
 public:
  explicit Cursor(std::string_view rest) : rest_(rest) {}
  std::string_view take(std::size_t size) {
    good_ = good_ && size <= rest_.size();
    if (!good_) return {};
    const auto taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  std::uint8_t take_u8() {
    const auto one = take(1);
    return one.empty() ? 0 : static_cast<std::uint8_t>(one.front());
  }
  bool good() const { return good_; }
  bool at_end() const { return good_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool good_ = true;
};

}  // namespace

std::string encode_destination(const SealedDestination& destination, std::size_t most) {
  const auto& address = destination.address;
  const bool v4 = address.base.sa_family == AF_INET;
  if (!address.known() || (!v4 && (address.base.sa_family != AF_INET6 || address.v6.sin6_scope_id != 0))) return {};
  if (destination.branch.size() > 255 || destination.secret.size() > 255) return {};
  std::string out;
  base::append_u8(out, kFormat);
  base::append_u8(out, static_cast<std::uint8_t>(destination.route));
  base::append_u8(out, v4 ? 4 : 6);
  base::append_be16(out, ntohs(v4 ? address.v4.sin_port : address.v6.sin6_port));
  if (v4) {
    out.append(reinterpret_cast<const char*>(&address.v4.sin_addr), sizeof address.v4.sin_addr);
  } else {
    out.append(reinterpret_cast<const char*>(&address.v6.sin6_addr), sizeof address.v6.sin6_addr);
  }
  append_short(out, destination.branch);
  append_short(out, destination.secret);
  if (out.size() > most) out.clear();
  return out;
}

std::optional<SealedDestination> decode_destination(std::string_view content) {
  Cursor in(content);
  SealedDestination destination;
  if (in.take_u8() != kFormat) return std::nullopt;
  const std::uint8_t route = in.take_u8();
  if (route >= routing::kRouteClassCount) return std::nullopt;
  destination.route = static_cast<routing::RouteClass>(route);
  const std::uint8_t family = in.take_u8();
  if (family != 4 && family != 6) return std::nullopt;
  const auto port = in.take(2);
  const auto ip = in.take(family == 4 ? sizeof(in_addr) : sizeof(in6_addr));
  if (!in.good()) return std::nullopt;
  auto& address = destination.address;
  if (family == 4) {
    address.v4.sin_family = AF_INET;
    std::memcpy(&address.v4.sin_port, port.data(), port.size());
    std::memcpy(&address.v4.sin_addr, ip.data(), ip.size());
    address.size = sizeof address.v4;
  } else {
    address.v6.sin6_family = AF_INET6;
    std::memcpy(&address.v6.sin6_port, port.data(), port.size());
    std::memcpy(&address.v6.sin6_addr, ip.data(), ip.size());
    address.size = sizeof address.v6;
  }
  destination.branch = in.take(in.take_u8());
  destination.secret = in.take(in.take_u8());
  if (!in.at_end() || destination.branch.empty() || destination.secret.size() < 4) return std::nullopt;
  return destination;
}

}  // namespace pointsman::proxy
