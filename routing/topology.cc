#include "routing/topology.h"

#include <algorithm>
#include <map>

#include "base/check.h"

namespace pointsman::routing {

std::string_view to_text(ProbeFailure failure) {
  switch (failure) {
    case ProbeFailure::kUnreachable:
      return "unreachable";
    case ProbeFailure::kNotReady:
      return "not ready";
    case ProbeFailure::kBusy:
      return "busy";
    case ProbeFailure::kCredentials:
      return "probe login refused";
    case ProbeFailure::kQuery:
      return "probe query failed";
  }
  POINTSMAN_CHECK(false);
  return {};
}

BranchTopology::Standing BranchTopology::standing() const {
  Standing now;
  for (const Member& member : members_) {
    now.members.push_back(
        {member.role, member.state, member.objection, member.last_failure == ProbeFailure::kCredentials});
  }
  now.primary = primary_;
  now.timeline = highest_timeline_;
  now.settled = settled();
  return now;
}

bool BranchTopology::settled() const {
  return std::all_of(members_.begin(), members_.end(), [](const Member& member) { return member.answered; });
}

bool BranchTopology::on_sample(std::size_t index, const ProbeSample& sample, base::Instant now) {
  POINTSMAN_CHECK(active_ && index < members_.size());
  const Standing before = standing();
  Member& member = members_[index];
  member.answered = true;
  member.failures = 0;
  member.last_failure.reset();
  member.sample = sample;
  member.sampled_at = now;
  if (sample.timeline != 0) member.timeline = sample.timeline;

  learn_identity();
  note_timelines();
  decide_primary();
  assign_roles();
  if (static_cast<int>(index) == primary_) {
    member.state = MemberState::kOk;
    if (sample.current_lsn) ring_.add(*sample.current_lsn, now);
  } else if (member.role == MemberRole::kReplica) {
    judge_again(member, now);
  } else {
    member.state = MemberState::kUnknown;  // it answers, and is not used
  }
  return conclude(before, now);
}

bool BranchTopology::on_failure(std::size_t index, ProbeFailure failure, base::Instant now) {
  POINTSMAN_CHECK(active_ && index < members_.size());
  const Standing before = standing();
  Member& member = members_[index];
  member.answered = true;
  member.last_failure = failure;
  const bool known = member.role != MemberRole::kUnknown;
  const auto out = [&](MemberState state) {
    if (known && ++member.failures < config_->failover.dead_after) return;
    member.state = state;
    member.above = member.below = member.good = 0;
  };
  switch (failure) {
    case ProbeFailure::kUnreachable:
    case ProbeFailure::kNotReady:
      out(MemberState::kDown);
      break;
    case ProbeFailure::kQuery:
      out(MemberState::kUnknown);
      break;
    case ProbeFailure::kBusy:
    case ProbeFailure::kCredentials:
      break;  // the member is not at fault; age_out() ends what is too old
  }
  learn_identity();
  note_timelines();
  decide_primary();
  assign_roles();
  return conclude(before, now);
}

bool BranchTopology::conclude(const Standing& before, base::Instant now) {
  for (Member& member : members_) judge_first(member, now);
  age_out(now);
  last_event_.clear();
  alarm_ = false;
  tell_changes(before);
  return standing() != before;
}

bool BranchTopology::is_foreign(const Member& member) const {
  return member.sample && !system_identifier_.empty() && member.sample->system_identifier != system_identifier_;
}

/// The first time: the identifier that most members have, the first of them in the configuration on a draw. Then it
/// stays.
void BranchTopology::learn_identity() {
  if (!system_identifier_.empty() || !settled()) return;
  std::map<std::string_view, std::size_t> votes;
  for (const Member& member : members_) {
    if (member.sample) ++votes[member.sample->system_identifier];
  }
  std::size_t most = 0;
  std::string_view winner;
  for (const Member& member : members_) {
    if (!member.sample || votes[member.sample->system_identifier] <= most) continue;
    winner = member.sample->system_identifier;
    most = votes[winner];
  }
  system_identifier_ = std::string(winner);
}

/// A timeline exists when somebody writes on it, or streams it from somebody who does.
void BranchTopology::note_timelines() {
  if (system_identifier_.empty()) return;
  for (const Member& member : members_) {
    if (!member.sample || is_foreign(member)) continue;
    if (member.sample->in_recovery && !member.sample->receiver_streaming) continue;
    if (!member.sample->in_recovery && !may_lead(static_cast<std::size_t>(&member - members_.data()))) continue;
    highest_timeline_ = std::max(highest_timeline_, member.sample->timeline);
  }
}

/// Says of itself that it takes writes, as last heard. Only the present primary is believed while it is silent.
bool BranchTopology::is_writer(std::size_t index) const {
  const Member& member = members_[index];
  if (!member.sample || member.sample->in_recovery || is_foreign(member)) return false;
  return static_cast<int>(index) == primary_ || !member.last_failure;
}

/// Not vetoed: a clone restored on a reused address has the identifier and even a higher timeline, but nobody names it.
bool BranchTopology::may_lead(std::size_t index) const {
  return !named_leader_ || static_cast<int>(index) == primary_ || name(index) == *named_leader_;
}

bool BranchTopology::leader_in_question() const {
  return std::any_of(members_.begin(), members_.end(),
                     [](const Member& member) { return member.objection == Objection::kNotNamed; });
}

void BranchTopology::decide_primary() {
  if (!settled()) return;
  std::vector<std::size_t> contenders;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    if (is_writer(i) && may_lead(i) && members_[i].sample->timeline == highest_timeline_) contenders.push_back(i);
  }
  set_primary(choose_primary(contenders));
  for (std::size_t i = 0; i < members_.size(); ++i) {
    Objection objection = Objection::kNone;
    if (is_foreign(members_[i])) {
      objection = Objection::kForeign;
    } else if (is_writer(i) && static_cast<int>(i) != primary_) {
      objection = members_[i].sample->timeline < highest_timeline_ ? Objection::kOldTimeline
                  : !may_lead(i)                                   ? Objection::kNotNamed
                                                                   : Objection::kSecondWriter;
    }
    members_[i].objection = objection;
  }
}

/// -1 when there is nobody, or two between whom only a person can choose.
int BranchTopology::choose_primary(const std::vector<std::size_t>& contenders) const {
  const bool present_contends = primary_ >= 0 && std::find(contenders.begin(), contenders.end(),
                                                           static_cast<std::size_t>(primary_)) != contenders.end();
  if (!present_contends) return contenders.size() == 1 ? static_cast<int>(contenders.front()) : -1;
  const bool present_is_down = members_[static_cast<std::size_t>(primary_)].state == MemberState::kDown;
  if (!present_is_down || contenders.size() != 2) return primary_;
  return static_cast<int>(contenders[0]) == primary_ ? static_cast<int>(contenders[1])
                                                     : static_cast<int>(contenders[0]);
}

/// Positions of another server or timeline say nothing about this one's: the ring begins anew. A primary that is merely
/// lost leaves it frozen.
void BranchTopology::set_primary(int index) {
  const std::uint32_t timeline = index < 0 ? 0 : members_[static_cast<std::size_t>(index)].sample->timeline;
  if (index == primary_ && timeline == primary_timeline_) return;
  primary_ = index;
  if (index < 0) return;
  const std::string& now_primary = name(static_cast<std::size_t>(index));
  if (!last_primary_.empty() && last_primary_ != now_primary) ++failovers_;
  last_primary_ = now_primary;
  primary_timeline_ = timeline;
  const Member& member = members_[static_cast<std::size_t>(index)];
  ring_.clear();
  if (member.sample->current_lsn) ring_.add(*member.sample->current_lsn, member.sampled_at);
}

void BranchTopology::assign_roles() {
  for (std::size_t i = 0; i < members_.size(); ++i) {
    Member& member = members_[i];
    if (!member.sample) continue;
    if (static_cast<int>(i) == primary_) {
      become(member, MemberRole::kPrimary);
    } else if (member.sample->in_recovery && !is_foreign(member)) {
      become(member, MemberRole::kReplica);
    } else {
      become(member, MemberRole::kUnknown);
    }
  }
}

void BranchTopology::become(Member& member, MemberRole role) {
  if (role == MemberRole::kUnknown && member.state != MemberState::kDown) member.state = MemberState::kUnknown;
  if (member.role == role) return;
  // Who was something else before comes back by counts, not at first sight.
  member.judged = member.judged || member.role == MemberRole::kPrimary;
  member.role = role;
  member.above = member.below = member.good = member.not_streaming = 0;
  member.lag_seconds.reset();
  member.lag_at_least.reset();
  member.lag_bytes.reset();
  if (role == MemberRole::kPrimary) {
    member.state = MemberState::kOk;
  } else if (member.state != MemberState::kDown) {
    member.state = MemberState::kUnknown;
  }
}

void BranchTopology::tell(const std::string& words, bool alarm) {
  if (!last_event_.empty()) last_event_ += "; ";
  last_event_ += words;
  alarm_ = alarm_ || alarm;
}

}  // namespace pointsman::routing
