#pragma once
// Where a session goes: a pure function of the branch's view, this worker's counts, the session's wish and a random
// number. Contract section 4. The order of checks is the order of the candidates' explanation in `route`.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "routing/snapshot.h"

namespace pointsman::routing {

enum class RouteClass : std::uint8_t { kPrimary, kReplica, kLocalPool, kPool };
inline constexpr std::size_t kRouteClassCount = 4;
std::string_view to_text(RouteClass route);  ///< "primary", "replica", "local_pool", "pool"

struct RouteRequest {
  ListenerMode mode = ListenerMode::kDirect;
  Target target;
  SessionOptions options;
  bool replication = false;  ///< `replication=…` was asked for
  std::string_view zone;     ///< where this router stands
  std::uint64_t random = 0;
  base::Instant now{};
  /// When the session first asked for members to be probed afresh (NotNow::ask_afresh); epoch: it has not.
  base::Instant asked_at{};
  /// Sessions in flight of this worker per member (index as in BranchView::members) and per endpoint of the pool in
  /// question. Missing entries count 0.
  std::span<const std::uint32_t> member_sessions;
  std::span<const std::uint32_t> endpoint_sessions;
  /// When this worker last failed to reach them; epoch, or a missing entry: not lately. A member is doubted until a
  /// probe has answered since, an endpoint for kEndpointDoubt: others are preferred meanwhile.
  std::span<const base::Instant> member_failed_at;
  std::span<const base::Instant> endpoint_failed_at;
  /// Candidates that this session has tried in vain, by index in members (or in the pool's endpoints): passed over.
  std::span<const int> excluded;
};

inline constexpr base::Duration kEndpointDoubt = std::chrono::seconds(5);

struct Decision {
  Reason reason = Reason::kPrimary;
  RouteClass route = RouteClass::kPrimary;
  int member = -1;    ///< index in members; -1 for pool endpoints
  int pool = -1;      ///< index in pools for kPool
  int endpoint = -1;  ///< index in the pool's endpoints
  SocketAddress address;
};

/// Not now, but perhaps soon: the session may be held. `refusal` is what it is told if nothing changes in time.
struct NotNow {
  Refusal refusal;
  /// How long the session itself allows (`pointsman.wait`, for a replica that catches up). Absent:
  /// `failover.hold_timeout`.
  std::optional<base::Duration> wait;
  /// A replica's position decides: have the branch probed at once, and often while the session waits.
  bool ask_afresh = false;
};

using RouteResult = std::variant<Decision, NotNow, Refusal>;

/// What can be refused from configuration alone, before the client proved itself: wrong port, unknown pool, replication
/// on a pool, options on a pooled route, no replica (a branch of one member has none) or PgBouncer configured. nullopt:
/// go on. Names no member and no address.
std::optional<Refusal> check_static(const BranchConfig& branch, const RouteRequest& request);

/// 28000: the branch has no pool of that name.
Refusal unknown_pool_refusal(const BranchConfig& branch, std::string_view pool);

/// Requires: check_static passed. `explain`, when not null, gets a line per candidate. DETAIL of what comes back names
/// members: for a client that has not proved itself (passthrough) it must be left out. NotNow: no verified primary, no
/// replica up, nothing resolved, all candidates tried in vain, a view that is not settled, and whatever only a
/// session's own `wait` can mend. Refusal: waiting does not help, or the session does not want to wait.
RouteResult choose(const BranchView& branch, const RouteRequest& request, std::vector<std::string>* explain = nullptr);

/// The TLS settings of the leg a decision leads to, and the name to verify there. A dedicated pool without settings of
/// its own uses the branch's `pgbouncer_tls`, as the PgBouncers beside the members do, and `backend_tls` where there is
/// none.
const BackendTlsConfig& tls_for(const BranchConfig& branch, const Decision& decision);
std::string server_name_for(const BranchView& branch, const Decision& decision);
/// The present destination of that route with that address, whatever its state: for a cancel request that names one.
/// Nothing when there is none, or when its address is not known at present.
std::optional<Decision> destination_at(const BranchView& branch, RouteClass route, const SocketAddress& address);
/// "pg-1", "pg-0 (pgbouncer)", "reads/10.0.0.20:6432": for logs and the explain notice.
std::string destination_name(const BranchView& branch, const Decision& decision);

}  // namespace pointsman::routing
