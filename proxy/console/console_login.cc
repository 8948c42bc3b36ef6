// The login of a console: encryption, startup packet, SCRAM. What is refused, and how, is as on the listeners for
// sessions (proxy/session/session_startup.cc).
#include <algorithm>
#include <utility>

#include "protocol/messages.h"
#include "protocol/postgres_format.h"
#include "proxy/console/console_core.h"
#include "routing/refusals.h"

namespace pointsman::proxy {

using base::Instant;

namespace {

/// What psql takes the server for: any psql since 10 is content with it, and says whom it talks to.
std::string server_version(std::string_view version) {
  return "10.0 (Pointsman " + std::string(version) + ")";
}

constexpr std::uint32_t kNoPid = 0;

}  // namespace

ConsoleCore::Next ConsoleCore::step_negotiating(Negotiating& phase) {
  if (inbox_.empty()) return {};
  const bool tls_offered = tls_ != routing::ListenerTls::kOff;
  if (static_cast<std::uint8_t>(inbox_.front()) == protocol::kTlsHandshakeRecord) {
    if (!tls_offered || phase.ssl_refused || phase.gss_refused)
      return close(ConsoleEnd::kRefused, "unexpected TLS handshake");
    actions_.push_back(ConsoleStartTls{std::exchange(inbox_, {})});
    return TlsHandshake{true};
  }
  auto parsed = protocol::parse_first_packet(base::as_bytes(inbox_));
  if (std::holds_alternative<protocol::NeedMore>(parsed)) return {};
  if (const auto* rejected = std::get_if<protocol::StartupRejected>(&parsed)) {
    using protocol::StartupFault;
    if (rejected->fault == StartupFault::kUnsupportedMajor)
      return refuse(routing::unsupported_protocol(rejected->major, rejected->minor));
    if (rejected->fault == StartupFault::kBadLength || rejected->fault == StartupFault::kBadCancelLength)
      return close(ConsoleEnd::kRefused, std::string(protocol::to_message(rejected->fault)));
    return refuse(routing::protocol_violation(protocol::to_message(rejected->fault)));
  }
  auto& first = std::get<protocol::ParsedFirstPacket>(parsed);
  inbox_.erase(0, first.consumed);
  const bool is_ssl = std::holds_alternative<protocol::SslRequest>(first.packet);
  if (is_ssl || std::holds_alternative<protocol::GssEncRequest>(first.packet)) {
    // Bytes in the clear behind the request would be taken for what comes inside TLS (CVE-2021-23222 and its kin).
    if (!inbox_.empty()) return refuse(routing::protocol_violation("received unencrypted data after SSL request"));
    bool& asked = is_ssl ? phase.ssl_refused : phase.gss_refused;
    if (asked) return refuse(routing::protocol_violation("encryption was requested twice"));
    if (is_ssl && tls_offered) {
      send("S");
      actions_.push_back(ConsoleStartTls{});
      return TlsHandshake{false};
    }
    asked = true;
    send("N");
    return {};
  }
  // Nothing here can be cancelled; whoever sends one learns nothing, as everywhere.
  if (std::holds_alternative<protocol::CancelRequest>(first.packet)) return close(ConsoleEnd::kClientClosed, {});
  if (tls_ == routing::ListenerTls::kRequired) return refuse(routing::tls_required());
  return accept_startup(std::move(std::get<protocol::StartupMessage>(first.packet)));
}

void ConsoleCore::on_tls(std::string endpoint_hash, bool alpn_postgresql) {
  const auto* handshake = std::get_if<TlsHandshake>(&phase_);
  if (handshake == nullptr) return;
  endpoint_hash_ = std::move(endpoint_hash);
  if (handshake->direct && !alpn_postgresql) {
    return enter(refuse(
        routing::protocol_violation("received direct SSL connection request without ALPN protocol negotiation")));
  }
  enter(AwaitingStartup{});
}

void ConsoleCore::on_tls_failed(std::string_view why) {
  enter(close(ConsoleEnd::kRefused, "TLS handshake failed: " + std::string(why)));
}

ConsoleCore::Next ConsoleCore::step_awaiting_startup() {
  if (inbox_.empty()) return {};
  auto parsed = protocol::parse_first_packet(base::as_bytes(inbox_));
  if (std::holds_alternative<protocol::NeedMore>(parsed)) return {};
  if (const auto* rejected = std::get_if<protocol::StartupRejected>(&parsed)) {
    if (rejected->fault == protocol::StartupFault::kUnsupportedMajor)
      return refuse(routing::unsupported_protocol(rejected->major, rejected->minor));
    return refuse(routing::protocol_violation(protocol::to_message(rejected->fault)));
  }
  auto& first = std::get<protocol::ParsedFirstPacket>(parsed);
  inbox_.erase(0, first.consumed);
  if (std::holds_alternative<protocol::CancelRequest>(first.packet)) return close(ConsoleEnd::kClientClosed, {});
  if (auto* startup = std::get_if<protocol::StartupMessage>(&first.packet)) return accept_startup(std::move(*startup));
  return refuse(routing::protocol_violation("encryption was requested inside TLS"));
}

ConsoleCore::Next ConsoleCore::accept_startup(protocol::StartupMessage startup) {
  user_ = *startup.find("user");
  // The newest minor version is 0 here: nobody cancels a console's statements, so no long key is needed.
  if (startup.minor > 0 || !startup.protocol_options.empty()) {
    std::string bytes;
    protocol::append_negotiate_protocol_version(bytes, 0, startup.protocol_options);
    send(std::move(bytes));
  }
  const auto& users = services_.console().users;
  const auto found = users.find(user_);
  const auto verifier =
      found == users.end() ? std::nullopt : protocol::parse_scram_verifier(found->second.verifier.reveal());
  base::Byte random[18];
  services_.random_bytes(random);
  const bool offer_plus = endpoint_hash_.has_value() && !endpoint_hash_->empty();
  Authenticating phase;
  phase.known = verifier.has_value();
  phase.scram = std::make_unique<protocol::ScramServer>(
      verifier ? *verifier : protocol::make_mock_verifier(services_.mock_secret(), "console " + user_),
      !verifier.has_value(), protocol::base64_encode(base::as_text(random)), offer_plus,
      offer_plus ? std::string_view(*endpoint_hash_) : std::string_view{});
  phase.startup = std::move(startup);
  std::string bytes;
  protocol::append_authentication_sasl(bytes, phase.scram->mechanisms());
  send(std::move(bytes));
  return phase;
}

ConsoleCore::Next ConsoleCore::step_authenticating(Authenticating& phase, Instant now) {
  if (inbox_.empty()) return {};
  // The type is checked before the length is awaited: only `p` is lawful until SASL ends (T14).
  if (inbox_.front() == 'X') return close(ConsoleEnd::kClientClosed, {});
  if (inbox_.front() != 'p') return refuse(routing::protocol_violation("expected a SASL response"));
  const auto frame = protocol::next_message(base::as_bytes(inbox_), protocol::kMaxSaslMessage + 64);
  if (frame.status == protocol::FrameStatus::kNeedMore) return {};
  if (frame.status == protocol::FrameStatus::kBadLength)
    return refuse(routing::protocol_violation("invalid length of a SASL response"));
  auto outcome = protocol::ScramServer::Outcome::kMalformed;
  if (!phase.initial_seen) {
    protocol::SaslInitialResponse response;
    if (!protocol::parse_sasl_initial_response(frame.message.body, response) || !response.has_data)
      return refuse(routing::protocol_violation("invalid SASL initial response"));
    phase.initial_seen = true;
    outcome = phase.scram->on_initial(response.mechanism, response.data);
  } else {
    outcome = phase.scram->on_final(base::as_text(frame.message.body));
  }
  inbox_.erase(0, frame.message.total);
  return sasl_outcome(phase, outcome, now);
}

ConsoleCore::Next ConsoleCore::sasl_outcome(Authenticating& phase, protocol::ScramServer::Outcome outcome,
                                            Instant now) {
  using Outcome = protocol::ScramServer::Outcome;
  switch (outcome) {
    case Outcome::kContinue: {
      std::string bytes;
      protocol::append_authentication_sasl_continue(bytes, phase.scram->message());
      send(std::move(bytes));
      return {};
    }
    case Outcome::kSuccess:
      return complete_login(phase, now);
    case Outcome::kWrongPassword:
      return refuse(routing::auth_failed(user_, phase.known ? "wrong password" : "no such user in console.users"));
    case Outcome::kMalformed:
      return refuse(routing::protocol_violation(phase.scram->reason()));
    case Outcome::kBindingNegotiation:
    case Outcome::kBindingMismatch: {
      auto refusal = routing::auth_failed(user_, std::string(phase.scram->reason()));
      refusal.sqlstate = "28000";
      refusal.message = outcome == Outcome::kBindingNegotiation ? "channel binding negotiation error"
                                                                : "SCRAM channel binding check failed";
      return refuse(refusal);
    }
    case Outcome::kUnsupported: {
      auto refusal = routing::protocol_violation(phase.scram->reason());
      refusal.sqlstate = "0A000";
      return refuse(refusal);
    }
  }
  return {};
}

/// Behind the proof: only now the client learns what exists here.
ConsoleCore::Next ConsoleCore::complete_login(Authenticating& phase, Instant now) {
  const std::string* database = phase.startup.find("database");
  const std::string& wanted = database == nullptr || database->empty() ? user_ : *database;
  if (wanted != kConsoleDatabase) {
    return refuse({.severity = "FATAL",
                   .sqlstate = "3D000",
                   .message = "database \"" + routing::escape_for_log(wanted) + "\" does not exist",
                   .hint = "This is the admin console, its only database is \"pointsman\": dbname=pointsman."},
                  "another database than pointsman");
  }
  const auto& console = services_.console();
  const auto found = console.users.find(user_);
  if (found == console.users.end()) return refuse(routing::auth_failed(user_, "the user was just taken out"));
  if (!services_.admit()) {
    return refuse({.severity = "FATAL",
                   .sqlstate = "53300",
                   .message = "too many connections to the admin console: " + std::to_string(console.max_connections) +
                              " are allowed",
                   .hint = "Close another one, or raise console.max_connections."},
                  "console.max_connections");
  }
  send_greeting(phase, found->second.role);
  logged_in_ = true;
  actions_.push_back(ConsoleLoggedIn{});
  idle_since_ = now;
  return Ready{};
}

void ConsoleCore::send_greeting(const Authenticating& phase, routing::ConsoleRole role) {
  std::string bytes;
  protocol::append_authentication_sasl_final(bytes, phase.scram->message());
  protocol::append_authentication_ok(bytes);
  const std::string* application = phase.startup.find("application_name");
  append_parameter_status(bytes, "server_version", server_version(services_.version()));
  append_parameter_status(bytes, "server_encoding", "UTF8");
  append_parameter_status(bytes, "client_encoding", "UTF8");
  append_parameter_status(bytes, "application_name",
                          application == nullptr ? "" : routing::escape_for_log(*application, 63));
  append_parameter_status(bytes, "session_authorization", user_);
  append_parameter_status(bytes, "is_superuser", role == routing::ConsoleRole::kAdmin ? "on" : "off");
  append_parameter_status(bytes, "DateStyle", "ISO, MDY");
  append_parameter_status(bytes, "TimeZone", "UTC");
  append_parameter_status(bytes, "integer_datetimes", "on");
  append_parameter_status(bytes, "standard_conforming_strings", "on");
  // Drivers want a key; this one opens nothing.
  base::Byte secret[4];
  services_.random_bytes(secret);
  protocol::append_backend_key_data(bytes, kNoPid, base::as_text(secret));
  append_ready_for_query(bytes);
  send(std::move(bytes));
}

}  // namespace pointsman::proxy
