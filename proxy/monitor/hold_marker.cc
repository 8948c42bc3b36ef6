#include "proxy/monitor/hold_marker.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"

namespace pointsman::proxy {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxPlaces = 16 * 1024;  // 64 pools of 128 endpoints, and one more

void add_once(std::vector<BouncerPlace>& places, BouncerPlace place) {
  const bool known = place.address.known() && std::any_of(places.begin(), places.end(), [&](const BouncerPlace& other) {
                       return other.address == place.address;
                     });
  if (!known) places.push_back(std::move(place));
}

std::uint16_t port_of(const routing::SocketAddress& address) {
  return ntohs(address.base.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
}

/// The numeric host of "10.0.0.1:5432" and "[::1]:5432".
std::string host_of(const routing::SocketAddress& address) {
  std::string text = address.to_string();
  text.resize(text.rfind(':'));
  return text.starts_with('[') ? text.substr(1, text.size() - 2) : text;
}

std::string text_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  const auto* text = found == object.end() ? nullptr : found->get_ptr<const std::string*>();
  return text == nullptr ? std::string() : *text;
}

}  // namespace

std::vector<BouncerPlace> bouncers_of_primary(const routing::BranchView& view) {
  POINTSMAN_CHECK(view.primary >= 0);
  std::vector<BouncerPlace> places;
  const auto primary = static_cast<std::size_t>(view.primary);
  const routing::MemberConfig& member = view.config->members[primary];
  if (member.pgbouncer_port != 0)
    add_once(places, {member.name + " (pgbouncer)", {}, member.host, view.members[primary].pgbouncer_address});
  for (std::size_t p = 0; p < view.pools.size(); ++p) {
    if (!view.pools[p].to_primary) continue;
    const auto& endpoints = view.config->pools[p].endpoints;
    for (std::size_t e = 0; e < endpoints.size(); ++e) {
      add_once(places, {view.pools[p].name + "/" + endpoints[e].host + ":" + std::to_string(endpoints[e].port),
                        view.pools[p].name, endpoints[e].host, view.pools[p].endpoints[e].address});
    }
  }
  return places;
}

PgTarget console_target(const routing::BranchConfig& branch, const BouncerPlace& place) {
  PgTarget target;
  target.host = place.host;
  target.address = place.address;
  target.user = branch.pgbouncer_admin ? branch.pgbouncer_admin->user : branch.probe.user;
  target.password = branch.pgbouncer_admin ? branch.pgbouncer_admin->password : branch.probe.password;
  target.database = "pgbouncer";
  target.application_name = "pointsman-hold";
  // As sessions to it: `options` stays empty, PgBouncer knows none.
  const routing::PoolConfig* pool = place.pool.empty() ? nullptr : branch.find_pool(place.pool);
  target.tls = pool != nullptr && pool->tls ? *pool->tls : branch.pgbouncer_tls.value_or(branch.backend_tls);
  return target;
}

std::string hold_marker_text(std::string_view branch, const std::vector<BouncerPlace>& places) {
  Json list = Json::array();
  for (const BouncerPlace& place : places) {
    if (!place.address.known()) continue;
    list.push_back({{"name", place.name},
                    {"pool", place.pool},
                    {"host", place.host},
                    {"address", host_of(place.address)},
                    {"port", port_of(place.address)}});
  }
  const Json marker = {{"branch", branch}, {"paused", std::move(list)}};
  return marker.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<std::vector<BouncerPlace>> parse_hold_marker(std::string_view text, std::string_view branch) {
  const Json marker = Json::parse(text, nullptr, false);
  if (!marker.is_object() || text_at(marker, "branch") != branch) return std::nullopt;
  const auto list = marker.find("paused");
  if (list == marker.end() || !list->is_array() || list->size() > kMaxPlaces) return std::nullopt;
  std::vector<BouncerPlace> places;
  for (const Json& entry : *list) {
    if (!entry.is_object()) return std::nullopt;
    const auto port = entry.find("port");
    const auto* number = port == entry.end() ? nullptr : port->get_ptr<const Json::number_unsigned_t*>();
    if (number == nullptr || *number == 0 || *number > 65535) return std::nullopt;
    BouncerPlace place{
        text_at(entry, "name"), text_at(entry, "pool"), text_at(entry, "host"),
        routing::SocketAddress::from_numeric(text_at(entry, "address"), static_cast<std::uint16_t>(*number))};
    if (!place.address.known() || place.host.empty()) return std::nullopt;
    places.push_back(std::move(place));
  }
  return places;
}

}  // namespace pointsman::proxy
