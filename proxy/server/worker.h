#pragma once
// A worker: one thread, one loop, and everything its sessions need. An island: a connection never leaves it, nothing in
// a session is atomic. It talks to the control thread and to other workers through mailboxes only.

#include <uv.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "metrics/blocks.h"
#include "proxy/io/buffer_pool.h"
#include "proxy/io/event_loop.h"
#include "proxy/io/mailbox.h"
#include "proxy/io/timing_wheel.h"
#include "proxy/server/cancels.h"
#include "proxy/server/drain_pace.h"
#include "proxy/server/listener.h"
#include "proxy/server/messages.h"
#include "proxy/session/session.h"

namespace pointsman::proxy {

/// The few numbers all threads touch: at accept and at the end of a connection only.
struct SharedCounts {
  std::atomic<std::uint32_t> connections{0};
};

/// Connections above max_connections that are let in far enough to be told 57P03 `limit`; beyond them a plain close.
inline constexpr std::uint32_t kOverLimitAllowance = 64;

class Worker final : public AcceptSink {
 public:
  Worker(std::uint32_t index, std::uint32_t worker_count, std::uint32_t max_connections, SharedCounts& shared,
         Mailbox<ToControl>& control, NewDirectory first);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Before run(): descriptors per listener of the configuration, in order; owned from here on. And the other workers,
  /// by index.
  void set_up(const std::vector<int>& listening, const std::vector<Worker*>& all);
  /// The thread's body: returns when StopNow was handled and every handle is closed.
  void run();
  /// Any thread.
  void post(ToWorker message) { mailbox_.post(std::move(message)); }
  const metrics::WorkerBlock& block() const { return block_; }

  // ---- for sessions and cancel dials, on the worker's thread ----
  EventLoop& loop() { return loop_; }
  TimingWheel& wheel() { return wheel_; }
  Scratch& scratch() { return *scratch_; }
  BufferPool& pool() { return pool_; }
  std::uint32_t index() const { return index_; }
  std::uint32_t worker_count() const { return worker_count_; }
  std::uint32_t max_connections() const { return max_connections_; }
  bool draining() const { return draining_; }
  const std::shared_ptr<const routing::Directory>& directory() const { return directory_; }
  const TlsContexts& tls() const { return *tls_; }
  std::string_view listener_name(std::size_t listener) const;
  std::shared_ptr<const routing::BranchView> branch(std::string_view name);
  /// The same without saying that it is about to be used. Null when there is none.
  std::shared_ptr<const routing::BranchView> present_view(std::string_view name) const;
  void random_bytes(base::MutableBytes out);
  std::uint32_t& held(const std::string& branch) { return held_[branch]; }
  metrics::BranchSlot& spare_slot() { return spare_slot_; }
  metrics::Histogram& roundtrip(std::size_t route) { return block_.roundtrip[route]; }
  /// True while this millisecond's budget of handshake steps lasts.
  bool take_handshake_turn();

  void ask_verifier(Session& session, const AskVerifier& ask);
  void report_dial_failure(const std::string& branch, int member, const routing::SocketAddress& address);
  bool any_dial_failed() const { return !dial_failures_.empty(); }
  /// When a dial of this worker's sessions last failed; epoch: not lately.
  base::Instant dial_failed_at(const routing::SocketAddress& address) const;
  void probe_afresh(const std::string& branch, base::Instant until);
  Cancels& cancels() { return cancels_; }
  void count_cancel(metrics::CancelOutcome outcome) { block_.cancels[static_cast<std::size_t>(outcome)].add(); }
  /// Null when it is gone.
  Session* find_session(std::uint64_t id);
  void post_to(std::uint32_t worker, ToWorker message) { workers_[worker]->post(std::move(message)); }
  void post_to_others(const ToWorker& message);
  /// To the worker that asked, or to the control thread (kPeerOrigin).
  void answer_cancel(std::uint32_t origin_worker, CancelAnswer answer);
  void ask_peers(PeersWanted wanted) { control_.post(std::move(wanted)); }
  void note_active(Session& session);
  void login_ended(Session& session);
  void count_handshake(std::string_view version);
  void log_login(const Session& session, std::size_t listener);
  /// `refusal` null: none.
  void count_end(const Session& session, std::size_t listener, metrics::BranchSlot* slot, EndReason reason,
                 const routing::Refusal* refusal);
  void retire(Session& session);
  /// What ended is freed outside of its own calls, at the end of this turn.
  void bury_soon();

 private:
  struct CachedVerifier {
    VerifierAnswer answer;
  };

  // AcceptSink
  void on_accepted(std::size_t listener, int fd, const routing::SocketAddress& peer) override;
  void on_accept_paused(std::size_t listener, int error) override;

  void handle(ToWorker&& message);
  void apply(NewDirectory&& message);
  void apply(NewView&& message);
  void apply(VerifierReady&& message);
  void apply(VerifierStale&& message);
  void apply(CancelSearch&& message) { cancels_.apply(message); }
  void apply(CancelAnswer&& message) { cancels_.apply(message); }
  void apply(BeginDrain&& message);
  void apply(StopNow&& message);
  void apply(CollectSessions&& message);
  void apply(KillSession&& message);

  void wake_held(std::string_view branch);
  void wake_some();
  void bury();
  void sweep_quiet();
  void drop_cancels();
  void drain_some();
  void close_handles();
  std::vector<Session*> all_sessions();

  std::uint32_t index_;
  std::uint32_t worker_count_;
  std::uint32_t max_connections_;
  SharedCounts& shared_;
  Mailbox<ToControl>& control_;
  std::vector<Worker*> workers_;

  EventLoop loop_;
  uv_idle_t burial_{};  // runs once after sessions ended: their memory goes outside of their own calls
  uv_timer_t quiet_timer_{};
  uv_timer_t wake_timer_{};
  uv_timer_t drain_timer_{};
  DrainPace drain_pace_;
  Mailbox<ToWorker> mailbox_;
  TimingWheel wheel_;
  BufferPool pool_;
  std::unique_ptr<Scratch> scratch_;
  std::vector<std::unique_ptr<Listener>> listeners_;

  std::shared_ptr<const routing::Directory> directory_;
  std::vector<std::shared_ptr<const routing::BranchView>> views_;
  std::shared_ptr<const TlsContexts> tls_;

  std::uint64_t next_session_ = 1;
  std::unordered_map<std::uint64_t, Session*> sessions_;
  std::map<std::uint64_t, Session*> logins_;                   // not yet relaying, oldest first
  std::unordered_map<std::string, CachedVerifier> verifiers_;  // by role, zero byte, branch
  std::unordered_map<std::string, std::uint32_t> held_;
  std::unordered_map<std::string, base::Instant> dial_failures_;  // by address
  std::deque<std::uint64_t> to_wake_;                             // held logins whose branch has a new view
  std::unordered_map<std::string, base::Instant>
      wanted_;  // when the control thread was last told that a branch is in use
  Cancels cancels_;
  std::vector<std::uint64_t> active_tls_;
  std::size_t released_since_trim_ = 0;
  std::vector<Session*> dead_sessions_;

  metrics::WorkerBlock block_;
  metrics::Dimensions spare_dimensions_;
  metrics::BranchSlot spare_slot_;
  std::uint64_t handshake_ms_ = 0;
  std::uint32_t handshakes_this_ms_ = 0;
  bool draining_ = false;
  bool stopping_ = false;
  bool empty_reported_ = false;
};

}  // namespace pointsman::proxy
