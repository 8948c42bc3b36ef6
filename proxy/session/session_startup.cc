// The first half of a login: what comes before the startup packet, the packet itself, and the client's proof.
// The second half is session_login.cc.
#include <algorithm>
#include <cstring>
#include <utility>

#include "protocol/postgres_format.h"
#include "protocol/proxy_header.h"
#include "proxy/session/login.h"
#include "proxy/session/session_core.h"
#include "routing/refusals.h"

namespace pointsman::proxy {

using base::Instant;
using routing::Refusal;

namespace {

bool starts_with_no_case(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), text.begin(), [](char a, char b) {
           return a == (b >= 'A' && b <= 'Z' ? b + 32 : b);
         });
}

constexpr std::string_view kOptionPrefix = "pointsman.";

/// `replication` as PostgreSQL reads it (ProcessStartupPacket): "database" or a boolean (parse_bool accepts unique
/// prefixes).
std::optional<bool> parse_replication(std::string_view value) {
  std::string lower(value);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (lower == "database") return true;
  const auto is_prefix_of = [&lower](std::string_view word, std::size_t least) {
    return lower.size() >= least && lower.size() <= word.size() && word.substr(0, lower.size()) == lower;
  };
  if (is_prefix_of("true", 1) || is_prefix_of("yes", 1) || lower == "on" || lower == "1") return true;
  if (is_prefix_of("false", 1) || is_prefix_of("no", 1) || is_prefix_of("off", 2) || lower == "0") return false;
  return std::nullopt;
}

}  // namespace

// ---- before the startup packet --------------------------------------------------------------------------------------

SessionCore::Next SessionCore::step_proxy_header() {
  const auto& trusted = listener_.config->trusted_proxies;
  if (std::none_of(trusted.begin(), trusted.end(),
                   [this](const routing::Cidr& range) { return range.contains(client_ip_); })) {
    Refusal refusal = routing::not_allowed("", "the peer is not in trusted_proxies of this listener");
    return close_silently(std::move(refusal));
  }
  if (from_client_.empty()) return {};
  auto parsed = protocol::parse_proxy_header(base::as_bytes(from_client_));
  if (std::holds_alternative<protocol::ProxyNeedMore>(parsed)) return {};
  if (const auto* fault = std::get_if<protocol::ProxyFault>(&parsed)) {
    return close_silently(routing::protocol_violation(protocol::to_message(*fault)));
  }
  const auto& header = std::get<protocol::ProxyParsed>(parsed);
  if (header.source.has_address) {
    routing::SocketAddress source;
    if (header.source.is_ipv6) {
      source.v6.sin6_family = AF_INET6;
      source.v6.sin6_port = htons(header.source.port);
      std::memcpy(&source.v6.sin6_addr, header.source.address, 16);
      source.size = sizeof source.v6;
    } else {
      source.v4.sin_family = AF_INET;
      source.v4.sin_port = htons(header.source.port);
      std::memcpy(&source.v4.sin_addr, header.source.address, 4);
      source.size = sizeof source.v4;
    }
    source.mapped_ip(client_ip_);
    record_.proxied_source = source;
  }
  consume(from_client_, header.consumed);
  return Negotiating{};
}

SessionCore::Next SessionCore::step_negotiating(Negotiating& phase, Instant now) {
  if (from_client_.empty()) return {};
  const bool tls_offered = listener_.config->tls != routing::ListenerTls::kOff;
  if (static_cast<std::uint8_t>(from_client_.front()) == protocol::kTlsHandshakeRecord) {
    // A ClientHello out of the blue is direct TLS (PostgreSQL 17); behind an `N` it would be a client that does not
    // listen.
    if (!tls_offered || phase.ssl_refused || phase.gss_refused) {
      return close_silently(routing::protocol_violation("unexpected TLS handshake"));
    }
    actions_.push_back(StartClientTls{std::exchange(from_client_, {})});
    return TlsHandshake{true};
  }
  auto parsed = protocol::parse_first_packet(base::as_bytes(from_client_));
  if (std::holds_alternative<protocol::NeedMore>(parsed)) return {};
  if (const auto* rejected = std::get_if<protocol::StartupRejected>(&parsed)) {
    if (rejected->fault == protocol::StartupFault::kUnsupportedMajor) {
      return refuse(routing::unsupported_protocol(rejected->major, rejected->minor));
    }
    if (rejected->fault == protocol::StartupFault::kBadLength ||
        rejected->fault == protocol::StartupFault::kBadCancelLength) {
      return close_silently(routing::protocol_violation(protocol::to_message(rejected->fault)));
    }
    return refuse_startup(*rejected);
  }
  auto& first = std::get<protocol::ParsedFirstPacket>(parsed);
  consume(from_client_, first.consumed);
  const bool is_ssl = std::holds_alternative<protocol::SslRequest>(first.packet);
  if (is_ssl || std::holds_alternative<protocol::GssEncRequest>(first.packet)) {
    // Bytes in the clear behind the request would be taken for what comes inside TLS (CVE-2021-23222 and its kin).
    if (!from_client_.empty())
      return refuse(routing::protocol_violation("received unencrypted data after SSL request"));
    bool& asked = is_ssl ? phase.ssl_refused : phase.gss_refused;
    if (asked) return refuse(routing::protocol_violation("encryption was requested twice"));
    if (is_ssl && tls_offered) {
      send_client("S");
      actions_.push_back(StartClientTls{});
      return TlsHandshake{false};
    }
    asked = true;
    send_client("N");
    return {};
  }
  if (auto* cancel = std::get_if<protocol::CancelRequest>(&first.packet)) {
    actions_.push_back(ServeCancel{std::move(*cancel)});
    return Cancelling{};
  }
  if (listener_.config->tls == routing::ListenerTls::kRequired) return refuse(routing::tls_required());
  return accept_startup(std::move(std::get<protocol::StartupMessage>(first.packet)), now);
}

SessionCore::Next SessionCore::step_awaiting_startup(Instant now) {
  if (from_client_.empty()) return {};
  auto parsed = protocol::parse_first_packet(base::as_bytes(from_client_));
  if (std::holds_alternative<protocol::NeedMore>(parsed)) return {};
  if (const auto* rejected = std::get_if<protocol::StartupRejected>(&parsed)) return refuse_startup(*rejected);
  auto& first = std::get<protocol::ParsedFirstPacket>(parsed);
  consume(from_client_, first.consumed);
  if (auto* cancel = std::get_if<protocol::CancelRequest>(&first.packet)) {
    actions_.push_back(ServeCancel{std::move(*cancel)});
    return Cancelling{};
  }
  if (auto* startup = std::get_if<protocol::StartupMessage>(&first.packet))
    return accept_startup(std::move(*startup), now);
  return refuse(routing::protocol_violation("encryption was requested inside TLS"));
}

SessionCore::Next SessionCore::refuse_startup(const protocol::StartupRejected& rejected) {
  if (rejected.fault == protocol::StartupFault::kUnsupportedMajor) {
    return refuse(routing::unsupported_protocol(rejected.major, rejected.minor));
  }
  if (rejected.fault == protocol::StartupFault::kNoUser) {
    Refusal refusal = routing::protocol_violation(protocol::to_message(rejected.fault));
    refusal.reason = routing::Reason::kBadUser;
    refusal.sqlstate = "28000";
    return refuse(std::move(refusal));
  }
  return refuse(routing::protocol_violation(protocol::to_message(rejected.fault)));
}

// ---- the startup packet ---------------------------------------------------------------------------------------------

SessionCore::Next SessionCore::accept_startup(protocol::StartupMessage startup, Instant now) {
  record_.times.startup_done = now;
  auto login = std::make_unique<Login>();
  login->startup = std::move(startup);
  record_.identity.user = *login->startup.find("user");
  if (services_.draining()) return refuse(routing::draining());
  routing::FixedRoute fixed = listener_.config->fixed;
  if (listener_.config->branch_from_sni) {
    fixed.branch = routing::branch_of_sni(client_tls_ ? client_tls_->server_name : "", listener_.config->sni_domain);
    if (fixed.branch.empty()) return refuse(routing::no_branch_in_sni(listener_.config->sni_domain));
  }
  auto parsed = routing::parse_user_name(record_.identity.user, fixed);
  if (auto* refusal = std::get_if<Refusal>(&parsed)) return refuse(std::move(*refusal));
  login->name = std::move(std::get<routing::UserName>(parsed));
  if (auto refusal = read_parameters(*login)) return refuse(std::move(*refusal));

  login->view = services_.branch(login->name.branch);
  if (login->view == nullptr && !services_.config().hide_unknown_branches) {
    return refuse(routing::unknown_branch_refusal(login->name, !fixed.branch.empty()));
  }
  if (login->view != nullptr) {
    record_.identity.branch = login->name.branch;
    record_.identity.target = std::string(routing::to_text(login->name.target));
    record_.identity.view = login->view;
    login->passthrough = login->view->config->auth.method == routing::AuthMethod::kPassthrough;
    if (auto refusal = judge_startup(*login)) {
      if (!services_.config().hide_unknown_branches || login->passthrough) return refuse(std::move(*refusal));
      login->refused_after_proof = std::move(refusal);  // before it, a known branch would differ from an unknown one
    }
  }
  login->minor = std::min<std::uint32_t>(login->startup.minor, protocol::kNewestProtocolMinor);
  if (login->startup.minor > protocol::kNewestProtocolMinor || !login->startup.protocol_options.empty()) {
    std::string bytes;
    protocol::append_negotiate_protocol_version(bytes, login->minor, login->startup.protocol_options);
    send_client(std::move(bytes));
  }
  if (login->passthrough) return route(std::move(login), now);
  ClientAuth auth;
  auth.login = std::move(login);
  if (auth.login->view == nullptr) {
    VerifierAnswer nobody;
    nobody.kind = VerifierAnswer::Kind::kNoRole;
    if (auto next = start_exchange(auth, nobody)) return next;
  } else {
    actions_.push_back(AskVerifier{auth.login->name.branch, auth.login->name.role, {}, true});
  }
  return auth;
}

/// Sorts the client's parameters into ours and the backend's.
std::optional<Refusal> SessionCore::read_parameters(Login& login) {
  login.backend_parameters.push_back({"user", login.name.role});
  for (auto& parameter : login.startup.parameters) {
    if (parameter.name == "user") continue;
    if (starts_with_no_case(parameter.name, kOptionPrefix)) {
      if (auto refusal =
              login.options.set(std::string_view(parameter.name).substr(kOptionPrefix.size()), parameter.value))
        return refusal;
      continue;
    }
    if (parameter.name == "options") {
      auto split = protocol::extract_options(parameter.value, kOptionPrefix);
      for (const auto& option : split.extracted) {
        if (auto refusal = login.options.set(option.name, option.value)) return refusal;
      }
      if (!split.rest.empty() || split.extracted.empty())
        login.backend_parameters.push_back({"options", std::move(split.rest)});
      continue;
    }
    if (parameter.name == "replication") {
      const auto replication = parse_replication(parameter.value);
      if (!replication) return routing::bad_replication_value(parameter.value);
      login.replication = *replication;
    } else if (parameter.name == "database") {
      record_.identity.database = parameter.value;
    } else if (parameter.name == "application_name") {
      record_.identity.application = parameter.value;
    }
    login.backend_parameters.push_back(parameter);
  }
  return std::nullopt;
}

/// What can be said from the name, the address and the configuration alone.
std::optional<Refusal> SessionCore::judge_startup(Login& login) {
  const auto& branch = *login.view->config;
  const bool allowed =
      branch.allow.empty() || std::any_of(branch.allow.begin(), branch.allow.end(),
                                          [this](const routing::Cidr& range) { return range.contains(client_ip_); });
  if (!allowed) return routing::not_allowed(branch.name, "the client's address is outside access.allow");
  if (auto refusal = services_.admit(login.view)) return refusal;
  routing::RouteRequest request;
  request.mode = listener_.config->mode;
  request.target = login.name.target;
  request.options = login.options;
  request.replication = login.replication;
  return routing::check_static(branch, request);
}

// ---- the client's proof ---------------------------------------------------------------------------------------------

SessionCore::Next SessionCore::start_exchange(ClientAuth& phase, const VerifierAnswer& answer) {
  Login& login = *phase.login;
  login.verifier_kind = answer.kind;
  login.verifier_detail = answer.log_detail;
  switch (answer.kind) {
    case VerifierAnswer::Kind::kFound:
    case VerifierAnswer::Kind::kNoRole:
    case VerifierAnswer::Kind::kUnusable:
      break;
    case VerifierAnswer::Kind::kUnavailable:
      return refuse(routing::backend_unreachable(
          login.name.branch, "No server of the branch could be asked about the role.", answer.log_detail));
    case VerifierAnswer::Kind::kFault:
      return refuse(routing::backend_fault(login.name.branch, answer.log_detail));
    case VerifierAnswer::Kind::kThrottled:
      return refuse(routing::throttled("verifier look-ups"));
  }
  base::Byte random[18];
  services_.random_bytes(random);
  const bool found = answer.kind == VerifierAnswer::Kind::kFound;
  const bool offer_plus = client_tls_.has_value() && !client_tls_->endpoint_hash.empty();
  const std::string_view endpoint_hash = offer_plus ? std::string_view(client_tls_->endpoint_hash) : std::string_view{};
  phase.scram = std::make_unique<protocol::ScramServer>(
      found ? *answer.verifier
            : protocol::make_mock_verifier(services_.mock_secret(), login.name.role + "." + login.name.branch),
      !found, protocol::base64_encode(base::as_text(random)), offer_plus, endpoint_hash);
  std::string bytes;
  protocol::append_authentication_sasl(bytes, phase.scram->mechanisms());
  send_client(std::move(bytes));
  return {};
}

SessionCore::Next SessionCore::step_client_auth(ClientAuth& phase, Instant now) {
  if (from_client_.empty()) return {};
  // The type is checked before the length is awaited: only `p` is lawful until SASL ends (T14).
  if (from_client_.front() == 'X') return finish(EndReason::kClientClosed);
  if (from_client_.front() != 'p') return refuse(routing::protocol_violation("expected a SASL response"));
  if (phase.scram == nullptr) return {};
  const auto frame = protocol::next_message(base::as_bytes(from_client_), protocol::kMaxSaslMessage + 64);
  switch (frame.status) {
    case protocol::FrameStatus::kNeedMore:
      return {};
    case protocol::FrameStatus::kBadLength:
      return refuse(routing::protocol_violation("invalid length of a SASL response"));
    case protocol::FrameStatus::kMessage:
      break;
  }
  // The message points into from_client_, which only shrinks when the message has been used.
  Next next = sasl_message(phase, frame.message, now);
  consume(from_client_, frame.message.total);
  return next;
}

SessionCore::Next SessionCore::sasl_message(ClientAuth& phase, const protocol::MessageView& message, Instant now) {
  using Outcome = protocol::ScramServer::Outcome;
  Outcome outcome = Outcome::kMalformed;
  if (!phase.initial_seen) {
    protocol::SaslInitialResponse response;
    if (!protocol::parse_sasl_initial_response(message.body, response) || !response.has_data) {
      return refuse(routing::protocol_violation("invalid SASL initial response"));
    }
    phase.initial_seen = true;
    outcome = phase.scram->on_initial(response.mechanism, response.data);
  } else {
    outcome = phase.scram->on_final(base::as_text(message.body));
  }
  Login& login = *phase.login;
  switch (outcome) {
    case Outcome::kContinue: {
      std::string bytes;
      protocol::append_authentication_sasl_continue(bytes, phase.scram->message());
      send_client(std::move(bytes));
      return {};
    }
    case Outcome::kSuccess: {
      login.keys = phase.scram->login_keys();
      login.server_final = phase.scram->message();
      record_.times.auth_done = now;
      if (login.refused_after_proof) return refuse(std::move(*login.refused_after_proof));
      return route(std::move(phase.login), now);
    }
    case Outcome::kWrongPassword:
      return wrong_password(login, now);
    case Outcome::kMalformed:
      return refuse(routing::protocol_violation(phase.scram->reason()));
    case Outcome::kBindingNegotiation:
    case Outcome::kBindingMismatch: {
      Refusal refusal = routing::auth_failed(login.name.role, std::string(phase.scram->reason()));
      refusal.sqlstate = "28000";
      refusal.message = outcome == Outcome::kBindingNegotiation ? "channel binding negotiation error"
                                                                : "SCRAM channel binding check failed";
      refusal.detail =
          "The TLS connection the client sees does not end at this router, or an attacker stripped SCRAM-SHA-256-PLUS.";
      return refuse(std::move(refusal));
    }
    case Outcome::kUnsupported: {
      Refusal refusal = routing::protocol_violation(phase.scram->reason());
      refusal.sqlstate = "0A000";
      return refuse(std::move(refusal));
    }
  }
  return {};
}

SessionCore::Next SessionCore::wrong_password(const Login& login, Instant now) {
  if (login.view == nullptr) return refuse(routing::hidden_unknown_branch(login.name));
  // The password or the role may be newer than what we know: the next attempt shall find it.
  actions_.push_back(AskVerifier{login.name.branch, login.name.role, now, false});
  if (login.verifier_kind == VerifierAnswer::Kind::kUnusable)
    return refuse(routing::no_verifier(login.name.role, login.verifier_detail));
  return refuse(routing::auth_failed(
      login.name.role, login.verifier_kind == VerifierAnswer::Kind::kNoRole ? "no such role" : "wrong password"));
}

}  // namespace pointsman::proxy
