#include "proxy/monitor/planned_hold.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "proxy/monitor/member_probe.h"
#include "proxy/monitor/monitor.h"
#include "proxy/monitor/state_dir.h"
#include "routing/session_options.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

using Outcome = SwitchAnswer::Outcome;

constexpr base::Duration kConnectTimeout = std::chrono::seconds(5);
constexpr base::Duration kMarkTimeout = std::chrono::seconds(5);
constexpr base::Duration kResumePatience = std::chrono::seconds(20);
constexpr base::Duration kLeftBehindPatience = std::chrono::minutes(2);

/// hold_timeout may be 0; a switch needs some time whatever it says.
base::Duration patience_of(const routing::BranchConfig& config) {
  return std::max<base::Duration>(config.failover.hold_timeout, std::chrono::seconds(1));
}

std::string seconds_text(base::Duration duration) {
  const auto tenths = std::chrono::duration_cast<std::chrono::milliseconds>(duration).count() / 100;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " s";
}

std::string bouncers_text(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " PgBouncer" : " PgBouncers");
}

}  // namespace

PlannedHold::PlannedHold(SwitchContext& context, Owner& owner, std::string branch)
    : context_(context),
      owner_(owner),
      branch_(std::move(branch)),
      timer_(context.sql->loop.uv(), context.handles, this,
             [](void* self) { static_cast<PlannedHold*>(self)->on_timer(); }) {
  const auto known = view();
  POINTSMAN_CHECK(known != nullptr);
  config_ = known->config;
}

PlannedHold::~PlannedHold() = default;

std::shared_ptr<const routing::BranchView> PlannedHold::view() const {
  return context_.monitor->view(branch_);
}

double PlannedHold::ends_in_seconds() const {
  return std::max(0.0, base::to_seconds(lease_end_ - loop_clock()));
}

void PlannedHold::arm() {
  timer_.start(phase_ == Phase::kAwaitingPrimary ? std::min(deadline_, lease_end_) : deadline_);
}

void PlannedHold::on_view() {
  if (phase_ == Phase::kWaking || phase_ == Phase::kAwaitingPrimary) timer_.start(loop_clock());
}

void PlannedHold::on_timer() {
  const auto now = loop_clock();
  switch (phase_) {
    case Phase::kWaking:
      return wake();
    case Phase::kAwaitingPrimary:
      return look_for_primary();
    case Phase::kMarking:
      if (now < deadline_) return arm();
      return refuse("state_dir takes too long to write");
    case Phase::kHeld:
      if (now < lease_end_) return arm();
      why_ = "nobody released it within " + routing::format_duration(options_.lease);
      return resume(Cause::kAbandoned, kResumePatience);
    case Phase::kNew:
    case Phase::kChecking:  // the connections have deadlines of their own
    case Phase::kConnecting:
    case Phase::kPausing:
    case Phase::kResuming:
    case Phase::kEnded:
      return;
  }
}

// ---- hold -----------------------------------------------------------------------------------------------------------

void PlannedHold::begin(HoldOptions options, SwitchDone done) {
  POINTSMAN_CHECK(phase_ == Phase::kNew);
  options_ = options;
  hold_done_ = std::move(done);
  phase_ = Phase::kWaking;
  const auto now = loop_clock();
  deadline_ = now + 2 * config_->probe.timeout + std::chrono::seconds(1);
  asked_at_ = now;
  context_.monitor->want_fresh(branch_, deadline_);
  wake();
}

void PlannedHold::wake() {
  const auto now = view();
  if (now == nullptr) return refuse("it is not configured any more");
  config_ = now->config;
  // Not from memory: the pre-check and the choice of PgBouncers go by who answers as the primary now.
  if (now->settled && now->primary >= 0 && now->members[static_cast<std::size_t>(now->primary)].probed_at >= asked_at_)
    return check();
  if (loop_clock() >= deadline_) return refuse("it has no verified primary that answers");
  arm();
}

void PlannedHold::check() {
  phase_ = Phase::kChecking;
  const auto now = view();
  const auto primary = static_cast<std::size_t>(now->primary);
  former_primary_ = config_->members[primary].name;
  for (auto& place : bouncers_of_primary(*now)) {
    Console::Owner& owner = *this;
    consoles_.push_back(std::make_unique<Console>(*context_.sql, context_.handles, owner, std::move(place)));
  }
  LongTransactions::Owner& owner = *this;
  check_ = std::make_unique<LongTransactions>(*context_.sql, context_.handles, owner);
  PgTarget target = probe_target(*config_, config_->members[primary], now->members[primary].address);
  target.application_name = "pointsman-hold";
  check_->ask(target, patience_of(*config_) / 2, loop_clock() + kConnectTimeout);
}

void PlannedHold::on_transactions(std::vector<SwitchAnswer::Transaction> found) {
  check_.reset();
  transactions_ = std::move(found);
  if (transactions_.empty() || options_.force) return connect();
  refuse(
      (transactions_.size() == 1 ? "a transaction has" : std::to_string(transactions_.size()) + " transactions have") +
      std::string(" been running for more than ") + seconds_text(patience_of(*config_) / 2) + " on " + former_primary_ +
      "; end it, or force the hold");
}

void PlannedHold::on_transactions_failed(const std::string& why) {
  check_.reset();
  if (options_.force) return connect();
  refuse("the primary " + former_primary_ + " could not be asked for long transactions: " + why);
}

void PlannedHold::connect() {
  phase_ = Phase::kConnecting;
  const auto deadline = loop_clock() + kConnectTimeout;
  for (const auto& console : consoles_) console->connect(console_target(*config_, console->place()), deadline);
  if (consoles_.empty()) mark();
}

void PlannedHold::mark() {
  if (context_.state == nullptr || consoles_.empty()) return pause();
  phase_ = Phase::kMarking;
  deadline_ = loop_clock() + kMarkTimeout;
  arm();
  marked_ = true;
  std::vector<BouncerPlace> places;
  for (const auto& console : consoles_) places.push_back(console->place());
  const std::weak_ptr<PlannedHold*> self = alive_;
  context_.state->write_marker(branch_, hold_marker_text(branch_, places), [self](const std::string& error) {
    const auto alive = self.lock();
    if (alive == nullptr || (*alive)->phase_ != Phase::kMarking) return;
    if (!error.empty()) return (*alive)->refuse("state_dir cannot be written: " + error);
    (*alive)->pause();
  });
}

void PlannedHold::pause() {
  phase_ = Phase::kPausing;
  timer_.stop();
  const auto now = loop_clock();
  paused_since_ = now;
  lease_end_ = now + options_.lease;
  for (const auto& console : consoles_) {
    const std::string key = console_target(*config_, console->place()).tls.context_key();
    if (const auto found = context_.sql->tls.find(key); found != context_.sql->tls.end()) tls_.insert(*found);
  }
  if (consoles_.empty()) return hold();
  const auto deadline = std::min(now + patience_of(*config_), lease_end_);
  for (const auto& console : consoles_) console->pause(deadline);
}

void PlannedHold::on_console(Console& console) {
  const auto all = [this](auto... states) {
    return std::all_of(consoles_.begin(), consoles_.end(),
                       [&](const auto& one) { return ((one->state() == states) || ...); });
  };
  using State = Console::State;
  switch (phase_) {
    case Phase::kConnecting:
      if (console.state() == State::kRefused)
        return refuse("the console of " + console.place().name + " does not let us in: " + console.error());
      if (all(State::kConnected)) mark();
      return;
    case Phase::kMarking:
      if (console.state() == State::kRefused)
        return refuse("the console of " + console.place().name + " was lost: " + console.error());
      return;
    case Phase::kPausing:
      if (console.state() == State::kRefused || console.state() == State::kDoubtful) {
        why_ = console.place().name + " could not be paused: " + console.error();
        return resume(Cause::kNotPaused, kResumePatience);
      }
      if (all(State::kPaused)) hold();
      return;
    case Phase::kResuming:
      if (all(State::kRunning, State::kStuck, State::kRefused, State::kNew)) conclude();
      return;
    case Phase::kNew:
    case Phase::kWaking:
    case Phase::kChecking:
    case Phase::kHeld:
    case Phase::kAwaitingPrimary:
    case Phase::kEnded:
      return;
  }
}

void PlannedHold::hold() {
  phase_ = Phase::kHeld;
  deadline_ = lease_end_;
  arm();
  context_.monitor->set_on_hold(branch_, true);
  tell(LogLevel::kWarning, "on hold for a planned switch, " + bouncers_text(consoles_.size()) +
                               " paused; it ends by itself in " + seconds_text(lease_end_ - loop_clock()));
  SwitchAnswer answer;
  answer.message = named() + " is on hold: " + bouncers_text(consoles_.size()) +
                   " paused, new sessions to the primary wait; it ends by itself in " +
                   seconds_text(lease_end_ - loop_clock()) + " unless it is released before";
  if (context_.state == nullptr && !consoles_.empty()) {
    answer.warnings.emplace_back(
        "there is no state_dir: if this router dies before the release, the PgBouncers stay paused until somebody says "
        "RESUME on their consoles");
  }
  if (!transactions_.empty()) answer.warnings.emplace_back("transactions that have been running for long will be cut");
  answer.primary = former_primary_;
  answer.transactions = transactions_;
  answer.pgbouncers = bouncers();
  answer.ends_in_seconds = ends_in_seconds();
  std::exchange(hold_done_, nullptr)(std::move(answer));
}

/// Before the first PAUSE: nothing has to be undone but the marker.
void PlannedHold::refuse(std::string message) {
  SwitchAnswer answer;
  answer.outcome = Outcome::kRefused;
  answer.message = named() + " is not put on hold: " + std::move(message);
  answer.transactions = transactions_;
  answer.primary = former_primary_;
  finish(std::move(answer));
}

// ---- the way back ---------------------------------------------------------------------------------------------------

void PlannedHold::release(SwitchDone done) {
  release_done_.push_back(std::move(done));
  const auto now = loop_clock();
  switch (phase_) {
    case Phase::kNew:
    case Phase::kWaking:
    case Phase::kChecking:
    case Phase::kConnecting:
    case Phase::kMarking:
      return refuse("it was released before it began");
    case Phase::kPausing:
      why_ = "it was released before all PgBouncers were paused";
      return resume(Cause::kNotPaused, kResumePatience);
    case Phase::kHeld:
      phase_ = Phase::kAwaitingPrimary;
      asked_at_ = now;
      deadline_ = now + patience_of(*config_);
      context_.monitor->want_fresh(branch_, deadline_);
      return look_for_primary();
    case Phase::kAwaitingPrimary:
    case Phase::kResuming:
    case Phase::kEnded:
      return;
  }
}

void PlannedHold::look_for_primary() {
  const auto now = loop_clock();
  const auto known = view();
  // One that answered before the release may be the old one, as it was before the switch.
  if (known != nullptr && known->primary >= 0 &&
      known->members[static_cast<std::size_t>(known->primary)].probed_at >= asked_at_) {
    return resume(Cause::kReleased, kResumePatience);
  }
  if (now >= lease_end_) {
    why_ = "it was over before there was a verified primary";
    return resume(Cause::kAbandoned, kResumePatience);
  }
  if (now < deadline_) return arm();
  phase_ = Phase::kHeld;
  deadline_ = lease_end_;
  arm();
  SwitchAnswer answer;
  answer.outcome = Outcome::kFailed;
  answer.message = named() +
                   " has no verified primary yet and is still on hold; release it again, it ends by itself in " +
                   seconds_text(lease_end_ - now);
  answer.pgbouncers = bouncers();
  answer.ends_in_seconds = ends_in_seconds();
  answer_releases(answer);
}

void PlannedHold::abandon(const std::string& why, base::Duration patience) {
  switch (phase_) {
    case Phase::kNew:
    case Phase::kWaking:
    case Phase::kChecking:
    case Phase::kConnecting:
    case Phase::kMarking:
      return refuse(why);
    case Phase::kPausing:
      why_ = why;
      return resume(Cause::kNotPaused, patience);
    case Phase::kHeld:
    case Phase::kAwaitingPrimary:
      why_ = why;
      return resume(Cause::kAbandoned, patience);
    case Phase::kResuming:
      for (const auto& console : consoles_) console->hurry(loop_clock() + patience);
      return;
    case Phase::kEnded:
      return;
  }
}

void PlannedHold::resume_left_behind(std::vector<BouncerPlace> places) {
  POINTSMAN_CHECK(phase_ == Phase::kNew);
  marked_ = true;
  paused_since_ = loop_clock();
  for (auto& place : places) {
    Console::Owner& owner = *this;
    consoles_.push_back(std::make_unique<Console>(*context_.sql, context_.handles, owner, std::move(place)));
  }
  tell(LogLevel::kWarning, "this router died while it was on hold; resuming " + bouncers_text(consoles_.size()));
  resume(Cause::kLeftBehind, kLeftBehindPatience);
}

void PlannedHold::resume(Cause cause, base::Duration patience) {
  phase_ = Phase::kResuming;
  cause_ = cause;
  timer_.stop();
  // New sessions first: what PgBouncers dial through this router when they are resumed would be held otherwise until
  // the last of them, which may be one that does not answer.
  context_.monitor->set_on_hold(branch_, false);
  keep_tls();
  const auto give_up = loop_clock() + patience;
  bool any = false;
  for (const auto& console : consoles_) {
    if (cause == Cause::kLeftBehind || console->may_be_paused()) {
      console->resume(console_target(*config_, console->place()), give_up);
      any = true;
    } else {
      console->close();
    }
  }
  if (!any) conclude();
}

void PlannedHold::keep_tls() {
  for (const auto& [key, made] : tls_) context_.sql->tls.try_emplace(key, made);
}

void PlannedHold::conclude() {
  const auto held_for = loop_clock() - paused_since_;
  const std::string stuck = consoles_in_words(Console::State::kStuck);
  if (stuck.empty() && marked_) context_.state->remove_marker(branch_);
  if (!stuck.empty()) tell(LogLevel::kError, "may still be paused, say RESUME on their consoles: " + stuck);
  SwitchAnswer answer;
  answer.held_seconds = base::to_seconds(held_for);
  answer.pgbouncers = bouncers();
  if (!stuck.empty()) answer.warnings.push_back("may still be paused, say RESUME on their consoles: " + stuck);
  switch (cause_) {
    case Cause::kReleased: {
      const auto now = view();
      if (now != nullptr && now->primary >= 0)
        answer.primary = now->config->members[static_cast<std::size_t>(now->primary)].name;
      answer.outcome = stuck.empty() ? Outcome::kDone : Outcome::kFailed;
      answer.message = named() + " is released after " + seconds_text(held_for) + ": the primary is " + answer.primary +
                       (answer.primary == former_primary_ ? ", as before" : "");
      tell(LogLevel::kInfo, answer.message);
      break;
    }
    case Cause::kNotPaused:
      answer.outcome = Outcome::kFailed;
      answer.message = named() + " is not put on hold: " + why_ +
                       (stuck.empty() ? "; everything runs on as before" : "; not everything could be resumed");
      answer.transactions = transactions_;
      tell(LogLevel::kWarning, answer.message);
      break;
    case Cause::kAbandoned:
      answer.outcome = Outcome::kFailed;
      answer.message = named() + "'s hold has ended by itself after " + seconds_text(held_for) + ": " + why_;
      tell(LogLevel::kError, answer.message);
      break;
    case Cause::kLeftBehind:
      answer.message = named() + ": what a hold had left paused is resumed";
      if (stuck.empty()) tell(LogLevel::kInfo, answer.message);
      break;
  }
  finish(std::move(answer));
}

void PlannedHold::tell(LogLevel level, const std::string& text) {
  context_.events->tell(level, EventKind::kHold, branch_, text);
}

void PlannedHold::finish(SwitchAnswer answer) {
  if (marked_ && phase_ != Phase::kResuming) context_.state->remove_marker(branch_);
  phase_ = Phase::kEnded;
  timer_.stop();
  for (const auto& console : consoles_) console->close();
  if (hold_done_) std::exchange(hold_done_, nullptr)(answer);
  answer_releases(answer);
  owner_.on_hold_ended(*this);
}

void PlannedHold::answer_releases(const SwitchAnswer& answer) {
  for (auto& done : std::exchange(release_done_, {})) done(answer);
}

std::string PlannedHold::consoles_in_words(Console::State state) const {
  std::string text;
  for (const auto& console : consoles_) {
    if (console->state() != state) continue;
    text += (text.empty() ? "" : ", ") + console->place().name + " (" + console->error() + ")";
  }
  return text;
}

std::vector<SwitchAnswer::Bouncer> PlannedHold::bouncers() const {
  std::vector<SwitchAnswer::Bouncer> list;
  for (const auto& console : consoles_) {
    const bool paused = console->state() == Console::State::kPaused;
    list.push_back({console->place().name,
                    paused                     ? "paused"
                    : console->may_be_paused() ? "perhaps paused"
                                               : "running",
                    console->error()});
  }
  return list;
}

}  // namespace pointsman::proxy
