#pragma once
// Reads verifiers of one branch's roles over one small SQL connection: the primary first, then whoever answers. Roles
// queue; one statement at a time. Loop thread only.
//
//   waiting for an address  →  connecting  →  (a superuser: is the function safe?)  →  ready  ⇄  asking

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "proxy/monitor/event_log.h"
#include "proxy/monitor/monitor.h"
#include "proxy/monitor/pg_connection.h"
#include "proxy/monitor/uv_handles.h"
#include "proxy/monitor/verifier_answer.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

class VerifierLookup final : private PgConnection::Owner {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    /// May ask() again. Must not destroy the look-up.
    virtual void on_lookup_answer(const std::string& branch, const std::string& role, VerifierAnswer answer) = 0;
    /// Nothing was asked for a while and the connection is closed: the owner may destroy the look-up.
    virtual void on_lookup_idle(const std::string& branch) = 0;
  };

  VerifierLookup(SqlContext& sql, const HandleCount& count, MonitorAccess& monitor, Owner& owner, EventSink& events,
                 std::string branch);

  /// Ends in on_lookup_answer, perhaps before this returns. Requires: the role is not being asked for already.
  void ask(std::string role);
  /// The branch's view has changed.
  void on_view();
  /// The branch's configuration has changed: begins anew with what is queued.
  void restart();
  /// Answers everything with kUnavailable.
  void abandon(std::string_view why);

 private:
  enum class Phase : std::uint8_t { kClosed, kConnecting, kExamining, kReady, kAsking };
  enum class Source : std::uint8_t { kFunction, kAuthid, kCustom };
  struct Job {
    std::string role;
    base::Instant deadline;
  };

  void on_pg_connected() override;
  void on_pg_rows(const PgRows& rows) override;
  void on_pg_failure(const PgFailure& failure) override;

  void pump();
  void arm();
  void on_timer();
  /// The member to ask now, -1: none (left).
  int pick(const routing::BranchView& view, base::Instant now) const;
  /// Until when to wait for the branch to wake up; nullopt: go on with what is known.
  std::optional<base::Instant> wait_for_view(const routing::BranchView& view, base::Instant now) const;
  void expire(base::Instant now);
  void connect(const routing::BranchView& view, std::size_t member);
  void ask_front();
  void ready_to_ask();
  void give_up_member();
  void answer_front(VerifierAnswer answer);
  void answer_all(const VerifierAnswer& answer);
  VerifierAnswer failed_answer() const;
  void note_trouble(const PgFailure& failure, bool operators_fault);
  std::string remedy(const PgFailure& failure) const;
  base::Instant operation_deadline() const;

  MonitorAccess& monitor_;
  Owner& owner_;
  EventSink& events_;
  std::string branch_;
  PgConnection connection_;
  LoopTimer timer_;
  Phase phase_ = Phase::kClosed;
  Source source_ = Source::kFunction;
  std::string statement_;
  std::shared_ptr<const routing::BranchConfig> config_;  // what the connection was made with
  std::string member_;                                   // to whom
  routing::SocketAddress address_;
  bool proved_ = false;  // it has answered; so its loss is no member's fault
  std::deque<Job> queue_;
  std::set<std::string> tried_;  // in vain, for what is queued now
  std::unordered_map<std::string, base::Instant> avoided_until_;
  base::Instant patience_ends_{};  // for a cold branch to show an address
  std::optional<base::Instant> wait_until_;
  base::Instant pause_ends_{};  // after nobody answered
  base::Instant last_used_{};
  bool faulty_ = false;  // the last trouble is the operator's
  std::string trouble_;
  std::string logged_trouble_;
  bool warned_superuser_ = false;
};

}  // namespace pointsman::proxy
