// A whole login without a socket: the session core between a client and a backend that do what the input says. Three
// bytes set the scene (listener, TLS, authentication, chunk size, startup packet), the rest is a program of steps:
// arbitrary bytes and events, or "the lawful next one", so that every phase is reached, with messages changed on the
// way. SCRAM is real on both sides. The shell's part is kept here (what is dialled, what is encrypted), and each action
// is judged: see Scene::take().

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "protocol/proxy_header.h"
#include "tests/fuzz/scram_fuzz_support.h"
#include "tests/unit/support/session_driver.h"

namespace {

using namespace pointsman;
using proxy::SessionCore;
using Kind = proxy::VerifierAnswer::Kind;

constexpr std::size_t kMaxActionsPerEvent = 16;
constexpr std::size_t kMaxSteps = 400;
/// startup_timeout, hold_timeout and five seconds for the login after a hold (contract section 3).
constexpr double kLongestLogin = 15 + 10 + 5;
constexpr std::string_view kUsers[] = {"app.b1", "app.b1|replica", "app.b1|app",  "app.b1|primary",
                                       "app.no", "a.b.b1%7Capp",   ".b1|replica", "app"};
constexpr std::string_view kMarker = "client-nonce-of-24-bytes";  // in each SASL message of the client
constexpr char kRightPassword[] = "pencil";

const test::TestRole& role(bool right) {
  static const test::TestRole known{kRightPassword, "sixteen bytes..."};
  static const test::TestRole other{"crayon", "sixteen bytes..."};
  return right ? known : other;
}

/// The router's view of the branch, as a probe might change it.
std::shared_ptr<const routing::BranchView> changed_view(const routing::BranchView& healthy, unsigned how) {
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

class Scene {
 public:
  explicit Scene(fuzz::Choices input) : in_(input) {
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
    client_hash_ = (how & 32) != 0 ? fuzz::kEndpointHash : "";
    alpn_ = (how & 64) != 0;
    backend_hash_ = (how & 128) != 0 ? fuzz::kEndpointHash : "";
    what_ = in_.byte();

    branch_.config->auth.method = passthrough_ ? routing::AuthMethod::kPassthrough : routing::AuthMethod::kScram;
    branch_.config->backend_tls.mode = backend_tls_ ? routing::TlsMode::kVerifyFull : routing::TlsMode::kDisable;
    services_.known = branch_.view;
    context_.config = &listener_;
    static constexpr std::uint8_t kLoopback[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
    core_ = std::make_unique<SessionCore>(services_, context_, kLoopback, now_);
  }

  void run() {
    std::size_t steps = 0;
    bool leave = false;
    while (!in_.empty() && !over() && !leave && ++steps < kMaxSteps) leave = !step();
    if (!leave) {
      // Whatever happened, nobody waits longer than this.
      now_ = test::at(kLongestLogin + 0.001);
      event([this] { core_->on_deadline(now_); });
      POINTSMAN_CHECK(over());
      everything_at_once();
    }
    core_.reset();
    POINTSMAN_CHECK(services_.held == 0);
  }

 private:
  // ---- what the core may do
  // ------------------------------------------------------------------------------------------

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
  void take(proxy::ReportDialFailure& report) { POINTSMAN_CHECK(report.branch == "b1" && report.member < 3); }
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

  // ---- what happens to it
  // --------------------------------------------------------------------------------------------

  /// False: the connection is dropped here, whatever it was doing.
  bool step() {
    switch (const unsigned what = in_.byte(); what % 24) {
      case 0:
        client_bytes(in_.text(in_.byte()), false);
        break;
      case 1:
        backend_bytes(in_.text(in_.byte()), false);
        break;
      case 2:
        change_next_ = true;
        break;
      case 3:
        verifier(static_cast<Kind>(in_.byte() % 6), true);
        break;
      case 4:
        verifier(Kind::kFound, false);
        break;
      case 5:
        pass(in_.byte());
        break;
      case 6:
        event([this] { core_->on_client_eof(now_); });
        break;
      case 7:
        backend_ends();
        break;
      case 8:
        snapshot(in_.byte());
        break;
      case 9:
        services_.is_draining = true;
        event([this] { core_->on_drain(now_); });
        break;
      case 10:
        event([this] { core_->on_client_error(now_); });
        break;
      case 11:
        services_.admit_refusal = routing::Refusal{routing::Reason::kLimit, "53300", "full", {}, {}, {}};
        break;
      case 12:
        services_.hold_refusal = routing::Refusal{routing::Reason::kLimit, "53300", "full", {}, {}, {}};
        break;
      case 13:
        client_bytes(test::typed_message('Q', in_.text(in_.byte())), true);
        break;
      case 14:
        backend_bytes(test::server_error(in_.byte() % 2 == 0 ? "57P03" : "28P01", "no"), true);
        break;
      case 15:
        backend_bytes(test::server_error(in_.byte() % 2 == 0 ? "53300" : "08P01", "no"), true);
        break;
      case 16:
        tls_fails();
        break;
      case 17:
        first_packet(in_.byte());
        break;
      case 18:
        behind_ready_ = in_.text(in_.byte());
        break;
      case 19:
        return in_.byte() != 0;
      default:
        lawful();
        break;
    }
    return true;
  }

  template <typename Take>
  void feed(std::string_view bytes, Take&& take_piece) {
    const std::size_t size = chunk_ == 0 ? std::max<std::size_t>(bytes.size(), 1) : chunk_;
    for (std::size_t i = 0; i < bytes.size() && !over(); i += size) {
      const std::string piece(bytes.substr(i, size));  // of its own: AddressSanitizer finds a read beyond it
      take_piece(piece);
    }
  }
  std::string maybe_changed(std::string_view bytes) {
    if (!std::exchange(change_next_, false)) return std::string(bytes);
    clean_ = false;
    return in_.change(bytes);
  }

  void client_bytes(std::string_view bytes, bool lawful_now) {
    if (client_tls_ && !client_tls_up_) return;  // the shell gives these to the TLS engine
    const auto sent = maybe_changed(bytes);
    clean_ = clean_ && lawful_now;
    feed(sent, [this](const std::string& piece) {
      if (client_tls_ && !client_tls_up_) return;  // the core has just asked for TLS
      client_sent_ += piece;
      event([&] { core_->on_client_bytes(base::as_bytes(piece), now_); });
    });
  }
  void backend_bytes(std::string_view bytes, bool lawful_now) {
    if (link_ != Link::kOpen || (backend_tls_wanted_ && !backend_tls_up_)) return;
    const auto sent = maybe_changed(bytes);
    clean_ = clean_ && lawful_now;
    feed(sent, [this](const std::string& piece) {
      if (link_ != Link::kOpen || (backend_tls_wanted_ && !backend_tls_up_)) return;  // rest of a dropped connection
      from_backend_ += piece;
      event([&] { core_->on_backend_bytes(base::as_bytes(piece), now_); });
    });
  }
  void verifier(Kind kind, bool right) {
    proxy::VerifierAnswer answer = role(right).answer();
    answer.kind = kind;
    if (kind != Kind::kFound) answer.verifier = nullptr;
    if (core_->phase_name() == "auth" && !answered_) {
      answered_ = true;
      provable_ = kind == Kind::kFound && right == knows_password_;
    }
    asked_ = false;
    event([&] { core_->on_verifier(answer, now_); });
  }
  void pass(unsigned ticks) {
    now_ += std::chrono::milliseconds(50) * ticks;
    const bool due = *core_->deadline() <= now_;
    const std::size_t actions = event([this] { core_->on_deadline(now_); });
    POINTSMAN_CHECK(due || actions == 0);
    POINTSMAN_CHECK(over() || *core_->deadline() > now_);  // else the shell would spin
  }
  void backend_ends() {
    if (link_ == Link::kNone) return;
    const bool dialing = std::exchange(link_, Link::kNone) == Link::kDialing;
    event([&] { dialing ? core_->on_connect_failed("refused", now_) : core_->on_backend_eof("closed", now_); });
  }
  void snapshot(unsigned how) {
    services_.known = changed_view(*branch_.view, how);
    event([this] { core_->on_snapshot(now_); });
  }
  void tls_fails() {
    if (client_tls_ && !client_tls_up_) {
      event([this] { core_->on_client_tls_failed("no", now_); });
    } else if (link_ == Link::kOpen && backend_tls_wanted_ && !backend_tls_up_) {
      link_ = Link::kNone;
      event([this] { core_->on_backend_tls_failed("no", now_); });
    }
  }
  /// After the end the shell may still have events under way: none has an effect.
  void everything_at_once() {
    event([this] { core_->on_client_bytes(base::as_bytes("X\0\0\0\4"), now_); });
    event([this] { core_->on_backend_bytes(base::as_bytes("Z"), now_); });
    event([this] { core_->on_connected(now_); });
    event([this] { core_->on_connect_failed("", now_); });
    event([this] { core_->on_verifier(role(true).answer(), now_); });
    event([this] { core_->on_backend_tls("", now_); });
    event([this] { core_->on_backend_eof("", now_); });
    event([this] { core_->on_snapshot(now_); });
    event([this] { core_->on_cancel_served(now_); });
    event([this] { core_->on_drain(now_); });
    event([this] { core_->on_deadline(now_); });
  }

  // ---- the lawful next step
  // ------------------------------------------------------------------------------------------

  void lawful() {
    const auto phase = core_->phase_name();
    if (phase == "proxy") return client_bytes("PROXY TCP4 192.0.2.1 192.0.2.2 1111 5432\r\n", true);
    if (phase == "negotiating") return first_packet(listener_.tls == routing::ListenerTls::kRequired ? 0 : 3);
    if (phase == "tls") {
      client_tls_up_ = true;
      event([this] { core_->on_client_tls({"TLSv1.3", client_hash_, alpn_}, now_); });
      return;
    }
    if (phase == "startup") return first_packet(3);
    if (phase == "holding") return snapshot(7);
    if (cancelling_) {
      event([this] { core_->on_cancel_served(now_); });
      return;
    }
    if (asked_) return verifier(Kind::kFound, true);
    if (!client_answers()) backend_goes_on();
  }

  void first_packet(unsigned which) {
    const bool again = std::exchange(startup_sent_, true);
    clean_ = clean_ && !again;
    switch (which % 6) {
      case 0:
        startup_sent_ = again;
        return client_bytes(protocol::build_ssl_request(), !refused_);
      case 1:
        startup_sent_ = again;
        return client_bytes(std::string("\0\0\0\x08\x04\xd2\x16\x30", 8), !refused_);  // GSSENCRequest
      case 2:
        return client_bytes(protocol::build_cancel_request(7, "four"), true);
      case 4:
        return client_bytes(std::string("\x16\x03\x01\x00\x05hello", 10), true);
      case 3:
      case 5:
        break;
    }
    std::vector<std::pair<std::string, std::string>> parameters{{"user", std::string(kUsers[what_ % 8])}};
    if ((what_ & 8) != 0) parameters.emplace_back("options", "-c pointsman.explain=on -c geqo=off");
    if ((what_ & 16) != 0) parameters.emplace_back("pointsman.wait", "2s");
    if ((what_ & 32) != 0) parameters.emplace_back("pointsman.max_lag", "1ms");
    if ((what_ & 64) != 0) parameters.emplace_back("_pq_.test", "1");
    client_bytes(test::startup_packet(parameters, (3U << 16) + ((what_ & 128) != 0 ? 9999U : 0U)), true);
  }

  /// Answers the authentication request that the client has not answered yet.
  bool client_answers() {
    while (!inbox_.empty()) {
      const auto frame = protocol::next_message(base::as_bytes(inbox_), 1 << 20);
      const std::string body(base::as_text(frame.message.body));
      const char tag = frame.message.tag;
      inbox_.erase(0, frame.message.total);
      if (tag != 'R') continue;
      const auto request = protocol::parse_authentication(base::as_bytes(body));
      if (std::holds_alternative<protocol::AuthSasl>(request)) {
        const bool plus = !client_hash_.empty() && body.find(protocol::kScramSha256Plus) != std::string::npos;
        scram_.emplace(role(knows_password_).keys(), std::string(kMarker), plus, client_tls_up_ && !plus, client_hash_);
        std::string first;
        protocol::append_sasl_initial_response(first, scram_->mechanism(), scram_->first_message());
        client_bytes(first, true);
        return true;
      }
      const auto* proceed = std::get_if<protocol::AuthSaslContinue>(&request);
      if (proceed == nullptr || !scram_) continue;
      if (scram_->on_continue(proceed->data) != protocol::ScramClient::Outcome::kContinue) return false;
      std::string last;
      protocol::append_sasl_response(last, scram_->message());
      may_be_proved_ = may_be_proved_ || provable_;
      proof_end_ = client_sent_.size() + last.size();
      client_bytes(last, true);
      return true;
    }
    return false;
  }

  void backend_goes_on() {
    if (link_ == Link::kDialing) {
      link_ = Link::kOpen;
      event([this] { core_->on_connected(now_); });
    } else if (backend_tls_wanted_ && !backend_tls_up_ && link_ == Link::kOpen) {
      backend_tls_up_ = true;
      event([this] { core_->on_backend_tls(backend_hash_, now_); });
    } else if (to_backend_ == protocol::build_ssl_request()) {
      to_backend_.clear();
      backend_bytes("S", true);
    } else if (!to_backend_.empty()) {
      backend_answers(std::exchange(to_backend_, {}));
    }
  }
  void backend_answers(const std::string& sent) {
    std::string bytes;
    if (sent.front() != 'p') {
      const bool plus = backend_tls_ && !backend_hash_.empty();
      server_.emplace(role(true).derived.verifier, false, "server-nonce", plus, plus ? backend_hash_ : "");
      protocol::append_authentication_sasl(bytes, server_->mechanisms());
      return backend_bytes(bytes, true);
    }
    const auto messages = test::split_messages(sent);
    protocol::SaslInitialResponse initial;
    using Outcome = protocol::ScramServer::Outcome;
    auto outcome = Outcome::kMalformed;
    if (sent.find("SCRAM-SHA-256") != std::string::npos &&
        protocol::parse_sasl_initial_response(base::as_bytes(messages[0].second), initial)) {
      outcome = server_->on_initial(initial.mechanism, initial.data);
      if (outcome == Outcome::kContinue) protocol::append_authentication_sasl_continue(bytes, server_->message());
    } else if (!server_->message().empty()) {
      outcome = server_->on_final(messages[0].second);
      if (outcome == Outcome::kSuccess) {
        protocol::append_authentication_sasl_final(bytes, server_->message());
        protocol::append_authentication_ok(bytes);
        bytes += test::greeting() + behind_ready_;
      }
    }
    // The router's own messages are never wrong; a client's may be.
    POINTSMAN_CHECK(!bytes.empty() || passthrough_ || !knows_password_ || !clean_);
    if (bytes.empty()) bytes = test::server_error("28P01", "no");
    backend_bytes(bytes, true);
  }

  fuzz::Choices in_;
  routing::ListenerConfig listener_;
  proxy::ListenerContext context_;
  test::TestBranch branch_;
  test::FakeServices services_;
  base::Instant now_ = test::at(0);
  std::unique_ptr<SessionCore> core_;

  bool passthrough_ = false;
  bool knows_password_ = true;
  std::size_t chunk_ = 0;
  unsigned what_ = 0;
  bool clean_ = true;  // every byte so far was a lawful one
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Scene(fuzz::Choices(data, size)).run();
  return 0;
}
