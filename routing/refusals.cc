#include "routing/refusals.h"

#include <utility>

#include "routing/session_options.h"

namespace pointsman::routing {
Refusal tls_required() {
  return {.reason = Reason::kTlsRequired,
          .sqlstate = "28000",
          .message = "SSL connection is required",
          .detail = {},
          .hint = "Connect with sslmode=require or stronger.",
          .log_detail = {}};
}

Refusal not_allowed(std::string_view branch, std::string log_detail) {
  return {.reason = Reason::kNotAllowed,
          .sqlstate = "28000",
          .message = "connections to branch " + in_quotes(branch) + " are not allowed from this address",
          .detail = {},
          .hint = "Ask the operator to add your network to the branch's access.allow list.",
          .log_detail = std::move(log_detail)};
}

Refusal router_full(std::uint32_t limit) {
  return {.reason = Reason::kLimit,
          .sqlstate = "57P03",
          .message = "this router has no connection left",
          .detail = "All " + std::to_string(limit) + " connections are in use.",
          .hint = std::string(kRetryHint),
          .log_detail = {}};
}

Refusal branch_full(std::string_view branch, std::uint32_t limit) {
  return {.reason = Reason::kLimit,
          .sqlstate = "53300",
          .message = "too many connections for branch " + in_quotes(branch),
          .detail = "The limit is " + std::to_string(limit) + " connections.",
          .hint = "Close connections that are not needed, or use a connection pool.",
          .log_detail = {}};
}

Refusal too_many_held(std::string_view branch, std::uint32_t limit) {
  return {.reason = Reason::kLimit,
          .sqlstate = "53300",
          .message = "too many logins are waiting for branch " + in_quotes(branch),
          .detail = "The limit is " + std::to_string(limit) + " waiting logins.",
          .hint = std::string(kRetryHint),
          .log_detail = {}};
}

Refusal source_full(std::uint32_t limit) {
  return {.reason = Reason::kLimit,
          .sqlstate = "53300",
          .message = "too many connections from this address",
          .detail = "The limit is " + std::to_string(limit) + " connections.",
          .hint = "Close connections that are not needed, or use a connection pool.",
          .log_detail = {}};
}

Refusal throttled(std::string_view what) {
  return {.reason = Reason::kThrottled,
          .sqlstate = "53400",
          .message = "too many " + std::string(what),
          .detail = {},
          .hint = "Try again in a few seconds.",
          .log_detail = {}};
}

Refusal too_many_failures() {
  return {.reason = Reason::kThrottled,
          .sqlstate = "28000",
          .message = "too many authentication failures",
          .detail = {},
          .hint = "Check user name and password, then try again in a few seconds.",
          .log_detail = {}};
}

Refusal auth_failed(std::string_view role, std::string log_detail) {
  return {.reason = Reason::kAuthFailed,
          .sqlstate = "28P01",
          .message = "password authentication failed for user " + in_quotes(role),
          .detail = {},
          .hint = {},
          .log_detail = std::move(log_detail)};
}

Refusal no_verifier(std::string_view role, std::string log_detail) {
  Refusal refusal = auth_failed(role, std::move(log_detail));
  refusal.reason = Reason::kNoVerifier;
  return refusal;
}

Refusal hidden_unknown_branch(const UserName& user) {
  Refusal refusal = auth_failed(user.role, "branch " + in_quotes(user.branch) + " does not exist");
  refusal.reason = Reason::kUnknownBranch;
  return refusal;
}

Refusal startup_timeout(std::string_view phase) {
  return {.reason = Reason::kTimeout,
          .sqlstate = "57P03",
          .message = "login took too long",
          .detail = "The time was up while " + std::string(phase) + ".",
          .hint = std::string(kRetryHint),
          .log_detail = {}};
}

Refusal hold_expired(const Refusal& last, base::Duration held) {
  // Whole tenths of a second: what a person compares with the configured time.
  const auto tenths = std::chrono::duration_cast<std::chrono::milliseconds>(held).count() / 100;
  std::string detail = "The login waited " + std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " s.";
  if (!last.detail.empty()) detail += " " + last.detail;
  return {.reason = Reason::kHoldExpired,
          .sqlstate = "57P03",
          .message = last.message,
          .detail = std::move(detail),
          .hint = std::string(kRetryHint),
          .log_detail = last.log_detail};
}

Refusal draining() {
  return {.reason = Reason::kDraining,
          .sqlstate = "57P03",
          .message = "this router is shutting down",
          .detail = {},
          .hint = "Connect again: another router answers, or this one after its restart.",
          .log_detail = {}};
}

Refusal drained() {
  return {.reason = Reason::kDraining,
          .sqlstate = "57P01",
          .message = "terminating connection because this router is shutting down",
          .detail = {},
          .hint = "Connect again: another router answers, or this one after its restart.",
          .log_detail = {}};
}

Refusal killed() {
  return {.reason = Reason::kKilled,
          .sqlstate = "57P01",
          .message = "terminating connection due to administrator command",
          .detail = {},
          .hint = {},
          .log_detail = {}};
}

Refusal backend_unreachable(std::string_view branch, std::string detail, std::string log_detail) {
  return {.reason = Reason::kBackendUnreachable,
          .sqlstate = "57P03",
          .message = "no server of branch " + in_quotes(branch) + " could be reached",
          .detail = std::move(detail),
          .hint = std::string(kRetryHint),
          .log_detail = std::move(log_detail)};
}

Refusal backend_fault(std::string_view branch, std::string log_detail) {
  return {.reason = Reason::kBackendFault,
          .sqlstate = "58000",
          .message = "branch " + in_quotes(branch) + " cannot be reached because of a fault in its configuration",
          .detail = {},
          .hint = "Tell the operator; the router's log has the cause.",
          .log_detail = std::move(log_detail)};
}

Refusal protocol_violation(std::string_view what) {
  return {.reason = Reason::kProtocolViolation,
          .sqlstate = "08P01",
          .message = std::string(what),
          .detail = {},
          .hint = {},
          .log_detail = {}};
}

Refusal unsupported_protocol(std::uint16_t major, std::uint16_t minor) {
  return {.reason = Reason::kProtocolViolation,
          .sqlstate = "0A000",
          .message = "unsupported frontend protocol " + std::to_string(major) + "." + std::to_string(minor) +
                     ": router supports 3.0 to 3.2",
          .detail = {},
          .hint = {},
          .log_detail = {}};
}

Refusal replication_on_pool() {
  return {.reason = Reason::kWrongPort,
          .sqlstate = "0A000",
          .message = "replication connections are not possible through a connection pool",
          .detail = {},
          .hint = "Use the direct port (usually 5432).",
          .log_detail = {}};
}

Refusal bad_replication_value(std::string_view value) {
  return {.reason = Reason::kBadOption,
          .sqlstate = "22023",
          .message = "invalid value for parameter \"replication\": " + in_quotes(value),
          .detail = {},
          .hint = "Valid values are: \"false\", 0, \"true\", 1, \"database\".",
          .log_detail = {}};
}

}  // namespace pointsman::routing
