#pragma once
// What is known about a role's verifier: the answer of the verifier service (monitor/verifier_service.h), a plain
// value.

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "protocol/scram.h"

namespace pointsman::proxy {

struct VerifierAnswer {
  enum class Kind : std::uint8_t {
    kFound,
    kNoRole,       ///< no such role
    kUnusable,     ///< md5, no password, NOLOGIN, expired, privileged and not listed: `no_verifier`, the log says which
    kUnavailable,  ///< no member answered: 57P03
    kFault,        ///< operator's fault: the look-up login was refused or lacks the right (58000)
    kThrottled,    ///< rate cap (53400)
  };
  Kind kind = Kind::kUnavailable;
  std::shared_ptr<const protocol::ScramVerifier> verifier;  ///< with kFound
  std::string log_detail;                                   ///< why, with the remedy; for the log only
  base::Instant fetched_at{};
  /// Until when the answer may be used without asking again (never past VALID UNTIL).
  base::Instant expires_at{};
};

}  // namespace pointsman::proxy
