#pragma once
// Where a destination's counters stand in a branch's block (metrics::Dimensions): members, then the members'
// PgBouncers, then pool endpoints.

#include <cstddef>
#include <optional>
#include <string>

#include "base/clock.h"
#include "metrics/registry.h"
#include "routing/reason.h"
#include "routing/selection.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

inline std::size_t member_destination(std::size_t member) {
  return member;
}
inline std::size_t pgbouncer_destination(const routing::BranchConfig& branch, std::size_t member) {
  return branch.members.size() + member;
}
std::size_t endpoint_destination(const routing::BranchConfig& branch, std::size_t pool, std::size_t endpoint);

/// Sessions now; 0 without a block.
std::uint64_t active_sessions(const routing::BranchView& view, std::size_t destination);

/// As configured, not as resolved, so that it stays the same: "10.0.0.20:6432", "[::1]:6432".
std::string endpoint_name(const routing::PoolEndpointConfig& endpoint);

/// What is known of an endpoint. Nobody probes pools: what became of the last session that was sent there says it, for
/// five minutes, and a session that is connected for as long as it is.
routing::MemberState endpoint_state(const routing::BranchView& view, std::size_t pool, std::size_t endpoint,
                                    base::Instant now);

/// The route that a decision for this reason took. Nothing: its destination says it (after a hold), or the reason is no
/// decision's.
std::optional<routing::RouteClass> route_of_reason(routing::Reason reason);

/// Labels of the branch's destinations, in the block's order.
metrics::BranchWords destination_words(const routing::BranchView& view);

}  // namespace pointsman::proxy
