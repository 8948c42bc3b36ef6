#include "routing/discovery.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "routing/config_reader.h"
#include "routing/discovery_collect.h"

namespace pointsman::routing {
namespace {

std::string numeric_host(const SocketAddress& address) {
  char text[INET6_ADDRSTRLEN] = {};
  const bool ipv4 = address.base.sa_family == AF_INET;
  const void* from = ipv4 ? static_cast<const void*>(&address.v4.sin_addr) : &address.v6.sin6_addr;
  POINTSMAN_CHECK(inet_ntop(ipv4 ? AF_INET : AF_INET6, from, text, sizeof text) != nullptr);
  return text;
}

bool is_wanted(const SocketAddress& address, AddressFamily family) {
  if (!address.known()) return false;
  switch (family) {
    case AddressFamily::kAny:
      return true;
    case AddressFamily::kIpv4:
      return address.base.sa_family == AF_INET;
    case AddressFamily::kIpv6:
      return address.base.sa_family == AF_INET6;
  }
  POINTSMAN_CHECK(false);
  return false;
}

}  // namespace

std::string member_name_of(std::string_view host) {
  std::string name;
  for (const char c : host) name += is_label(std::string(1, c)) ? c : '-';
  // `::7` means the same as `0::7`.
  if (!name.empty() && name.front() == '-') name.insert(0, 1, '0');
  return name.substr(0, 63);
}

std::optional<std::string> MemberCollector::add(DiscoveredMember member) {
  if (++seen_ > kMaxMembers) return std::nullopt;  // finish() refuses the whole
  if (!is_host(member.host)) {
    problem("a member's host \"" + escape_for_log(member.host, 64) + "\" is no host name and no numeric address");
    return std::nullopt;
  }
  if (member.port == 0) {
    problem("a member at " + member.host + " has no lawful port");
    return std::nullopt;
  }
  if (!is_label(member.name)) {
    const std::string other = member_name_of(member.host).substr(0, 57) + "-" + std::to_string(member.port);
    problem("\"" + escape_for_log(member.name, 64) + "\" is no lawful member name; the member is called " + other);
    member.name = other;
  }
  if (!member.zone.empty() && !is_label(member.zone)) {
    problem(member.name + ": the zone \"" + escape_for_log(member.zone, 64) + "\" is no lawful name and is not used");
    member.zone.clear();
  }
  if (names_.contains(member.name)) {
    problem("two members are called " + member.name + "; the one at " + member.host + " is left out");
    return std::nullopt;
  }
  if (!places_.emplace(member.host, member.port).second) {
    problem(member.name + " has the same host and port as another member and is left out");
    return std::nullopt;
  }
  names_.insert(member.name);
  found_.members.push_back(std::move(member));
  return found_.members.back().name;
}

void MemberCollector::problem(std::string text) {
  if (found_.problems.size() < kMaxDiscoveryProblems) found_.problems.push_back(std::move(text));
}

base::Result<Discovered> MemberCollector::finish(std::string nobody) && {
  // Of too many some would be chosen by chance, and the primary might not be among them.
  if (seen_ > kMaxMembers) return base::Error{"it names more than " + std::to_string(kMaxMembers) + " members"};
  if (found_.members.empty()) {
    if (!found_.problems.empty()) nobody += " (" + found_.problems.front() + ")";
    return base::Error{std::move(nobody)};
  }
  std::sort(found_.members.begin(), found_.members.end(),
            [](const DiscoveredMember& a, const DiscoveredMember& b) { return a.name < b.name; });
  return std::move(found_);
}

const Json* child(const Json* value, std::string_view key) {
  const auto* object = value == nullptr ? nullptr : value->get_ptr<const Json::object_t*>();
  if (object == nullptr) return nullptr;
  const auto found = object->find(std::string(key));
  return found == object->end() ? nullptr : &found->second;
}

const std::string* text_at(const Json* value, std::string_view key) {
  const Json* found = child(value, key);
  return found == nullptr ? nullptr : found->get_ptr<const std::string*>();
}

const Json::array_t* array_at(const Json* value, std::string_view key) {
  const Json* found = child(value, key);
  return found == nullptr ? nullptr : found->get_ptr<const Json::array_t*>();
}

std::uint16_t port_at(const Json* value, std::string_view key) {
  const Json* found = child(value, key);
  const auto* number = found == nullptr ? nullptr : found->get_ptr<const Json::number_unsigned_t*>();
  return number == nullptr || *number > 65535 ? std::uint16_t{0} : static_cast<std::uint16_t>(*number);
}

bool flag_at(const Json* value, std::string_view key, bool absent) {
  const Json* found = child(value, key);
  if (found == nullptr || found->is_null()) return absent;
  const auto* flag = found->get_ptr<const bool*>();
  return flag != nullptr && *flag;
}

base::Result<Discovered> discovered_from_addresses(std::span<const SocketAddress> addresses,
                                                   const DnsDiscovery& wanted) {
  std::set<std::string> hosts;  // a server may give an address twice, and in another order each time
  for (const SocketAddress& address : addresses) {
    if (is_wanted(address, wanted.family)) hosts.insert(numeric_host(address));
  }
  MemberCollector collector;
  for (const std::string& host : hosts) {
    DiscoveredMember member;
    member.name = member_name_of(host);
    member.host = host;
    member.port = wanted.port;
    (void)collector.add(std::move(member));
  }
  return std::move(collector).finish("the answer has no address");
}

std::shared_ptr<const BranchConfig> effective_config(const BranchConfig& declared, const Discovered& found) {
  POINTSMAN_CHECK(declared.discover.has_value());
  auto effective = std::make_shared<BranchConfig>(declared);
  effective->members.clear();
  for (const DiscoveredMember& member : found.members) {
    MemberConfig& out = effective->members.emplace_back();
    out.name = member.name;
    out.host = member.host;
    out.port = member.port;
    out.pgbouncer_port = member.pgbouncer_port != 0 ? member.pgbouncer_port : declared.discover->pgbouncer_port;
    out.zone = member.zone.empty() ? declared.discover->zone : member.zone;
  }
  return effective;
}

}  // namespace pointsman::routing
