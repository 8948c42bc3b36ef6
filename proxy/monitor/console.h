#pragma once
// One PgBouncer of a branch on hold, by its admin console: connected first, then paused, later resumed. Facts it goes
// by (PgBouncer's admin.c and janitor.c): PAUSE is answered when every server connection has been given back and
// closed; a RESUME that overtakes it leaves its asker waiting for ever (pgbouncer#715), so a PAUSE that takes too long
// loses its connection before anything else is said; a server login that PAUSE interrupts marks the pool as failed
// (pgbouncer#420), so a moment without one is waited for. Loop thread only.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "proxy/monitor/hold_marker.h"
#include "proxy/monitor/pg_connection.h"

namespace pointsman::proxy {

/// Logins to servers under way, by SHOW POOLS. Pure.
std::uint64_t server_logins(const PgRows& pools);
/// The console's word for a RESUME of what is not paused.
bool says_not_paused(const PgFailure& failure);

class Console final : private PgConnection::Owner {
 public:
  enum class State : std::uint8_t {
    kNew,
    kConnecting,
    kConnected,
    kPausing,
    kPaused,
    kRefused,   ///< connect or PAUSE failed, and it is certainly not paused by us: error()
    kDoubtful,  ///< PAUSE was sent and not answered: it may be paused. error()
    kResuming,
    kRunning,  ///< resumed, or it was not paused
    kStuck,    ///< could not be resumed within the time given: error()
  };
  class Owner {
   public:
    virtual ~Owner() = default;
    /// A connect, pause or resume has ended: look at state(). Called from the loop, never from inside a call of the
    /// owner's; the owner may destroy the console.
    virtual void on_console(Console& console) = 0;
  };

  Console(SqlContext& sql, const HandleCount& count, Owner& owner, BouncerPlace place);

  /// Ends in kConnected or kRefused. Requires: kNew.
  void connect(const PgTarget& target, base::Instant deadline);
  /// Ends in kPaused, kRefused or kDoubtful; the connection is closed then. Requires: kConnected.
  void pause(base::Instant deadline);
  /// RECONNECT, then RESUME; tried again and again until `give_up`. Ends in kRunning or kStuck. Any state, but not
  /// twice at a time.
  void resume(PgTarget target, base::Instant give_up);
  /// Less time for a resume under way.
  void hurry(base::Instant give_up) { deadline_ = std::min(deadline_, give_up); }
  /// Forgets a console that was connected and is not needed.
  void close();

  State state() const { return state_; }
  bool may_be_paused() const {
    return state_ == State::kPausing || state_ == State::kPaused || state_ == State::kDoubtful ||
           state_ == State::kResuming || state_ == State::kStuck;
  }
  const std::string& error() const { return error_; }
  const BouncerPlace& place() const { return place_; }

 private:
  // What the console was told last.
  enum class Said : std::uint8_t { kNothing, kShowPools, kPause, kReconnect, kResume };

  void on_pg_connected() override;
  void on_pg_rows(const PgRows& rows) override;
  void on_pg_failure(const PgFailure& failure) override;
  void on_timer();
  void say(Said what);
  void try_resume();
  void retry_resume(std::string error);
  void end(State state, std::string error = {});

  SqlContext& sql_;
  HandleCount count_;
  Owner& owner_;
  BouncerPlace place_;
  PgConnection connection_;
  LoopTimer timer_;
  PgTarget target_;
  State state_ = State::kNew;
  Said said_ = Said::kNothing;
  base::Instant deadline_{};
  base::Instant quiet_until_{};  // PAUSE waits so long for a moment without a server login
  std::string error_;
};

}  // namespace pointsman::proxy
