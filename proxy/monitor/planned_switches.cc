#include "proxy/monitor/planned_switches.h"

#include <algorithm>
#include <utility>

#include "proxy/monitor/event_log.h"
#include "proxy/monitor/monitor.h"
#include "proxy/monitor/state_dir.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

using Outcome = SwitchAnswer::Outcome;

constexpr base::Duration kAdoptLook = std::chrono::milliseconds(50);
constexpr base::Duration kDrainPatience = std::chrono::seconds(5);

SwitchAnswer refusal(Outcome outcome, std::string message) {
  SwitchAnswer answer;
  answer.outcome = outcome;
  answer.message = std::move(message);
  return answer;
}

SwitchAnswer unknown_branch(const std::string& branch) {
  return refusal(Outcome::kUnknownBranch, "no branch \"" + routing::escape_for_log(branch) + "\" is configured");
}

}  // namespace

PlannedSwitches::PlannedSwitches(SqlContext& sql, Monitor& monitor, EventSink& events, StateDir* state)
    : context_{&sql, &monitor, state, &events, make_handle_count()},
      timer_(std::make_unique<LoopTimer>(sql.loop.uv(), context_.handles, this,
                                         [](void* self) { static_cast<PlannedSwitches*>(self)->on_timer(); })) {}

PlannedSwitches::~PlannedSwitches() = default;

void PlannedSwitches::resume_left_behind() {
  if (context_.state == nullptr) return;
  for (const auto& [branch, text] : context_.state->markers()) {
    auto places = parse_hold_marker(text, branch);
    if (!places) {
      context_.events->tell(LogLevel::kError, EventKind::kHold, branch,
                            "the marker of a hold in state_dir cannot be read; PgBouncers may be paused");
    } else if (context_.monitor->view(branch) == nullptr) {
      std::string names;
      for (const auto& place : *places) names += (names.empty() ? "" : ", ") + place.name;
      context_.events->tell(LogLevel::kError, EventKind::kHold, branch,
                            "branch " + branch + " is not configured any more, and a hold may have left paused: " +
                                routing::escape_for_log(names));
    } else {
      PlannedHold::Owner& owner = *this;
      auto& hold = holds_[branch];
      hold = std::make_unique<PlannedHold>(context_, owner, branch);
      hold->resume_left_behind(std::move(*places));
    }
  }
}

void PlannedSwitches::hold(const std::string& branch, HoldOptions options, SwitchDone done) {
  if (context_.monitor->view(branch) == nullptr) return done(unknown_branch(branch));
  if (draining_) return done(refusal(Outcome::kRefused, "this router is shutting down"));
  if (const auto found = holds_.find(branch); found != holds_.end()) {
    if (!found->second->held())
      return done(refusal(Outcome::kRefused, "branch " + branch + " is just being put on hold or released"));
    SwitchAnswer answer = refusal(Outcome::kRefused, "branch " + branch + " is on hold already");
    answer.ends_in_seconds = found->second->ends_in_seconds();
    return done(std::move(answer));
  }
  PlannedHold::Owner& owner = *this;
  auto made = std::make_unique<PlannedHold>(context_, owner, branch);
  PlannedHold& hold = *made;
  holds_.emplace(branch, std::move(made));
  hold.begin(options, std::move(done));
}

void PlannedSwitches::release(const std::string& branch, SwitchDone done) {
  if (context_.monitor->view(branch) == nullptr) return done(unknown_branch(branch));
  const auto found = holds_.find(branch);
  if (found == holds_.end() || found->second->ended())
    return done(refusal(Outcome::kNotOnHold, "branch " + branch + " is not on hold"));
  found->second->release(std::move(done));
}

void PlannedSwitches::adopt(const std::string& branch, SwitchDone done) {
  const auto view = context_.monitor->view(branch);
  if (view == nullptr) return done(unknown_branch(branch));
  if (draining_) return done(refusal(Outcome::kRefused, "this router is shutting down"));
  const auto now = loop_clock();
  const auto deadline = now + 2 * view->config->probe.timeout + std::chrono::seconds(1);
  context_.monitor->want_fresh(branch, deadline);
  adoptions_.push_back({branch, deadline, std::move(done)});
  timer_->start(now);
}

/// True when it has been answered.
bool PlannedSwitches::try_adopt(const Adoption& adoption) {
  const auto view = context_.monitor->view(adoption.branch);
  if (view == nullptr) {
    adoption.done(unknown_branch(adoption.branch));
    return true;
  }
  if (draining_) {
    adoption.done(refusal(Outcome::kRefused, "this router is shutting down"));
    return true;
  }
  const bool last = loop_clock() >= adoption.deadline;
  if (!view->settled && !last) return false;
  const auto identifier = context_.monitor->adopt(adoption.branch);
  if (!identifier && !last) return false;  // one that has just been re-initialised may answer the next probe
  if (!identifier) {
    adoption.done(
        refusal(Outcome::kRefused, "no member of branch " + adoption.branch +
                                       " that answers has another system identifier than the known one: there "
                                       "is nothing to adopt"));
    return true;
  }
  SwitchAnswer answer;
  answer.system_identifier = routing::escape_for_log(*identifier, 32);
  const auto now = context_.monitor->view(adoption.branch);
  if (now->primary >= 0) answer.primary = now->config->members[static_cast<std::size_t>(now->primary)].name;
  answer.message = "branch " + adoption.branch + " is from now on the cluster with system identifier " +
                   answer.system_identifier + "; " +
                   (answer.primary.empty() ? std::string("it has no primary yet") : "its primary is " + answer.primary);
  context_.events->tell(LogLevel::kWarning, EventKind::kHold, adoption.branch, answer.message);
  adoption.done(std::move(answer));
  return true;
}

void PlannedSwitches::on_view(std::string_view branch) {
  if (const auto found = holds_.find(branch); found != holds_.end()) found->second->on_view();
  if (!adoptions_.empty()) timer_->start(loop_clock());
}

void PlannedSwitches::on_config_changed() {
  for (const auto& [branch, hold] : holds_) {
    hold->keep_tls();
    if (context_.monitor->view(branch) == nullptr)
      hold->abandon("the branch is not configured any more", kDrainPatience);
  }
}

void PlannedSwitches::drain() {
  draining_ = true;
  for (const auto& [branch, hold] : holds_) hold->abandon("this router is shutting down", kDrainPatience);
}

void PlannedSwitches::when_idle(std::function<void()> done) {
  when_idle_ = std::move(done);
  timer_->start(loop_clock());
}

void PlannedSwitches::shut_down() {
  holds_.clear();
  adoptions_.clear();
  timer_.reset();
}

void PlannedSwitches::on_hold_ended(PlannedHold&) {
  timer_->start(loop_clock());  // it is destroyed when nothing of it runs
}

void PlannedSwitches::on_timer() {
  std::erase_if(holds_, [](const auto& entry) { return entry.second->ended(); });
  std::erase_if(adoptions_, [this](const Adoption& adoption) { return try_adopt(adoption); });
  if (!adoptions_.empty()) timer_->start(loop_clock() + kAdoptLook);
  if (idle() && when_idle_) std::exchange(when_idle_, nullptr)();
}

}  // namespace pointsman::proxy
