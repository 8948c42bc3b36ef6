#include "proxy/monitor/resolver.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "proxy/monitor/uv_handles.h"

namespace pointsman::proxy {
namespace {

/// More than anybody dials one after the other, and one more than a discovered branch may have members.
constexpr std::size_t kMaxAddresses = routing::kMaxMembers + 1;

std::vector<routing::SocketAddress> collect(const addrinfo* list) {
  std::vector<routing::SocketAddress> out;
  for (const int family : {AF_INET, AF_INET6}) {
    for (const addrinfo* entry = list; entry != nullptr && out.size() < kMaxAddresses; entry = entry->ai_next) {
      if (entry->ai_family != family) continue;
      routing::SocketAddress address;
      if (family == AF_INET && entry->ai_addrlen == sizeof address.v4) {
        std::memcpy(&address.v4, entry->ai_addr, sizeof address.v4);
        address.size = sizeof address.v4;
      } else if (family == AF_INET6 && entry->ai_addrlen == sizeof address.v6) {
        std::memcpy(&address.v6, entry->ai_addr, sizeof address.v6);
        address.size = sizeof address.v6;
      }
      if (address.known() && std::find(out.begin(), out.end(), address) == out.end()) out.push_back(address);
    }
  }
  return out;
}

/// DNS servers turn their answers round at every query: order alone is no change.
bool same_set(const std::vector<routing::SocketAddress>& a, const std::vector<routing::SocketAddress>& b) {
  return a.size() == b.size() &&
         std::all_of(a.begin(), a.end(), [&](const auto& x) { return std::find(b.begin(), b.end(), x) != b.end(); });
}

}  // namespace

struct Resolver::Flight {
  uv_getaddrinfo_t request;
  Resolver* resolver;  // null when it went away meanwhile
  std::string host;
};

Resolver::Resolver(uv_loop_t* loop, Owner& owner) : loop_(loop), owner_(owner) {}

Resolver::~Resolver() {
  for (auto& [host, name] : names_) {
    if (name.flight == nullptr) continue;
    name.flight->resolver = nullptr;
    uv_cancel(reinterpret_cast<uv_req_t*>(&name.flight->request));  // fails when it runs already: then it lands later
  }
}

void Resolver::refresh(const std::string& host, base::Duration max_age, base::Instant now) {
  Name& name = names_[host];
  name.wanted_at = now;
  if (name.flight != nullptr) return;
  if (const auto numeric = routing::SocketAddress::from_numeric(host, 0); numeric.known()) {
    name.addresses = {numeric};
    return;
  }
  if (name.answered_at && now - *name.answered_at < max_age) return;

  auto flight = std::make_unique<Flight>();
  flight->request.data = flight.get();
  flight->resolver = this;
  flight->host = host;
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_protocol = IPPROTO_TCP;
  hints.ai_flags = AI_ADDRCONFIG;
  const int status = uv_getaddrinfo(
      loop_, &flight->request,
      [](uv_getaddrinfo_t* request, int result, addrinfo* list) {
        const std::unique_ptr<Flight> landed(static_cast<Flight*>(request->data));
        if (landed->resolver != nullptr) landed->resolver->land(*landed, result, list);
        uv_freeaddrinfo(list);
      },
      host.c_str(), nullptr, &hints);
  if (status != 0) {  // a name that libuv does not take (IDNA)
    name.error = uv_strerror(status);
    name.answered_at = now;
    return;
  }
  name.flight = flight.release();
  ++in_flight_;
}

void Resolver::land(Flight& flight, int status, const addrinfo* list) {
  --in_flight_;
  const auto found = names_.find(flight.host);
  if (found == names_.end()) return;
  Name& name = found->second;
  name.flight = nullptr;
  name.answered_at = loop_clock();
  auto addresses = status == 0 ? collect(list) : std::vector<routing::SocketAddress>();
  bool changed = false;
  if (addresses.empty()) {
    name.error = status == 0 ? "no address" : uv_strerror(status);
  } else {
    name.error.clear();
    changed = !same_set(addresses, name.addresses);
    if (changed) name.addresses = std::move(addresses);
  }
  owner_.on_resolved(flight.host, changed);
}

const std::vector<routing::SocketAddress>& Resolver::addresses_of(const std::string& host) const {
  static const std::vector<routing::SocketAddress> kNone;
  const auto found = names_.find(host);
  return found == names_.end() ? kNone : found->second.addresses;
}

std::string_view Resolver::error_of(const std::string& host) const {
  const auto found = names_.find(host);
  return found == names_.end() ? std::string_view() : found->second.error;
}

bool Resolver::in_flight(const std::string& host) const {
  const auto found = names_.find(host);
  return found != names_.end() && found->second.flight != nullptr;
}

void Resolver::forget_unused(base::Instant before) {
  std::erase_if(names_,
                [&](const auto& entry) { return entry.second.flight == nullptr && entry.second.wanted_at < before; });
}

}  // namespace pointsman::proxy
