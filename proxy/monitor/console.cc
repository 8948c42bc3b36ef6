#include "proxy/monitor/console.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/check.h"

namespace pointsman::proxy {
namespace {

constexpr base::Duration kQuietLongest = std::chrono::seconds(1);
constexpr base::Duration kQuietEvery = std::chrono::milliseconds(20);
constexpr base::Duration kResumeTry = std::chrono::seconds(3);
constexpr base::Duration kResumeEvery = std::chrono::milliseconds(500);

}  // namespace

std::uint64_t server_logins(const PgRows& pools) {
  const int column = pools.column("sv_login");
  std::uint64_t sum = 0;
  for (int row = 0; row < pools.rows(); ++row) {
    const auto text = pools.value(row, column);
    std::uint64_t count = 0;
    if (text) std::from_chars(text->data(), text->data() + text->size(), count);
    sum += count;
  }
  return sum;
}

bool says_not_paused(const PgFailure& failure) {
  return failure.kind == PgFailure::Kind::kServer && failure.text.find("not paused") != std::string::npos;
}

Console::Console(SqlContext& sql, const HandleCount& count, Owner& owner, BouncerPlace place)
    : sql_(sql),
      count_(count),
      owner_(owner),
      place_(std::move(place)),
      connection_(sql, count, *this),
      timer_(sql.loop.uv(), count, this, [](void* self) { static_cast<Console*>(self)->on_timer(); }) {}

void Console::connect(const PgTarget& target, base::Instant deadline) {
  POINTSMAN_CHECK(state_ == State::kNew);
  state_ = State::kConnecting;
  deadline_ = deadline;
  target_ = target;
  if (target_.address.known()) return connection_.connect(target_, deadline);
  timer_.start(loop_clock());  // says so in the loop's next turn
}

void Console::pause(base::Instant deadline) {
  POINTSMAN_CHECK(state_ == State::kConnected);
  state_ = State::kPausing;
  deadline_ = deadline;
  quiet_until_ = std::min(deadline, loop_clock() + kQuietLongest);
  say(Said::kShowPools);
}

void Console::resume(PgTarget target, base::Instant give_up) {
  connection_.close();
  target_ = std::move(target);
  deadline_ = give_up;
  state_ = State::kResuming;
  error_.clear();
  timer_.start(loop_clock());
}

void Console::close() {
  timer_.stop();
  connection_.close();
  said_ = Said::kNothing;
  if (state_ == State::kConnected || state_ == State::kConnecting) state_ = State::kNew;
}

void Console::say(Said what) {
  said_ = what;
  switch (what) {
    case Said::kNothing:
      return;
    case Said::kShowPools:
      return connection_.command("SHOW POOLS", deadline_);
    case Said::kPause:
      return connection_.command("PAUSE", deadline_);
    case Said::kReconnect:
      return connection_.command("RECONNECT", std::min(deadline_, loop_clock() + kResumeTry));
    case Said::kResume:
      return connection_.command("RESUME", std::min(deadline_, loop_clock() + kResumeTry));
  }
}

void Console::try_resume() {
  said_ = Said::kNothing;
  if (!target_.address.known()) return end(State::kStuck, "its address is not resolved");
  connection_.connect(target_, std::min(deadline_, loop_clock() + kResumeTry));
}

void Console::retry_resume(std::string error) {
  connection_.close();
  error_ = std::move(error);
  const auto again = loop_clock() + kResumeEvery;
  if (again >= deadline_) return end(State::kStuck, std::move(error_));
  timer_.start(again);
}

void Console::on_timer() {
  if (state_ == State::kConnecting) return end(State::kRefused, "its address is not resolved");
  if (state_ == State::kResuming) return try_resume();
  if (state_ == State::kPausing && connection_.is_idle()) say(Said::kShowPools);
}

void Console::on_pg_connected() {
  if (state_ == State::kResuming) return say(Said::kReconnect);
  state_ = State::kConnected;
  owner_.on_console(*this);
}

void Console::on_pg_rows(const PgRows& rows) {
  switch (said_) {
    case Said::kNothing:
      return;
    case Said::kShowPools:
      if (server_logins(rows) == 0 || loop_clock() >= quiet_until_) return say(Said::kPause);
      return timer_.start(loop_clock() + kQuietEvery);
    case Said::kPause:
      return end(State::kPaused);
    case Said::kReconnect:
      return say(Said::kResume);
    case Said::kResume:
      return end(State::kRunning);
  }
}

void Console::on_pg_failure(const PgFailure& failure) {
  if (state_ == State::kConnecting || state_ == State::kConnected) return end(State::kRefused, failure.text);
  if (state_ == State::kPausing) {
    // The command's own answer: whoever paused it, it was not us.
    if (said_ != Said::kPause || connection_.is_open()) return end(State::kRefused, failure.text);
    return end(
        State::kDoubtful,
        failure.kind == PgFailure::Kind::kTimeout
            ? "PAUSE was not done in time: it waits for transactions under way, in session mode for clients to leave"
            : failure.text);
  }
  if (state_ != State::kResuming) return;
  // PgBouncer before 1.10 has no RECONNECT; a paused one has no server connection that could be an old one.
  if (said_ == Said::kReconnect && connection_.is_open()) return say(Said::kResume);
  if (said_ == Said::kResume && connection_.is_open() && says_not_paused(failure)) return end(State::kRunning);
  retry_resume(failure.text);
}

void Console::end(State state, std::string error) {
  timer_.stop();
  connection_.close();
  said_ = Said::kNothing;
  state_ = state;
  error_ = std::move(error);
  owner_.on_console(*this);
}

}  // namespace pointsman::proxy
