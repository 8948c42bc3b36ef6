#pragma once
// The refusals that sessions give for reasons of their own (contract section 3): one place for their wording. Refusals
// of a parser or of a choice are made there (username.h, session_options.h, selection.h). Pure. Whatever a client typed
// is escaped. Parameters called `log_detail` reach the operator's log only; `detail` reaches the client, so it may name
// members only once the client has proved itself.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "routing/refusal.h"
#include "routing/username.h"

namespace pointsman::routing {

/// 28000: a StartupMessage in clear where TLS is required.
Refusal tls_required();
/// 28000: the client's address stands on no allow list of the branch. `log_detail` names the address.
Refusal not_allowed(std::string_view branch, std::string log_detail);

/// 57P03: this router holds `limits.max_connections` connections; libpq goes on to its next host.
Refusal router_full(std::uint32_t limit);
/// 53300: `limits.max_connections_per_branch`.
Refusal branch_full(std::string_view branch, std::uint32_t limit);
/// 53300: `limits.max_held_per_branch` logins wait for a primary already.
Refusal too_many_held(std::string_view branch, std::uint32_t limit);
/// 53300: too many connections of one source.
Refusal source_full(std::uint32_t limit);
/// 53400: too many logins in too short a time. `what` completes "too many …", e.g. "verifier look-ups for this branch".
Refusal throttled(std::string_view what);
/// 28000: too many failed authentications of this source.
Refusal too_many_failures();

/// 28P01 in PostgreSQL's own words (auth_failed() in src/backend/libpq/auth.c). Wrong password and unknown role.
Refusal auth_failed(std::string_view role, std::string log_detail = {});
/// The same for the client; reason `no_verifier` in log and metric, `log_detail` says the remedy.
Refusal no_verifier(std::string_view role, std::string log_detail);
/// The same for the client; `hide_unknown_branches` is on.
Refusal hidden_unknown_branch(const UserName& user);

/// 57P03: the login deadline passed. `phase` completes "while …", e.g. "waiting for the client's password".
Refusal startup_timeout(std::string_view phase);
/// 57P03: a held login's time is up. `last` is what stood in the way all the while.
Refusal hold_expired(const Refusal& last, base::Duration held);
/// 57P03: a new login while this router shuts down.
Refusal draining();
/// 57P01: a session ended by drain.
Refusal drained();
/// 57P01 in PostgreSQL's own words (ProcessInterrupts() in src/backend/tcop/postgres.c): an administrator ended the
/// session.
Refusal killed();
/// 57P03: no backend of the branch could be reached or finished the login in time.
Refusal backend_unreachable(std::string_view branch, std::string detail, std::string log_detail);
/// 58000: certificate, credentials or another fault that only the operator can mend.
Refusal backend_fault(std::string_view branch, std::string log_detail);

/// 08P01. `what` is one line, text of the peer in it already escaped.
Refusal protocol_violation(std::string_view what);
/// 0A000: major version other than 3.
Refusal unsupported_protocol(std::uint16_t major, std::uint16_t minor);
/// 0A000: `replication=…` on a pooled listener.
Refusal replication_on_pool();
/// 22023: a value of `replication` that is no boolean and not `database`.
Refusal bad_replication_value(std::string_view value);

}  // namespace pointsman::routing
