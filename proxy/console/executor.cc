#include "proxy/console/executor.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/check.h"
#include "proxy/console/tables.h"
#include "proxy/log.h"
#include "routing/session_options.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

StatementResult with_table(Table table) {
  StatementResult result;
  result.table = std::move(table);
  return result;
}
StatementResult failed(Report report) {
  StatementResult result;
  result.error = std::move(report);
  return result;
}
StatementResult unknown_branch(const std::string& branch) {
  return failed({.sqlstate = "22023",
                 .message = "no branch \"" + routing::escape_for_log(branch) + "\" is configured",
                 .hint = "SHOW BRANCHES lists them."});
}

/// At most kMaxListed lines, and how many there are beside.
std::string listed(const std::vector<std::string>& lines) {
  std::string text;
  for (std::size_t i = 0; i < std::min(lines.size(), kMaxListed); ++i) text += (i == 0 ? "" : "\n") + lines[i];
  if (lines.size() > kMaxListed) text += "\nand " + std::to_string(lines.size() - kMaxListed) + " more";
  return text;
}

/// Counts an answer that holds sessions for as long as it lives.
class Place {
 public:
  explicit Place(std::shared_ptr<std::size_t> count) : count_(std::move(count)) { ++*count_; }
  ~Place() { --*count_; }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  std::shared_ptr<std::size_t> count_;
};

std::string seconds(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", value);
  return text;
}

/// What stood in the way, and what the PgBouncers say.
std::string switch_detail(const SwitchAnswer& answer) {
  std::vector<std::string> lines;
  for (const auto& transaction : answer.transactions) {
    lines.push_back("transaction: pid " + std::to_string(transaction.pid) + ", user " +
                    routing::escape_for_log(transaction.user) + ", " + routing::escape_for_log(transaction.state) +
                    ", " + seconds(transaction.age_seconds));
  }
  for (const auto& bouncer : answer.pgbouncers) {
    lines.push_back("pgbouncer: " + routing::escape_for_log(bouncer.name) + ": " + bouncer.state +
                    (bouncer.error.empty() ? "" : " (" + routing::escape_for_log(bouncer.error) + ")"));
  }
  return listed(lines);
}

StatementResult switch_result(const Statement& statement, const SwitchAnswer& answer) {
  using Outcome = SwitchAnswer::Outcome;
  StatementResult result;
  for (std::size_t i = 0; i < std::min(answer.warnings.size(), kMaxListed); ++i)
    result.notices.push_back({.severity = "WARNING", .sqlstate = "01000", .message = answer.warnings[i]});
  switch (answer.outcome) {
    case Outcome::kDone:
      result.notices.push_back(
          {.severity = "NOTICE", .sqlstate = "00000", .message = answer.message, .detail = switch_detail(answer)});
      return result;
    case Outcome::kUnknownBranch:
      return unknown_branch(statement.branch);
    case Outcome::kNotOnHold:
    case Outcome::kRefused:
      result.error = {.sqlstate = "55000", .message = answer.message, .detail = switch_detail(answer)};
      return result;
    case Outcome::kFailed:
      result.error = {.sqlstate = "58000", .message = answer.message, .detail = switch_detail(answer)};
      return result;
  }
  POINTSMAN_CHECK(false);
  return result;
}

StatementResult reload_result(const ReloadResult& reload) {
  StatementResult result;
  if (!reload.applied) {
    result.error = {.sqlstate = "F0000",
                    .message = "the configuration has errors; everything goes on as it was",
                    .detail = listed(reload.errors)};
  } else if (!reload.errors.empty()) {
    result.notices.push_back({.severity = "WARNING",
                              .sqlstate = "01000",
                              .message = "applied, but what is bad keeps its last good version",
                              .detail = listed(reload.errors)});
  }
  return result;
}

/// As it is logged; what the client typed is escaped by the log.
std::string describe(const Statement& statement) {
  std::string text(statement.tag());
  if (statement.kind == StatementKind::kKill)
    text += " " + std::to_string(statement.session.worker) + "-" + std::to_string(statement.session.id);
  if (!statement.branch.empty()) text += " " + statement.branch;
  if (statement.timeout) text += " TIMEOUT " + routing::format_duration(*statement.timeout);
  if (statement.force) text += " FORCE";
  return text;
}

void log_action(const char* message, const ConsoleCaller& caller, const std::string& statement,
                const StatementResult* result) {
  std::vector<LogField> fields = {{"user", caller.user}, {"client", caller.client}, {"statement", statement}};
  if (result != nullptr) fields.push_back({"outcome", result->error ? "error" : "ok"});
  if (result != nullptr && result->error) fields.push_back({"error", result->error->message, 1024});
  log_record(LogLevel::kInfo, message, fields);
}

}  // namespace

void Executor::execute(const Statement& statement, const ConsoleCaller& caller, base::Instant now, Reply reply) {
  if (statement.acts()) return act(statement, caller, std::move(reply));
  if (!statement.branch.empty() && control_.directory()->find(statement.branch) < 0)
    return reply(unknown_branch(statement.branch));
  switch (statement.kind) {
    case StatementKind::kShowBranches:
      return reply(with_table(branches_table(control_, statement.branch)));
    case StatementKind::kShowMembers:
      return reply(with_table(members_table(control_, statement.branch, now)));
    case StatementKind::kShowPools:
      return reply(with_table(pools_table(control_, statement.branch, now)));
    case StatementKind::kShowSessions:
      return show_sessions(statement, reply);
    case StatementKind::kShowRoutes:
      return reply(with_table(routes_table(control_, statement.branch)));
    case StatementKind::kShowRoute:
      return show_route(statement, reply);
    case StatementKind::kShowStats:
      return reply(with_table(stats_table(control_, statement.branch)));
    case StatementKind::kShowConfig:
      return reply(with_table(config_table(control_)));
    case StatementKind::kShowVersion:
      return reply(with_table(version_table()));
    case StatementKind::kShowHelp:
      return reply(with_table(help_table()));
    case StatementKind::kHold:
    case StatementKind::kRelease:
    case StatementKind::kKill:
    case StatementKind::kReload:
      break;
  }
  POINTSMAN_CHECK(false);
}

void Executor::show_sessions(const Statement& statement, const Reply& reply) {
  if (*session_answers_ >= kMaxSessionAnswers) {
    return reply(failed({.sqlstate = "53400",
                         .message = std::to_string(kMaxSessionAnswers) + " consoles are reading SHOW SESSIONS already",
                         .hint = "Try again in a moment."}));
  }
  auto place = std::make_shared<Place>(session_answers_);
  control_.collect_sessions([reply, place, branch = statement.branch](std::vector<SessionRow> rows) {
    StatementResult result;
    if (!branch.empty()) std::erase_if(rows, [&](const SessionRow& row) { return row.branch != branch; });
    const std::size_t all = rows.size();
    if (all > kMaxSessionsShown) {
      const auto older = [](const SessionRow& a, const SessionRow& b) { return a.age_seconds > b.age_seconds; };
      std::nth_element(rows.begin(), rows.begin() + kMaxSessionsShown, rows.end(), older);
      rows.resize(kMaxSessionsShown);
      result.notices.push_back({.severity = "NOTICE",
                                .sqlstate = "00000",
                                .message = "the oldest " + std::to_string(kMaxSessionsShown) + " of " +
                                           std::to_string(all) + " sessions are shown"});
    }
    result.table = sessions_table(std::move(rows), branch);
    result.table->more = [place, more = std::move(result.table->more)] { return more(); };
    reply(std::move(result));
  });
}

void Executor::show_route(const Statement& statement, const Reply& reply) {
  const auto directory = control_.directory();
  const auto& listeners = directory->config().listeners;
  const bool known = statement.listener.empty() || std::any_of(listeners.begin(), listeners.end(), [&](const auto& l) {
                       return l.name == statement.listener;
                     });
  if (!known) {
    std::string names;
    for (const auto& l : listeners) names += (names.empty() ? "" : ", ") + l.name;
    return reply(failed({.sqlstate = "22023",
                         .message = "no listener \"" + routing::escape_for_log(statement.listener) + "\" is configured",
                         .hint = "There are: " + names}));
  }
  control_.explain_route(statement.listener, statement.user,
                         [reply](const ControlView::RouteAnswer& answer) { reply(with_table(route_table(answer))); });
}

void Executor::act(const Statement& statement, const ConsoleCaller& caller, Reply reply) {
  const std::string text = describe(statement);
  log_action("console action begins", caller, text, nullptr);
  const auto done = [caller, text, reply = std::move(reply)](StatementResult result) {
    log_action("console action ended", caller, text, &result);
    reply(std::move(result));
  };
  const auto switched = [done, statement](const SwitchAnswer& answer) { done(switch_result(statement, answer)); };
  if (statement.kind == StatementKind::kHold) {
    HoldOptions options;
    if (statement.timeout) options.lease = *statement.timeout;
    options.force = statement.force;
    return control_.hold(statement.branch, options, switched);
  }
  if (statement.kind == StatementKind::kRelease) return control_.release(statement.branch, switched);
  if (statement.kind == StatementKind::kReload) return done(reload_result(control_.reload()));
  POINTSMAN_CHECK(statement.kind == StatementKind::kKill);
  const SessionName name = statement.session;
  control_.kill_session(name.worker, name.id, [done, name](bool found) {
    if (found) return done({});
    done(failed({.sqlstate = "22023",
                 .message = "there is no session " + std::to_string(name.worker) + "-" + std::to_string(name.id),
                 .hint = "SHOW SESSIONS lists them."}));
  });
}

}  // namespace pointsman::proxy
