#pragma once
// The shell around a SessionCore: owns the sockets, runs the core's actions, and relays bytes once the login is
// complete.
//
//   stage    Login ──BeginRelay──► Relay ──client ends──► ClientGone ─┐
//              └──Finish──► Lingering ◄──backend ends────┘            └──► Closed
//
// Relay: one read, one write, no copy kept; what a socket does not take waits in one leased block and the other side is
// not read meanwhile, so memory is bounded and a slow reader pushes back. Boundaries are only observed. begin_close()
// is idempotent and records the first reason; the memory goes when the loop has let go of both sockets. One thread (the
// worker's).

#include <memory>
#include <optional>
#include <string>

#include "protocol/framing.h"
#include "proxy/admin/control_view.h"
#include "proxy/io/side.h"
#include "proxy/io/timing_wheel.h"
#include "proxy/session/session_core.h"
#include "routing/standing.h"

namespace pointsman::metrics {
struct BranchSlot;
class Counter;
}  // namespace pointsman::metrics

namespace pointsman::proxy {

class Worker;

class Session final : private SocketOwner, private CoreServices, private WheelEntry {
 public:
  Session(Worker& worker, std::uint64_t id, std::size_t listener, const routing::SocketAddress& peer, bool over_limit,
          base::Instant now);
  ~Session() override;

  /// Takes the accepted descriptor. False: it could not be watched; the session may be deleted at once.
  bool start(int fd);

  // From the worker.
  void on_verifier(const VerifierAnswer& answer);
  void on_new_view();
  void on_cancel_served();
  /// Shutdown: an idle session ends now with 57P01, others at their next idle boundary.
  void drain();
  /// The branch has changed in a way that sessions under way may have to follow: judged by routing/standing.h.
  void reconsider(const routing::BranchView& now);
  /// Ends now: with 57P01 at a boundary, without a word in mid-message.
  void stop(EndReason reason);
  /// An administrator ends it, as pg_terminate_backend() does: now, with 57P01 where a client can be told.
  void kill();
  /// Quiet for a while: TLS buffers go back. Returns false when there was traffic since the last call.
  bool release_if_quiet();
  void release_tls_buffers();
  void drop_before_login();

  std::uint64_t id() const { return id_; }
  std::string_view waiting_for_branch() const {
    return core_ == nullptr ? std::string_view{} : core_->waiting_for_branch();
  }
  SessionRow row(base::Instant now) const;

  // For the cancel table and the dial that follows.
  const protocol::BackendKey& backend_key() const { return backend_key_; }
  const std::string& client_secret() const { return client_secret_; }
  const SessionRecord& record() const { return core_ == nullptr ? record_ : core_->record(); }
  const SessionIdentity& identity() const { return record().identity; }
  const routing::SocketAddress& client_address() const {
    return record().proxied_source ? *record().proxied_source : peer_;
  }
  /// The client's address (behind a PROXY header the true one), IPv4-mapped.
  void source_ip(std::uint8_t (&out)[16]) const { client_address().mapped_ip(out); }

  /// In the worker's list of TLS sessions that had traffic lately.
  bool listed_as_active = false;

 private:
  enum class Stage : std::uint8_t { kLogin, kRelay, kClientGone, kLingering, kClosing };

  // SocketOwner
  void on_readable(Socket& socket) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  // WheelEntry
  void on_deadline(base::Instant now) override;
  // CoreServices
  const routing::Config& config() override;
  std::shared_ptr<const routing::BranchView> branch(std::string_view name) override;
  void random_bytes(base::MutableBytes out) override;
  std::string seal_cancel_key(const std::string& branch, const routing::Decision& decision,
                              const protocol::BackendKey& key) override;
  std::optional<routing::Refusal> admit(const std::shared_ptr<const routing::BranchView>& branch) override;
  std::optional<routing::Refusal> enter_hold(const routing::BranchView& branch) override;
  void leave_hold() override;
  LocalKnowledge local_knowledge(const routing::BranchView& branch, int pool) override;
  std::string_view mock_secret() override;
  bool draining() override;

  // Login: session.cc
  void run_actions();
  void perform(Action& action);
  void perform_connect(const ConnectBackend& connect);
  void perform_backend_tls(const StartBackendTls& start);
  void perform_begin_relay(BeginRelay& relay);
  void perform_finish(Finish& finish);
  void client_login_readable();
  void backend_login_readable();
  void client_handshake(base::Bytes encrypted);
  void backend_handshake(base::Bytes encrypted);
  void feed_client(base::Bytes plain);
  void update_deadline();
  void drop_backend();

  // Relay: session_relay.cc
  void relay(Side& from, Side& to, protocol::MessageScanner& scanner, std::uint64_t& bytes, metrics::Counter* counter);
  void client_ended(bool by_error);
  void backend_write_failed();
  void backend_ended(bool by_error);
  void end_at_boundary();
  void end_by_farewell();
  void say_last_words(const routing::Refusal& refusal);
  bool idle() const;
  void note_answer();
  std::optional<std::size_t> destination_of(const routing::Decision& decision) const;
  void count_dial_failure(const routing::Decision& failed);
  void linger(EndReason reason);
  void linger_readable();
  void begin_close(EndReason reason);
  void release_memory_when_done();

  void count_admission(const routing::BranchView& view);
  void count_decision();
  void report_end();  // once: when nothing more can be relayed, before the client is told so
  base::Instant now() const;

  Worker& worker_;
  std::shared_ptr<const routing::Directory> directory_;  // until the relay begins
  ListenerContext listener_;
  std::uint64_t id_;
  routing::SocketAddress peer_;
  std::unique_ptr<SessionCore> core_;            // until the relay begins
  SessionRecord record_;                         // from then on
  std::shared_ptr<metrics::BranchBlock> block_;  // of the branch the session is counted in
  metrics::BranchSlot* slot_ = nullptr;          // this worker's part of it
  std::shared_ptr<metrics::BranchBlock>
      hold_block_;  // of the hold under way: a reload may have made another than block_
  metrics::Counter* relayed_from_client_ = nullptr;
  metrics::Counter* relayed_to_client_ = nullptr;
  std::uint64_t bytes_from_client_ = 0;
  std::uint64_t bytes_to_client_ = 0;
  metrics::Histogram* roundtrip_ = nullptr;
  std::uint64_t request_began_ns_ = 0;  // of uv_hrtime; 0: no request is under way
  Side client_;
  Side backend_;
  protocol::MessageScanner from_client_{protocol::MessageScanner::Direction::kFromClient};
  protocol::MessageScanner from_backend_{protocol::MessageScanner::Direction::kFromBackend};
  protocol::BackendKey backend_key_;
  std::string client_secret_;
  std::unique_ptr<routing::Refusal> refusal_;
  std::unique_ptr<routing::Farewell> farewell_;  // while standing_ is not kStays
  base::Instant armed_for_{};
  std::uint32_t lingered_bytes_ = 0;
  int destination_ = -1;  // index of the counted destination, -1: none
  std::uint8_t listener_index_ = 0;
  Stage stage_ = Stage::kLogin;
  routing::Standing standing_ = routing::Standing::kStays;
  EndReason end_reason_ = EndReason::kClientClosed;
  const char* client_tls_version_ = "";
  bool ended_ = false;  // end_reason_ is set
  bool reported_ = false;
  bool over_limit_ = false;
  bool admitted_ = false;
  bool in_cancel_table_ = false;
  bool ends_when_idle_ = false;  // the process shuts down, or farewell_ says so
  bool backend_connecting_ = false;
  bool reopen_backend_ = false;  // a new dial waits for the old socket's end
  routing::SocketAddress next_address_;
  bool traffic_ = false;
  bool retired_ = false;
};

}  // namespace pointsman::proxy
