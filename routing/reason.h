#pragma once
// The reason words of contract section 4: one word per decision and per refusal, the same in log, metric, field `R` and
// CLI.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pointsman::routing {

enum class Reason : std::uint8_t {
  // decisions
  kPrimary,
  kReplicaBest,
  kReplicaOnly,
  kReplicaMinLsn,
  kFallbackLeastLagged,
  kFallbackPrimary,
  kLocalPool,
  kDefaultPool,
  kNamedPool,
  kHeld,
  // refusals
  kBadUser,
  kBadOption,
  kUnknownBranch,
  kUnknownPool,
  kWrongPort,
  kNoPrimary,
  kNoLocalPool,
  kNoReplica,
  kAllLagging,
  kMinLsnNotReached,
  kHoldExpired,
  kTlsRequired,
  kNotAllowed,
  kLimit,
  kThrottled,
  kBackendUnreachable,
  kBackendFault,
  kAuthFailed,
  kNoVerifier,
  kProtocolViolation,
  kTimeout,
  kDraining,
  // why a session that was under way ended (57P01)
  kDemoted,
  kPromoted,
  kRemoved,
  kKilled,
};
inline constexpr std::size_t kReasonCount = static_cast<std::size_t>(Reason::kKilled) + 1;
inline constexpr std::size_t kFirstRefusal = static_cast<std::size_t>(Reason::kBadUser);

std::string_view to_word(Reason reason);

}  // namespace pointsman::routing
