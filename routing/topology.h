#pragma once
// From probe answers to a branch's view: who is primary, how far behind is each replica. Pure; time is an argument;
// control thread. Contract section 4. Each rule here was learned from a peer's wound: facts are cited where they apply.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "routing/snapshot.h"

namespace pointsman::routing {

/// One answer of a member to the probe query.
struct ProbeSample {
  bool in_recovery = false;
  std::uint32_t timeline = 0;  ///< primary: from pg_walfile_name(pg_current_wal_lsn()); replica: received_tli or 0
  std::string system_identifier;
  std::optional<Lsn> current_lsn;   ///< primary: pg_current_wal_lsn()
  std::optional<Lsn> replay_lsn;    ///< replica: pg_last_wal_replay_lsn()
  bool receiver_streaming = false;  ///< pg_stat_wal_receiver.status = 'streaming'
  bool replay_paused = false;
};

enum class ProbeFailure : std::uint8_t {
  kUnreachable,  ///< connect refused, reset, time-out
  kNotReady,     ///< 57P03: starting up, shutting down, in recovery without hot standby
  kBusy,         ///< 53300: busy is not down, the role is unchanged (F21)
  kCredentials,  ///< class 28: operator's fault, the role is unchanged
  kQuery,        ///< connected, but the query failed
};
std::string_view to_text(ProbeFailure failure);

/// The ring of (primary LSN, router time): lag in seconds without clock sync. `lag = now - time of the newest entry
/// whose LSN is replayed`, 0 when the replica has replayed the newest sample. Old entries stand wider apart: the error
/// grows with the age, the memory does not.
class LagRing {
 public:
  void add(Lsn primary_lsn, base::Instant at);
  /// nullopt when no sample of the primary is known, or the replica is behind the oldest entry (then at_least() is the
  /// bound).
  std::optional<double> lag_seconds(Lsn replayed, base::Instant now) const;
  /// With lag_seconds unknown because the replica is behind the oldest entry: the age of that.
  std::optional<double> at_least(Lsn replayed, base::Instant now) const;
  std::optional<Lsn> newest() const;
  std::optional<base::Instant> newest_at() const;
  std::size_t size() const { return entries_.size(); }
  void clear() { entries_.clear(); }

  static constexpr std::size_t kMaxEntries = 1024;

 private:
  struct Entry {
    Lsn lsn;
    base::Instant at;
  };
  std::deque<Entry> entries_;  // oldest first; equal LSNs keep the newest time
};

/// Follows one branch. The rules, by the faults they answer (facts of the peers' reliability):
/// - The primary is who is not in recovery, has the known system identifier and the highest timeline seen. Of two on
/// one timeline the present
///   one stays; without a present one nobody is chosen. Another system identifier is never routed to.
/// - Silence moves nothing: after `failover.dead_after` failures a member is `down`, its role stays known. A member on
/// the same timeline takes
///   over only from a primary that is down (a volume attached elsewhere).
/// - Busy (53300) and refused credentials are not failures of the member; what was known ages, and past `lag_hard_cap`
/// counts no more.
/// - A replica is judged by its first sample after activation, then goes out and comes back by counts. While the
/// primary answers, a replica
///   that does not stream goes `unknown` after `samples_out` samples, at once when it stands on an older timeline.
/// - Primary lost: lag is frozen, its age grows, past `lag_hard_cap` the replica is `unknown`.
class BranchTopology {
 public:
  explicit BranchTopology(std::shared_ptr<const BranchConfig> config);

  /// A reload: members are matched by name, host and port; what is known of the ones that stay is kept.
  void reconfigure(std::shared_ptr<const BranchConfig> config);
  /// Going inactive forgets roles, states and lag; identity, highest timeline and addresses stay. Same value: nothing
  /// happens.
  void set_active(bool active);
  bool active() const { return active_; }
  /// Each member has answered or failed once since activation.
  bool settled() const;
  /// Numeric hosts need no set_address. An unknown address changes nothing: the last good one is kept. True when it
  /// changed.
  bool set_address(std::size_t member, const SocketAddress& address);
  bool set_endpoint_address(std::size_t pool, std::size_t endpoint, const SocketAddress& address);

  /// Whom Patroni or CloudNativePG names as the leader; nullopt: nobody says, or what was said is out of date. A veto:
  /// a member other than the present primary becomes the primary only if it is the one named. Counts from the next
  /// outcome of a probe on.
  void set_named_leader(std::optional<std::string> name) { named_leader_ = std::move(name); }
  /// What was known of the cluster before this process began. Requires: nothing is known yet.
  void restore(const std::string& system_identifier, std::uint32_t timeline);
  /// A planned switch is under way (`pointsman hold`): new sessions to the primary, to the PgBouncer beside it and to
  /// pools that stand on it are held. True when it changed.
  bool set_on_hold(bool on_hold) { return std::exchange(on_hold_, on_hold) != on_hold; }
  /// A member would be the primary if it were named: worth asking again who is.
  bool leader_in_question() const;
  /// The cluster's identity is, from now on, the one that most members with another one have (pg_upgrade changes it).
  /// nullopt: no member has another one, nothing happens. Otherwise the new identifier. Requires: active.
  std::optional<std::string> adopt(base::Instant now);

  /// Outcomes of probes. Return true when something that decisions depend on changed (a view must be published at once;
  /// lag figures alone are published with the probe's rhythm). Requires: active; outcomes that arrive after
  /// set_active(false) must be dropped by the caller.
  bool on_sample(std::size_t member, const ProbeSample& sample, base::Instant now);
  bool on_failure(std::size_t member, ProbeFailure failure, base::Instant now);

  /// Builds the view as of now, with the next version. The caller adds `block`.
  std::shared_ptr<BranchView> view(base::Instant now);

  /// How often another member became the primary.
  std::uint64_t failovers() const { return failovers_; }
  /// Words for the log about what the last on_… call changed ("pg-0 is the primary, timeline 2"); empty when nothing.
  const std::string& last_event() const { return last_event_; }
  /// The last event needs a person: two primaries, a foreign cluster, an old primary that writes.
  bool last_event_is_alarm() const { return alarm_; }

 private:
  /// Why a member that answers is not used.
  enum class Objection : std::uint8_t { kNone, kForeign, kOldTimeline, kSecondWriter, kNotNamed };
  struct Member {
    SocketAddress address;
    MemberRole role = MemberRole::kUnknown;
    MemberState state = MemberState::kUnknown;
    Objection objection = Objection::kNone;
    std::uint32_t failures = 0;
    std::uint32_t above = 0;          // consecutive samples above a limit
    std::uint32_t below = 0;          // consecutive samples below 60 % of it
    std::uint32_t good = 0;           // consecutive samples not above, and streaming
    std::uint32_t not_streaming = 0;  // consecutive samples without a receiver while the primary answered
    bool answered = false;            // or failed, since activation
    bool judged = false;              // has had a state that counts: from then on it changes by counts only
    std::uint32_t timeline = 0;       // last one known
    std::optional<ProbeFailure> last_failure;
    std::optional<ProbeSample> sample;
    std::optional<double> lag_seconds;
    std::optional<double> lag_at_least;
    std::optional<std::uint64_t> lag_bytes;
    base::Instant sampled_at{};
  };
  /// What decisions and the log depend on, to see whether it changed.
  struct Standing {
    struct Of {
      MemberRole role;
      MemberState state;
      Objection objection;
      bool probe_refused;
      friend bool operator==(const Of&, const Of&) = default;
    };
    std::vector<Of> members;
    int primary = -1;
    std::uint32_t timeline = 0;
    bool settled = false;
    friend bool operator==(const Standing&, const Standing&) = default;
  };

  Standing standing() const;
  bool conclude(const Standing& before, base::Instant now);
  void learn_identity();
  bool is_foreign(const Member& member) const;
  bool is_writer(std::size_t index) const;
  bool may_lead(std::size_t index) const;
  void note_timelines();
  void decide_primary();
  int choose_primary(const std::vector<std::size_t>& contenders) const;
  void set_primary(int index);
  void assign_roles();
  void become(Member& member, MemberRole role);
  void object(std::size_t index, Objection objection);
  static std::string_view word_of(Objection objection);
  bool primary_answers() const;
  void measure_lag(Member& member, base::Instant now);
  bool is_above(const Member& member) const;
  bool is_below(const Member& member) const;
  bool is_on_old_timeline(const Member& member) const;
  bool follows(const Member& member) const;
  bool is_stuck(const Member& member) const;
  void count_sample(Member& member);
  void judge_first(Member& member, base::Instant now);
  void judge_again(Member& member, base::Instant now);
  void age_out(base::Instant now);
  base::Instant lag_as_of(const Member& member) const;
  void tell(const std::string& words, bool alarm = false);
  void tell_changes(const Standing& before);
  const std::string& name(std::size_t index) const { return config_->members[index].name; }

  std::shared_ptr<const BranchConfig> config_;
  std::vector<Member> members_;
  std::vector<std::vector<SocketAddress>> endpoint_addresses_;
  LagRing ring_;
  int primary_ = -1;                    // keeps the index while it is silent
  std::uint32_t primary_timeline_ = 0;  // of the ring's entries
  std::uint32_t highest_timeline_ = 0;
  std::string system_identifier_;
  std::optional<std::string> named_leader_;
  bool on_hold_ = false;
  std::string last_primary_;  // by name; kept while there is none
  std::uint64_t failovers_ = 0;
  std::uint64_t version_ = 0;
  bool active_ = false;
  std::string last_event_;
  bool alarm_ = false;
};

}  // namespace pointsman::routing
