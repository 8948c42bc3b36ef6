#include "proxy/console/statement.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "base/check.h"
#include "proxy/monitor/switch_answer.h"
#include "routing/session_options.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

constexpr std::string_view kSyntaxError = "42601";
constexpr std::string_view kBadValue = "22023";
constexpr std::string_view kKnown =
    "The console knows SHOW BRANCHES | MEMBERS | POOLS | SESSIONS | ROUTES | STATS | CONFIG | VERSION | HELP, "
    "SHOW ROUTE FOR 'user', HOLD branch, RELEASE branch, KILL session, RELOAD. SHOW HELP tells more.";
constexpr std::size_t kQuoted = 64;  // bytes of the client's text in a message

struct Token {
  enum class Kind : std::uint8_t { kWord, kString, kIdentifier, kSemicolon, kOther, kUnterminated, kEnd };
  Kind kind = Kind::kEnd;
  std::string value;         // without quotes
  std::string_view written;  // as it stands in the text
  std::size_t at = 0;
};

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
bool equal_no_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return lower(x) == lower(y); });
}
bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}
/// What a bare word is made of: names of branches and roles, `role.branch|target`, `0-17`, `30s`.
bool is_word(char c) {
  return (lower(c) >= 'a' && lower(c) <= 'z') || (c >= '0' && c <= '9') ||
         std::string_view("_-.|%:").find(c) != std::string_view::npos || (static_cast<unsigned char>(c) & 0x80) != 0;
}

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}
  Token next();

 private:
  bool skip_blank();
  bool skip_block_comment();
  Token quoted(Token::Kind kind);
  std::string_view rest() const { return text_.substr(at_); }

  std::string_view text_;
  std::size_t at_ = 0;
};

/// False: a comment does not end.
bool Lexer::skip_blank() {
  while (at_ < text_.size()) {
    if (is_space(text_[at_])) {
      ++at_;
    } else if (rest().starts_with("--")) {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (rest().starts_with("/*")) {
      if (!skip_block_comment()) return false;
    } else {
      break;
    }
  }
  return true;
}

/// Comments nest (SQL, and src/backend/parser/scan.l).
bool Lexer::skip_block_comment() {
  const std::size_t begin = at_;
  std::size_t depth = 0;
  while (at_ < text_.size()) {
    if (rest().starts_with("/*")) {
      ++depth;
      at_ += 2;
    } else if (rest().starts_with("*/")) {
      at_ += 2;
      if (--depth == 0) return true;
    } else {
      ++at_;
    }
  }
  at_ = begin;
  return false;
}

Token Lexer::quoted(Token::Kind kind) {
  Token token;
  token.at = at_;
  const char quote = text_[at_++];
  while (at_ < text_.size()) {
    const char c = text_[at_++];
    if (c != quote) {
      token.value += c;
    } else if (at_ < text_.size() && text_[at_] == quote) {
      token.value += c;
      ++at_;
    } else {
      token.kind = kind;
      token.written = text_.substr(token.at, at_ - token.at);
      return token;
    }
  }
  token.kind = Token::Kind::kUnterminated;
  token.written = text_.substr(token.at);
  return token;
}

Token Lexer::next() {
  const bool ends = skip_blank();
  Token token;
  token.at = at_;
  if (!ends) {
    token.kind = Token::Kind::kUnterminated;
    token.written = rest();
    at_ = text_.size();
    return token;
  }
  if (at_ == text_.size()) return token;
  const char first = text_[at_];
  if (first == '\'') return quoted(Token::Kind::kString);
  if (first == '"') return quoted(Token::Kind::kIdentifier);
  if (is_word(first)) {
    while (at_ < text_.size() && is_word(text_[at_]) && !rest().starts_with("--")) ++at_;
    token.kind = Token::Kind::kWord;
  } else {
    ++at_;
    token.kind = first == ';' ? Token::Kind::kSemicolon : Token::Kind::kOther;
  }
  token.written = text_.substr(token.at, at_ - token.at);
  token.value = std::string(token.written);
  return token;
}

struct ShowWord {
  std::string_view word;
  StatementKind kind;
  bool takes_branch;
};
constexpr std::array<ShowWord, 9> kShow = {{
    {"branches", StatementKind::kShowBranches, true},
    {"members", StatementKind::kShowMembers, true},
    {"pools", StatementKind::kShowPools, true},
    {"sessions", StatementKind::kShowSessions, true},
    {"routes", StatementKind::kShowRoutes, true},
    {"stats", StatementKind::kShowStats, true},
    {"config", StatementKind::kShowConfig, false},
    {"version", StatementKind::kShowVersion, false},
    {"help", StatementKind::kShowHelp, false},
}};

/// Decimal digits, nothing else.
template <typename Number>
bool read_digits(std::string_view text, Number& out) {
  if (text.empty() || text.front() < '0' || text.front() > '9') return false;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), out);
  return read.ec == std::errc{} && read.ptr == text.data() + text.size();
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text), lexer_(text) { advance(); }
  std::variant<std::vector<Statement>, StatementFault> parse();

 private:
  using MaybeFault = std::optional<StatementFault>;
  void advance() { token_ = lexer_.next(); }
  bool at_keyword(std::string_view word) const {
    return token_.kind == Token::Kind::kWord && equal_no_case(token_.value, word);
  }
  bool take_keyword(std::string_view word) {
    if (!at_keyword(word)) return false;
    advance();
    return true;
  }
  bool at_end_of_statement() const {
    return token_.kind == Token::Kind::kEnd || token_.kind == Token::Kind::kSemicolon;
  }
  MaybeFault statement(Statement& out);
  MaybeFault show(Statement& out);
  MaybeFault hold(Statement& out);
  MaybeFault kill(Statement& out);
  MaybeFault value(std::string& out, std::string_view usage);
  StatementFault syntax_error(std::string_view hint = kKnown) const;
  StatementFault bad_value(std::string message, std::string hint, std::size_t at) const {
    return {kBadValue, std::move(message), std::move(hint), position_of(at)};
  }
  std::size_t position_of(std::size_t at) const;

  std::string_view text_;
  Lexer lexer_;
  Token token_;
};

/// PostgreSQL counts characters, from 1.
std::size_t Parser::position_of(std::size_t at) const {
  const auto begins_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
  return static_cast<std::size_t>(
             std::count_if(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at), begins_character)) +
         1;
}

StatementFault Parser::syntax_error(std::string_view hint) const {
  if (token_.kind == Token::Kind::kEnd)
    return {kSyntaxError, "syntax error at end of input", std::string(hint), position_of(token_.at)};
  const bool comment = token_.written.starts_with("/*");
  const std::string shown = routing::escape_for_log(comment ? token_.written : token_.value, kQuoted);
  if (token_.kind == Token::Kind::kUnterminated) {
    return {
        kSyntaxError,
        std::string(comment ? "unterminated comment" : "unterminated quoted string") + " at or near \"" + shown + "\"",
        {},
        position_of(token_.at)};
  }
  return {kSyntaxError, "syntax error at or near \"" + shown + "\"", std::string(hint), position_of(token_.at)};
}

Parser::MaybeFault Parser::value(std::string& out, std::string_view usage) {
  const bool good = token_.kind == Token::Kind::kWord || token_.kind == Token::Kind::kString ||
                    token_.kind == Token::Kind::kIdentifier;
  if (!good) return syntax_error(usage);
  if (token_.value.empty()) return bad_value("an empty name", std::string(usage), token_.at);
  out = std::move(token_.value);
  advance();
  return std::nullopt;
}

Parser::MaybeFault Parser::show(Statement& out) {
  if (take_keyword("route")) {
    constexpr std::string_view kUsage =
        "SHOW ROUTE FOR 'role.branch' or SHOW ROUTE FOR 'role.branch|target', with ON 'listener' behind it if wanted.";
    out.kind = StatementKind::kShowRoute;
    if (!take_keyword("for")) return syntax_error(kUsage);
    if (auto fault = value(out.user, kUsage)) return fault;
    return take_keyword("on") ? value(out.listener, kUsage) : std::nullopt;
  }
  const auto found = std::find_if(kShow.begin(), kShow.end(), [this](const ShowWord& s) { return at_keyword(s.word); });
  if (found == kShow.end()) return syntax_error();
  advance();
  out.kind = found->kind;
  if (!found->takes_branch || !take_keyword("for")) return std::nullopt;
  return value(out.branch, "SHOW … FOR branch tells of one branch only.");
}

Parser::MaybeFault Parser::hold(Statement& out) {
  constexpr std::string_view kUsage = "HOLD branch [TIMEOUT '30s'] [FORCE]";
  out.kind = StatementKind::kHold;
  if (auto fault = value(out.branch, kUsage)) return fault;
  while (!at_end_of_statement()) {
    if (!out.force && take_keyword("force")) {
      out.force = true;
      continue;
    }
    if (out.timeout || !take_keyword("timeout")) return syntax_error(kUsage);
    const std::size_t at = token_.at;
    std::string text;
    if (auto fault = value(text, kUsage)) return fault;
    out.timeout = routing::parse_duration(text);
    if (!out.timeout || *out.timeout < std::chrono::seconds(1) || *out.timeout > kLongestLease) {
      return bad_value("invalid timeout \"" + routing::escape_for_log(text, kQuoted) + "\"",
                       "1s to " + routing::format_duration(kLongestLease) + " is allowed, as 30s or 2m.", at);
    }
  }
  return std::nullopt;
}

Parser::MaybeFault Parser::kill(Statement& out) {
  constexpr std::string_view kUsage = "KILL session, with an id of SHOW SESSIONS, as 0-17.";
  out.kind = StatementKind::kKill;
  const std::size_t at = token_.at;
  std::string text;
  if (auto fault = value(text, kUsage)) return fault;
  const std::size_t dash = text.find('-');
  if (dash == std::string::npos || !read_digits(std::string_view(text).substr(0, dash), out.session.worker) ||
      !read_digits(std::string_view(text).substr(dash + 1), out.session.id)) {
    return bad_value("invalid session \"" + routing::escape_for_log(text, kQuoted) + "\"", std::string(kUsage), at);
  }
  return std::nullopt;
}

Parser::MaybeFault Parser::statement(Statement& out) {
  MaybeFault fault;
  if (take_keyword("show")) {
    fault = show(out);
  } else if (take_keyword("hold")) {
    fault = hold(out);
  } else if (take_keyword("release")) {
    out.kind = StatementKind::kRelease;
    fault = value(out.branch, "RELEASE branch");
  } else if (take_keyword("kill")) {
    fault = kill(out);
  } else if (take_keyword("reload")) {
    out.kind = StatementKind::kReload;
  } else {
    return syntax_error();
  }
  if (fault) return fault;
  if (!at_end_of_statement()) return syntax_error();
  return std::nullopt;
}

std::variant<std::vector<Statement>, StatementFault> Parser::parse() {
  std::vector<Statement> statements;
  while (token_.kind != Token::Kind::kEnd) {
    if (token_.kind == Token::Kind::kSemicolon) {
      advance();
      continue;
    }
    if (statements.size() == kMaxStatements) {
      return StatementFault{kSyntaxError, "more than " + std::to_string(kMaxStatements) + " statements at once",
                            "Send fewer in one query.", position_of(token_.at)};
    }
    Statement statement_read;
    if (auto fault = statement(statement_read)) return std::move(*fault);
    statements.push_back(std::move(statement_read));
  }
  return statements;
}

}  // namespace

bool Statement::acts() const {
  return kind == StatementKind::kHold || kind == StatementKind::kRelease || kind == StatementKind::kKill ||
         kind == StatementKind::kReload;
}

std::string_view Statement::tag() const {
  switch (kind) {
    case StatementKind::kShowBranches:
    case StatementKind::kShowMembers:
    case StatementKind::kShowPools:
    case StatementKind::kShowSessions:
    case StatementKind::kShowRoutes:
    case StatementKind::kShowRoute:
    case StatementKind::kShowStats:
    case StatementKind::kShowConfig:
    case StatementKind::kShowVersion:
    case StatementKind::kShowHelp:
      return "SHOW";
    case StatementKind::kHold:
      return "HOLD";
    case StatementKind::kRelease:
      return "RELEASE";
    case StatementKind::kKill:
      return "KILL";
    case StatementKind::kReload:
      return "RELOAD";
  }
  POINTSMAN_CHECK(false);
  return {};
}

std::variant<std::vector<Statement>, StatementFault> parse_statements(std::string_view text) {
  POINTSMAN_CHECK(text.size() <= kMaxQueryBytes);
  return Parser(text).parse();
}

const std::vector<HelpLine>& console_help() {
  static const std::vector<HelpLine> kLines = {
      {"SHOW BRANCHES [FOR branch]", "the branches, their primaries and what waits"},
      {"SHOW MEMBERS [FOR branch]", "the PostgreSQL servers: role, state, lag"},
      {"SHOW POOLS [FOR branch]", "the PgBouncers: beside members, and dedicated ones"},
      {"SHOW SESSIONS [FOR branch]", "every connection, the oldest first"},
      {"SHOW ROUTES [FOR branch]", "where sessions were sent, why, and what was refused"},
      {"SHOW STATS [FOR branch]", "connections and bytes by branch and route"},
      {"SHOW ROUTE FOR 'user' [ON listener]", "where a connection of this user would go now, and why"},
      {"SHOW CONFIG", "the settings, their defaults, and which follow a reload"},
      {"SHOW VERSION", "the version of this router"},
      {"SHOW HELP", "this list"},
      {"HOLD branch [TIMEOUT '30s'] [FORCE]", "pauses the pools on the primary for a planned switch", true},
      {"RELEASE branch", "ends the hold", true},
      {"KILL session", "ends a session at once, with 57P01", true},
      {"RELOAD", "reads the configuration again", true},
  };
  return kLines;
}

}  // namespace pointsman::proxy
