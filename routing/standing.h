#pragma once
// What a change of the branch means for sessions that are under way (contract section 4, "Failover"). Pure.

#include <string>

#include "routing/refusal.h"
#include "routing/selection.h"
#include "routing/snapshot.h"

namespace pointsman::routing {

enum class Standing : std::uint8_t {
  kStays,
  kDemoted,   ///< on a primary, or the PgBouncer beside it, and another member is the verified primary now
  kPromoted,  ///< on a replica that is the primary now; stays or ends by `replicas.on_promotion`
  kRemoved,   ///< its member or endpoint is not in the configuration (or in what discovery found) any more
  kDraining,  ///< its pool's endpoint is marked `draining`
};

/// `then` and `decision` as of the session's login, `now` as of now. Silence of a probe, a primary that is down or
/// nobody being the primary changes nothing: only a verified successor does.
Standing standing_of(const BranchView& then, const Decision& decision, const BranchView& now);

/// False: no session's standing can differ between the two, so nobody needs to be asked.
bool may_change_standing(const BranchView& before, const BranchView& after);

/// What the session is told (57P01) and for how long it may finish what it is doing. kStays is not asked.
struct Farewell {
  Refusal refusal;
  /// False: it may go on until `grace` is over; true: it ends when it is idle next.
  bool at_boundary = true;
  base::Duration grace{0};  ///< then it ends, whatever it does
};
Farewell farewell(Standing standing, const BranchView& then, const Decision& decision, const BranchView& now);

}  // namespace pointsman::routing
