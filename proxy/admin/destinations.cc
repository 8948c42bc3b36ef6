#include "proxy/admin/destinations.h"

#include <algorithm>
#include <array>

#include "routing/selection.h"

namespace pointsman::proxy {

using routing::MemberRole;
using routing::MemberState;
using routing::Reason;
using routing::RouteClass;

namespace {
constexpr base::Duration kOutcomeCounts = std::chrono::minutes(5);

struct ReasonRoute {
  Reason reason;
  std::optional<RouteClass> route;
};
constexpr std::array<ReasonRoute, routing::kFirstRefusal> kReasonRoutes = {{
    {Reason::kPrimary, RouteClass::kPrimary},
    {Reason::kReplicaBest, RouteClass::kReplica},
    {Reason::kReplicaOnly, RouteClass::kReplica},
    {Reason::kReplicaMinLsn, RouteClass::kReplica},
    {Reason::kFallbackLeastLagged, RouteClass::kReplica},
    {Reason::kFallbackPrimary, RouteClass::kPrimary},
    {Reason::kLocalPool, RouteClass::kLocalPool},
    {Reason::kDefaultPool, RouteClass::kPool},
    {Reason::kNamedPool, RouteClass::kPool},
    {Reason::kHeld, std::nullopt},
}};
constexpr bool every_decision_once() {
  for (std::size_t i = 0; i < kReasonRoutes.size(); ++i) {
    if (static_cast<std::size_t>(kReasonRoutes[i].reason) != i) return false;
  }
  return true;
}
static_assert(every_decision_once());

}  // namespace

std::optional<RouteClass> route_of_reason(Reason reason) {
  const auto index = static_cast<std::size_t>(reason);
  return index < kReasonRoutes.size() ? kReasonRoutes[index].route : std::nullopt;
}

std::size_t endpoint_destination(const routing::BranchConfig& branch, std::size_t pool, std::size_t endpoint) {
  std::size_t index = 2 * branch.members.size() + endpoint;
  for (std::size_t before = 0; before < pool; ++before) index += branch.pools[before].endpoints.size();
  return index;
}

std::uint64_t active_sessions(const routing::BranchView& view, std::size_t destination) {
  if (view.block == nullptr || destination >= view.block->dimensions().destinations) return 0;
  return metrics::sum_active(*view.block, destination);
}

std::string endpoint_name(const routing::PoolEndpointConfig& endpoint) {
  const bool ipv6 = endpoint.host.find(':') != std::string::npos;
  return (ipv6 ? "[" + endpoint.host + "]" : endpoint.host) + ":" + std::to_string(endpoint.port);
}

MemberState endpoint_state(const routing::BranchView& view, std::size_t pool, std::size_t endpoint, base::Instant now) {
  const std::size_t destination = endpoint_destination(*view.config, pool, endpoint);
  if (view.block == nullptr || destination >= view.block->dimensions().destinations) return MemberState::kUnknown;
  std::uint64_t reached = 0;
  std::uint64_t missed = 0;
  for (std::size_t worker = 0; worker < view.block->dimensions().workers; ++worker) {
    reached = std::max(reached, view.block->slot(worker).reached_ns[destination].value());
    missed = std::max(missed, view.block->slot(worker).missed_ns[destination].value());
  }
  const auto lately = [now](std::uint64_t at) { return at != 0 && now - base::from_hrtime(at) < kOutcomeCounts; };
  if (missed > reached && lately(missed)) return MemberState::kDown;
  return lately(reached) || active_sessions(view, destination) > 0 ? MemberState::kOk : MemberState::kUnknown;
}

metrics::BranchWords destination_words(const routing::BranchView& view) {
  const routing::BranchConfig& branch = *view.config;
  metrics::BranchWords words{.branch = branch.name, .destinations = {}};
  const auto add = [&](RouteClass route, std::string member, bool exists) {
    words.destinations.push_back({.route = std::string(to_text(route)), .member = std::move(member), .exists = exists});
  };
  for (std::size_t i = 0; i < branch.members.size(); ++i) {
    // Of a member whose role is unknown the route is unknown too: it is told only while it has sessions, which had one.
    const MemberRole role = i < view.members.size() ? view.members[i].role : MemberRole::kUnknown;
    add(role == MemberRole::kReplica ? RouteClass::kReplica : RouteClass::kPrimary, branch.members[i].name,
        role != MemberRole::kUnknown);
  }
  for (const auto& member : branch.members) add(RouteClass::kLocalPool, member.name, member.pgbouncer_port != 0);
  for (const auto& pool : branch.pools) {
    for (const auto& endpoint : pool.endpoints) add(RouteClass::kPool, pool.name + "/" + endpoint_name(endpoint), true);
  }
  return words;
}

}  // namespace pointsman::proxy
