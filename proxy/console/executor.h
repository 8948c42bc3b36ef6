#pragma once
// Executes the console's statements against the running router (ControlView). Control thread. Rights are judged before
// (ConsoleCore); what acts is logged here: who, from where, what, and what became of it.
//
// Lifetime: an answer may come minutes later (HOLD); whoever asks must be able to tell that it is gone by then.

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "proxy/admin/control_view.h"
#include "proxy/console/result.h"
#include "proxy/console/statement.h"

namespace pointsman::proxy {

/// So many sessions are shown at most, the oldest first; a notice tells of the rest.
inline constexpr std::size_t kMaxSessionsShown = 20'000;
/// So many answers to SHOW SESSIONS may be on their way at once: each holds its rows until they are sent.
inline constexpr std::size_t kMaxSessionAnswers = 4;
/// Of a list in an error or notice (configuration errors, transactions in the way) so many are told.
inline constexpr std::size_t kMaxListed = 20;

struct ConsoleCaller {
  std::string user;
  std::string client;  ///< address and port
};

class Executor {
 public:
  using Reply = std::function<void(StatementResult)>;

  explicit Executor(ControlView& control) : control_(control) {}
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// `reply` is called once, maybe before this returns.
  void execute(const Statement& statement, const ConsoleCaller& caller, base::Instant now, Reply reply);

 private:
  void show_sessions(const Statement& statement, const Reply& reply);
  void show_route(const Statement& statement, const Reply& reply);
  void act(const Statement& statement, const ConsoleCaller& caller, Reply reply);

  ControlView& control_;
  std::shared_ptr<std::size_t> session_answers_ = std::make_shared<std::size_t>(0);
};

}  // namespace pointsman::proxy
