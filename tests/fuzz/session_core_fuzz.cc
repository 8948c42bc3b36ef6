// A whole login without a socket: the session core between a client and a backend that do what the input says. Behind
// the scene's three bytes (session_core_judge.h) stands a program of steps: arbitrary bytes and events, or "the lawful
// next one", so that every phase is reached, with messages changed on the way. SCRAM is real on both sides.

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "tests/fuzz/session_core_judge.h"

namespace {

using namespace pointsman;
using proxy::SessionCore;
using Kind = proxy::VerifierAnswer::Kind;

constexpr std::size_t kMaxSteps = 400;
/// startup_timeout, hold_timeout and five seconds for the login after a hold (contract section 3).
constexpr double kLongestLogin = 15 + 10 + 5;

class Scene final : fuzz::SessionJudge {
 public:
  explicit Scene(fuzz::Choices input) : SessionJudge(input) {}

  void run() {
    std::size_t steps = 0;
    bool leave = false;
    while (!in_.empty() && !over() && !leave && ++steps < kMaxSteps) leave = !step();
    if (!leave) {
      // Whatever happened, nobody waits longer than this.
      honest_ = false;
      now_ = test::at(kLongestLogin + 0.001);
      event([this] { core_->on_deadline(now_); });
      POINTSMAN_CHECK(over());
      everything_at_once();
    }
    core_.reset();
    POINTSMAN_CHECK(services_.held == 0);
  }

 private:
  // ---- what happens to it ----

  /// False: the connection is dropped here, whatever it was doing.
  bool step() {
    const unsigned what = in_.byte() % 24;
    honest_ = honest_ && what >= 20;
    switch (what) {
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
    proxy::VerifierAnswer answer = fuzz::test_role(right).answer();
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
    services_.known = fuzz::changed_view(*branch_.view, how);
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
    event([this] { core_->on_verifier(fuzz::test_role(true).answer(), now_); });
    event([this] { core_->on_backend_tls("", now_); });
    event([this] { core_->on_backend_eof("", now_); });
    event([this] { core_->on_snapshot(now_); });
    event([this] { core_->on_cancel_served(now_); });
    event([this] { core_->on_drain(now_); });
    event([this] { core_->on_deadline(now_); });
  }

  // ---- the lawful next step ----

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
    std::vector<std::pair<std::string, std::string>> parameters{{"user", std::string(fuzz::kUsers[what_ % 8])}};
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
        scram_.emplace(fuzz::test_role(knows_password_).keys(), std::string(fuzz::kMarker), plus,
                       client_tls_up_ && !plus, client_hash_);
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
      server_.emplace(fuzz::test_role(true).derived.verifier, false, "server-nonce", plus, plus ? backend_hash_ : "");
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
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Scene(fuzz::Choices(data, size)).run();
  return 0;
}
