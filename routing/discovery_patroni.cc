// Patroni's REST answer `GET /cluster` (docs/rest_api.rst of Patroni; patroni/utils.py, cluster_as_json).

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "routing/discovery_collect.h"

namespace pointsman::routing {
namespace {

/// `master` was Patroni's word before 4.0 in some places, `primary` is it in others since; a standby cluster's leader
/// takes no writes, which its probe says.
bool is_leader(std::string_view role) {
  constexpr std::array<std::string_view, 4> kWords = {"leader", "master", "primary", "standby_leader"};
  return std::find(kWords.begin(), kWords.end(), role) != kWords.end();
}

/// `postgres://user@host:port/database?…`: host and port of it. Patroni itself leaves the URL out and gives both apart.
void read_conn_url(std::string_view url, DiscoveredMember& member) {
  const std::size_t scheme = url.find("://");
  if (scheme == std::string_view::npos) return;
  std::string_view authority = url.substr(scheme + 3);
  authority = authority.substr(0, authority.find_first_of("/?#"));
  if (const std::size_t at = authority.rfind('@'); at != std::string_view::npos) authority.remove_prefix(at + 1);
  std::string_view port;
  if (!authority.empty() && authority.front() == '[') {
    const std::size_t end = authority.find(']');
    if (end == std::string_view::npos) return;
    member.host = std::string(authority.substr(1, end - 1));
    if (end + 1 < authority.size() && authority[end + 1] == ':') port = authority.substr(end + 2);
  } else {
    const std::size_t colon = authority.find(':');
    member.host = std::string(authority.substr(0, colon));
    if (colon != std::string_view::npos) port = authority.substr(colon + 1);
  }
  if (port.empty()) return;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), member.port);
  if (error != std::errc{} || end != port.data() + port.size()) member.port = 0;
}

/// Nothing: it has not told yet where it listens.
std::optional<DiscoveredMember> read_place(const Json& entry) {
  DiscoveredMember member;
  if (const std::string* host = text_at(&entry, "host")) {
    member.host = *host;
    if (child(&entry, "port") != nullptr) member.port = port_at(&entry, "port");
    return member;
  }
  const std::string* url = text_at(&entry, "conn_url");
  if (url == nullptr) return std::nullopt;
  read_conn_url(*url, member);
  return member;
}

}  // namespace

base::Result<Discovered> discovered_from_patroni(std::string_view document) {
  if (document.size() > kMaxClusterDocument)
    return base::Error{"the answer is longer than " + std::to_string(kMaxClusterDocument) + " bytes"};
  const ParsedJson parsed = parse_json(document);
  if (!parsed.value) return base::Error{"the answer is no JSON: " + parsed.error};
  const auto* entries = array_at(&*parsed.value, "members");
  if (entries == nullptr) return base::Error{"the answer has no \"members\""};
  MemberCollector collector;
  std::vector<std::string> leaders;
  for (const Json& entry : *entries) {
    const std::string* name = text_at(&entry, "name");
    const std::string* role = text_at(&entry, "role");
    if (name == nullptr || role == nullptr) {
      collector.problem("a member without name or role is left out");
      continue;
    }
    const Json* tags = child(&entry, "tags");
    const bool leader = is_leader(*role);
    if (!leader && flag_at(tags, "noloadbalance", false)) continue;
    auto member = read_place(entry);
    if (!member) continue;
    member->name = *name;
    if (const std::string* zone = text_at(tags, "zone")) member->zone = *zone;
    const std::string* state = text_at(&entry, "state");
    member->ready = state == nullptr || *state == "running" || *state == "streaming";
    const auto known_as = collector.add(*std::move(member));
    if (leader && known_as) leaders.push_back(*known_as);
  }
  if (leaders.size() == 1) {
    collector.found().leader = leaders.front();
  } else if (leaders.size() > 1) {
    collector.problem("it names " + std::to_string(leaders.size()) + " leaders; none is believed");
  }
  return std::move(collector).finish("the answer names no member");
}

}  // namespace pointsman::routing
