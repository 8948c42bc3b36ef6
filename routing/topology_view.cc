// The frame around a branch's topology: configuration and addresses in, views and words out.

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

#include "base/check.h"
#include "routing/topology.h"

namespace pointsman::routing {
namespace {

std::string tenths_text(double seconds) {
  char text[48];
  std::snprintf(text, sizeof text, "%.1f s", seconds);
  return text;
}

}  // namespace

BranchTopology::BranchTopology(std::shared_ptr<const BranchConfig> config) {
  reconfigure(std::move(config));
}

void BranchTopology::reconfigure(std::shared_ptr<const BranchConfig> config) {
  POINTSMAN_CHECK(config != nullptr);
  const auto former_config = std::exchange(config_, std::move(config));
  const auto former_members = std::exchange(members_, {});
  const auto former_endpoints = std::exchange(endpoint_addresses_, {});
  const int former_primary = std::exchange(primary_, -1);
  bool any_stayed = false;
  for (const MemberConfig& wanted : config_->members) {
    members_.emplace_back();
    members_.back().address = SocketAddress::from_numeric(wanted.host, wanted.port);
    for (std::size_t i = 0; i < former_members.size(); ++i) {
      const MemberConfig& former = former_config->members[i];
      if (former.name != wanted.name || former.host != wanted.host || former.port != wanted.port) continue;
      members_.back() = former_members[i];
      if (static_cast<int>(i) == former_primary) primary_ = static_cast<int>(members_.size() - 1);
      any_stayed = true;
    }
  }
  for (const PoolConfig& pool : config_->pools) {
    auto& addresses = endpoint_addresses_.emplace_back();
    for (const PoolEndpointConfig& endpoint : pool.endpoints) {
      addresses.push_back(SocketAddress::from_numeric(endpoint.host, endpoint.port));
      // A name that was resolved for any pool is good for this one too.
      for (std::size_t p = 0; p < former_endpoints.size() && !addresses.back().known(); ++p) {
        for (std::size_t e = 0; e < former_endpoints[p].size(); ++e) {
          if (former_config->pools[p].endpoints[e].host == endpoint.host)
            addresses.back() = former_endpoints[p][e].with_port(endpoint.port);
        }
      }
    }
  }
  // Pods that all came back with new addresses are the cluster they were; another one has to be adopted.
  if (any_stayed || former_members.empty() || config_->discover) return;
  // Nothing of the former cluster is left: this is another one, with an identity and history of its own.
  system_identifier_.clear();
  highest_timeline_ = primary_timeline_ = 0;
  ring_.clear();
}

void BranchTopology::restore(const std::string& system_identifier, std::uint32_t timeline) {
  POINTSMAN_CHECK(system_identifier_.empty() && highest_timeline_ == 0);
  system_identifier_ = system_identifier;
  highest_timeline_ = timeline;
}

void BranchTopology::set_active(bool active) {
  if (active == active_) return;
  active_ = active;
  for (Member& member : members_) {
    const SocketAddress address = member.address;
    member = Member{};
    member.address = address;
  }
  primary_ = -1;
  primary_timeline_ = 0;
  ring_.clear();
}

std::optional<std::string> BranchTopology::adopt(base::Instant now) {
  POINTSMAN_CHECK(active_);
  std::map<std::string, std::size_t> votes;
  for (const Member& member : members_) {
    if (is_foreign(member)) ++votes[member.sample->system_identifier];
  }
  if (votes.empty()) return std::nullopt;
  const Standing before = standing();
  const auto most =
      std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  system_identifier_ = most->first;
  highest_timeline_ = 0;  // another history
  primary_ = -1;
  ring_.clear();
  note_timelines();
  decide_primary();
  assign_roles();
  (void)conclude(before, now);
  return system_identifier_;
}

bool BranchTopology::set_address(std::size_t member, const SocketAddress& address) {
  POINTSMAN_CHECK(member < members_.size());
  if (!address.known() || members_[member].address == address) return false;
  members_[member].address = address;
  return true;
}

bool BranchTopology::set_endpoint_address(std::size_t pool, std::size_t endpoint, const SocketAddress& address) {
  POINTSMAN_CHECK(pool < endpoint_addresses_.size() && endpoint < endpoint_addresses_[pool].size());
  SocketAddress& kept = endpoint_addresses_[pool][endpoint];
  if (!address.known() || kept == address) return false;
  kept = address;
  return true;
}

std::shared_ptr<BranchView> BranchTopology::view(base::Instant) {
  auto view = std::make_shared<BranchView>();
  view->config = config_;
  view->version = ++version_;
  view->active = active_;
  view->settled = active_ && settled();
  view->timeline = highest_timeline_;
  view->system_identifier = system_identifier_;
  view->failovers = failovers_;
  view->on_hold = on_hold_;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const Member& member = members_[i];
    const MemberConfig& config = config_->members[i];
    MemberView& out = view->members.emplace_back();
    out.name = config.name;
    out.host = config.host;
    out.zone = config.zone;
    out.address = member.address;
    if (config.pgbouncer_port != 0) out.pgbouncer_address = member.address.with_port(config.pgbouncer_port);
    out.role = member.role;
    out.state = member.state;
    out.timeline = member.timeline;
    out.probe_refused = member.last_failure == ProbeFailure::kCredentials;
    out.rejected = word_of(member.objection);
    out.sampled_at = out.probed_at = member.sampled_at;
    if (!member.sample) continue;
    out.position = member.sample->in_recovery ? member.sample->replay_lsn : member.sample->current_lsn;
    if (member.role != MemberRole::kReplica) continue;
    if (is_on_old_timeline(member)) out.position.reset();  // of another history: says nothing about min_lsn
    out.lag_seconds = member.lag_seconds;
    out.lag_at_least = member.lag_at_least;
    out.lag_bytes = member.lag_bytes;
    out.sampled_at = lag_as_of(member);
  }
  for (std::size_t p = 0; p < config_->pools.size(); ++p) {
    PoolView& pool = view->pools.emplace_back();
    pool.name = config_->pools[p].name;
    pool.to_primary = config_->pools[p].to_primary;
    for (std::size_t e = 0; e < config_->pools[p].endpoints.size(); ++e) {
      const PoolEndpointConfig& endpoint = config_->pools[p].endpoints[e];
      pool.endpoints.push_back({endpoint.host, endpoint_addresses_[p][e], endpoint.zone});
    }
  }
  if (primary_ >= 0 && view->members[static_cast<std::size_t>(primary_)].state == MemberState::kOk)
    view->primary = primary_;
  return view;
}

void BranchTopology::tell_changes(const Standing& before) {
  const Standing now = standing();
  if (primary_ != before.primary && primary_ >= 0) {
    tell(name(static_cast<std::size_t>(primary_)) + " is the primary, timeline " + std::to_string(primary_timeline_));
  } else if (primary_ != before.primary) {
    tell(name(static_cast<std::size_t>(before.primary)) + " is no longer the primary, and nobody else is");
  }
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const Member& member = members_[i];
    if (member.objection != before.members[i].objection) object(i, member.objection);
    if (now.members[i].probe_refused && !before.members[i].probe_refused)
      tell(name(i) + " refuses the probe login", true);
    if (member.role == before.members[i].role && member.state == before.members[i].state) continue;
    if (static_cast<int>(i) == primary_ && member.state == MemberState::kOk && primary_ != before.primary) continue;
    std::string words = name(i) + " is " + std::string(to_text(member.state));
    if (member.role != MemberRole::kUnknown) words += " (" + std::string(to_text(member.role)) + ")";
    if (member.last_failure) {
      words += ": " + std::string(to_text(*member.last_failure));
    } else if (member.role == MemberRole::kReplica && member.state != MemberState::kOk) {
      if (member.lag_seconds) words += ", " + tenths_text(*member.lag_seconds) + " behind";
      if (member.lag_at_least) words += ", more than " + tenths_text(*member.lag_at_least) + " behind";
      if (!member.sample->receiver_streaming) words += ", not streaming";
      if (member.sample->replay_paused) words += ", replay is paused";
    }
    tell(words);
  }
}

std::string_view BranchTopology::word_of(Objection objection) {
  switch (objection) {
    case Objection::kNone:
      return {};
    case Objection::kForeign:
      return "other_cluster";
    case Objection::kOldTimeline:
      return "old_timeline";
    case Objection::kNotNamed:
      return "not_named";
    case Objection::kSecondWriter:
      return "second_writer";
  }
  return {};
}

void BranchTopology::object(std::size_t index, Objection objection) {
  const Member& member = members_[index];
  switch (objection) {
    case Objection::kNone:
      return;
    case Objection::kForeign:
      return tell(name(index) + " belongs to another cluster (system identifier " +
                      escape_for_log(member.sample->system_identifier, 32) + ", not " +
                      escape_for_log(system_identifier_, 32) + ") and is not used",
                  true);
    case Objection::kOldTimeline:
      return tell(name(index) + " takes writes on timeline " + std::to_string(member.timeline) + " although timeline " +
                      std::to_string(highest_timeline_) + " exists; it is not used",
                  true);
    case Objection::kNotNamed:
      return tell(name(index) + " takes writes on timeline " + std::to_string(member.timeline) + ", but " +
                      escape_for_log(named_leader_.value_or(""), 64) + " is named as the leader; it is not used",
                  true);
    case Objection::kSecondWriter:
      return tell(primary_ >= 0 ? name(index) + " takes writes on timeline " + std::to_string(member.timeline) +
                                      " as " + name(static_cast<std::size_t>(primary_)) + " does; it is not used, " +
                                      name(static_cast<std::size_t>(primary_)) + " stays the primary"
                                : name(index) + " takes writes on timeline " + std::to_string(member.timeline) +
                                      " and is not alone; nobody is the primary until a person decides",
                  true);
  }
}

}  // namespace pointsman::routing
