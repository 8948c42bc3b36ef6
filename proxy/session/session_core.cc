#include "proxy/session/session_core.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "proxy/session/login.h"
#include "routing/refusals.h"

namespace pointsman::proxy {

using base::Instant;
using routing::Refusal;

namespace {

bool same_topology(const routing::BranchView& before, const routing::BranchView* after) {
  if (after == nullptr || before.config != after->config || before.primary != after->primary ||
      before.timeline != after->timeline || before.settled != after->settled || before.on_hold != after->on_hold ||
      before.members.size() != after->members.size()) {
    return false;
  }
  return std::equal(before.members.begin(), before.members.end(), after->members.begin(),
                    [](const auto& a, const auto& b) {
                      return a.role == b.role &&
                             (a.state == routing::MemberState::kDown) == (b.state == routing::MemberState::kDown) &&
                             a.address == b.address;
                    });
}

}  // namespace

std::string_view to_word(EndReason reason) {
  switch (reason) {
    case EndReason::kClientClosed:
      return "client_closed";
    case EndReason::kBackendClosed:
      return "backend_closed";
    case EndReason::kClientError:
      return "client_error";
    case EndReason::kBackendError:
      return "backend_error";
    case EndReason::kRefused:
      return "refused";
    case EndReason::kBackendRefused:
      return "backend_refused";
    case EndReason::kCancelServed:
      return "cancel";
    case EndReason::kDrained:
      return "drained";
    case EndReason::kStopped:
      return "stopped";
    case EndReason::kDemoted:
      return "demoted";
    case EndReason::kPromoted:
      return "promoted";
    case EndReason::kRemoved:
      return "removed";
    case EndReason::kPoolDrained:
      return "pool_drained";
    case EndReason::kKilled:
      return "killed";
  }
  return "";
}

SessionCore::SessionCore(CoreServices& services, const ListenerContext& listener, const std::uint8_t (&client_ip)[16],
                         Instant now)
    : services_(services), listener_(listener) {
  std::memcpy(client_ip_, client_ip, sizeof client_ip_);
  record_.times.accepted = now;
  login_deadline_ = now + services.config().limits.startup_timeout;
  if (listener.config->proxy_protocol) {
    phase_ = ProxyHeader{};
  } else {
    phase_ = Negotiating{};
  }
}

SessionCore::~SessionCore() {
  if (std::holds_alternative<Holding>(phase_)) services_.leave_hold();
}

// ---- driving ------------------------------------------------------------------------------------------------------

void SessionCore::enter(Phase phase) {
  const bool was_holding = std::holds_alternative<Holding>(phase_);
  const bool holds = std::holds_alternative<Holding>(phase);
  if (was_holding && !holds) services_.leave_hold();
  phase_ = std::move(phase);
}

void SessionCore::run(Instant now) {
  while (auto next = step(now)) enter(std::move(*next));
}

SessionCore::Next SessionCore::step(Instant now) {
  struct Visitor {
    SessionCore& core;
    Instant now;
    Next operator()(ProxyHeader&) const { return core.step_proxy_header(); }
    Next operator()(Negotiating& phase) const { return core.step_negotiating(phase, now); }
    Next operator()(TlsHandshake&) const { return {}; }
    Next operator()(AwaitingStartup&) const { return core.step_awaiting_startup(now); }
    Next operator()(ClientAuth& phase) const { return core.step_client_auth(phase, now); }
    Next operator()(Holding&) const { return core.client_while_waiting(); }
    Next operator()(Connecting&) const { return core.client_while_waiting(); }
    Next operator()(BackendNegotiating& phase) const {
      if (auto next = core.client_while_waiting()) return next;
      return core.step_backend_negotiating(phase, now);
    }
    Next operator()(BackendLogin& phase) const {
      if (!phase.login->passthrough) {
        if (auto next = core.client_while_waiting()) return next;
      }
      return core.step_backend_login(phase, now);
    }
    Next operator()(Relaying&) const { return {}; }
    Next operator()(Cancelling&) const { return {}; }
    Next operator()(Closed&) const { return {}; }
  };
  return std::visit(Visitor{*this, now}, phase_);
}

void SessionCore::apply(Next next, Instant now) {
  if (next) enter(std::move(*next));
  run(now);
}

std::optional<Action> SessionCore::poll_action() {
  if (next_action_ == actions_.size()) {
    actions_.clear();
    next_action_ = 0;
    return std::nullopt;
  }
  return std::move(actions_[next_action_++]);
}

void SessionCore::consume(std::string& buffer, std::size_t count) {
  buffer.erase(0, count);
}

SessionCore::Next SessionCore::finish(EndReason reason) {
  actions_.push_back(Finish{reason, std::nullopt});
  return Closed{};
}

SessionCore::Next SessionCore::refuse(Refusal refusal) {
  std::string bytes;
  protocol::ErrorFields fields;
  fields.sqlstate = refusal.sqlstate;
  fields.message = refusal.message;
  fields.detail = refusal.detail;
  fields.hint = refusal.hint;
  fields.routine = routing::client_word(refusal);
  protocol::append_error_response(bytes, fields);
  send_client(std::move(bytes));
  actions_.push_back(Finish{EndReason::kRefused, std::move(refusal)});
  return Closed{};
}

SessionCore::Next SessionCore::close_silently(Refusal refusal) {
  actions_.push_back(Finish{EndReason::kRefused, std::move(refusal)});
  return Closed{};
}

std::unique_ptr<SessionCore::Login> SessionCore::take_login() {
  struct Visitor {
    std::unique_ptr<Login> operator()(ClientAuth& phase) const { return std::move(phase.login); }
    std::unique_ptr<Login> operator()(Holding& phase) const { return std::move(phase.login); }
    std::unique_ptr<Login> operator()(Connecting& phase) const { return std::move(phase.login); }
    std::unique_ptr<Login> operator()(BackendNegotiating& phase) const { return std::move(phase.login); }
    std::unique_ptr<Login> operator()(BackendLogin& phase) const { return std::move(phase.login); }
    std::unique_ptr<Login> operator()(ProxyHeader&) const { return nullptr; }
    std::unique_ptr<Login> operator()(Negotiating&) const { return nullptr; }
    std::unique_ptr<Login> operator()(TlsHandshake&) const { return nullptr; }
    std::unique_ptr<Login> operator()(AwaitingStartup&) const { return nullptr; }
    std::unique_ptr<Login> operator()(Relaying&) const { return nullptr; }
    std::unique_ptr<Login> operator()(Cancelling&) const { return nullptr; }
    std::unique_ptr<Login> operator()(Closed&) const { return nullptr; }
  };
  return std::visit(Visitor{}, phase_);
}

std::string_view SessionCore::phase_name() const {
  struct Visitor {
    std::string_view operator()(const ProxyHeader&) const { return "proxy"; }
    std::string_view operator()(const Negotiating&) const { return "negotiating"; }
    std::string_view operator()(const TlsHandshake&) const { return "tls"; }
    std::string_view operator()(const AwaitingStartup&) const { return "startup"; }
    std::string_view operator()(const ClientAuth&) const { return "auth"; }
    std::string_view operator()(const Holding&) const { return "holding"; }
    std::string_view operator()(const Connecting&) const { return "connecting"; }
    std::string_view operator()(const BackendNegotiating&) const { return "connecting"; }
    std::string_view operator()(const BackendLogin&) const { return "login"; }
    std::string_view operator()(const Relaying&) const { return "relaying"; }
    std::string_view operator()(const Cancelling&) const { return "cancelling"; }
    std::string_view operator()(const Closed&) const { return "closed"; }
  };
  return std::visit(Visitor{}, phase_);
}

std::string_view SessionCore::waiting_for_branch() const {
  return std::holds_alternative<Holding>(phase_) ? std::string_view(record_.identity.branch) : std::string_view{};
}

std::optional<Instant> SessionCore::deadline() const {
  if (relaying() || closed()) return std::nullopt;
  Instant at = login_deadline_;
  if (const auto* holding = std::get_if<Holding>(&phase_)) {
    at = std::min(at, holding->login->hold_deadline);
    if (holding->retry_at != Instant{}) at = std::min(at, holding->retry_at);
  } else if (const auto* connecting = std::get_if<Connecting>(&phase_)) {
    at = std::min(at, connecting->dial_deadline);
  } else if (const auto* negotiating = std::get_if<BackendNegotiating>(&phase_)) {
    at = std::min(at, negotiating->login->candidate_deadline);
  } else if (const auto* login = std::get_if<BackendLogin>(&phase_)) {
    if (!login->login->passthrough && !login->rechecking) at = std::min(at, login->login->candidate_deadline);
  }
  return at;
}

// ---- events -------------------------------------------------------------------------------------------------------

void SessionCore::on_client_bytes(base::Bytes bytes, Instant now) {
  if (relaying() || closed()) return;
  if (from_client_.size() + bytes.size() > kMaxPending) {
    apply(refuse(routing::protocol_violation("more than 32 KiB before the login is complete")), now);
    return;
  }
  from_client_.append(base::as_text(bytes));
  run(now);
}

void SessionCore::on_client_tls(const ClientTlsInfo& info, Instant now) {
  const auto* phase = std::get_if<TlsHandshake>(&phase_);
  if (phase == nullptr) return;
  const bool direct = phase->direct;
  client_tls_ = info;
  record_.times.tls_done = now;
  enter(AwaitingStartup{});
  if (direct && !info.alpn_postgresql) {
    apply(refuse(routing::protocol_violation("direct TLS connection without ALPN protocol \"postgresql\"")), now);
    return;
  }
  run(now);
}

void SessionCore::on_client_tls_failed(std::string_view why, Instant now) {
  if (closed()) return;
  Refusal refusal = routing::protocol_violation("TLS handshake failed");
  refusal.log_detail = std::string(why);
  apply(close_silently(std::move(refusal)), now);
}

void SessionCore::on_client_eof(Instant now) {
  if (!closed()) apply(finish(EndReason::kClientClosed), now);
}

void SessionCore::on_client_error(Instant now) {
  if (!closed()) apply(finish(EndReason::kClientError), now);
}

void SessionCore::on_verifier(const VerifierAnswer& answer, Instant now) {
  if (auto* auth = std::get_if<ClientAuth>(&phase_)) {
    if (auth->scram == nullptr) apply(start_exchange(*auth, answer), now);
  } else if (auto* login = std::get_if<BackendLogin>(&phase_)) {
    if (login->rechecking) apply(recheck_done(*login, answer, now), now);
  }
}

void SessionCore::on_snapshot(Instant now) {
  const auto* holding = std::get_if<Holding>(&phase_);
  if (holding == nullptr) return;
  // In a pause after failed dials only another topology is news: each probe publishes a view, and a server that comes
  // up must not be drowned.
  if (now < holding->retry_at && same_topology(*holding->login->view, services_.branch(record_.identity.branch).get()))
    return;
  auto login = take_login();
  login->excluded.clear();
  apply(route(std::move(login), now), now);
}

void SessionCore::on_cancel_served(Instant now) {
  if (std::holds_alternative<Cancelling>(phase_)) apply(finish(EndReason::kCancelServed), now);
}

void SessionCore::on_drain(Instant now) {
  if (std::holds_alternative<Holding>(phase_)) apply(refuse(routing::draining()), now);
}

void SessionCore::on_deadline(Instant now) {
  if (relaying() || closed()) return;
  if (now >= login_deadline_) {
    apply(login_timed_out(), now);
    return;
  }
  if (auto* holding = std::get_if<Holding>(&phase_)) {
    if (now >= holding->login->hold_deadline) {
      apply(hold_timed_out(*holding, now), now);
    } else if (holding->retry_at != Instant{} && now >= holding->retry_at) {
      on_snapshot(now);
    }
  } else if (const auto* connecting = std::get_if<Connecting>(&phase_);
             connecting != nullptr && now >= connecting->dial_deadline) {
    apply(candidate_failed(take_login(), "connect timed out", true, now), now);
  } else if (const auto* negotiating = std::get_if<BackendNegotiating>(&phase_);
             negotiating != nullptr && now >= negotiating->login->candidate_deadline) {
    apply(candidate_failed(take_login(), "no answer to the TLS request in time", true, now), now);
  } else if (const auto* login = std::get_if<BackendLogin>(&phase_); login != nullptr && !login->login->passthrough &&
                                                                     !login->rechecking &&
                                                                     now >= login->login->candidate_deadline) {
    apply(candidate_failed(take_login(), "login not finished in time", true, now), now);
  }
}

SessionCore::Next SessionCore::login_timed_out() {
  // In clear text and before a startup packet nobody listens for an ErrorResponse: a plain close, as PostgreSQL does.
  if (std::holds_alternative<ProxyHeader>(phase_) || std::holds_alternative<TlsHandshake>(phase_)) {
    return close_silently(routing::startup_timeout(
        std::holds_alternative<ProxyHeader>(phase_) ? "waiting for the PROXY header" : "in the TLS handshake"));
  }
  if (std::holds_alternative<Negotiating>(phase_))
    return close_silently(routing::startup_timeout("waiting for the startup packet"));
  if (std::holds_alternative<Cancelling>(phase_)) return finish(EndReason::kCancelServed);
  if (std::holds_alternative<AwaitingStartup>(phase_))
    return refuse(routing::startup_timeout("waiting for the startup packet"));
  if (std::holds_alternative<ClientAuth>(phase_)) return refuse(routing::startup_timeout("authenticating the client"));
  auto login = take_login();
  if (login != nullptr && !login->server_error.empty()) return pass_on(std::move(login->server_error));
  std::string detail = login == nullptr ? std::string() : login->last_failure;
  Refusal refusal = routing::backend_unreachable(
      record_.identity.branch, "The login did not finish within limits.startup_timeout.", std::move(detail));
  refusal.reason = routing::Reason::kTimeout;
  return refuse(std::move(refusal));
}

/// Bytes of a client that has nothing to say now: kept for the relay, but a Terminate ends the wait.
SessionCore::Next SessionCore::client_while_waiting() {
  if (!from_client_.empty() && from_client_.front() == 'X') return finish(EndReason::kClientClosed);
  return {};
}

}  // namespace pointsman::proxy
