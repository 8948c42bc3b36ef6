#include "routing/standing.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace pointsman::routing {
namespace {

/// Where the member of the session's decision stands now, -1: nowhere. Another host or port under the same name is
/// another server.
int place_now(const BranchView& then, int member, const BranchView& now) {
  const MemberConfig& known = then.config->members[static_cast<std::size_t>(member)];
  const auto& members = now.config->members;
  const auto found = std::find_if(members.begin(), members.end(), [&known](const MemberConfig& other) {
    return other.name == known.name && other.host == known.host && other.port == known.port;
  });
  return found == members.end() ? -1 : static_cast<int>(found - members.begin());
}

Standing pool_standing(const BranchView& then, const Decision& decision, const BranchView& now) {
  const PoolConfig& pool = then.config->pools[static_cast<std::size_t>(decision.pool)];
  const PoolEndpointConfig& known = pool.endpoints[static_cast<std::size_t>(decision.endpoint)];
  const PoolConfig* present = now.config->find_pool(pool.name);
  if (present == nullptr) return Standing::kRemoved;
  for (const PoolEndpointConfig& endpoint : present->endpoints) {
    if (endpoint.host != known.host || endpoint.port != known.port) continue;
    return endpoint.draining ? Standing::kDraining : Standing::kStays;
  }
  return Standing::kRemoved;
}

Refusal ended(Reason reason, std::string message) {
  return {.reason = reason,
          .sqlstate = "57P01",
          .message = std::move(message),
          .detail = {},
          .hint = "Connect again.",
          .log_detail = {}};
}

}  // namespace

Standing standing_of(const BranchView& then, const Decision& decision, const BranchView& now) {
  if (decision.route == RouteClass::kPool) return pool_standing(then, decision, now);
  const int place = place_now(then, decision.member, now);
  if (place < 0) return Standing::kRemoved;
  const bool is_primary = place == now.primary;
  if (decision.route == RouteClass::kReplica) return is_primary ? Standing::kPromoted : Standing::kStays;
  return now.primary >= 0 && !is_primary ? Standing::kDemoted : Standing::kStays;
}

bool may_change_standing(const BranchView& before, const BranchView& after) {
  return before.config != after.config || before.primary != after.primary;
}

Farewell farewell(Standing standing, const BranchView& then, const Decision& decision, const BranchView& now) {
  const std::string name = destination_name(then, decision);
  const base::Duration grace = now.config->failover.grace;
  switch (standing) {
    case Standing::kStays:
      break;
    case Standing::kDemoted:
      return {ended(Reason::kDemoted, "terminating connection because " + name + " is no longer the primary"), true,
              grace};
    case Standing::kPromoted:
      return {ended(Reason::kPromoted, "terminating connection because " + name + " has become the primary"), true,
              grace};
    case Standing::kRemoved:
      return {ended(Reason::kRemoved, "terminating connection because " + name + " has been taken out of the branch"),
              true, grace};
    case Standing::kDraining: {
      const PoolConfig& pool = *now.config->find_pool(then.config->pools[static_cast<std::size_t>(decision.pool)].name);
      return {ended(Reason::kDraining, "terminating connection because " + name + " is being replaced"), false,
              pool.drain_timeout};
    }
  }
  POINTSMAN_CHECK(false);
  return {};
}

}  // namespace pointsman::routing
