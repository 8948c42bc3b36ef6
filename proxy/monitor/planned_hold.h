#pragma once
// One branch on hold for a planned switch. Loop thread only; every wait has a deadline.
//
//   waking → checking → connecting → marking → pausing → held → awaiting a primary → resuming → ended
//                                                   └──────────── a failure ────────────┘
//
// The PgBouncers are paused before new sessions are held: a server login of theirs that comes through this router while
// PAUSE begins would be held, cut by PAUSE and count as a failed one (pgbouncer#420). Nothing was changed before the
// first PAUSE; every failure after it resumes whatever is paused or may be. The hold is a lease: it ends by itself.

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "proxy/monitor/console.h"
#include "proxy/monitor/event_log.h"
#include "proxy/monitor/hold_marker.h"
#include "proxy/monitor/long_transactions.h"
#include "proxy/monitor/switch_answer.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

class Monitor;
class StateDir;

/// What all planned switches share; outlives them.
struct SwitchContext {
  SqlContext* sql;
  Monitor* monitor;
  StateDir* state;  ///< null: none
  EventSink* events;
  HandleCount handles;
};

class PlannedHold final : private Console::Owner, private LongTransactions::Owner {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    /// It is over and does nothing more. The owner destroys it later, not in this call.
    virtual void on_hold_ended(PlannedHold& hold) = 0;
  };

  PlannedHold(SwitchContext& context, Owner& owner, std::string branch);
  ~PlannedHold() override;
  PlannedHold(const PlannedHold&) = delete;
  PlannedHold& operator=(const PlannedHold&) = delete;

  /// Once, or resume_left_behind().
  void begin(HoldOptions options, SwitchDone done);
  /// What a hold of a former process has paused. Requires: the branch is configured.
  void resume_left_behind(std::vector<BouncerPlace> places);
  /// Any time; every caller is answered.
  void release(SwitchDone done);
  /// Ends it now, whoever is the primary.
  void abandon(const std::string& why, base::Duration patience);
  /// The branch has a new view. Only notes it.
  void on_view();
  /// A reload may have taken away the settings that the way back needs.
  void keep_tls();

  const std::string& branch() const { return branch_; }
  bool ended() const { return phase_ == Phase::kEnded; }
  bool held() const { return phase_ == Phase::kHeld || phase_ == Phase::kAwaitingPrimary; }
  double ends_in_seconds() const;

 private:
  enum class Phase : std::uint8_t {
    kNew,
    kWaking,
    kChecking,
    kConnecting,
    kMarking,
    kPausing,
    kHeld,
    kAwaitingPrimary,
    kResuming,
    kEnded,
  };
  // Why it resumes.
  enum class Cause : std::uint8_t { kNotPaused, kReleased, kAbandoned, kLeftBehind };

  void on_console(Console& console) override;
  void on_transactions(std::vector<SwitchAnswer::Transaction> found) override;
  void on_transactions_failed(const std::string& why) override;
  void on_timer();
  void wake();
  void check();
  void connect();
  void mark();
  void pause();
  void hold();
  void refuse(std::string message);
  void look_for_primary();
  void resume(Cause cause, base::Duration patience);
  void conclude();
  void finish(SwitchAnswer answer);
  void answer_releases(const SwitchAnswer& answer);
  void arm();
  void tell(LogLevel level, const std::string& text);
  std::string consoles_in_words(Console::State state) const;
  std::vector<SwitchAnswer::Bouncer> bouncers() const;
  std::shared_ptr<const routing::BranchView> view() const;
  std::string named() const { return "branch " + branch_; }

  SwitchContext& context_;
  Owner& owner_;
  std::string branch_;
  std::shared_ptr<const routing::BranchConfig> config_;  // as of the beginning
  HoldOptions options_;
  SwitchDone hold_done_;
  std::vector<SwitchDone> release_done_;
  Phase phase_ = Phase::kNew;
  Cause cause_ = Cause::kReleased;
  std::string why_;  // of a hold that failed or was abandoned
  std::string former_primary_;
  std::vector<SwitchAnswer::Transaction> transactions_;
  std::unique_ptr<LongTransactions> check_;
  std::vector<std::unique_ptr<Console>> consoles_;
  std::unordered_map<std::string, std::shared_ptr<const protocol::ClientTlsContext>> tls_;
  LoopTimer timer_;
  base::Instant deadline_{};  // of the phase
  base::Instant lease_end_{};
  base::Instant paused_since_{};
  base::Instant asked_at_{};  // when the primary was asked for afresh
  bool marked_ = false;
  // Rule 12: shared, so that a marker that is written when this is gone can tell.
  std::shared_ptr<PlannedHold*> alive_ = std::make_shared<PlannedHold*>(this);
};

}  // namespace pointsman::proxy
