// Framing, the idle connection and statements. The login is in sql_login.cc.
#include "proxy/monitor/sql_client.h"

#include <utility>

#include "base/check.h"
#include "protocol/postgres_format.h"
#include "routing/username.h"

namespace pointsman::proxy {

namespace {

constexpr std::size_t kMaxLogText = 256;
constexpr std::uint32_t kNull = 0xffff'ffff;  // the length of a NULL
constexpr std::string_view kCopyTags = "GHW";

/// Appends a message; `body` is called with the text to append to.
template <typename Body>
void append_message(std::string& out, char tag, Body body) {
  out.push_back(tag);
  const std::size_t start = out.size();
  base::append_be32(out, 0);
  body(out);
  base::store_be32(reinterpret_cast<base::Byte*>(out.data() + start), static_cast<std::uint32_t>(out.size() - start));
}

std::string text_of(const protocol::ErrorView& error) {
  std::string text(error.severity.empty() ? "ERROR" : error.severity);
  if (!error.sqlstate.empty()) text.append(" ").append(error.sqlstate);
  const auto first_line = error.message.substr(0, error.message.find('\n'));
  text.append(": ").append(first_line.empty() ? "no message" : first_line);
  return routing::escape_for_log(text, kMaxLogText);
}

bool ends_the_session(const protocol::ErrorView& error) {
  return error.severity == "FATAL" || error.severity == "PANIC";
}

}  // namespace

// ---- framing --------------------------------------------------------------------------------------------------------

SqlClient::Event SqlClient::on_bytes(base::Bytes bytes) {
  if (state_ == State::kFailed) return Event::kFailed;
  POINTSMAN_CHECK(state_ != State::kNew);
  input_.append(base::as_text(bytes));
  return run();
}

SqlClient::Event SqlClient::run() {
  Event event = Event::kNothing;
  while (!input_.empty() && state_ != State::kFailed) {
    if (state_ == State::kTlsAnswer) {
      event = on_tls_answer();
      continue;
    }
    if (state_ == State::kTlsHandshake)
      return fail(Kind::kNetwork, "unencrypted bytes behind the answer to SSLRequest");
    const auto frame = protocol::next_message(input_.bytes(), kMaxSqlMessage);
    // A tag that is not lawful here is refused at once: nobody makes us wait for its body.
    const char tag = frame.message.tag;
    if (lawful_tags().find(tag) == std::string_view::npos) return out_of_place(tag);
    if (frame.status == protocol::FrameStatus::kBadLength)
      return fail(Kind::kNetwork, "the server sent a message of impossible length");
    if (input_.size() >= protocol::kMessageHeader) {
      const std::size_t announced = 1 + std::size_t{base::load_be32(input_.bytes().data() + 1)};
      if (announced > kMaxSqlAnswer - spent_) return fail(Kind::kNetwork, "the server sent more than we take");
    }
    if (frame.status == protocol::FrameStatus::kNeedMore) break;
    spent_ += frame.message.total;
    const Event next = dispatch(frame.message);
    if (next == Event::kFailed) return next;
    if (next != Event::kNothing) event = next;
    input_.consume(frame.message.total);
  }
  return state_ == State::kFailed ? Event::kFailed : event;
}

std::string_view SqlClient::lawful_tags() const {
  switch (state_) {
    case State::kAuthentication:
      return "RENv";
    case State::kScramFirst:
    case State::kScramFinal:
    case State::kScramProved:
      return "REN";
    case State::kScramKeys:
      return "EN";
    case State::kGreeting:
      return "SKZEN";
    case State::kIdle:
      return "SNAE";
    case State::kQuerying:
      return lawful_answer_tags();
    case State::kNew:
    case State::kTlsAnswer:
    case State::kTlsHandshake:
    case State::kFailed:
      return "";
  }
  POINTSMAN_CHECK(false);
}

std::string_view SqlClient::lawful_answer_tags() const {
  switch (step_) {
    case Step::kParse:
      return "1ESNA";
    case Step::kBind:
      return "2ESNA";
    case Step::kDescribe:
      return "TnESNA";
    case Step::kRows:
      return "DCESNA";
    case Step::kNoRows:
      return "CIESNA";
    case Step::kComplete:
      return "ZESNA";
    case Step::kNextResult:
      return "TCIZESNA";
    case Step::kNextRows:
      return "DCESNA";
    case Step::kFailed:
      return "ZSNA";
  }
  POINTSMAN_CHECK(false);
}

SqlClient::Event SqlClient::dispatch(const protocol::MessageView& message) {
  switch (message.tag) {
    case 'N':  // notices are for people at a terminal
    case 'A':  // nobody listens
      return Event::kNothing;
    case 'E':
      return on_error(message.body);
    case 'S':
      return on_parameter(message.body);
    case 'R':
      return on_authentication(message.body);
    case 'v':
      return on_negotiated_version(message.body);
    case 'K': {
      protocol::BackendKey key;  // a statement of ours is ended by its deadline: nothing is ever cancelled
      if (!protocol::parse_backend_key_data(message.body, key)) return fail(Kind::kNetwork, "malformed BackendKeyData");
      return Event::kNothing;
    }
    case 'Z':
      return on_ready_for_query(message.body);
    default:
      return on_answer(message);
  }
}

SqlClient::Event SqlClient::out_of_place(char tag) {
  if (state_ == State::kQuerying && kCopyTags.find(tag) != std::string_view::npos)
    return fail(Kind::kNetwork, "the server answered with COPY");
  return fail(Kind::kNetwork, "the server sent a message out of place (type " +
                                  routing::escape_for_log(std::string_view(&tag, 1)) + ")" +
                                  (logged_in() ? "" : " during the login"));
}

SqlClient::Event SqlClient::fail(Kind kind, std::string text) {
  failure_ = {kind, {}, std::move(text)};
  state_ = State::kFailed;
  input_.clear();
  rows_ = PgRows();
  login_.password.clear();
  return Event::kFailed;
}

SqlClient::Event SqlClient::on_error(base::Bytes body) {
  const auto error = protocol::parse_error_fields(body);
  PgFailure failure{Kind::kServer, std::string(error.sqlstate), text_of(error)};
  if (state_ != State::kQuerying || ends_the_session(error)) {
    (void)fail(Kind::kServer, {});
    failure_ = std::move(failure);
    return Event::kFailed;
  }
  failure_ = std::move(failure);
  step_ = Step::kFailed;
  return Event::kNothing;
}

SqlClient::Event SqlClient::on_parameter(base::Bytes body) {
  base::Cursor cursor(body);
  const auto name = cursor.c_string();
  const auto value = cursor.c_string();
  if (!cursor.ok() || cursor.remaining() != 0 || name.empty()) return fail(Kind::kNetwork, "malformed ParameterStatus");
  if (name.size() + value.size() > kMaxSqlParameterText)
    return fail(Kind::kNetwork,
                "the server reports a parameter of more than " + std::to_string(kMaxSqlParameterText) + " bytes");
  const auto known = parameters_.find(name);
  if (known != parameters_.end()) {
    known->second = value;
    return Event::kNothing;
  }
  if (parameters_.size() == kMaxSqlParameters)
    return fail(Kind::kNetwork, "the server reports more than " + std::to_string(kMaxSqlParameters) + " parameters");
  parameters_.emplace(name, value);
  return Event::kNothing;
}

std::string_view SqlClient::parameter(std::string_view name) const {
  const auto found = parameters_.find(name);
  return found == parameters_.end() ? std::string_view() : found->second;
}

SqlClient::Event SqlClient::on_ready_for_query(base::Bytes body) {
  constexpr std::string_view kStatuses = "ITE";
  if (body.size() != 1 || kStatuses.find(static_cast<char>(body[0])) == std::string_view::npos)
    return fail(Kind::kNetwork, "malformed ReadyForQuery");
  spent_ = 0;
  const bool greeted = state_ == State::kGreeting;
  if (!greeted && step_ != Step::kFailed && extended_ && !has_result_)
    return fail(Kind::kNetwork, "the server answered without rows");
  state_ = State::kIdle;
  if (greeted) {
    login_ = {};  // the password is not needed any more
    scram_.reset();
    return Event::kReady;
  }
  if (step_ != Step::kFailed) return Event::kAnswer;
  rows_ = PgRows();
  return Event::kStatementFailed;
}

// ---- statements -----------------------------------------------------------------------------------------------------

void SqlClient::begin_statement(Step first, const std::string& messages) {
  POINTSMAN_CHECK(state_ == State::kIdle);
  output_.append(messages);
  state_ = State::kQuerying;
  step_ = first;
  extended_ = first == Step::kParse;
  has_result_ = wanted_rows_ = false;
  spent_ = 0;
  rows_ = PgRows();
  failure_ = {};
}

void SqlClient::query(std::string_view sql, std::span<const std::string> parameters) {
  POINTSMAN_CHECK(sql.find('\0') == std::string_view::npos && parameters.size() <= 0xffff);
  std::string out;
  append_message(out, 'P', [&](std::string& body) {
    base::append_c_string(body, {});  // the unnamed statement
    base::append_c_string(body, sql);
    base::append_be16(body, 0);  // the server finds the parameters' types
  });
  append_message(out, 'B', [&](std::string& body) {
    base::append_c_string(body, {});
    base::append_c_string(body, {});
    base::append_be16(body, 0);  // all parameters are text
    base::append_be16(body, static_cast<std::uint16_t>(parameters.size()));
    for (const auto& parameter : parameters) {
      base::append_be32(body, static_cast<std::uint32_t>(parameter.size()));
      body.append(parameter);
    }
    base::append_be16(body, 0);  // and so is the result
  });
  append_message(out, 'D', [](std::string& body) { base::append_c_string(body, "P"); });
  append_message(out, 'E', [](std::string& body) {
    base::append_c_string(body, {});
    base::append_be32(body, 0);  // all rows
  });
  append_message(out, 'S', [](std::string&) {});
  begin_statement(Step::kParse, out);
}

void SqlClient::command(std::string_view sql) {
  POINTSMAN_CHECK(sql.find('\0') == std::string_view::npos);
  std::string out;
  append_message(out, 'Q', [&](std::string& body) { base::append_c_string(body, sql); });
  begin_statement(Step::kNextResult, out);
}

void SqlClient::terminate() {
  if (!logged_in()) return;
  std::string out;
  protocol::append_terminate(out);
  output_.append(out);
}

SqlClient::Event SqlClient::on_answer(const protocol::MessageView& message) {
  switch (message.tag) {
    case '1':
      step_ = Step::kBind;
      break;
    case '2':
      step_ = Step::kDescribe;
      break;
    case 'n':
      step_ = Step::kNoRows;
      break;
    case 'T':
      return on_row_description(message.body);
    case 'D':
      return on_data_row(message.body);
    case 'C':
    case 'I':
      step_ = extended_ ? Step::kComplete : Step::kNextResult;
      wanted_rows_ = false;
      return Event::kNothing;
    default:
      POINTSMAN_CHECK(false);  // lawful_answer_tags() has no other
  }
  if (!message.body.empty()) return fail(Kind::kNetwork, "malformed answer");
  return Event::kNothing;
}

SqlClient::Event SqlClient::on_row_description(base::Bytes body) {
  base::Cursor cursor(body);
  result_columns_ = cursor.u16();
  result_rows_ = 0;
  if (result_columns_ > kMaxSqlColumns)
    return fail(Kind::kNetwork, "the server answers with more than " + std::to_string(kMaxSqlColumns) + " columns");
  wanted_rows_ = !has_result_;
  has_result_ = true;
  for (std::size_t i = 0; i < result_columns_; ++i) {
    const auto name = cursor.c_string();
    (void)cursor.bytes(16);  // table, column, type, its size and modifier
    const bool text = cursor.u16() == 0;
    if (!cursor.ok() || !text) return fail(Kind::kNetwork, "malformed RowDescription");
    if (wanted_rows_) rows_.add_column(name);
  }
  if (!cursor.ok() || cursor.remaining() != 0) return fail(Kind::kNetwork, "malformed RowDescription");
  step_ = extended_ ? Step::kRows : Step::kNextRows;
  return Event::kNothing;
}

SqlClient::Event SqlClient::on_data_row(base::Bytes body) {
  base::Cursor cursor(body);
  if (cursor.u16() != result_columns_) return fail(Kind::kNetwork, "malformed DataRow");
  if (++result_rows_ > kMaxSqlRows)
    return fail(Kind::kNetwork, "the server answers with more than " + std::to_string(kMaxSqlRows) + " rows");
  for (std::size_t i = 0; i < result_columns_; ++i) {
    const std::uint32_t size = cursor.u32();
    const bool is_null = size == kNull;
    const auto value = is_null ? base::Bytes() : cursor.bytes(size);
    if (!cursor.ok()) return fail(Kind::kNetwork, "malformed DataRow");
    if (!wanted_rows_) continue;
    if (is_null) {
      rows_.add_null();
    } else {
      rows_.add_cell(base::as_text(value));
    }
  }
  if (!cursor.ok() || cursor.remaining() != 0) return fail(Kind::kNetwork, "malformed DataRow");
  if (wanted_rows_) rows_.end_row();
  return Event::kNothing;
}

}  // namespace pointsman::proxy
