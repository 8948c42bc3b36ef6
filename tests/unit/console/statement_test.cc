#include "proxy/console/statement.h"

#include <doctest/doctest.h>

#include <string>

#include "protocol/scram.h"
#include "routing/config.h"

namespace pointsman::proxy {
namespace {

using namespace std::chrono_literals;

std::vector<Statement> good(std::string_view text) {
  auto parsed = parse_statements(text);
  INFO(text);
  if (const auto* fault = std::get_if<StatementFault>(&parsed)) FAIL(fault->message);
  return std::get<std::vector<Statement>>(parsed);
}
Statement one(std::string_view text) {
  const auto statements = good(text);
  REQUIRE(statements.size() == 1);
  return statements[0];
}
StatementFault bad(std::string_view text) {
  INFO(text);
  auto parsed = parse_statements(text);
  REQUIRE(std::holds_alternative<StatementFault>(parsed));
  return std::get<StatementFault>(parsed);
}

TEST_CASE("every SHOW is read, whatever its case") {
  CHECK(one("SHOW BRANCHES").kind == StatementKind::kShowBranches);
  CHECK(one("show members;").kind == StatementKind::kShowMembers);
  CHECK(one("  Show\tPools\n;  ;").kind == StatementKind::kShowPools);
  CHECK(one("SHOW SESSIONS").kind == StatementKind::kShowSessions);
  CHECK(one("SHOW ROUTES").kind == StatementKind::kShowRoutes);
  CHECK(one("SHOW STATS").kind == StatementKind::kShowStats);
  CHECK(one("SHOW CONFIG").kind == StatementKind::kShowConfig);
  CHECK(one("SHOW VERSION").kind == StatementKind::kShowVersion);
  CHECK(one("SHOW HELP").kind == StatementKind::kShowHelp);
}

TEST_CASE("FOR narrows to a branch, however its name is written") {
  CHECK(one("SHOW MEMBERS FOR orders-2").branch == "orders-2");
  CHECK(one("SHOW STATS for 'orders'").branch == "orders");
  CHECK(one("SHOW POOLS FOR \"orders\"").branch == "orders");
  CHECK(bad("SHOW CONFIG FOR x").sqlstate == "42601");
  CHECK(bad("SHOW MEMBERS FOR").message == "syntax error at end of input");
  CHECK(bad("SHOW MEMBERS FOR ''").sqlstate == "22023");
}

TEST_CASE("a route is asked for a user, and perhaps a listener") {
  const Statement plain = one("SHOW ROUTE FOR 'alice.orders|replica'");
  CHECK(plain.kind == StatementKind::kShowRoute);
  CHECK(plain.user == "alice.orders|replica");
  CHECK(plain.listener.empty());
  CHECK(one("show route for alice.orders%7Creads on pooled").listener == "pooled");
  CHECK(one("SHOW ROUTE FOR 'o''neill.orders'").user == "o'neill.orders");
  CHECK(one("SHOW ROUTE FOR \"a\"\"b.orders\"").user == "a\"b.orders");
  CHECK(bad("SHOW ROUTE 'alice.orders'").hint.find("SHOW ROUTE FOR") != std::string::npos);
  CHECK(bad("SHOW ROUTE").sqlstate == "42601");
}

TEST_CASE("a hold takes its options in any order, each once") {
  CHECK(one("HOLD orders").branch == "orders");
  CHECK_FALSE(one("HOLD orders").timeout);
  CHECK(one("HOLD orders TIMEOUT '90s' FORCE").timeout == 90s);
  CHECK(one("HOLD orders FORCE TIMEOUT 2m").force);
  CHECK(bad("HOLD").message == "syntax error at end of input");
  CHECK(bad("HOLD orders FORCE FORCE").sqlstate == "42601");
  CHECK(bad("HOLD orders TIMEOUT 1s TIMEOUT 2s").sqlstate == "42601");
  for (const char* timeout : {"0s", "999ms", "301s", "soon", "-1s", "99999999999h"}) {
    CHECK(bad("HOLD orders TIMEOUT '" + std::string(timeout) + "'").sqlstate == "22023");
  }
  CHECK(one("HOLD orders TIMEOUT 1s").timeout == 1s);
  CHECK(one("HOLD orders TIMEOUT 5m").timeout == 5min);
}

TEST_CASE("a session is named by worker and number") {
  CHECK(one("KILL 0-17").session.worker == 0);
  CHECK(one("KILL 0-17").session.id == 17);
  CHECK(one("kill '3-18446744073709551615'").session.id == 18446744073709551615u);
  for (const char* session :
       {"17", "0-", "-17", "0-17x", "0--17", "a-b", "0-18446744073709551616", "4294967296-1", "+1-2"}) {
    CHECK(bad("KILL '" + std::string(session) + "'").sqlstate == "22023");
  }
  CHECK(bad("KILL").sqlstate == "42601");
}

TEST_CASE("what acts is told apart from what shows") {
  for (const char* text : {"HOLD x", "RELEASE x", "KILL 0-1", "RELOAD"}) CHECK(one(text).acts());
  for (const char* text : {"SHOW SESSIONS", "SHOW HELP", "SHOW ROUTE FOR x"}) CHECK_FALSE(one(text).acts());
  CHECK(one("RELOAD").tag() == "RELOAD");
  CHECK(one("SHOW HELP").tag() == "SHOW");
}

TEST_CASE("several statements in one query, comments and nothing at all") {
  const auto several = good("SHOW VERSION; -- the first\n RELOAD; /* and /* nested */ ; */ KILL 1-2");
  REQUIRE(several.size() == 3);
  CHECK(several[1].kind == StatementKind::kReload);
  CHECK(several[2].session.worker == 1);
  CHECK(one("HOLD a-b--comment").branch == "a-b");
  for (const char* nothing : {"", ";", " ; ;\n", "-- only a comment", "/* x */"}) CHECK(good(nothing).empty());
}

TEST_CASE("one bad statement spoils all of them") {
  CHECK(bad("RELOAD; SELECT 1").message == "syntax error at or near \"SELECT\"");
  CHECK(bad("RELOAD RELOAD").position == 8);
}

TEST_CASE("what is unknown is told with its place and with what is known") {
  const StatementFault select = bad("SELECT 1");
  CHECK(select.sqlstate == "42601");
  CHECK(select.message == "syntax error at or near \"SELECT\"");
  CHECK(select.position == 1);
  for (const char* known : {"BRANCHES", "MEMBERS", "POOLS", "SESSIONS", "ROUTES", "STATS", "CONFIG", "VERSION", "HELP",
                            "SHOW ROUTE FOR", "HOLD", "RELEASE", "KILL", "RELOAD"}) {
    CHECK(select.hint.find(known) != std::string::npos);
  }
  CHECK(bad("SHOW").message == "syntax error at end of input");
  CHECK(bad("SHOW 'branches'").sqlstate == "42601");
  CHECK(bad("(").message == "syntax error at or near \"(\"");
  CHECK(bad("SHOW VERSION \x01").message == "syntax error at or near \"\\x01\"");
}

TEST_CASE("positions count characters") {
  CHECK(bad("/* über */ nonsense").position == 12);
  CHECK(bad("SHOW").position == 5);
}

TEST_CASE("what does not end is told where it began") {
  CHECK(bad("HOLD 'orders").message == "unterminated quoted string at or near \"orders\"");
  CHECK(bad("HOLD \"orders").position == 6);
  CHECK(bad("RELOAD /* for ever").message == "unterminated comment at or near \"/* for ever\"");
  CHECK(bad("/*/").sqlstate == "42601");
}

TEST_CASE("no more statements than the limit") {
  std::string text;
  for (std::size_t i = 0; i < kMaxStatements; ++i) text += "RELOAD;";
  CHECK(good(text).size() == kMaxStatements);
  CHECK(bad(text + "RELOAD").message == "more than 64 statements at once");
}

TEST_CASE("the help lists every statement, and each line begins with one that is read") {
  std::size_t acting = 0;
  for (const HelpLine& line : console_help()) {
    CHECK_FALSE(line.what.empty());
    if (line.acts) ++acting;
    const std::string written(line.statement.substr(0, line.statement.find('[')));
    const bool kill = written.starts_with("KILL");
    CHECK(one(kill ? "KILL 0-1" : written).acts() == line.acts);
  }
  CHECK(console_help().size() == 14);
  CHECK(acting == 4);
}

TEST_CASE("the configuration takes exactly the verifiers that a login can use") {
  const std::string key(32, 'k');
  const std::string good_key = protocol::base64_encode(key);
  const auto verifier = [](const std::string& iterations, const std::string& salt, const std::string& stored,
                           const std::string& server) {
    return "SCRAM-SHA-256$" + iterations + ":" + salt + "$" + stored + ":" + server;
  };
  const std::string salt = protocol::base64_encode("0123456789abcdef");
  const std::string longest = protocol::base64_encode(std::string(1024, 's'));
  const std::string too_long = protocol::base64_encode(std::string(1025, 's'));
  const std::string texts[] = {
      verifier("4096", salt, good_key, good_key),
      verifier("1", salt, good_key, good_key),
      verifier("1000000", salt, good_key, good_key),
      verifier("1000001", salt, good_key, good_key),
      verifier("0", salt, good_key, good_key),
      verifier("04096", salt, good_key, good_key),
      verifier("", salt, good_key, good_key),
      verifier("4096 ", salt, good_key, good_key),
      verifier("4096", "", good_key, good_key),
      verifier("4096", "YQ==", good_key, good_key),
      verifier("4096", "YR==", good_key, good_key),
      verifier("4096", "YWI=", good_key, good_key),
      verifier("4096", "YWJ=", good_key, good_key),
      verifier("4096", "YWJj", good_key, good_key),
      verifier("4096", "YWJ", good_key, good_key),
      verifier("4096", "Y=Jj", good_key, good_key),
      verifier("4096", longest, good_key, good_key),
      verifier("4096", too_long, good_key, good_key),
      verifier("4096", salt, protocol::base64_encode(std::string(31, 'k')), good_key),
      verifier("4096", salt, good_key, protocol::base64_encode(std::string(33, 'k'))),
      verifier("4096", salt, good_key, good_key + "="),
      verifier("4096", salt, good_key, good_key) + "\n",
      "md5d41d8cd98f00b204e9800998ecf8427e",
      "scram-sha-256$4096:" + salt + "$" + good_key + ":" + good_key,
      "SCRAM-SHA-256$4096:" + salt,
      "",
  };
  std::size_t accepted = 0;
  for (const std::string& text : texts) {
    INFO(text);
    CHECK(routing::is_scram_verifier(text) == protocol::parse_scram_verifier(text).has_value());
    if (routing::is_scram_verifier(text)) ++accepted;
  }
  CHECK(accepted == 7);
}

}  // namespace
}  // namespace pointsman::proxy
