#pragma once
// Drives a SessionCore without a socket: a fake of the worker's answers, a scripted backend that does real SCRAM, and a
// client that does real SCRAM. Everything is deterministic: time is a number, randomness a counter. Bytes can be fed in
// chunks; the log of actions must not depend on that.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "protocol/messages.h"
#include "protocol/postgres_format.h"
#include "protocol/scram.h"
#include "protocol/startup.h"
#include "proxy/session/session_core.h"
#include "routing/config.h"

namespace pointsman::test {

inline base::Instant at(double seconds) {
  return base::Instant(std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9) + 1'000'000'000));
}

/// A branch `b1` with a primary, two replicas, PgBouncers and a pool `app`, all as a settled view.
struct TestBranch {
  std::shared_ptr<routing::BranchConfig> config = std::make_shared<routing::BranchConfig>();
  std::shared_ptr<routing::BranchView> view = std::make_shared<routing::BranchView>();

  TestBranch() {
    config->name = "b1";
    config->backend_tls.mode = routing::TlsMode::kDisable;
    for (const char* name : {"pg-0", "pg-1", "pg-2"}) {
      routing::MemberConfig member;
      member.name = name;
      member.host = "127.0.0.1";
      member.port = static_cast<std::uint16_t>(6000 + config->members.size());
      member.pgbouncer_port = static_cast<std::uint16_t>(7000 + config->members.size());
      config->members.push_back(member);
    }
    routing::PoolConfig pool;
    pool.name = "app";
    pool.endpoints.push_back({"127.0.0.1", 8000, ""});
    config->pools.push_back(pool);
    view->config = config;
    view->version = 1;
    view->active = view->settled = true;
    for (const auto& member : config->members) {
      routing::MemberView seen;
      seen.name = member.name;
      seen.host = member.host;
      seen.address = routing::SocketAddress::from_numeric(member.host, member.port);
      seen.pgbouncer_address = routing::SocketAddress::from_numeric(member.host, member.pgbouncer_port);
      seen.role = view->members.empty() ? routing::MemberRole::kPrimary : routing::MemberRole::kReplica;
      seen.state = routing::MemberState::kOk;
      seen.timeline = 1;
      seen.sampled_at = at(0);
      if (seen.role == routing::MemberRole::kReplica) {
        seen.lag_seconds = 0.0;
        seen.lag_bytes = 0;
      }
      view->members.push_back(seen);
    }
    routing::PoolView seen;
    seen.name = "app";
    seen.endpoints.push_back({"127.0.0.1", routing::SocketAddress::from_numeric("127.0.0.1", 8000), ""});
    view->pools.push_back(seen);
    view->primary = 0;
    view->timeline = 1;
  }
};

class FakeServices final : public proxy::CoreServices {
 public:
  routing::Config settings;
  std::string seal;  ///< what a sealed cancel key begins with; empty: there is no fleet
  std::shared_ptr<const routing::BranchView> known;
  bool is_draining = false;
  proxy::LocalKnowledge knowledge;
  int held = 0;
  int admitted = 0;
  std::optional<routing::Refusal> admit_refusal;
  std::optional<routing::Refusal> hold_refusal;

  const routing::Config& config() override { return settings; }
  std::shared_ptr<const routing::BranchView> branch(std::string_view name) override {
    return known != nullptr && known->config->name == name ? known : nullptr;
  }
  void random_bytes(base::MutableBytes out) override {
    for (auto& byte : out) byte = ++random_;
  }
  std::string seal_cancel_key(const std::string& branch, const routing::Decision& decision,
                              const protocol::BackendKey& key) override {
    if (seal.empty()) return {};
    return seal + branch + "/" + decision.address.to_string() + "/" + std::to_string(key.pid);
  }
  std::optional<routing::Refusal> admit(const std::shared_ptr<const routing::BranchView>&) override {
    ++admitted;
    return admit_refusal;
  }
  std::optional<routing::Refusal> enter_hold(const routing::BranchView&) override {
    if (hold_refusal) return hold_refusal;
    ++held;
    return std::nullopt;
  }
  void leave_hold() override { --held; }
  proxy::LocalKnowledge local_knowledge(const routing::BranchView&, int) override { return knowledge; }
  std::string_view mock_secret() override { return "mock"; }
  bool draining() override { return is_draining; }

 private:
  std::uint8_t random_ = 0;
};

inline routing::ListenerConfig plain_listener(routing::ListenerMode mode = routing::ListenerMode::kDirect) {
  routing::ListenerConfig listener;
  listener.name = "test";
  listener.mode = mode;
  listener.tls = routing::ListenerTls::kOff;
  return listener;
}

/// The core, its actions as a log, and the bytes it sent.
class Drive {
 public:
  explicit Drive(routing::ListenerConfig listener = plain_listener(), std::size_t chunk = 0)
      : listener_config(std::move(listener)), chunk_(chunk) {
    services.known = branch.view;
    static constexpr std::uint8_t kLoopback[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
    context.config = &listener_config;
    std::uint8_t ip[16];
    std::memcpy(ip, kLoopback, sizeof ip);
    core = std::make_unique<proxy::SessionCore>(services, context, ip, now);
  }

  void client(std::string_view bytes) {
    feed(bytes, [this](base::Bytes piece) { core->on_client_bytes(piece, now); });
  }
  void backend(std::string_view bytes) {
    feed(bytes, [this](base::Bytes piece) { core->on_backend_bytes(piece, now); });
  }
  template <typename Event>
  void event(Event&& happen) {
    happen(*core);
    pump();
  }
  void advance_to(double seconds) {
    now = at(seconds);
    event([this](proxy::SessionCore& c) { c.on_deadline(now); });
  }

  void pump() {
    while (auto action = core->poll_action()) {
      std::visit([this](auto& value) { note(value); }, *action);
    }
  }

  /// Takes what was sent to the client or backend since the last call.
  std::string take_to_client() { return std::exchange(to_client, {}); }
  std::string take_to_backend() { return std::exchange(to_backend, {}); }
  bool logged(std::string_view word) const {
    for (const auto& line : log) {
      if (line.find(word) != std::string::npos) return true;
    }
    return false;
  }
  int count(std::string_view word) const {
    int n = 0;
    for (const auto& line : log) n += line.find(word) != std::string::npos;
    return n;
  }

  TestBranch branch;
  FakeServices services;
  routing::ListenerConfig listener_config;
  proxy::ListenerContext context;
  base::Instant now = at(0);
  std::unique_ptr<proxy::SessionCore> core;
  std::vector<std::string> log;  ///< a line per action but for bytes, which are joined below
  std::string to_client;
  std::string to_backend;
  std::optional<proxy::BeginRelay> relay;
  std::optional<proxy::Finish> finished;
  std::optional<proxy::AskVerifier> asked;
  std::string connected_to;

 private:
  template <typename Feed>
  void feed(std::string_view bytes, Feed&& take) {
    const std::size_t size = chunk_ == 0 ? bytes.size() : chunk_;
    for (std::size_t i = 0; i < bytes.size(); i += size) {
      take(base::as_bytes(bytes.substr(i, size)));
      pump();
    }
  }
  void note(proxy::SendToClient& a) { to_client += a.bytes; }
  void note(proxy::SendToBackend& a) { to_backend += a.bytes; }
  void note(proxy::StartClientTls& a) { log.push_back("start_client_tls early=" + std::to_string(a.early.size())); }
  void note(proxy::AskVerifier& a) {
    log.push_back(std::string("ask_verifier ") + a.role + "@" + a.branch + (a.wait ? "" : " refresh") +
                  (a.not_before == base::Instant{} ? "" : " fresh"));
    asked = a;
  }
  void note(proxy::ConnectBackend& a) {
    connected_to = a.address.to_string();
    log.push_back("connect " + connected_to);
  }
  void note(proxy::StartBackendTls& a) { log.push_back("start_backend_tls " + a.server_name); }
  void note(proxy::DropBackend&) { log.emplace_back("drop_backend"); }
  void note(proxy::ProbeAfresh& a) { log.push_back("probe_afresh " + a.branch); }
  void note(proxy::ReportDialFailure& a) { log.push_back("report_dial_failure " + std::to_string(a.decision.member)); }
  void note(proxy::ServeCancel& a) {
    log.push_back("cancel pid=" + std::to_string(a.request.pid) + " secret=" + std::to_string(a.request.secret.size()));
  }
  void note(proxy::BeginRelay& a) {
    log.push_back("relay pid=" + std::to_string(a.backend_key.pid) + " key=" + std::to_string(a.client_secret.size()) +
                  " to_backend=" + a.to_backend + " after_ready=" + std::to_string(a.backend_bytes_after_ready));
    to_client += a.to_client;
    relay = a;
  }
  void note(proxy::Finish& a) {
    log.push_back("finish " + std::string(proxy::to_word(a.reason)) +
                  (a.refusal
                       ? " " + std::string(routing::to_word(a.refusal->reason)) + " " + std::string(a.refusal->sqlstate)
                       : ""));
    finished = a;
  }

  std::size_t chunk_;
};

// ---- peers ----------------------------------------------------------------------------------------------------------

inline std::string startup_packet(const std::vector<std::pair<std::string, std::string>>& parameters,
                                  std::uint32_t version = 3U << 16) {
  std::string body;
  base::append_be32(body, version);
  for (const auto& [name, value] : parameters) {
    base::append_c_string(body, name);
    base::append_c_string(body, value);
  }
  body.push_back('\0');
  std::string packet;
  base::append_be32(packet, static_cast<std::uint32_t>(body.size() + 4));
  return packet + body;
}

inline std::string typed_message(char tag, std::string_view body) {
  std::string message(1, tag);
  base::append_be32(message, static_cast<std::uint32_t>(body.size() + 4));
  message.append(body);
  return message;
}

/// The messages in a byte string, as tag and body.
inline std::vector<std::pair<char, std::string>> split_messages(std::string_view bytes) {
  std::vector<std::pair<char, std::string>> messages;
  while (!bytes.empty()) {
    const auto frame = protocol::next_message(base::as_bytes(bytes), 1 << 20);
    if (frame.status != protocol::FrameStatus::kMessage) break;
    messages.emplace_back(frame.message.tag, std::string(base::as_text(frame.message.body)));
    bytes.remove_prefix(frame.message.total);
  }
  return messages;
}

inline std::string tags(std::string_view bytes) {
  std::string all;
  for (const auto& [tag, body] : split_messages(bytes)) all.push_back(tag);
  return all;
}

/// A role with a password, as the backend and the verifier service know it.
struct TestRole {
  protocol::DerivedScram derived;
  explicit TestRole(std::string_view password, std::string_view salt = "0123456789abcdef")
      : derived(protocol::derive_scram(password, salt, 4096)) {}

  proxy::VerifierAnswer answer() const {
    proxy::VerifierAnswer found;
    found.kind = proxy::VerifierAnswer::Kind::kFound;
    found.verifier = std::make_shared<const protocol::ScramVerifier>(derived.verifier);
    return found;
  }
  protocol::ScramLoginKeys keys() const {
    return {derived.client_key, derived.verifier.stored_key, derived.verifier.server_key};
  }
};

/// The client's half of a login: startup, then SCRAM with `role`'s password, as far as the core lets it.
inline void client_login(Drive& drive, const TestRole& real, const TestRole& typed, std::string_view user = "app.b1",
                         std::vector<std::pair<std::string, std::string>> more = {}, std::uint32_t version = 3U << 16) {
  std::vector<std::pair<std::string, std::string>> parameters{{"user", std::string(user)}, {"database", "shop"}};
  parameters.insert(parameters.end(), more.begin(), more.end());
  drive.client(startup_packet(parameters, version));
  if (!drive.asked || drive.finished) return;
  drive.event([&](proxy::SessionCore& core) { core.on_verifier(real.answer(), drive.now); });
  protocol::ScramClient scram(typed.keys(), "clientnonce", false, false, {});
  std::string first;
  protocol::append_sasl_initial_response(first, protocol::kScramSha256, scram.first_message());
  drive.to_client.clear();
  drive.client(first);
  const auto messages = split_messages(drive.take_to_client());
  if (messages.size() != 1 || messages[0].first != 'R') return;
  // The test's own salt is the role's; a mock would differ, and the proof with it.
  if (scram.on_continue(std::string_view(messages[0].second).substr(4)) != protocol::ScramClient::Outcome::kContinue)
    return;
  std::string last;
  protocol::append_sasl_response(last, scram.message());
  drive.client(last);
}

/// What PostgreSQL sends behind a login it accepts.
inline std::string greeting(std::uint32_t pid = 4242, std::string_view secret = "\x01\x02\x03\x04") {
  std::string bytes;
  bytes += typed_message('S', std::string("server_version\0", 15) + std::string("15.8\0", 5));
  std::string key;
  base::append_be32(key, pid);
  key.append(secret);
  bytes += typed_message('K', key);
  bytes += typed_message('Z', "I");
  return bytes;
}

/// The backend's half: SCRAM with `role`, then the greeting. Requires: the core has connected.
inline void backend_login(Drive& drive, const TestRole& role, std::string_view behind = {}) {
  drive.take_to_backend();
  protocol::ScramServer server(role.derived.verifier, false, "servernonce", false, {});
  std::string bytes;
  protocol::append_authentication_sasl(bytes, server.mechanisms());
  drive.backend(bytes);
  auto sent = split_messages(drive.take_to_backend());
  protocol::SaslInitialResponse initial;
  if (sent.size() != 1 || !protocol::parse_sasl_initial_response(base::as_bytes(sent[0].second), initial)) return;
  if (server.on_initial(initial.mechanism, initial.data) != protocol::ScramServer::Outcome::kContinue) return;
  bytes.clear();
  protocol::append_authentication_sasl_continue(bytes, server.message());
  drive.backend(bytes);
  sent = split_messages(drive.take_to_backend());
  if (sent.size() != 1 || server.on_final(sent[0].second) != protocol::ScramServer::Outcome::kSuccess) return;
  bytes.clear();
  protocol::append_authentication_sasl_final(bytes, server.message());
  protocol::append_authentication_ok(bytes);
  bytes += greeting();
  bytes += behind;
  drive.backend(bytes);
}

/// An ErrorResponse as a server sends it.
inline std::string server_error(std::string_view sqlstate, std::string_view message) {
  std::string bytes;
  protocol::ErrorFields fields;
  fields.sqlstate = sqlstate;
  fields.message = message;
  protocol::append_error_response(bytes, fields);
  return bytes;
}

}  // namespace pointsman::test
