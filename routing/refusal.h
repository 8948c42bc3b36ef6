#pragma once
// A refusal as the client is told it (contract section 3). Made where a decision fails, sent by the session, logged
// once. The refusals that more than one place makes stand in routing/refusals.h.

#include <string>
#include <string_view>

#include "routing/reason.h"

namespace pointsman::routing {

struct Refusal {
  Reason reason = Reason::kProtocolViolation;
  std::string_view sqlstate;  ///< five characters, a literal
  std::string message;        ///< one line
  std::string detail;         ///< measured facts; topology only after the client has proved itself
  std::string hint;           ///< what to do
  std::string log_detail;     ///< for the operator's log only: never leaves the process
};

/// The hint of what passes by itself.
inline constexpr std::string_view kRetryHint = "Try again in a moment.";

/// The word the client reads in field `R`. Everything told as 28P01 says `auth_failed`, whatever the log says: wrong
/// password, unknown role, no verifier and a hidden branch must look the same.
inline std::string_view client_word(const Refusal& refusal) {
  return refusal.sqlstate == "28P01" ? to_word(Reason::kAuthFailed) : to_word(refusal.reason);
}

}  // namespace pointsman::routing
