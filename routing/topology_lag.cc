// How far behind each replica is, and what follows from it for its state.

#include <algorithm>

#include "routing/topology.h"

namespace pointsman::routing {
namespace {

/// A replica comes back in below this part of the limit, so that one at the limit does not go in and out with every
/// sample.
constexpr double kInShare = 0.6;

}  // namespace

bool BranchTopology::primary_answers() const {
  if (primary_ < 0) return false;
  const Member& member = members_[static_cast<std::size_t>(primary_)];
  return member.sample && !member.last_failure;
}

base::Instant BranchTopology::lag_as_of(const Member& member) const {
  const auto newest_at = ring_.newest_at();
  return primary_answers() || !newest_at ? member.sampled_at : std::min(member.sampled_at, *newest_at);
}

void BranchTopology::measure_lag(Member& member, base::Instant now) {
  member.lag_seconds.reset();
  member.lag_at_least.reset();
  member.lag_bytes.reset();
  const auto newest = ring_.newest();
  const auto newest_at = ring_.newest_at();
  if (!member.sample || !member.sample->replay_lsn || !newest || !newest_at || is_on_old_timeline(member)) return;
  const Lsn replayed = *member.sample->replay_lsn;
  // Without a primary nothing says how much later it is for the data: the clock of the lag stands still.
  const base::Instant as_of = primary_answers() ? now : *newest_at;
  member.lag_seconds = ring_.lag_seconds(replayed, as_of);
  member.lag_at_least = ring_.at_least(replayed, as_of);
  member.lag_bytes = replayed < *newest ? *newest - replayed : 0;
}

bool BranchTopology::is_above(const Member& member) const {
  const ReplicaPolicy& policy = config_->replicas;
  const double limit = base::to_seconds(policy.max_lag);
  return member.lag_seconds.value_or(0) > limit || member.lag_at_least.value_or(0) > limit ||
         (policy.max_lag_bytes && member.lag_bytes.value_or(0) > *policy.max_lag_bytes);
}

bool BranchTopology::is_below(const Member& member) const {
  const ReplicaPolicy& policy = config_->replicas;
  if (!member.lag_seconds) return false;
  const auto under = [](double value, double limit) { return value == 0 || value < kInShare * limit; };
  return under(*member.lag_seconds, base::to_seconds(policy.max_lag)) &&
         (!policy.max_lag_bytes ||
          under(static_cast<double>(member.lag_bytes.value_or(0)), static_cast<double>(*policy.max_lag_bytes)));
}

/// Positions of a timeline that has ended say nothing about the one that followed it.
bool BranchTopology::is_on_old_timeline(const Member& member) const {
  return member.timeline != 0 && member.timeline < highest_timeline_;
}

/// Streams what the primary writes. A replica that the old primary still feeds is up to date with the wrong one.
bool BranchTopology::follows(const Member& member) const {
  return member.sample->receiver_streaming && !is_on_old_timeline(member);
}

/// On a timeline that ended, and nobody feeds it (postgres, src/test/recovery/t/025_stuck_on_old_timeline.pl).
bool BranchTopology::is_stuck(const Member& member) const {
  return !member.sample->receiver_streaming && is_on_old_timeline(member);
}

void BranchTopology::count_sample(Member& member) {
  const bool streams = follows(member);
  if (streams) {
    member.not_streaming = 0;
  } else if (primary_answers()) {
    ++member.not_streaming;
  }
  const bool above = is_above(member);
  member.above = above ? member.above + 1 : 0;
  member.below = is_below(member) ? member.below + 1 : 0;
  member.good = !above && member.lag_seconds && streams && primary_answers() ? member.good + 1 : 0;
}

/// The verdict on a replica that has had none since activation: at once when there is something to measure by. A cold
/// branch cannot wait for counts.
void BranchTopology::judge_first(Member& member, base::Instant now) {
  if (member.judged || member.role != MemberRole::kReplica || !member.sample || member.last_failure) return;
  measure_lag(member, now);
  const bool above = is_above(member);
  if (!above && !member.lag_seconds) return;
  member.judged = true;
  if (above) {
    member.state = MemberState::kLagging;
  } else {
    const bool fed = follows(member) || !primary_answers();
    member.state = fed && !is_stuck(member) ? MemberState::kOk : MemberState::kUnknown;
  }
}

/// A further sample of a replica.
void BranchTopology::judge_again(Member& member, base::Instant now) {
  measure_lag(member, now);
  if (member.state == MemberState::kDown) {  // it answers again, and has to earn the rest
    member.state = MemberState::kUnknown;
    member.above = member.below = member.good = member.not_streaming = 0;
  }
  count_sample(member);
  if (!member.judged) return;
  const ReplicaPolicy& policy = config_->replicas;
  if (is_stuck(member)) {
    member.state = MemberState::kUnknown;
    member.good = 0;
    return;
  }
  switch (member.state) {
    case MemberState::kOk:
      if (member.above >= policy.samples_out) {
        member.state = MemberState::kLagging;
      } else if (member.not_streaming >= policy.samples_out) {
        member.state = MemberState::kUnknown;
      }
      break;
    case MemberState::kLagging:
      if (member.below >= policy.samples_in) {
        member.state = follows(member) ? MemberState::kOk : MemberState::kUnknown;
      }
      break;
    case MemberState::kUnknown:
      if (member.above >= policy.samples_out) {
        member.state = MemberState::kLagging;
      } else if (member.good >= policy.samples_in) {
        member.state = MemberState::kOk;
      }
      break;
    case MemberState::kDown:
      break;
  }
}

/// What is too old to be believed: a replica's lag, and a primary whose probe is busy or refused all the while.
void BranchTopology::age_out(base::Instant now) {
  for (Member& member : members_) {
    if (member.state != MemberState::kOk && member.state != MemberState::kLagging) continue;
    const base::Instant as_of = member.role == MemberRole::kReplica ? lag_as_of(member) : member.sampled_at;
    if (now - as_of <= config_->replicas.lag_hard_cap) continue;
    member.state = MemberState::kUnknown;
    member.above = member.below = member.good = 0;
  }
}

}  // namespace pointsman::routing
