#pragma once
// What a login knows between the startup packet and the relay. Private to the session core's sources.

#include <optional>
#include <string>
#include <vector>

#include "proxy/session/session_core.h"
#include "routing/session_options.h"
#include "routing/username.h"

namespace pointsman::proxy {

struct SessionCore::Login {
  protocol::StartupMessage startup;
  routing::UserName name;
  routing::SessionOptions options;
  std::shared_ptr<const routing::BranchView> view;             // null: an unknown branch that is hidden
  std::vector<protocol::StartupParameter> backend_parameters;  // `user` is the role, ours are taken out
  bool replication = false;
  bool passthrough = false;
  std::uint32_t minor = 0;  // protocol 3.x agreed with the client

  VerifierAnswer::Kind verifier_kind = VerifierAnswer::Kind::kUnavailable;
  std::string verifier_detail;  // for the log
  std::optional<protocol::ScramLoginKeys> keys;
  std::string server_final;  // kept back until the backend accepted its login

  base::Instant asked_at{};  // when it had the branch probed out of turn; epoch: never

  std::vector<int> excluded;  // candidates that failed this login
  std::string server_error;   // the last 57P03 of a server, passed on when the hold expires
  std::string last_failure;
  base::Instant candidate_deadline{};
  unsigned retries = 0;

  bool hold_begun = false;
  bool waits_by_own_wish = false;                       // `pointsman.wait`
  std::optional<routing::Refusal> refused_after_proof;  // kept back so that a known branch looks like an unknown one
  bool held_for_topology = false;  // a settled branch had no destination, or none that could be reached
  base::Instant hold_started{};
  base::Instant hold_deadline{};
};

/// How long one candidate may take to accept a connection, and to finish the backend's login.
inline constexpr base::Duration kDialTimeout = std::chrono::seconds(3);
inline constexpr base::Duration kCandidateTimeout = std::chrono::seconds(5);
/// What a hold adds to its own length for the login that follows it (contract section 3).
inline constexpr base::Duration kLoginAfterHold = std::chrono::seconds(5);
/// Bytes that may wait in the core for their phase; a login needs a third of it at most.
inline constexpr std::size_t kMaxPending = 32 * 1024;
/// What a backend may send between AuthenticationOk and ReadyForQuery.
inline constexpr std::size_t kMaxGreeting = 60 * 1024;

}  // namespace pointsman::proxy
