// The second half of a login: routing, holding, and speaking to the backend. The first half is session_startup.cc.
#include <algorithm>
#include <utility>

#include "protocol/cancel_key.h"
#include "protocol/postgres_format.h"
#include "proxy/session/login.h"
#include "proxy/session/session_core.h"
#include "routing/refusals.h"

namespace pointsman::proxy {

using base::Instant;
using routing::Refusal;

namespace {

/// Members are named to those who have proved themselves; a passthrough client has not.
void hide_topology(Refusal& refusal) {
  refusal.log_detail += refusal.detail;
  refusal.detail.clear();
}

}  // namespace

// ---- routing and holding --------------------------------------------------------------------------------------------

SessionCore::Next SessionCore::route(std::unique_ptr<Login> login, Instant now) {
  auto view = services_.branch(login->name.branch);
  if (view == nullptr) return refuse(routing::unknown_branch_refusal(login->name));            // gone by a reload
  if (login->view != nullptr && login->view->config != view->config) login->excluded.clear();  // other indexes
  login->view = view;
  record_.identity.view = view;

  routing::RouteRequest request;
  request.mode = listener_.config->mode;
  request.target = login->name.target;
  request.options = login->options;
  request.replication = login->replication;
  request.zone = services_.config().zone;
  request.now = now;
  request.asked_at = login->asked_at;
  base::Byte random[8];
  services_.random_bytes(random);
  std::memcpy(&request.random, random, sizeof request.random);
  const std::string_view pool_name = login->name.target.kind == routing::TargetKind::kPool
                                         ? std::string_view(login->name.target.pool)
                                         : view->config->default_pool;
  std::size_t pool = 0;
  const bool pooled = request.mode == routing::ListenerMode::kPooled && view->find_pool(pool_name, &pool) != nullptr;
  const LocalKnowledge known = services_.local_knowledge(*view, pooled ? static_cast<int>(pool) : -1);
  request.member_sessions = known.member_sessions;
  request.endpoint_sessions = known.endpoint_sessions;
  request.member_failed_at = known.member_failed_at;
  request.endpoint_failed_at = known.endpoint_failed_at;
  request.excluded = login->excluded;

  auto result = routing::choose(*view, request);
  if (auto* decision = std::get_if<routing::Decision>(&result)) {
    if (login->hold_begun) {
      record_.times.held = now - login->hold_started;
      if (login->held_for_topology) decision->reason = routing::Reason::kHeld;
    }
    record_.times.routed = now;
    record_.identity.decision = *decision;
    record_.identity.destination = routing::destination_name(*view, *decision);
    login->candidate_deadline = now + kCandidateTimeout;
    from_backend_.clear();
    actions_.push_back(ConnectBackend{decision->address});
    return Connecting{std::move(login), now + kDialTimeout};
  }
  if (!login->excluded.empty()) {
    // Every candidate failed in this round: begin again after a pause, as long as the hold lasts.
    Refusal last = routing::backend_unreachable(login->name.branch, "No server could be reached or finish the login.",
                                                login->last_failure);
    const auto step_ms = std::min(1000U, 50U << std::min(login->retries, 5U));
    ++login->retries;
    const auto jittered =
        std::chrono::milliseconds(step_ms / 2 + static_cast<unsigned>(request.random >> 40) % (step_ms / 2 + 1));
    login->excluded.clear();
    login->held_for_topology = true;
    return hold(std::move(login), std::move(last), now + jittered, now);
  }
  if (auto* not_now = std::get_if<routing::NotNow>(&result)) {
    login->held_for_topology = login->held_for_topology || (view->settled && !not_now->ask_afresh);
    if (login->passthrough) hide_topology(not_now->refusal);
    if (not_now->ask_afresh && login->asked_at == Instant{}) {
      login->asked_at = now;
      actions_.push_back(ProbeAfresh{login->name.branch, now + not_now->wait.value_or(base::Duration::zero())});
    }
    return hold(std::move(login), std::move(not_now->refusal), Instant{}, now, not_now->wait);
  }
  auto refusal = std::move(std::get<Refusal>(result));
  if (login->passthrough) hide_topology(refusal);
  return refuse(std::move(refusal));
}

SessionCore::Next SessionCore::hold(std::unique_ptr<Login> login, Refusal last, Instant retry_at, Instant now,
                                    std::optional<base::Duration> wait) {
  if (services_.draining()) return refuse(routing::draining());
  if (!login->hold_begun) {
    login->hold_begun = true;
    login->hold_started = now;
    login->waits_by_own_wish = wait.has_value();
    login->hold_deadline = now + wait.value_or(login->view->config->failover.hold_timeout);
    if (!wait) login_deadline_ = std::max(login_deadline_, login->hold_deadline + kLoginAfterHold);
  }
  if (now >= login->hold_deadline) return hold_expired(*login, last, now);
  if (!std::holds_alternative<Holding>(phase_)) {
    if (auto refusal = services_.enter_hold(*login->view)) return refuse(std::move(*refusal));
  }
  return Holding{std::move(login), std::move(last), retry_at};
}

SessionCore::Next SessionCore::hold_timed_out(Holding& phase, Instant now) {
  return hold_expired(*phase.login, phase.last, now);
}

SessionCore::Next SessionCore::hold_expired(Login& login, const Refusal& last, Instant now) {
  record_.times.held = now - login.hold_started;
  // A server that said 57P03 all the while explains itself better than we can.
  if (!login.server_error.empty()) return pass_on(std::move(login.server_error));
  if (login.waits_by_own_wish) return refuse(last);  // its own word says more than that the time is up
  return refuse(routing::hold_expired(last, now - login.hold_started));
}

SessionCore::Next SessionCore::candidate_failed(std::unique_ptr<Login> login, std::string_view why, bool report,
                                                Instant now) {
  actions_.push_back(DropBackend{});
  from_backend_.clear();
  const auto& decision = *record_.identity.decision;
  login->last_failure = record_.identity.destination + ": " + std::string(why);
  if (report) actions_.push_back(ReportDialFailure{login->name.branch, decision});
  login->excluded.push_back(decision.member >= 0 ? decision.member : decision.endpoint);
  return route(std::move(login), now);
}

/// An ErrorResponse of the backend, untouched, and the end.
SessionCore::Next SessionCore::pass_on(std::string error_response) {
  send_client(std::move(error_response));
  return finish(EndReason::kBackendRefused);
}

// ---- the backend's events -------------------------------------------------------------------------------------------

void SessionCore::on_connected(Instant now) {
  if (!std::holds_alternative<Connecting>(phase_)) return;
  auto login = take_login();
  const auto& settings = routing::tls_for(*login->view->config, *record_.identity.decision);
  if (settings.mode == routing::TlsMode::kDisable) {
    apply(begin_login(std::move(login), {}), now);
    return;
  }
  actions_.push_back(SendToBackend{protocol::build_ssl_request()});
  apply(BackendNegotiating{std::move(login), false}, now);
}

void SessionCore::on_connect_failed(std::string_view why, Instant now) {
  if (!std::holds_alternative<Connecting>(phase_)) return;
  apply(candidate_failed(take_login(), why, true, now), now);
}

void SessionCore::on_backend_bytes(base::Bytes bytes, Instant now) {
  if (!std::holds_alternative<BackendNegotiating>(phase_) && !std::holds_alternative<BackendLogin>(phase_)) return;
  if (const auto* login = std::get_if<BackendLogin>(&phase_); login != nullptr && login->rechecking)
    return;  // it has said no already
  from_backend_.append(base::as_text(bytes));
  run(now);
}

void SessionCore::on_backend_tls(std::string_view endpoint_hash, Instant now) {
  if (!std::holds_alternative<BackendNegotiating>(phase_)) return;
  apply(begin_login(take_login(), std::string(endpoint_hash)), now);
}

void SessionCore::on_backend_tls_failed(std::string_view why, Instant now) {
  if (!std::holds_alternative<BackendNegotiating>(phase_)) return;
  // A certificate that does not fit will not fit better in a second: the operator has to act.
  apply(refuse(routing::backend_fault(record_.identity.branch,
                                      record_.identity.destination + ": TLS: " + std::string(why))),
        now);
}

void SessionCore::on_backend_eof(std::string_view why, Instant now) {
  if (auto* login = std::get_if<BackendLogin>(&phase_)) {
    if (login->rechecking) return;  // the backend has said no already
    if (login->login->passthrough &&
        !login->offered.empty()) {  // the client has seen the server's request: there is no second try
      apply(refuse(routing::backend_unreachable(record_.identity.branch,
                                                "The server closed the connection during the login.",
                                                record_.identity.destination + ": " + std::string(why))),
            now);
      return;
    }
    apply(candidate_failed(take_login(), why, true, now), now);
  } else if (std::holds_alternative<BackendNegotiating>(phase_)) {
    apply(candidate_failed(take_login(), why, true, now), now);
  }
}

SessionCore::Next SessionCore::step_backend_negotiating(BackendNegotiating& phase, Instant) {
  if (phase.tls_started || from_backend_.empty()) return {};
  const char answer = from_backend_.front();
  if (answer != 'S' || from_backend_.size() > 1) {
    // `N`: never in the clear where TLS is configured. `E`: its text comes from before TLS and is shown to nobody
    // (CVE-2024-10977). More than one byte: injected before TLS (CVE-2021-23222).
    const char* what = answer == 'N'   ? "the server does not offer TLS, backend_tls requires it"
                       : answer == 'S' ? "unencrypted bytes behind the answer to SSLRequest"
                                       : "no lawful answer to SSLRequest";
    return refuse(routing::backend_fault(record_.identity.branch, record_.identity.destination + ": " + what));
  }
  from_backend_.clear();
  phase.tls_started = true;
  const auto& settings = routing::tls_for(*phase.login->view->config, *record_.identity.decision);
  actions_.push_back(
      StartBackendTls{settings, routing::server_name_for(*phase.login->view, *record_.identity.decision)});
  return {};
}

SessionCore::Next SessionCore::begin_login(std::unique_ptr<Login> login, std::string endpoint_hash) {
  actions_.push_back(SendToBackend{protocol::build_startup_message(login->backend_parameters)});
  BackendLogin phase;
  phase.login = std::move(login);
  phase.endpoint_hash = std::move(endpoint_hash);
  return phase;
}

SessionCore::Next SessionCore::step_backend_login(BackendLogin& phase, Instant now) {
  if (phase.rechecking) return {};
  for (;;) {
    if (phase.client_may_answer) {
      if (auto next = passthrough_answer(phase)) return next;
    }
    const auto frame = protocol::next_message(base::as_bytes(from_backend_), protocol::kMaxBackendLoginMessage);
    if (frame.status == protocol::FrameStatus::kNeedMore) return {};
    if (frame.status == protocol::FrameStatus::kBadLength) {
      return refuse(routing::backend_fault(
          record_.identity.branch, record_.identity.destination + ": message of impossible length during the login"));
    }
    Next next = backend_login_message(phase, frame.message, now);
    if (next) return next;
    consume(from_backend_, frame.message.total);
    if (phase.rechecking) return {};
  }
}

std::string SessionCore::mint_cancel_secret(const Login& login, const protocol::BackendKey& key) {
  const bool long_keys = login.minor >= 2;
  std::string secret;
  if (long_keys) secret = services_.seal_cancel_key(record_.identity.branch, *record_.identity.decision, key);
  if (!secret.empty()) return secret;
  secret.resize(long_keys ? protocol::kLongCancelSecret : protocol::kShortCancelSecret);
  services_.random_bytes({reinterpret_cast<base::Byte*>(secret.data()), secret.size()});
  return secret;
}

SessionCore::Next SessionCore::backend_login_message(BackendLogin& phase, const protocol::MessageView& message,
                                                     Instant now) {
  const auto raw = [this, &message] { return std::string_view(from_backend_).substr(0, message.total); };
  switch (message.tag) {
    case 'R':
      return backend_authentication(phase, message, now);
    case 'E':
      return backend_error(phase, message, now);
    case 'S':
    case 'N':
      phase.greeting.append(raw());
      break;
    case 'K':
      if (!phase.accepted || !protocol::parse_backend_key_data(message.body, phase.key)) {
        return refuse(
            routing::backend_fault(record_.identity.branch, record_.identity.destination + ": invalid BackendKeyData"));
      }
      phase.client_secret = mint_cancel_secret(*phase.login, phase.key);
      protocol::append_backend_key_data(phase.greeting, phase.key.pid, phase.client_secret);
      break;
    case 'Z':
      if (!phase.accepted)
        return refuse(routing::backend_fault(record_.identity.branch,
                                             record_.identity.destination + ": ReadyForQuery before the login"));
      if (phase.login->options.explain) append_explanation(*phase.login, phase.greeting);
      phase.greeting.append(raw());
      consume(from_backend_, message.total);
      return complete_login(phase, now);
    default:
      return refuse(routing::backend_fault(record_.identity.branch,
                                           record_.identity.destination + ": unexpected message during the login"));
  }
  if (phase.greeting.size() > kMaxGreeting) {
    return refuse(routing::backend_fault(record_.identity.branch, record_.identity.destination + ": endless greeting"));
  }
  return {};
}

SessionCore::Next SessionCore::backend_authentication(BackendLogin& phase, const protocol::MessageView& message,
                                                      Instant) {
  const auto request = protocol::parse_authentication(message.body);
  const auto fault = [this](std::string_view what) {
    return refuse(
        routing::backend_fault(record_.identity.branch, record_.identity.destination + ": " + std::string(what)));
  };
  Login& login = *phase.login;
  if (phase.accepted) return fault("authentication request after AuthenticationOk");
  if (std::holds_alternative<protocol::AuthOk>(request)) {
    if (phase.scram != nullptr && !phase.server_proved) return fault("AuthenticationOk without the server's signature");
    phase.accepted = true;
    return {};
  }
  if (const auto* sasl = std::get_if<protocol::AuthSasl>(&request)) {
    if (phase.scram != nullptr || !phase.offered.empty()) return fault("second SASL exchange");
    const auto offers = [sasl](std::string_view mechanism) {
      return std::find(sasl->mechanisms.begin(), sasl->mechanisms.end(), mechanism) != sasl->mechanisms.end();
    };
    if (!offers(protocol::kScramSha256)) return fault("the server offers no SCRAM-SHA-256");
    if (login.passthrough) {
      // SCRAM-SHA-256-PLUS would bind to a certificate the client does not see: it is not offered on.
      phase.offered = {protocol::kScramSha256};
      phase.client_may_answer = true;
      std::string bytes;
      protocol::append_authentication_sasl(bytes, {protocol::kScramSha256});
      send_client(std::move(bytes));
      return {};
    }
    base::Byte random[18];
    services_.random_bytes(random);
    const bool tls = !phase.endpoint_hash.empty();
    const bool plus = tls && offers(protocol::kScramSha256Plus);
    const bool tls_without_plus = tls && !plus;
    phase.scram = std::make_unique<protocol::ScramClient>(*login.keys, protocol::base64_encode(base::as_text(random)),
                                                          plus, tls_without_plus, phase.endpoint_hash);
    std::string bytes;
    protocol::append_sasl_initial_response(bytes, phase.scram->mechanism(), phase.scram->first_message());
    actions_.push_back(SendToBackend{std::move(bytes)});
    return {};
  }
  const auto* proceed = std::get_if<protocol::AuthSaslContinue>(&request);
  const auto* final = std::get_if<protocol::AuthSaslFinal>(&request);
  if (proceed == nullptr && final == nullptr) {
    return fault(
        "the server asks for a password in clear, MD5 or another method that is not relayed; set password_encryption "
        "to scram-sha-256");
  }
  if (login.passthrough) {
    if (phase.offered.empty()) return fault("SASL message out of order");
    if (message.body.size() > protocol::kMaxSaslMessage + 4) return fault("SASL message too long");
    phase.client_may_answer = proceed != nullptr;
    send_client(from_backend_.substr(0, message.total));
    return {};
  }
  if (phase.scram == nullptr) return fault("SASL message out of order");
  const auto outcome =
      proceed != nullptr ? phase.scram->on_continue(proceed->data) : phase.scram->on_final(final->data);
  if (outcome == protocol::ScramClient::Outcome::kContinue) {
    std::string bytes;
    protocol::append_sasl_response(bytes, phase.scram->message());
    actions_.push_back(SendToBackend{std::move(bytes)});
    return {};
  }
  if (outcome == protocol::ScramClient::Outcome::kDone) {
    phase.server_proved = true;
    return {};
  }
  return fault(std::string("SCRAM: ") + std::string(phase.scram->reason()));
}

SessionCore::Next SessionCore::backend_error(BackendLogin& phase, const protocol::MessageView& message, Instant now) {
  const auto error = protocol::parse_error_fields(message.body);
  std::string raw = from_backend_.substr(0, message.total);
  Login& login = *phase.login;
  const bool exchange_begun = login.passthrough && !phase.offered.empty();
  // A replica without a free slot may have a sibling with one; the primary has none.
  const bool try_another = error.sqlstate == "57P03" ||
                           (error.sqlstate == "53300" &&
                            record_.identity.decision->route == routing::RouteClass::kReplica && !phase.accepted);
  if (try_another && !exchange_begun) {
    login.server_error = std::move(raw);
    const std::string why = "server said " + std::string(error.sqlstate);
    return candidate_failed(std::move(phase.login), why, error.sqlstate == "57P03", now);
  }
  const bool pooled = record_.identity.decision->route == routing::RouteClass::kPool ||
                      record_.identity.decision->route == routing::RouteClass::kLocalPool;
  // PgBouncer says 08P01 where PostgreSQL says 28P01; in the midst of SCRAM it can mean nothing else.
  const bool wrong_key = error.sqlstate == "28P01" || (pooled && phase.scram != nullptr && error.sqlstate == "08P01");
  if (!login.passthrough && !phase.accepted && (wrong_key || error.sqlstate.substr(0, 2) == "28")) {
    if (wrong_key && login.keys.has_value()) {
      // Either our verifier is old, or this server's is (a replica that has not replayed the change, a pool's own
      // list): ask afresh to know which.
      phase.refusal_bytes = std::move(raw);
      phase.rechecking = true;
      actions_.push_back(AskVerifier{login.name.branch, login.name.role, now, true});
      return {};
    }
    actions_.push_back(AskVerifier{login.name.branch, login.name.role, now, false});
  }
  return pass_on(std::move(raw));
}

SessionCore::Next SessionCore::recheck_done(BackendLogin& phase, const VerifierAnswer& answer, Instant now) {
  Login& login = *phase.login;
  const bool unchanged = answer.kind == VerifierAnswer::Kind::kFound &&
                         std::equal(answer.verifier->stored_key.span().begin(),
                                    answer.verifier->stored_key.span().end(), login.keys->stored_key.span().begin());
  if (unchanged && record_.identity.decision->route == routing::RouteClass::kReplica) {
    return candidate_failed(std::move(phase.login), "the role's password is not replayed there yet", false, now);
  }
  const bool unknown_still =
      answer.kind == VerifierAnswer::Kind::kUnavailable || answer.kind == VerifierAnswer::Kind::kThrottled;
  if (unknown_still || record_.identity.decision->route == routing::RouteClass::kPrimary)
    return pass_on(std::move(phase.refusal_bytes));
  if (answer.kind == VerifierAnswer::Kind::kFound && !unchanged)
    return refuse(routing::auth_failed(login.name.role, "the password has been changed"));
  // The client has proved itself, the pool does not know the role with this password: its credentials are the
  // operator's affair.
  return refuse(routing::backend_fault(
      login.name.branch, record_.identity.destination + ": the role is unknown there or has another password"));
}

/// Passthrough: the client's next SASL frame, checked, goes to the backend.
SessionCore::Next SessionCore::passthrough_answer(BackendLogin& phase) {
  if (from_client_.empty()) return {};
  if (from_client_.front() == 'X') return finish(EndReason::kClientClosed);
  if (from_client_.front() != 'p') return refuse(routing::protocol_violation("expected a SASL response"));
  const auto frame = protocol::next_message(base::as_bytes(from_client_), protocol::kMaxSaslMessage + 64);
  if (frame.status == protocol::FrameStatus::kNeedMore) return {};
  if (frame.status == protocol::FrameStatus::kBadLength)
    return refuse(routing::protocol_violation("invalid length of a SASL response"));
  if (phase.first_answer) {
    // PgBouncer 1.18 dies of an initial response without data or with a false length: nothing unchecked may reach it.
    protocol::SaslInitialResponse response;
    if (!protocol::parse_sasl_initial_response(frame.message.body, response) || !response.has_data ||
        std::find(phase.offered.begin(), phase.offered.end(), response.mechanism) == phase.offered.end()) {
      return refuse(routing::protocol_violation("invalid SASL initial response"));
    }
    phase.first_answer = false;
  }
  actions_.push_back(SendToBackend{from_client_.substr(0, frame.message.total)});
  consume(from_client_, frame.message.total);
  phase.client_may_answer = false;
  return {};
}

void SessionCore::append_explanation(const Login& login, std::string& out) const {
  const auto& decision = *record_.identity.decision;
  protocol::ErrorFields fields;
  fields.severity = "NOTICE";
  fields.sqlstate = "00000";
  const std::string message = "pointsman: connected to " + record_.identity.destination + " (" +
                              std::string(routing::to_word(decision.reason)) + ")";
  std::string detail;
  if (decision.member >= 0) {
    const auto& member = login.view->members[static_cast<std::size_t>(decision.member)];
    detail = "Route " + std::string(routing::to_text(decision.route)) + ", server " + decision.address.to_string() +
             ", role " + std::string(routing::to_text(member.role)) + ", state " +
             std::string(routing::to_text(member.state));
    if (member.lag_seconds) {
      char lag[32];
      std::snprintf(lag, sizeof lag, "%.3f s", *member.lag_seconds);
      detail += std::string(", lag ") + lag;
    }
    detail += '.';
  }
  fields.message = message;
  fields.detail = detail;
  fields.routine = routing::to_word(decision.reason);
  protocol::append_notice_response(out, fields);
}

SessionCore::Next SessionCore::complete_login(BackendLogin& phase, Instant now) {
  BeginRelay relay;
  if (!phase.login->passthrough) protocol::append_authentication_sasl_final(relay.to_client, phase.login->server_final);
  protocol::append_authentication_ok(relay.to_client);
  relay.to_client += phase.greeting;
  relay.to_client += from_backend_;
  relay.backend_bytes_after_ready = from_backend_.size();
  relay.to_backend = std::exchange(from_client_, {});
  relay.backend_key = std::move(phase.key);
  relay.client_secret = std::move(phase.client_secret);
  std::string().swap(from_backend_);
  record_.times.ready = now;
  actions_.push_back(std::move(relay));
  return Relaying{};
}

}  // namespace pointsman::proxy
