#include "proxy/console/console_core.h"

#include <utility>

#include "base/check.h"
#include "protocol/messages.h"
#include "protocol/postgres_format.h"
#include "routing/refusals.h"

namespace pointsman::proxy {

using base::Instant;

std::string_view to_word(ConsoleEnd end) {
  switch (end) {
    case ConsoleEnd::kClientClosed:
      return "client_closed";
    case ConsoleEnd::kClientError:
      return "client_error";
    case ConsoleEnd::kRefused:
      return "refused";
    case ConsoleEnd::kIdle:
      return "idle";
    case ConsoleEnd::kStopped:
      return "stopped";
  }
  POINTSMAN_CHECK(false);
  return {};
}

ConsoleCore::ConsoleCore(ConsoleServices& services, routing::ListenerTls tls, Instant now)
    : services_(services), tls_(tls), accepted_(now) {}
ConsoleCore::~ConsoleCore() = default;

// ---- events ---------------------------------------------------------------------------------------------------------

void ConsoleCore::on_bytes(base::Bytes bytes) {
  if (!std::holds_alternative<Closed>(phase_)) inbox_.append(base::as_text(bytes));
}

void ConsoleCore::on_eof() {
  enter(close(ConsoleEnd::kClientClosed, {}));
}

void ConsoleCore::on_error() {
  enter(close(ConsoleEnd::kClientError, {}));
}

void ConsoleCore::on_result(StatementResult result) {
  auto* running = std::get_if<Running>(&phase_);
  if (running == nullptr) return;  // the client has gone, or the router ends
  POINTSMAN_CHECK(running->executing);
  running->executing = false;
  std::string bytes;
  for (const Report& notice : result.notices) {
    append_report(bytes, notice);
    send(std::exchange(bytes, {}));  // each by itself: a piece is one report, or several small ones
  }
  actions_.push_back(ConsoleCount{result.error ? StatementOutcome::kError : StatementOutcome::kOk});
  if (result.error) {
    append_report(bytes, *result.error);
    running->rest.clear();
  } else if (result.table) {
    append_row_description(bytes, result.table->columns);
    running->table = std::move(result.table);
  } else {
    append_command_complete(bytes, running->tag);
  }
  send(std::move(bytes));
}

void ConsoleCore::on_deadline(Instant now) {
  const auto due = deadline();
  if (!due || now < *due) return;
  if (logged_in_) {
    return enter(refuse({.severity = "FATAL",
                         .sqlstate = "57P05",
                         .message = "terminating connection due to idle-session timeout",
                         .hint = "console.idle_timeout is how long a console may be idle."},
                        "idle"));
  }
  constexpr std::string_view kWaiting = "waiting for the login to the admin console";
  // What has not asked for anything yet is told nothing: it need not speak PostgreSQL.
  if (std::holds_alternative<Negotiating>(phase_) || std::holds_alternative<TlsHandshake>(phase_))
    return enter(close(ConsoleEnd::kRefused, "timeout"));
  enter(refuse(routing::startup_timeout(kWaiting)));
}

void ConsoleCore::on_stop() {
  if (std::holds_alternative<Closed>(phase_)) return;
  if (!logged_in_) return enter(close(ConsoleEnd::kStopped, "the router stops"));
  std::string bytes;
  append_report(bytes, {.severity = "FATAL",
                        .sqlstate = "57P01",
                        .message = "terminating connection because this router is shutting down"});
  send(std::move(bytes));
  enter(close(ConsoleEnd::kStopped, "the router stops"));
}

// ---- questions ------------------------------------------------------------------------------------------------------

bool ConsoleCore::wants_input() const {
  return actions_.empty() && !std::holds_alternative<Running>(phase_) && !std::holds_alternative<Closed>(phase_);
}

std::optional<Instant> ConsoleCore::deadline() const {
  if (std::holds_alternative<Running>(phase_) || std::holds_alternative<Closed>(phase_)) return std::nullopt;
  if (!logged_in_) return accepted_ + services_.login_timeout();
  return idle_since_ + services_.console().idle_timeout;
}

std::optional<ConsoleAction> ConsoleCore::poll_action(Instant now) {
  while (actions_.empty() && step(now)) {
  }
  if (actions_.empty()) return std::nullopt;
  auto action = std::move(actions_.front());
  actions_.pop_front();
  return action;
}

// ---- steps ----------------------------------------------------------------------------------------------------------

bool ConsoleCore::step(Instant now) {
  const std::size_t before = inbox_.size();
  const std::size_t phase_before = phase_.index();
  struct Visitor {
    ConsoleCore& core;
    Instant now;
    Next operator()(Negotiating& phase) const { return core.step_negotiating(phase); }
    Next operator()(TlsHandshake&) const { return {}; }
    Next operator()(AwaitingStartup&) const { return core.step_awaiting_startup(); }
    Next operator()(Authenticating& phase) const { return core.step_authenticating(phase, now); }
    Next operator()(Ready&) const { return core.step_ready(now); }
    Next operator()(Running& phase) const { return core.step_running(phase, now); }
    Next operator()(SkippingToSync&) const { return core.step_skipping(now); }
    Next operator()(Closed&) const { return {}; }
  };
  enter(std::visit(Visitor{*this, now}, phase_));
  return inbox_.size() != before || phase_.index() != phase_before;
}

void ConsoleCore::enter(Next next) {
  if (next && !std::holds_alternative<Closed>(phase_)) phase_ = std::move(*next);
}

ConsoleCore::Header ConsoleCore::header() const {
  if (inbox_.size() < protocol::kMessageHeader) return {};
  const auto length = base::load_be32(base::as_bytes(inbox_).data() + 1);
  return {true, inbox_.front(), length < 4 ? kMaxSkippedBytes + 1 : std::size_t{length} - 4};
}

/// Takes away what is left of a message that is too long. False: it is not all there yet.
bool ConsoleCore::skip() {
  const std::size_t here = std::min(to_skip_, inbox_.size());
  inbox_.erase(0, here);
  to_skip_ -= here;
  return to_skip_ == 0;
}

ConsoleCore::Next ConsoleCore::step_ready(Instant now) {
  if (!skip()) return {};
  const Header next = header();
  if (!next.complete) return {};
  if (next.body > kMaxSkippedBytes) return refuse(routing::protocol_violation("invalid message length"));
  if (next.body > kMaxQueryBytes + 1) {
    const char tag = next.tag;
    to_skip_ = protocol::kMessageHeader + next.body;
    (void)skip();
    if (tag != 'Q') return message(tag, {}, now);
    return fail_query({.sqlstate = "54000",
                       .message = "a statement of more than " + std::to_string(kMaxQueryBytes) + " bytes",
                       .hint = "The console takes short statements only. Try SHOW HELP."},
                      StatementOutcome::kError, now);
  }
  if (inbox_.size() < protocol::kMessageHeader + next.body) return {};
  const std::string body = inbox_.substr(protocol::kMessageHeader, next.body);
  inbox_.erase(0, protocol::kMessageHeader + next.body);
  return message(next.tag, base::as_bytes(body), now);
}

ConsoleCore::Next ConsoleCore::message(char tag, base::Bytes body, Instant now) {
  switch (tag) {
    case 'Q':
      return query(body, now);
    case 'X':
      return close(ConsoleEnd::kClientClosed, {});
    case 'S':  // Sync
      return ready(now);
    case 'P':
    case 'B':
    case 'D':
    case 'E':
    case 'C':
      return extended();
    case 'F':
      return fail_query({.sqlstate = "0A000",
                         .message = "function calls are not possible in the admin console",
                         .hint = "Try SHOW HELP."},
                        StatementOutcome::kError, now);
    case 'H':  // Flush: nothing is kept back
    case 'd':
    case 'c':
    case 'f':  // of a COPY that failed, which PostgreSQL ignores too (PostgresMain())
      return {};
    default:
      return refuse(routing::protocol_violation("invalid frontend message type"));
  }
}

/// A message of the extended protocol: one error, then everything is ignored up to Sync.
ConsoleCore::Next ConsoleCore::extended() {
  std::string bytes;
  append_report(bytes, {.sqlstate = "0A000",
                        .message = "the admin console takes simple queries only, no prepared statements",
                        .hint = "Use psql, or the driver's simple query mode without parameters."});
  send(std::move(bytes));
  actions_.push_back(ConsoleCount{StatementOutcome::kError});
  return SkippingToSync{};
}

ConsoleCore::Next ConsoleCore::step_skipping(Instant now) {
  if (!skip()) return {};
  const Header next = header();
  if (!next.complete) return {};
  if (next.body > kMaxSkippedBytes) return refuse(routing::protocol_violation("invalid message length"));
  to_skip_ = protocol::kMessageHeader + next.body;
  (void)skip();
  if (next.tag == 'S') return ready(now);
  if (next.tag == 'X') return close(ConsoleEnd::kClientClosed, {});
  return {};
}

// ---- statements -----------------------------------------------------------------------------------------------------

ConsoleCore::Next ConsoleCore::query(base::Bytes body, Instant now) {
  const std::string_view text = base::as_text(body);
  if (text.empty() || text.find('\0') != text.size() - 1)
    return refuse(routing::protocol_violation("invalid string in message"));
  auto parsed = parse_statements(text.substr(0, text.size() - 1));
  if (auto* fault = std::get_if<StatementFault>(&parsed)) {
    return fail_query({.sqlstate = fault->sqlstate,
                       .message = std::move(fault->message),
                       .hint = std::move(fault->hint),
                       .position = fault->position},
                      StatementOutcome::kError, now);
  }
  auto& statements = std::get<std::vector<Statement>>(parsed);
  if (statements.empty()) {
    std::string bytes;
    append_empty_query(bytes);
    send(std::move(bytes));
    return ready(now);
  }
  Running running;
  running.rest.assign(std::make_move_iterator(statements.begin()), std::make_move_iterator(statements.end()));
  return running;
}

ConsoleCore::Next ConsoleCore::step_running(Running& phase, Instant now) {
  if (phase.executing) return {};
  if (phase.table) return send_rows(phase);
  return run_next(phase, now);
}

ConsoleCore::Next ConsoleCore::run_next(Running& phase, Instant now) {
  if (phase.rest.empty()) return ready(now);
  const auto& users = services_.console().users;
  const auto found = users.find(user_);
  if (found == users.end()) {
    return refuse({.severity = "FATAL",
                   .sqlstate = "28000",
                   .message = "the user \"" + routing::escape_for_log(user_) + "\" is not in console.users any more"},
                  "the user was taken out of console.users");
  }
  Statement statement = std::move(phase.rest.front());
  phase.rest.pop_front();
  if (statement.acts() && found->second.role != routing::ConsoleRole::kAdmin) {
    phase.rest.clear();
    return fail_query({.sqlstate = "42501",
                       .message = "permission denied: " + std::string(statement.tag()) + " needs the role \"admin\"",
                       .hint = "The role of a user of the console stands in console.users."},
                      StatementOutcome::kDenied, now);
  }
  phase.tag = statement.tag();
  phase.executing = true;
  actions_.push_back(ConsoleExecute{std::move(statement)});
  return {};
}

ConsoleCore::Next ConsoleCore::send_rows(Running& phase) {
  std::string bytes;
  Table& table = *phase.table;
  while (bytes.size() < kAnswerPiece) {
    if (phase.unsent.empty()) {
      auto more = table.more();
      if (!more) {
        append_command_complete(bytes, phase.tag);
        phase.table.reset();
        break;
      }
      phase.unsent.assign(std::make_move_iterator(more->begin()), std::make_move_iterator(more->end()));
      continue;
    }
    append_data_row(bytes, table.columns, phase.unsent.front());
    phase.unsent.pop_front();
  }
  send(std::move(bytes));
  return {};
}

ConsoleCore::Next ConsoleCore::ready(Instant now) {
  std::string bytes;
  append_ready_for_query(bytes);
  send(std::move(bytes));
  idle_since_ = now;
  return Ready{};
}

ConsoleCore::Next ConsoleCore::fail_query(const Report& report, StatementOutcome outcome, Instant now) {
  std::string bytes;
  append_report(bytes, report);
  send(std::move(bytes));
  actions_.push_back(ConsoleCount{outcome});
  return ready(now);
}

// ---- ends -----------------------------------------------------------------------------------------------------------

void ConsoleCore::send(std::string bytes) {
  // What goes out together is written together.
  auto* last = actions_.empty() ? nullptr : std::get_if<ConsoleSend>(&actions_.back());
  if (last != nullptr && last->bytes.size() + bytes.size() <= kAnswerPiece) {
    last->bytes += bytes;
  } else {
    actions_.push_back(ConsoleSend{std::move(bytes)});
  }
}

ConsoleCore::Next ConsoleCore::refuse(const routing::Refusal& refusal) {
  protocol::ErrorFields fields;
  fields.sqlstate = refusal.sqlstate;
  fields.message = refusal.message;
  fields.detail = refusal.detail;
  fields.hint = refusal.hint;
  fields.routine = routing::client_word(refusal);
  std::string bytes;
  protocol::append_error_response(bytes, fields);
  send(std::move(bytes));
  return close(ConsoleEnd::kRefused,
               refusal.log_detail.empty() ? refusal.message : refusal.message + " (" + refusal.log_detail + ")");
}

ConsoleCore::Next ConsoleCore::refuse(Report report, std::string reason) {
  std::string bytes;
  append_report(bytes, report);
  send(std::move(bytes));
  return close(report.sqlstate == "57P05" ? ConsoleEnd::kIdle : ConsoleEnd::kRefused, std::move(reason));
}

ConsoleCore::Next ConsoleCore::close(ConsoleEnd end, std::string reason) {
  if (std::holds_alternative<Closed>(phase_)) return {};
  inbox_.clear();
  actions_.push_back(ConsoleFinish{end, std::move(reason)});
  return Closed{};
}

}  // namespace pointsman::proxy
