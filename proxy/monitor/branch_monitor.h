#pragma once
// One branch under watch: its names, its probes, its rhythm. Judging is routing/topology.h's; this feeds it and
// publishes what it says. While the branch is not in use there is no timer, no connection and no look-up. Loop thread
// only.

#include <uv.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "metrics/blocks.h"
#include "proxy/discovery/branch_discovery.h"
#include "proxy/monitor/event_log.h"
#include "proxy/monitor/member_probe.h"
#include "proxy/monitor/resolver.h"
#include "proxy/monitor/uv_handles.h"
#include "routing/config.h"
#include "routing/snapshot.h"
#include "routing/topology.h"

namespace pointsman::proxy {

class BranchMonitor;
class StateDir;

/// What all branches share; outlives them.
struct MonitorContext {
  SqlContext* sql;
  uv_loop_t* loop;
  HandleCount handles;
  Resolver* resolver;
  DiscoveryContext* discovery;
  std::minstd_rand random;
  std::size_t workers;
  std::size_t listeners;
  const StateDir* state;  // null: none
  EventSink* events;
};

class BranchMonitor final : private MemberProbe::Owner, private BranchDiscovery::Owner {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    /// There is a new view().
    virtual void on_branch_view(BranchMonitor& branch) = 0;
  };

  BranchMonitor(MonitorContext& context, Owner& owner, std::shared_ptr<const routing::BranchConfig> config);

  /// Where the branch stands in the directory.
  std::size_t index = 0;

  /// Keeps connections and knowledge of the members that stay. Calls no owner; view() is new afterwards.
  void reconfigure(std::shared_ptr<const routing::BranchConfig> config);
  /// In use: wakes it up, and keeps it so for `probe.idle_after`.
  void want();
  /// Somebody could not dial the member: probe it at once, at most every 200 ms.
  void probe_soon(std::size_t member);
  /// A session waits for a replica: probe all members now, and every kOftenInterval until then.
  void probe_often(base::Instant until);
  void set_on_hold(bool on_hold);
  std::optional<std::string> adopt();
  /// A look-up of `host` ended.
  void on_resolved(const std::string& host);

  bool active() const { return timer_ != nullptr; }
  /// Nothing when the members are listed in the configuration.
  std::optional<DiscoveryStatus> discovery(base::Instant now) const {
    return discovery_ == nullptr ? std::nullopt : std::optional(discovery_->status(now));
  }
  const std::shared_ptr<const routing::BranchView>& view() const { return view_; }
  std::uint64_t probe_failures(std::size_t member) const {
    return member < members_.size() ? members_[member].failures : 0;
  }

 private:
  struct Member {
    routing::SocketAddress address;
    std::unique_ptr<MemberProbe> probe;  // while active
    std::uint64_t failures = 0;
    std::string failure_seen;    // what was logged last; empty: it answers
    std::uint32_t refusals = 0;  // refused logins in a row
    base::Instant not_before{};  // no probe until then: a refused login is not repeated every second
    base::Instant started{};
    std::optional<base::Instant> wanted_at;  // a probe out of turn
    bool probe_again = false;                // asked for while one was under way
  };

  void on_probe_answer(std::size_t member, const ProbeAnswer& answer) override;
  void on_probe_failure(std::size_t member, routing::ProbeFailure failure, const PgFailure& cause) override;
  void on_probe_lost(std::size_t member) override;
  void on_members_found() override;
  void on_leader_named() override;

  void make_discovery();
  std::shared_ptr<const routing::BranchConfig> effective() const;
  void use_config(std::shared_ptr<const routing::BranchConfig> config);
  void activate(base::Instant now);
  void deactivate();
  bool in_use(base::Instant now) const;
  void on_timer();
  void tick(base::Instant now);
  void arm();
  std::unique_ptr<MemberProbe> new_probe(std::size_t member);
  void start_probe(std::size_t member, base::Instant now);
  void resolve_names(base::Duration max_age, base::Instant now);
  bool take_addresses();
  bool take_member_address(std::size_t member);
  bool try_next_address(std::size_t member);
  void fail_member(std::size_t member, routing::ProbeFailure failure, const std::string& text, base::Instant now);
  void finish_outcome(std::size_t member, bool changed, base::Instant now);
  void log_failure(std::size_t member, routing::ProbeFailure failure, const std::string& text);
  void tell(LogLevel level, EventKind kind, std::string_view text);
  void tell_event(LogLevel level);
  void make_block();
  void retire_block();
  void build_view(base::Instant now);
  void publish(base::Instant now);

  MonitorContext& context_;
  Owner& owner_;
  std::shared_ptr<const routing::BranchConfig> declared_;  // as the file has it
  std::shared_ptr<const routing::BranchConfig> config_;    // with the members that were discovered
  std::unique_ptr<BranchDiscovery> discovery_;             // null: the members are listed
  routing::BranchTopology topology_;
  std::vector<Member> members_;
  std::unique_ptr<LoopTimer> timer_;  // while active
  base::Instant last_wanted_{};
  base::Instant activated_{};
  base::Instant next_tick_{};
  base::Instant often_until_{};
  bool unpublished_ = false;  // figures have come since the last publication
  std::shared_ptr<const routing::BranchView> view_;
  std::shared_ptr<metrics::BranchBlock> block_;
  std::vector<std::string> block_destinations_;  // what block_'s indexes mean
  struct RetiredBlock {
    std::weak_ptr<metrics::BranchBlock> block;
    std::vector<std::string> destinations;
  };
  std::vector<RetiredBlock> retired_blocks_;  // sessions may still be counted there
  bool warned_superuser_ = false;
  bool warned_hidden_ = false;
};

}  // namespace pointsman::proxy
