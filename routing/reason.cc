#include "routing/reason.h"

#include "base/check.h"

namespace pointsman::routing {

std::string_view to_word(Reason reason) {
  switch (reason) {
    case Reason::kPrimary:
      return "primary";
    case Reason::kReplicaBest:
      return "replica_best";
    case Reason::kReplicaOnly:
      return "replica_only";
    case Reason::kReplicaMinLsn:
      return "replica_min_lsn";
    case Reason::kFallbackLeastLagged:
      return "fallback_least_lagged";
    case Reason::kFallbackPrimary:
      return "fallback_primary";
    case Reason::kLocalPool:
      return "local_pool";
    case Reason::kDefaultPool:
      return "default_pool";
    case Reason::kNamedPool:
      return "named_pool";
    case Reason::kHeld:
      return "held";
    case Reason::kBadUser:
      return "bad_user";
    case Reason::kBadOption:
      return "bad_option";
    case Reason::kUnknownBranch:
      return "unknown_branch";
    case Reason::kUnknownPool:
      return "unknown_pool";
    case Reason::kWrongPort:
      return "wrong_port";
    case Reason::kNoPrimary:
      return "no_primary";
    case Reason::kNoLocalPool:
      return "no_local_pool";
    case Reason::kNoReplica:
      return "no_replica";
    case Reason::kAllLagging:
      return "all_lagging";
    case Reason::kMinLsnNotReached:
      return "min_lsn_not_reached";
    case Reason::kHoldExpired:
      return "hold_expired";
    case Reason::kTlsRequired:
      return "tls_required";
    case Reason::kNotAllowed:
      return "not_allowed";
    case Reason::kLimit:
      return "limit";
    case Reason::kThrottled:
      return "throttled";
    case Reason::kBackendUnreachable:
      return "backend_unreachable";
    case Reason::kBackendFault:
      return "backend_fault";
    case Reason::kAuthFailed:
      return "auth_failed";
    case Reason::kNoVerifier:
      return "no_verifier";
    case Reason::kProtocolViolation:
      return "protocol_violation";
    case Reason::kTimeout:
      return "timeout";
    case Reason::kDraining:
      return "draining";
    case Reason::kDemoted:
      return "demoted";
    case Reason::kPromoted:
      return "promoted";
    case Reason::kRemoved:
      return "removed";
    case Reason::kKilled:
      return "killed";
  }
  POINTSMAN_CHECK(false);
  return {};
}

}  // namespace pointsman::routing
