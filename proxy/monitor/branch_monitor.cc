#include "proxy/monitor/branch_monitor.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "proxy/log.h"
#include "proxy/monitor/state_dir.h"
#include "routing/reason.h"
#include "routing/selection.h"

namespace pointsman::proxy {
namespace {

constexpr base::Duration kProbeGap = std::chrono::milliseconds(200);  // between probes out of turn of one member
/// While a session waits for a replica to catch up.
constexpr base::Duration kOftenInterval = std::chrono::milliseconds(100);
constexpr base::Duration kOftenLongest = std::chrono::minutes(1);
constexpr base::Duration kMaxRefusalPause = std::chrono::seconds(15);

bool same_place(const routing::MemberConfig& a, const routing::MemberConfig& b) {
  return a.name == b.name && a.host == b.host && a.port == b.port;
}

void log_debug(const routing::BranchConfig& config, const std::string& what) {
  log_record(LogLevel::kDebug, "branch " + config.name + ": " + what, {});
}

std::vector<std::string> destinations_of(const routing::BranchConfig& config) {
  std::vector<std::string> out;
  for (const auto& member : config.members) out.push_back(member.name);
  for (const auto& member : config.members) out.push_back(member.name + " (pgbouncer)");
  for (const auto& pool : config.pools) {
    for (const auto& endpoint : pool.endpoints)
      out.push_back(pool.name + '/' + endpoint.host + ':' + std::to_string(endpoint.port));
  }
  return out;
}

}  // namespace

BranchMonitor::BranchMonitor(MonitorContext& context, Owner& owner, std::shared_ptr<const routing::BranchConfig> config)
    : context_(context),
      owner_(owner),
      declared_(std::move(config)),
      config_(declared_),
      topology_(config_),
      members_(config_->members.size()) {
  if (const KnownIdentity* known = context.state == nullptr ? nullptr : context.state->identity(*declared_))
    topology_.restore(known->system_identifier, known->timeline);
  make_discovery();
  take_addresses();
  build_view(loop_clock());
}

void BranchMonitor::make_discovery() {
  if (!declared_->discover) return;
  BranchDiscovery::Owner& owner = *this;
  discovery_ = std::make_unique<BranchDiscovery>(*context_.discovery, owner, declared_->name, *declared_->discover);
}

void BranchMonitor::reconfigure(std::shared_ptr<const routing::BranchConfig> config) {
  if (config == declared_) return;
  declared_ = std::move(config);
  if (!declared_->discover) {
    discovery_.reset();
  } else if (discovery_ != nullptr) {
    discovery_->reconfigure(*declared_->discover);
  } else {
    make_discovery();
    if (active()) discovery_->start();
  }
  topology_.set_named_leader(discovery_ == nullptr ? std::nullopt : discovery_->leader());
  use_config(effective());
}

std::shared_ptr<const routing::BranchConfig> BranchMonitor::effective() const {
  if (discovery_ == nullptr) return declared_;
  if (discovery_->found()) return routing::effective_config(*declared_, *discovery_->found());
  // A source that has not answered yet changes nothing: a reload leaves the members that were there.
  auto kept = std::make_shared<routing::BranchConfig>(*declared_);
  kept->members = config_->members;
  return kept;
}

void BranchMonitor::on_members_found() {
  topology_.set_named_leader(discovery_->leader());
  use_config(effective());
  owner_.on_branch_view(*this);
}

/// A name counts from the next outcome of a probe on.
void BranchMonitor::on_leader_named() {
  topology_.set_named_leader(discovery_->leader());
  for (std::size_t i = 0; i < members_.size(); ++i) probe_soon(i);
}

void BranchMonitor::use_config(std::shared_ptr<const routing::BranchConfig> config) {
  if (config == config_) return;
  const auto now = loop_clock();
  const auto previous = std::exchange(config_, std::move(config));
  auto old_members = std::exchange(members_, {});
  members_.resize(config_->members.size());
  for (std::size_t i = 0; i < members_.size(); ++i) {
    for (std::size_t j = 0; j < old_members.size(); ++j) {
      if (same_place(config_->members[i], previous->members[j])) members_[i] = std::move(old_members[j]);
    }
    Member& member = members_[i];
    member.refusals = 0;
    member.not_before = {};  // a mended password is tried at once
    if (member.probe != nullptr) member.probe->set_member(i);
  }
  topology_.reconfigure(config_);
  take_addresses();
  if (active()) {
    if (destinations_of(*config_) != block_destinations_ ||
        (block_ != nullptr && block_->dimensions().roundtrips != config_->roundtrip_metric)) {
      make_block();
    }
    for (std::size_t i = 0; i < members_.size(); ++i) {
      if (members_[i].probe == nullptr) members_[i].probe = new_probe(i);
      if (members_[i].address.known())
        members_[i].probe->set_target(probe_target(*config_, config_->members[i], members_[i].address));
    }
    next_tick_ = now;
    arm();
  }
  build_view(now);
}

void BranchMonitor::want() {
  const auto now = loop_clock();
  last_wanted_ = now;
  if (!active()) activate(now);
}

void BranchMonitor::activate(base::Instant now) {
  activated_ = now;
  timer_ = std::make_unique<LoopTimer>(context_.loop, context_.handles, this,
                                       [](void* self) { static_cast<BranchMonitor*>(self)->on_timer(); });
  topology_.set_active(true);
  make_block();
  for (std::size_t i = 0; i < members_.size(); ++i) {
    members_[i].probe = new_probe(i);
    members_[i].not_before = {};
    members_[i].refusals = 0;
  }
  if (discovery_ != nullptr) discovery_->start();
  resolve_names(config_->probe.interval, now);
  take_addresses();
  for (std::size_t i = 0; i < members_.size(); ++i) start_probe(i, now);
  // Branches that wake together (a restart) drift apart here: the second probe comes after half to one and a half
  // intervals.
  std::uniform_real_distribution<double> share(0.5, 1.5);
  next_tick_ = now + std::chrono::duration_cast<base::Duration>(config_->probe.interval * share(context_.random));
  arm();
  log_debug(*config_, "in use, probing " + std::to_string(members_.size()) + " members");
  publish(now);
}

void BranchMonitor::deactivate() {
  timer_.reset();
  for (auto& member : members_) {
    member.probe.reset();
    member.failure_seen.clear();
    member.wanted_at.reset();
    member.probe_again = false;
  }
  if (discovery_ != nullptr) discovery_->stop();
  topology_.set_named_leader(std::nullopt);
  topology_.set_active(false);
  retire_block();
  log_debug(*config_, "not in use, probing stopped");
  publish(loop_clock());
}

std::unique_ptr<MemberProbe> BranchMonitor::new_probe(std::size_t i) {
  MemberProbe::Owner& owner = *this;
  return std::make_unique<MemberProbe>(*context_.sql, context_.handles, owner, i);
}

bool BranchMonitor::in_use(base::Instant now) const {
  if (now - last_wanted_ < config_->probe.idle_after || view_->on_hold) return true;
  if (block_ != nullptr && block_->admitted.load(std::memory_order_relaxed) > 0) return true;
  return std::any_of(retired_blocks_.begin(), retired_blocks_.end(), [](const RetiredBlock& retired) {
    const auto block = retired.block.lock();
    return block != nullptr && block->admitted.load(std::memory_order_relaxed) > 0;
  });
}

void BranchMonitor::arm() {
  auto at = next_tick_;
  for (const auto& member : members_) {
    if (member.wanted_at) at = std::min(at, *member.wanted_at);
  }
  timer_->start(at);
}

void BranchMonitor::on_timer() {
  const auto now = loop_clock();
  if (now >= next_tick_) {
    if (!in_use(now)) return deactivate();
    tick(now);
  }
  for (std::size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].wanted_at && *members_[i].wanted_at <= now) start_probe(i, now);
  }
  arm();
}

void BranchMonitor::tick(base::Instant now) {
  const auto interval =
      now < often_until_ ? std::min(config_->probe.interval, kOftenInterval) : config_->probe.interval;
  next_tick_ += interval;
  if (next_tick_ <= now) next_tick_ = now + interval;
  std::erase_if(retired_blocks_, [](const RetiredBlock& retired) { return retired.block.expired(); });
  resolve_names(config_->probe.interval, now);
  if (unpublished_) publish(now);  // a member that takes long to answer does not hold back the others' figures
  for (std::size_t i = 0; i < members_.size(); ++i) start_probe(i, now);
}

void BranchMonitor::start_probe(std::size_t i, base::Instant now) {
  Member& member = members_[i];
  member.wanted_at.reset();
  if (now < member.not_before || member.probe->in_flight()) return;
  if (!member.address.known()) {
    // A failed look-up is reported when it fails; one that takes for ever is reported here.
    if (now - activated_ >= config_->probe.timeout && context_.resolver->error_of(config_->members[i].host).empty()) {
      fail_member(i, routing::ProbeFailure::kUnreachable, "the name has not been resolved yet", now);
    }
    return;
  }
  member.started = now;
  member.probe->set_target(probe_target(*config_, config_->members[i], member.address));
  member.probe->start(config_->probe.timeout);
}

void BranchMonitor::probe_soon(std::size_t i) {
  if (!active() || i >= members_.size()) return;
  Member& member = members_[i];
  if (member.probe->in_flight()) {
    member.probe_again = true;  // the one under way may have been answered before the trouble began
    return;
  }
  member.wanted_at = std::max(loop_clock(), member.started + kProbeGap);
  arm();
}

void BranchMonitor::probe_often(base::Instant until) {
  want();
  const auto now = loop_clock();
  often_until_ = std::max(often_until_, std::min(until, now + kOftenLongest));
  next_tick_ = std::min(next_tick_, now + kOftenInterval);
  for (std::size_t i = 0; i < members_.size(); ++i) probe_soon(i);
  arm();
}

void BranchMonitor::set_on_hold(bool on_hold) {
  if (!topology_.set_on_hold(on_hold)) return;
  last_wanted_ = loop_clock();
  publish(last_wanted_);
}

std::optional<std::string> BranchMonitor::adopt() {
  if (!active()) return std::nullopt;
  const auto now = loop_clock();
  auto identifier = topology_.adopt(now);
  if (!identifier) return std::nullopt;
  tell_event(LogLevel::kWarning);
  publish(now);
  return identifier;
}

void BranchMonitor::resolve_names(base::Duration max_age, base::Instant now) {
  for (const auto& member : config_->members) context_.resolver->refresh(member.host, max_age, now);
  for (const auto& pool : config_->pools) {
    for (const auto& endpoint : pool.endpoints) context_.resolver->refresh(endpoint.host, max_age, now);
  }
}

void BranchMonitor::on_resolved(const std::string& host) {
  if (!active()) return;
  const auto now = loop_clock();
  const bool changed = take_addresses();
  for (std::size_t i = 0; i < members_.size(); ++i) {
    if (config_->members[i].host != host) continue;
    if (!members_[i].address.known()) {
      fail_member(i, routing::ProbeFailure::kUnreachable,
                  "the name does not resolve: " + std::string(context_.resolver->error_of(host)), now);
    } else if (changed) {
      members_[i].probe->set_target(probe_target(*config_, config_->members[i], members_[i].address));
      probe_soon(i);
    }
  }
  if (changed) publish(now);
}

bool BranchMonitor::take_addresses() {
  bool changed = false;
  for (std::size_t i = 0; i < members_.size(); ++i) changed = take_member_address(i) || changed;
  for (std::size_t p = 0; p < config_->pools.size(); ++p) {
    const auto& endpoints = config_->pools[p].endpoints;
    for (std::size_t e = 0; e < endpoints.size(); ++e) {
      auto address = routing::SocketAddress::from_numeric(endpoints[e].host, endpoints[e].port);
      const auto& found = context_.resolver->addresses_of(endpoints[e].host);
      if (!address.known() && !found.empty()) address = found.front().with_port(endpoints[e].port);
      changed = topology_.set_endpoint_address(p, e, address) || changed;
    }
  }
  return changed;
}

bool BranchMonitor::take_member_address(std::size_t i) {
  const auto& config = config_->members[i];
  auto address = routing::SocketAddress::from_numeric(config.host, config.port);
  if (!address.known()) {
    const auto& found = context_.resolver->addresses_of(config.host);
    if (found.empty()) return false;
    const auto known = std::find(found.begin(), found.end(), members_[i].address.with_port(0));
    address = (known != found.end() ? *known : found.front())
                  .with_port(config.port);  // one that works is not left while DNS names it
  }
  topology_.set_address(i, address);
  if (address == members_[i].address) return false;
  members_[i].address = address;
  return true;
}

bool BranchMonitor::try_next_address(std::size_t i) {
  const auto& found = context_.resolver->addresses_of(config_->members[i].host);
  const auto present = std::find(found.begin(), found.end(), members_[i].address.with_port(0));
  if (found.size() < 2 || present == found.end()) return false;
  const auto next = present + 1 == found.end() ? found.begin() : present + 1;
  members_[i].address = next->with_port(config_->members[i].port);
  topology_.set_address(i, members_[i].address);
  return next != found.begin();
}

void BranchMonitor::on_probe_answer(std::size_t i, const ProbeAnswer& answer) {
  const auto now = loop_clock();
  Member& member = members_[i];
  const auto& name = config_->members[i].name;
  if (!std::exchange(member.failure_seen, {}).empty())
    tell(LogLevel::kInfo, EventKind::kProbe, name + " answers probes again");
  member.refusals = 0;
  if (member.probe->is_superuser() && !std::exchange(warned_superuser_, true)) {
    tell(LogLevel::kWarning, EventKind::kProbe,
         "the probe login \"" + config_->probe.user +
             "\" is a superuser; a member of pg_monitor is enough (deploy/sql/01_probe_role.sql)");
  }
  if (answer.receiver_hidden && !std::exchange(warned_hidden_, true)) {
    tell(LogLevel::kWarning, EventKind::kProbe,
         "the probe login \"" + config_->probe.user + "\" may not see " + name +
             "'s WAL receiver, so that replica stays unknown: GRANT pg_monitor TO it");
  }
  const bool changed = topology_.on_sample(i, answer.sample, now);
  tell_event(LogLevel::kInfo);
  finish_outcome(i, changed, now);
}

void BranchMonitor::on_probe_failure(std::size_t i, routing::ProbeFailure failure, const PgFailure& cause) {
  const auto now = loop_clock();
  Member& member = members_[i];
  if (failure == routing::ProbeFailure::kCredentials) {
    const auto pause = config_->probe.interval * (std::int64_t{1} << std::min<std::uint32_t>(member.refusals++, 10));
    member.not_before = now + std::min(pause, std::max(kMaxRefusalPause, config_->probe.interval));
  } else {
    member.refusals = 0;
  }
  fail_member(i, failure, cause.text, now);
  if (failure == routing::ProbeFailure::kUnreachable && try_next_address(i)) probe_soon(i);
}

void BranchMonitor::fail_member(std::size_t i, routing::ProbeFailure failure, const std::string& text,
                                base::Instant now) {
  ++members_[i].failures;
  log_failure(i, failure, text);
  const bool changed = topology_.on_failure(i, failure, now);
  tell_event(LogLevel::kWarning);
  finish_outcome(i, changed, now);
}

void BranchMonitor::log_failure(std::size_t i, routing::ProbeFailure failure, const std::string& text) {
  // Once per change, not once per probe.
  if (members_[i].failure_seen == text) return;
  members_[i].failure_seen = text;
  tell(LogLevel::kWarning, EventKind::kProbe,
       "probe of " + config_->members[i].name + " (" + members_[i].address.to_string() +
           ") failed: " + std::string(routing::to_text(failure)) + ": " + text);
}

void BranchMonitor::tell(LogLevel level, EventKind kind, std::string_view text) {
  context_.events->tell(level, kind, config_->name, text);
}

/// What the topology has to say of the last outcome, which is not published yet.
void BranchMonitor::tell_event(LogLevel level) {
  const std::string& words = topology_.last_event();
  if (words.empty()) return;
  if (topology_.last_event_is_alarm()) return tell(LogLevel::kError, EventKind::kAlarm, words);
  if (topology_.failovers() != view_->failovers) return tell(level, EventKind::kFailover, words);
  if (view_->settled) return tell(level, EventKind::kMember, words);
  // Who is who after waking up is no news: a restart would push out all others.
  log_record(level, "branch " + config_->name + ": " + words, {});
}

void BranchMonitor::on_probe_lost(std::size_t i) {
  probe_soon(i);
}

void BranchMonitor::finish_outcome(std::size_t i, bool changed, base::Instant now) {
  if (std::exchange(members_[i].probe_again, false)) probe_soon(i);
  unpublished_ = true;
  // Who leads is told on an interval: a change of roles is the moment to ask.
  if (discovery_ != nullptr && (changed || topology_.leader_in_question())) discovery_->ask_soon();
  const bool round_over =
      std::none_of(members_.begin(), members_.end(), [](const Member& member) { return member.probe->in_flight(); });
  if (changed || round_over) publish(now);
}

void BranchMonitor::make_block() {
  retire_block();
  block_destinations_ = destinations_of(*config_);
  metrics::Dimensions dimensions;
  dimensions.workers = context_.workers;
  dimensions.listeners = context_.listeners;
  dimensions.routes = routing::kRouteClassCount;
  dimensions.reasons = routing::kReasonCount;
  dimensions.destinations = block_destinations_.size();
  dimensions.roundtrips = config_->roundtrip_metric;
  block_ = std::make_shared<metrics::BranchBlock>(dimensions);
  for (const RetiredBlock& retired : retired_blocks_) {
    if (retired.block.expired()) continue;
    metrics::BranchBlock::Former& former = block_->formers.emplace_back();
    former.block = retired.block;
    for (const std::string& destination : block_destinations_) {
      const auto& there = retired.destinations;
      const auto found = std::find(there.begin(), there.end(), destination);
      former.places.push_back(found == there.end() ? metrics::BranchBlock::kNowhere
                                                   : static_cast<std::size_t>(found - there.begin()));
    }
  }
}

void BranchMonitor::retire_block() {
  if (block_ != nullptr) retired_blocks_.push_back({block_, block_destinations_});
  block_.reset();
}

void BranchMonitor::build_view(base::Instant now) {
  auto view = topology_.view(now);
  if (config_->members.empty()) view->settled = false;  // nobody has said yet who belongs to the branch
  view->block = block_;
  view_ = std::move(view);
  unpublished_ = false;
}

void BranchMonitor::publish(base::Instant now) {
  build_view(now);
  owner_.on_branch_view(*this);
}

}  // namespace pointsman::proxy
