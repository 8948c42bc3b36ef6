#pragma once
// What a session core may do, whatever happens to it: the shell's part of a session (what is dialled, what is
// encrypted) and a judgement of each action, for the session_core fuzz target. Three bytes of the input set the scene:
// listener, TLS, authentication, chunk size, startup packet.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/check.h"
#include "tests/fuzz/scram_fuzz_support.h"
#include "tests/unit/support/session_driver.h"

namespace pointsman::fuzz {

inline constexpr std::size_t kMaxActionsPerEvent = 16;
inline constexpr std::string_view kUsers[] = {"app.b1", "app.b1|replica", "app.b1|app",  "app.b1|primary",
                                              "app.no", "a.b.b1%7Capp",   ".b1|replica", "app"};
inline constexpr std::string_view kMarker = "client-nonce-of-24-bytes";  // in each SASL message of the client
inline constexpr char kRightPassword[] = "pencil";

inline const test::TestRole& test_role(bool right) {
  static const test::TestRole known{kRightPassword, "sixteen bytes..."};
  static const test::TestRole other{"crayon", "sixteen bytes..."};
  return right ? known : other;
}

/// The router's view of the branch, as a probe might change it.
inline std::shared_ptr<const routing::BranchView> changed_view(const routing::BranchView& healthy, unsigned how) {
  auto view = std::make_shared<routing::BranchView>(healthy);
  ++view->version;
  switch (how % 8) {
    case 0:
      return nullptr;  // the branch has gone
    case 1:
      view->primary = -1;
      break;
    case 2:
      view->primary = 1;
      std::swap(view->members[0].role, view->members[1].role);
      break;
    case 3:
      for (auto& member : view->members) member.state = routing::MemberState::kDown;
      break;
    case 4:
      view->active = view->settled = false;
      break;
    case 5:
      for (auto& member : view->members) member.address = member.pgbouncer_address = {};
      break;
    case 6:
      for (auto& member : view->members) member.state = routing::MemberState::kLagging;
      break;
    default:
      break;  // healthy
  }
  return view;
}

class SessionJudge {
 protected:
  explicit SessionJudge(Choices input) : in_(input) {
    const unsigned kind = in_.byte();
    listener_ = test::plain_listener((kind & 1) != 0 ? routing::ListenerMode::kPooled : routing::ListenerMode::kDirect);
    constexpr routing::ListenerTls kTls[] = {routing::ListenerTls::kOff, routing::ListenerTls::kOff,
                                             routing::ListenerTls::kOptional, routing::ListenerTls::kRequired};
    listener_.tls = kTls[(kind >> 1) & 3];
    listener_.proxy_protocol = (kind & 8) != 0;
    listener_.trusted_proxies.push_back(*routing::Cidr::parse("127.0.0.0/8"));
    passthrough_ = (kind & 16) != 0;
    services_.settings.hide_unknown_branches = (kind & 32) != 0;
    backend_tls_ = (kind & 64) != 0;
    knows_password_ = (kind & 128) == 0;
    const unsigned how = in_.byte();
    chunk_ = how % 32;
    client_hash_ = (how & 32) != 0 ? kEndpointHash : "";
    alpn_ = (how & 64) != 0;
    backend_hash_ = (how & 128) != 0 ? kEndpointHash : "";
    what_ = in_.byte();

    branch_.config->auth.method = passthrough_ ? routing::AuthMethod::kPassthrough : routing::AuthMethod::kScram;
    branch_.config->backend_tls.mode = backend_tls_ ? routing::TlsMode::kVerifyFull : routing::TlsMode::kDisable;
    services_.known = branch_.view;
    honest_ = may_log_in();
    context_.config = &listener_;
    static constexpr std::uint8_t kLoopback[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
    core_ = std::make_unique<proxy::SessionCore>(services_, context_, kLoopback, now_);
  }

  /// With lawful steps alone this scene must end in the relay.
  bool may_log_in() const {
    const bool pooled = listener_.mode == routing::ListenerMode::kPooled;
    constexpr bool kDirect[] = {true, true, false, true, false, false, false, false};
    constexpr bool kPooled[] = {true, false, true, true, false, true, false, false};
    const bool options = pooled && (what_ & (16 | 32)) != 0;  // wait and max_lag have no meaning there
    // PLUS is stripped by passthrough, and a backend that offers it takes that for an attack.
    const bool stripped = passthrough_ && backend_tls_ && !backend_hash_.empty();
    return knows_password_ && (pooled ? kPooled : kDirect)[what_ % 8] && !options && !stripped;
  }

  bool over() const { return finished_ || relaying_; }

  template <typename Happen>
  std::size_t event(Happen&& happen) {
    const bool was_over = over();
    happen();
    std::size_t count = 0;
    while (auto action = core_->poll_action()) {
      POINTSMAN_CHECK(++count <= kMaxActionsPerEvent);
      POINTSMAN_CHECK(!over());  // Finish and BeginRelay are the last
      std::visit([this](auto& value) { this->take(value); }, *action);
    }
    POINTSMAN_CHECK(!was_over || count == 0);
    POINTSMAN_CHECK(core_->closed() == finished_ && core_->relaying() == relaying_);
    POINTSMAN_CHECK(core_->deadline().has_value() == !over());
    POINTSMAN_CHECK(services_.held == (core_->phase_name() == "holding" ? 1 : 0));
    POINTSMAN_CHECK(core_->waiting_for_branch().empty() == (services_.held == 0));
    POINTSMAN_CHECK(services_.admitted <= 1);
    return count;
  }

  void take(proxy::SendToClient& send) {
    POINTSMAN_CHECK(!send.bytes.empty() && !said_fatal_);  // no FATAL is followed by another byte
    if (send.bytes == "S" || send.bytes == "N") {
      POINTSMAN_CHECK(!startup_sent_ || !clean_);
      refused_ = send.bytes == "N";
      return;
    }
    judge_messages(send.bytes, false);
    // Without a proof of his own (passthrough) a stranger learns nothing about the members.
    if (clean_ && passthrough_) POINTSMAN_CHECK(send.bytes.find("pg-") == std::string::npos);
    inbox_ += send.bytes;
  }
  void take(proxy::StartClientTls&) {
    POINTSMAN_CHECK(listener_.tls != routing::ListenerTls::kOff && !client_tls_);
    client_tls_ = true;
  }
  void take(proxy::AskVerifier& ask) {
    POINTSMAN_CHECK(!passthrough_ && ask.branch == "b1" && !ask.role.empty());
    asked_ = asked_ || ask.wait;
  }
  void take(proxy::ConnectBackend& connect) {
    POINTSMAN_CHECK(connect.address.known());
    POINTSMAN_CHECK(passthrough_ || may_be_proved_);  // strangers reach nothing
    POINTSMAN_CHECK(link_ == Link::kNone);
    POINTSMAN_CHECK(listener_.tls != routing::ListenerTls::kRequired || client_tls_up_);
    link_ = Link::kDialing;
    backend_tls_wanted_ = backend_tls_up_ = backend_startup_ = backend_initial_ = false;
    to_backend_.clear();
    from_backend_.clear();
  }
  void take(proxy::SendToBackend& send) {
    POINTSMAN_CHECK(link_ == Link::kOpen);
    if (send.bytes == protocol::build_ssl_request()) {
      POINTSMAN_CHECK(backend_tls_ && !backend_tls_wanted_ && !backend_startup_);
    } else if (!backend_startup_) {
      POINTSMAN_CHECK(backend_tls_up_ == backend_tls_);
      auto parsed = protocol::parse_first_packet(base::as_bytes(send.bytes));
      const auto* packet = std::get_if<protocol::ParsedFirstPacket>(&parsed);
      const auto* startup = packet == nullptr ? nullptr : std::get_if<protocol::StartupMessage>(&packet->packet);
      POINTSMAN_CHECK(startup != nullptr && packet->consumed == send.bytes.size());
      POINTSMAN_CHECK(startup->protocol_options.empty());
      for (const auto& parameter : startup->parameters) POINTSMAN_CHECK(!parameter.name.starts_with("pointsman."));
      if (clean_) POINTSMAN_CHECK(*startup->find("user") == (kUsers[what_ % 8].starts_with("a.b") ? "a.b" : "app"));
      backend_startup_ = true;
    } else {
      // One whole SASL message; in scram mode the router's own.
      const auto frame = protocol::next_message(base::as_bytes(send.bytes), protocol::kMaxSaslMessage + 64);
      POINTSMAN_CHECK(frame.status == protocol::FrameStatus::kMessage && frame.message.total == send.bytes.size());
      POINTSMAN_CHECK(frame.message.tag == 'p');
      POINTSMAN_CHECK(passthrough_ || send.bytes.find(kMarker) == std::string::npos);
      protocol::SaslInitialResponse initial;
      POINTSMAN_CHECK(backend_initial_ ||
                      (protocol::parse_sasl_initial_response(frame.message.body, initial) && initial.has_data));
      backend_initial_ = true;
    }
    to_backend_ += send.bytes;
  }
  void take(proxy::StartBackendTls& start) {
    POINTSMAN_CHECK(link_ == Link::kOpen && backend_tls_ && !backend_tls_wanted_ && !start.server_name.empty());
    backend_tls_wanted_ = true;
    from_backend_.clear();
  }
  void take(proxy::DropBackend&) { link_ = Link::kNone; }
  void take(proxy::ProbeAfresh& probe) { POINTSMAN_CHECK(probe.branch == "b1"); }
  void take(proxy::ReportDialFailure& report) { POINTSMAN_CHECK(report.branch == "b1" && report.decision.member < 3); }
  void take(proxy::ServeCancel&) {
    POINTSMAN_CHECK(!cancelling_);
    cancelling_ = true;
  }
  void take(proxy::BeginRelay& relay) {
    relaying_ = true;
    POINTSMAN_CHECK(link_ == Link::kOpen && backend_tls_up_ == backend_tls_ && !said_fatal_);
    POINTSMAN_CHECK(relay.backend_bytes_after_ready <= relay.to_client.size());
    const std::string_view all(relay.to_client);
    const auto login = all.substr(0, all.size() - relay.backend_bytes_after_ready);
    // AuthenticationOk comes now and once, and only because the backend said it and ReadyForQuery.
    POINTSMAN_CHECK(judge_messages(login, true) == 1 && test::tags(login).back() == 'Z');
    POINTSMAN_CHECK(from_backend_.ends_with(all.substr(login.size())));
    const auto said = std::string_view(from_backend_).substr(0, from_backend_.size() - relay.backend_bytes_after_ready);
    bool accepted = false;
    bool ready = false;
    for (const auto& [tag, body] : test::split_messages(said)) {
      accepted = accepted || (tag == 'R' && body == std::string(4, '\0'));
      ready = accepted && tag == 'Z';
    }
    POINTSMAN_CHECK(ready);
    POINTSMAN_CHECK(client_sent_.ends_with(relay.to_backend));
    if (clean_ && !passthrough_) POINTSMAN_CHECK(relay.to_backend == client_sent_.substr(proof_end_));
    POINTSMAN_CHECK(core_->record().identity.decision.has_value());
  }
  void take(proxy::Finish& finish) {
    finished_ = true;
    POINTSMAN_CHECK(!honest_);
    POINTSMAN_CHECK(finish.refusal.has_value() == (finish.reason == proxy::EndReason::kRefused));
    POINTSMAN_CHECK(!finish.refusal || (finish.refusal->sqlstate.size() == 5 && !finish.refusal->message.empty()));
  }

  /// Whole messages, nothing else. Returns the number of AuthenticationOk.
  int judge_messages(std::string_view bytes, bool complete) {
    std::size_t seen = 0;
    int accepted = 0;
    for (const auto& [tag, body] : test::split_messages(bytes)) {
      seen += 5 + body.size();
      accepted += tag == 'R' && body == std::string(4, '\0');
      if (tag == 'E') said_fatal_ = true;
      if (tag == 'v') POINTSMAN_CHECK(++negotiated_ == 1);
      if (tag == 'R' && body.starts_with(std::string_view("\0\0\0\x0a", 4))) POINTSMAN_CHECK(++exchanges_ == 1);
    }
    POINTSMAN_CHECK(seen == bytes.size());
    POINTSMAN_CHECK(complete || accepted == 0);
    return accepted;
  }

  Choices in_;
  routing::ListenerConfig listener_;
  proxy::ListenerContext context_;
  test::TestBranch branch_;
  test::FakeServices services_;
  base::Instant now_ = test::at(0);
  std::unique_ptr<proxy::SessionCore> core_;

  bool passthrough_ = false;
  bool knows_password_ = true;
  std::size_t chunk_ = 0;
  unsigned what_ = 0;
  bool clean_ = true;    // every byte so far was a lawful one
  bool honest_ = false;  // only lawful steps so far, in a scene where they suffice
  bool change_next_ = false;
  // The client.
  std::string client_hash_;
  bool alpn_ = false;
  bool client_tls_ = false;
  bool client_tls_up_ = false;
  bool refused_ = false;
  bool startup_sent_ = false;
  std::string inbox_;
  std::string client_sent_;
  std::optional<protocol::ScramClient> scram_;
  bool asked_ = false;
  bool answered_ = false;
  bool provable_ = false;       // the client's password is the one the core was told of
  bool may_be_proved_ = false;  // and its proof has been sent
  std::size_t proof_end_ = 0;
  // The backend, as the shell and its other end see it.
  enum class Link : std::uint8_t { kNone, kDialing, kOpen };
  Link link_ = Link::kNone;
  bool backend_tls_ = false;
  std::string backend_hash_;
  bool backend_tls_wanted_ = false;
  bool backend_tls_up_ = false;
  bool backend_startup_ = false;
  bool backend_initial_ = false;
  std::string to_backend_;
  std::string from_backend_;
  std::string behind_ready_;
  std::optional<protocol::ScramServer> server_;
  // The end.
  bool cancelling_ = false;
  bool said_fatal_ = false;
  int negotiated_ = 0;
  int exchanges_ = 0;
  bool relaying_ = false;
  bool finished_ = false;
};

}  // namespace pointsman::fuzz
