// What configuration alone decides (check_static), and the names and TLS settings of a destination. The choice itself:
// selection.cc.

#include <algorithm>
#include <cstddef>
#include <utility>

#include "base/check.h"
#include "routing/refusals.h"
#include "routing/selection.h"

namespace pointsman::routing {
namespace {

Refusal wrong_port(std::string message, std::string hint) {
  return {.reason = Reason::kWrongPort,
          .sqlstate = "28000",
          .message = std::move(message),
          .detail = {},
          .hint = std::move(hint),
          .log_detail = {}};
}

std::optional<Refusal> check_direct(const BranchConfig& branch, const Target& target) {
  switch (target.kind) {
    case TargetKind::kDefault:
    case TargetKind::kPrimary:
      return std::nullopt;
    case TargetKind::kReplica:
      if (branch.members.size() > 1 || branch.discover) return std::nullopt;  // a discovered one may yet come
      return Refusal{.reason = Reason::kNoReplica,
                     .sqlstate = "0A000",
                     .message = "branch " + in_quotes(branch.name) + " has no replica",
                     .detail = {},
                     .hint = "Leave |replica out to use the primary.",
                     .log_detail = {}};
    case TargetKind::kPool:
      if (branch.find_pool(target.pool) == nullptr) return unknown_pool_refusal(branch, target.pool);
      return wrong_port("pool " + in_quotes(target.pool) + " cannot be reached on the direct port",
                        "Use the pooled port (usually 6432).");
  }
  POINTSMAN_CHECK(false);
  return std::nullopt;
}

std::optional<Refusal> check_pooled_target(const BranchConfig& branch, const Target& target) {
  switch (target.kind) {
    case TargetKind::kReplica:
      return wrong_port("replicas cannot be reached on the pooled port",
                        "Use the direct port (usually 5432), or name a pool that stands on replicas.");
    case TargetKind::kPool:
      if (branch.find_pool(target.pool) == nullptr) return unknown_pool_refusal(branch, target.pool);
      return std::nullopt;
    case TargetKind::kDefault:
    case TargetKind::kPrimary:
      break;
  }
  const bool beside_a_member = std::any_of(branch.members.begin(), branch.members.end(),
                                           [](const MemberConfig& member) { return member.pgbouncer_port != 0; });
  // Of a branch whose members are not known yet the discover block says whether they will have one.
  const bool may_come = branch.discover && (branch.members.empty() || branch.discover->pgbouncer_port != 0);
  if (!branch.default_pool.empty() || beside_a_member || may_come) return std::nullopt;
  return Refusal{.reason = Reason::kNoLocalPool,
                 .sqlstate = "0A000",
                 .message = "branch " + in_quotes(branch.name) + " has no PgBouncer for its primary",
                 .detail = {},
                 .hint = "Use the direct port (usually 5432), or name a pool of the branch.",
                 .log_detail = {}};
}

}  // namespace

Refusal unknown_pool_refusal(const BranchConfig& branch, std::string_view pool) {
  return {.reason = Reason::kUnknownPool,
          .sqlstate = "28000",
          .message = "branch " + in_quotes(branch.name) + " has no pool " + in_quotes(pool),
          .detail = {},
          .hint = "Behind the bar may stand primary, replica or the name of a pool of the branch.",
          .log_detail = {}};
}

std::string_view to_text(RouteClass route) {
  switch (route) {
    case RouteClass::kPrimary:
      return "primary";
    case RouteClass::kReplica:
      return "replica";
    case RouteClass::kLocalPool:
      return "local_pool";
    case RouteClass::kPool:
      return "pool";
  }
  POINTSMAN_CHECK(false);
  return {};
}

std::optional<Refusal> check_static(const BranchConfig& branch, const RouteRequest& request) {
  if (request.mode == ListenerMode::kDirect) return check_direct(branch, request.target);
  if (auto refusal = check_pooled_target(branch, request.target)) return refusal;
  if (request.replication) return replication_on_pool();
  return request.options.check_pooled();
}

const BackendTlsConfig& tls_for(const BranchConfig& branch, const Decision& decision) {
  if (decision.route == RouteClass::kPool) {
    const auto& own = branch.pools[static_cast<std::size_t>(decision.pool)].tls;
    if (own) return *own;
  }
  const bool to_pgbouncer = decision.route == RouteClass::kPool || decision.route == RouteClass::kLocalPool;
  return to_pgbouncer && branch.pgbouncer_tls ? *branch.pgbouncer_tls : branch.backend_tls;
}

std::string server_name_for(const BranchView& branch, const Decision& decision) {
  const std::string& configured = tls_for(*branch.config, decision).server_name;
  if (!configured.empty()) return configured;
  if (decision.route == RouteClass::kPool) {
    return branch.pools[static_cast<std::size_t>(decision.pool)]
        .endpoints[static_cast<std::size_t>(decision.endpoint)]
        .host;
  }
  return branch.members[static_cast<std::size_t>(decision.member)].host;
}

std::optional<Decision> destination_at(const BranchView& branch, RouteClass route, const SocketAddress& address) {
  Decision decision;
  decision.route = route;
  decision.address = address;
  if (!address.known()) return std::nullopt;
  if (route == RouteClass::kPool) {
    for (const auto& pool : branch.pools) {
      ++decision.pool;
      decision.endpoint = -1;
      for (const auto& endpoint : pool.endpoints) {
        ++decision.endpoint;
        if (endpoint.address == address) return decision;
      }
    }
    return std::nullopt;
  }
  for (const auto& member : branch.members) {
    ++decision.member;
    if ((route == RouteClass::kLocalPool ? member.pgbouncer_address : member.address) == address) return decision;
  }
  return std::nullopt;
}

std::string destination_name(const BranchView& branch, const Decision& decision) {
  if (decision.route == RouteClass::kPool) {
    const PoolView& pool = branch.pools[static_cast<std::size_t>(decision.pool)];
    return pool.name + "/" + decision.address.to_string();
  }
  const std::string& member = branch.members[static_cast<std::size_t>(decision.member)].name;
  return decision.route == RouteClass::kLocalPool ? member + " (pgbouncer)" : member;
}

}  // namespace pointsman::routing
