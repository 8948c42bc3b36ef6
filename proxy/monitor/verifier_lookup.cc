#include "proxy/monitor/verifier_lookup.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "proxy/log.h"
#include "proxy/monitor/member_probe.h"
#include "proxy/monitor/verifier_row.h"

namespace pointsman::proxy {
namespace {

constexpr base::Duration kIdleClose = std::chrono::seconds(60);
constexpr base::Duration kAvoid = std::chrono::seconds(3);         // a member that failed comes last for so long
constexpr base::Duration kPause = std::chrono::milliseconds(250);  // between rounds in which nobody answered

int rank(const routing::BranchView& view, std::size_t member) {
  if (static_cast<int>(member) == view.primary) return 0;
  switch (view.members[member].state) {
    case routing::MemberState::kOk:
      return 1;
    case routing::MemberState::kLagging:
      return 2;
    case routing::MemberState::kUnknown:
      return 3;
    case routing::MemberState::kDown:
      return -1;
  }
  POINTSMAN_CHECK(false);
}

/// The statement or the login is wrong, and it is so on every member.
bool is_operators_fault(const PgFailure& failure) {
  return failure.kind == PgFailure::Kind::kTls || failure.kind == PgFailure::Kind::kCredentials ||
         failure.in_class("28") || failure.in_class("42") || failure.in_class("22") || failure.in_class("0A") ||
         failure.in_class("25") || failure.sqlstate == "3F000" || failure.sqlstate == "3D000";
}

VerifierAnswer answer_of(VerifierAnswer::Kind kind, std::string why) {
  VerifierAnswer answer;
  answer.kind = kind;
  answer.log_detail = std::move(why);
  return answer;
}

}  // namespace

VerifierLookup::VerifierLookup(SqlContext& sql, const HandleCount& count, MonitorAccess& monitor, Owner& owner,
                               EventSink& events, std::string branch)
    : monitor_(monitor),
      owner_(owner),
      events_(events),
      branch_(std::move(branch)),
      connection_(sql, count, *this),
      timer_(sql.loop.uv(), count, this, [](void* self) { static_cast<VerifierLookup*>(self)->on_timer(); }) {}

void VerifierLookup::ask(std::string role) {
  const auto now = loop_clock();
  last_used_ = now;
  const auto view = monitor_.view(branch_);
  if (view == nullptr || now < pause_ends_) {
    owner_.on_lookup_answer(
        branch_, role,
        view == nullptr ? answer_of(VerifierAnswer::Kind::kUnavailable, "no such branch") : failed_answer());
    return;
  }
  const auto timeout = view->config->probe.timeout;
  if (queue_.empty()) {
    patience_ends_ = now + 2 * timeout;
    tried_.clear();
    trouble_.clear();
    faulty_ = false;
  }
  queue_.push_back({std::move(role), now + timeout * static_cast<std::int64_t>(2 + view->members.size())});
  pump();
}

void VerifierLookup::on_view() {
  if (!queue_.empty()) pump();
}

void VerifierLookup::restart() {
  connection_.close();
  phase_ = Phase::kClosed;
  tried_.clear();
  avoided_until_.clear();
  pause_ends_ = {};
  warned_superuser_ = false;
  logged_trouble_.clear();
  pump();
}

void VerifierLookup::abandon(std::string_view why) {
  connection_.close();
  phase_ = Phase::kClosed;
  timer_.stop();
  answer_all(answer_of(VerifierAnswer::Kind::kUnavailable, std::string(why)));
}

void VerifierLookup::pump() {
  if (phase_ == Phase::kConnecting || phase_ == Phase::kExamining || phase_ == Phase::kAsking) return arm();
  const auto now = loop_clock();
  expire(now);
  if (queue_.empty()) return arm();
  const auto view = monitor_.view(branch_);
  if (view == nullptr) return abandon("no such branch any more");
  wait_until_ = wait_for_view(*view, now);
  if (wait_until_) return arm();
  const int member = pick(*view, now);
  if (member < 0) {
    pause_ends_ = now + kPause;
    answer_all(failed_answer());
    return arm();
  }
  const auto& chosen = view->members[static_cast<std::size_t>(member)];
  if (phase_ == Phase::kReady && member_ == chosen.name && address_ == chosen.address && config_ == view->config)
    return ask_front();
  connect(*view, static_cast<std::size_t>(member));
}

void VerifierLookup::expire(base::Instant now) {
  std::vector<Job> expired;
  while (!queue_.empty() && queue_.front().deadline <= now) {
    expired.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  for (const auto& job : expired) owner_.on_lookup_answer(branch_, job.role, failed_answer());
}

std::optional<base::Instant> VerifierLookup::wait_for_view(const routing::BranchView& view, base::Instant now) const {
  const bool address =
      std::any_of(view.members.begin(), view.members.end(), [](const auto& member) { return member.address.known(); });
  if (!address) return now < patience_ends_ ? std::optional(patience_ends_) : std::nullopt;
  // A moment's patience for the probes of a cold branch: a replica may not have replayed what the primary knows.
  const auto probes_end = patience_ends_ - view.config->probe.timeout;
  return view.primary < 0 && !view.settled && now < probes_end ? std::optional(probes_end) : std::nullopt;
}

int VerifierLookup::pick(const routing::BranchView& view, base::Instant now) const {
  int best = -1;
  int best_rank = 0;
  for (std::size_t i = 0; i < view.members.size(); ++i) {
    const auto& member = view.members[i];
    int rank_here = rank(view, i);
    if (rank_here < 0 || !member.address.known() || tried_.contains(member.name)) continue;
    const auto avoided = avoided_until_.find(member.name);
    if (avoided != avoided_until_.end() && now < avoided->second) rank_here += 10;
    if (best < 0 || rank_here < best_rank) {
      best = static_cast<int>(i);
      best_rank = rank_here;
    }
  }
  return best;
}

void VerifierLookup::connect(const routing::BranchView& view, std::size_t member) {
  connection_.close();
  config_ = view.config;
  const auto configured = std::find_if(config_->members.begin(), config_->members.end(), [&](const auto& candidate) {
    return candidate.name == view.members[member].name;
  });
  POINTSMAN_CHECK(configured != config_->members.end());
  member_ = configured->name;
  address_ = view.members[member].address;
  auto target = probe_target(*config_, *configured, address_);
  target.application_name = "pointsman-lookup";
  if (config_->auth.lookup) {
    target.user = config_->auth.lookup->user;
    target.password = config_->auth.lookup->password;
  }
  phase_ = Phase::kConnecting;
  proved_ = false;
  connection_.connect(target, operation_deadline());
  arm();
}

void VerifierLookup::on_pg_connected() {
  if (config_->auth.lookup && !config_->auth.lookup->query.empty()) {
    source_ = Source::kCustom;
    return ready_to_ask();
  }
  source_ = Source::kFunction;
  if (connection_.parameter("is_superuser") != "on") return ready_to_ask();
  phase_ = Phase::kExamining;
  connection_.query(kFunctionIsSafeStatement, {}, operation_deadline());
}

void VerifierLookup::ready_to_ask() {
  switch (source_) {
    case Source::kFunction:
      statement_ = function_statement();
      break;
    case Source::kAuthid:
      statement_ = authid_statement();
      break;
    case Source::kCustom:
      statement_ = custom_statement(config_->auth.lookup->query);
      break;
  }
  phase_ = Phase::kReady;
  pump();
}

void VerifierLookup::ask_front() {
  phase_ = Phase::kAsking;
  connection_.query(statement_.c_str(), std::span(&queue_.front().role, 1), operation_deadline());
  arm();
}

void VerifierLookup::on_pg_rows(const PgRows& rows) {
  proved_ = true;
  avoided_until_.erase(member_);
  if (phase_ == Phase::kExamining) {
    if (rows.value(0, 0) != "t") source_ = Source::kAuthid;
    if (source_ == Source::kAuthid && !std::exchange(warned_superuser_, true)) {
      log_record(LogLevel::kWarning,
                 "branch " + branch_ +
                     ": the login that reads verifiers is a superuser and reads pg_authid itself; "
                     "deploy/sql/02_auth_role.sql needs no superuser",
                 {});
    }
    return ready_to_ask();
  }
  phase_ = Phase::kReady;
  if (!std::exchange(logged_trouble_, {}).empty())
    events_.tell(LogLevel::kInfo, EventKind::kVerifiers, branch_, "verifiers are read again, from " + member_);
  if (rows.rows() > 1)
    return answer_front(answer_of(VerifierAnswer::Kind::kFault, "the look-up query answered with more than one row"));
  std::optional<VerifierRow> row;
  if (rows.rows() == 1) {
    row.emplace();
    for (std::size_t column = 0; column < kVerifierColumns; ++column)
      (*row)[column] = rows.value(0, static_cast<int>(column));
  }
  answer_front(judge_verifier_row(row, queue_.front().role, loop_clock()));
}

void VerifierLookup::on_pg_failure(const PgFailure& failure) {
  const Phase before = phase_;
  const bool open = connection_.is_open();
  phase_ = open ? Phase::kReady : Phase::kClosed;
  if (before == Phase::kReady) return arm();  // lost between two look-ups
  const bool fault = is_operators_fault(failure);
  if (before == Phase::kAsking && open && failure.sqlstate == "22021") {
    // Bytes that the server's encoding does not have: no role is called so.
    return answer_front(judge_verifier_row(std::nullopt, queue_.front().role, loop_clock()));
  }
  if (before == Phase::kAsking && !open && proved_ && failure.kind == PgFailure::Kind::kNetwork)
    return pump();  // it was stale: once more, anew
  note_trouble(failure, fault);
  if (before == Phase::kAsking && open && fault) return answer_front(failed_answer());
  give_up_member();
}

void VerifierLookup::give_up_member() {
  connection_.close();
  phase_ = Phase::kClosed;
  tried_.insert(member_);
  avoided_until_[member_] = loop_clock() + kAvoid;
  pump();
}

void VerifierLookup::answer_front(VerifierAnswer answer) {
  const Job job = std::move(queue_.front());
  queue_.pop_front();
  tried_.clear();
  owner_.on_lookup_answer(branch_, job.role, std::move(answer));
  pump();
}

void VerifierLookup::answer_all(const VerifierAnswer& answer) {
  tried_.clear();
  const auto jobs = std::exchange(queue_, {});
  for (const auto& job : jobs) owner_.on_lookup_answer(branch_, job.role, answer);
}

VerifierAnswer VerifierLookup::failed_answer() const {
  return answer_of(faulty_ ? VerifierAnswer::Kind::kFault : VerifierAnswer::Kind::kUnavailable,
                   trouble_.empty() ? "no member can be asked" : trouble_);
}

void VerifierLookup::note_trouble(const PgFailure& failure, bool operators_fault) {
  auto trouble = member_ + ": " + failure.text + remedy(failure);
  if (trouble != logged_trouble_) {
    logged_trouble_ = trouble;
    events_.tell(LogLevel::kWarning, EventKind::kVerifiers, branch_, "verifiers cannot be read from " + trouble);
  }
  if (faulty_ && !operators_fault && !tried_.empty())
    return;  // one member's fault says more than another one's silence
  faulty_ = operators_fault;
  trouble_ = std::move(trouble);
}

std::string VerifierLookup::remedy(const PgFailure& failure) const {
  if (source_ == Source::kFunction &&
      (failure.sqlstate == "42883" || failure.sqlstate == "3F000" || failure.sqlstate == "42501")) {
    const auto& user = config_->auth.lookup ? config_->auth.lookup->user : config_->probe.user;
    return "; run deploy/sql/02_auth_role.sql in database " + config_->probe.database + " with auth_role=" + user +
           ", or give auth.lookup";
  }
  return {};
}

base::Instant VerifierLookup::operation_deadline() const {
  const auto limit = loop_clock() + config_->probe.timeout;
  return queue_.empty() ? limit : std::min(limit, queue_.front().deadline);
}

void VerifierLookup::arm() {
  if (queue_.empty()) return timer_.start(last_used_ + kIdleClose);
  const auto deadline = queue_.front().deadline;
  timer_.start(phase_ == Phase::kClosed && wait_until_ ? std::min(deadline, *wait_until_) : deadline);
}

void VerifierLookup::on_timer() {
  const auto now = loop_clock();
  if (queue_.empty()) {
    if (now < last_used_ + kIdleClose) return arm();
    connection_.close();
    phase_ = Phase::kClosed;
    return owner_.on_lookup_idle(branch_);  // destroys this
  }
  // What is being asked has a deadline of its own, no later than the job's.
  if (phase_ != Phase::kAsking) expire(now);
  pump();
}

}  // namespace pointsman::proxy
