// What the console's statements answer and do, on a fake router.
#include "proxy/console/executor.h"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "proxy/admin/version.h"
#include "proxy/console/tables.h"
#include "tests/unit/proxy/admin_fake_control.h"

namespace pointsman::proxy {
namespace {

using Lines = std::vector<std::string>;

std::string text_of(const Cell& cell) {
  struct Visitor {
    std::string operator()(std::monostate) const { return "-"; }
    std::string operator()(const std::string& text) const { return text; }
    std::string operator()(std::int64_t number) const { return std::to_string(number); }
    std::string operator()(double number) const { return std::to_string(number).substr(0, 5); }
    std::string operator()(bool yes) const { return yes ? "t" : "f"; }
  };
  return std::visit(Visitor{}, cell);
}

/// A row a line, cells apart by a bar; checks that each row goes over the wire.
Lines lines_of(Table table) {
  Lines lines;
  std::string header;
  for (const Column& column : table.columns) header += (header.empty() ? "" : "|") + std::string(column.name);
  lines.push_back(header);
  CHECK(table.columns.size() <= kMaxColumns);
  while (auto rows = table.more()) {
    for (const Row& row : *rows) {
      std::string wire;
      append_data_row(wire, table.columns, row);
      std::string line;
      for (std::size_t i = 0; i < row.size(); ++i) line += (i == 0 ? "" : "|") + text_of(row[i]);
      lines.push_back(line);
    }
  }
  return lines;
}

struct Scene {
  FakeControl control;
  Executor executor{control};
  std::vector<StatementResult> results;

  void run(std::string_view text) {
    auto parsed = parse_statements(text);
    REQUIRE(std::holds_alternative<std::vector<Statement>>(parsed));
    for (const Statement& statement : std::get<std::vector<Statement>>(parsed)) {
      executor.execute(statement, {"admin", "127.0.0.1:5000"}, fake_now(),
                       [this](StatementResult result) { results.push_back(std::move(result)); });
    }
  }
  StatementResult one(std::string_view text) {
    results.clear();
    run(text);
    REQUIRE(results.size() == 1);
    return std::move(results[0]);
  }
  Lines show(std::string_view text) {
    auto result = one(text);
    if (result.error) FAIL(result.error->message);
    REQUIRE(result.table);
    return lines_of(std::move(*result.table));
  }
};

TEST_CASE("branches: those in use with what is known, the others without") {
  Scene scene;
  scene.control.block->slot(0).active[0].add(2);
  scene.control.block->slot(1).active[8].add(1);
  scene.control.block->slot(1).holding.add(3);
  scene.control.in_use->on_hold = true;
  CHECK(scene.show("SHOW BRANCHES") ==
        Lines{"branch|active|primary|timeline|members|pools|sessions|holding|on_hold|failovers",
              "orders|t|pg-0|3|3|2|3|3|t|0", "spare|f|-|-|1|0|0|0|f|0"});
  CHECK(scene.show("SHOW BRANCHES FOR spare").size() == 2);
  scene.control.in_use->primary = -1;
  CHECK(scene.show("SHOW BRANCHES FOR orders")[1].starts_with("orders|t|-|"));
  scene.control.not_in_use = nullptr;
  CHECK(scene.show("SHOW BRANCHES").size() == 2);
}

TEST_CASE("members: role, state, lag, and how old that knowledge is") {
  Scene scene;
  scene.control.block->slot(0).active[1].add(4);  // pg-1
  scene.control.block->slot(0).active[3].add(1);  // the PgBouncer beside pg-0
  CHECK(
      scene.show("SHOW MEMBERS") ==
      Lines{"branch|member|host|port|zone|role|state|lag_seconds|lag_bytes|sample_age|timeline|sessions|probe_failures",
            "orders|pg-0|10.0.0.10|5432|-|primary|ok|-|-|0.250|-|1|0",
            "orders|pg-1|10.0.0.11|5432|-|replica|ok|0.021|4096|0.400|-|4|0",
            "orders|pg-2|10.0.0.12|5432|-|replica|down|-|-|-|-|0|7",
            "spare|pg-9|10.0.0.99|5432|-|unknown|unknown|-|-|-|-|0|0"});
}

TEST_CASE("pools: those beside members, then the dedicated ones") {
  Scene scene;
  scene.control.block->slot(0).active[8].add(2);
  CHECK(scene.show("SHOW POOLS FOR orders") ==
        Lines{"branch|pool|target|member|address|state|draining|sessions",
              "orders|-|primary|pg-0|10.0.0.10:6432|unknown|f|0", "orders|app|primary|-|10.0.0.21:6432|unknown|f|0",
              "orders|reads|replica|-|10.0.0.20:6432|unknown|f|0", "orders|reads|replica|-|[::1]:7000|ok|f|2"});
}

TEST_CASE("routes and stats: the counters of all workers") {
  Scene scene;
  const auto reason = [](routing::Reason r) { return static_cast<std::size_t>(r); };
  auto& first = scene.control.block->slot(0);
  auto& second = scene.control.block->slot(1);
  first.decisions[0 * routing::kReasonCount + reason(routing::Reason::kPrimary)].add(5);
  second.decisions[0 * routing::kReasonCount + reason(routing::Reason::kPrimary)].add(2);
  first.decisions[1 * routing::kReasonCount + reason(routing::Reason::kReplicaBest)].add(3);
  // It was a replica then; the decision keeps its route.
  first.decisions[0 * routing::kReasonCount + reason(routing::Reason::kReplicaOnly)].add(1);
  first.decisions[6 * routing::kReasonCount + reason(routing::Reason::kHeld)].add(1);
  first.refusals[0 * routing::kReasonCount + reason(routing::Reason::kAllLagging)].add(1);
  second.refusals[1 * routing::kReasonCount + reason(routing::Reason::kAllLagging)].add(1);
  first.active[0].add(2);
  const auto cell = [](std::size_t listener, routing::RouteClass route, metrics::Outcome outcome) {
    return (listener * routing::kRouteClassCount + static_cast<std::size_t>(route)) * metrics::kOutcomes +
           static_cast<std::size_t>(outcome);
  };
  first.connections[cell(0, routing::RouteClass::kPrimary, metrics::Outcome::kOk)].add(6);
  second.connections[cell(1, routing::RouteClass::kPrimary, metrics::Outcome::kFailed)].add(1);
  first.connections[cell(0, routing::RouteClass::kReplica, metrics::Outcome::kRefused)].add(2);
  second.bytes[0].add(100);
  first.bytes[1].add(200);
  CHECK(scene.show("SHOW ROUTES") == Lines{"branch|route|destination|reason|count", "orders|primary|pg-0|primary|7",
                                           "orders|replica|pg-0|replica_only|1", "orders|replica|pg-1|replica_best|3",
                                           "orders|pool|app/10.0.0.21:6432|held|1", "orders|-|-|all_lagging|2"});
  CHECK(scene.show("SHOW STATS") ==
        Lines{"branch|route|active|ended|refused|failed|decisions|bytes_from_client|bytes_to_client",
              "orders|primary|2|6|0|1|7|100|200", "orders|replica|0|0|2|0|4|0|0", "orders|pool|0|0|0|0|1|0|0"});
  CHECK(scene.show("SHOW STATS FOR spare").size() == 1);
}

SessionRow session(std::uint32_t worker, std::uint64_t id, double age, const char* branch = "orders") {
  SessionRow row;
  row.worker = worker;
  row.id = id;
  row.age_seconds = age;
  row.branch = branch;
  row.user = "alice." + row.branch;
  return row;
}

TEST_CASE("sessions: the oldest first, what clients typed escaped") {
  Scene scene;
  scene.run("SHOW SESSIONS");
  REQUIRE(scene.control.waiting_sessions);
  CHECK(scene.results.empty());
  auto odd = session(1, 2, 1.5);
  odd.application = "a\nb";
  odd.user = std::string(5000, 'u');
  odd.backend_pid = 77;
  odd.idle = true;
  scene.control.waiting_sessions({odd, session(0, 9, 3.25), session(0, 3, 3.25, "spare")});
  REQUIRE(scene.results.size() == 1);
  const Lines lines = lines_of(std::move(*scene.results[0].table));
  REQUIRE(lines.size() == 4);
  CHECK(lines[1].starts_with("0-3|"));
  CHECK(lines[2].starts_with("0-9|"));
  CHECK(lines[3].starts_with("1-2|"));
  CHECK(lines[3].find("|a\\x0ab|") != std::string::npos);
  CHECK(lines[3].find("|t|77|1.500|0|0") != std::string::npos);
  CHECK(lines[3].size() < 1400);
}

TEST_CASE("sessions of one branch, and no more than the limit") {
  Scene scene;
  scene.run("SHOW SESSIONS FOR spare");
  std::vector<SessionRow> rows;
  for (std::uint64_t i = 0; i < kMaxSessionsShown + 5; ++i)
    rows.push_back(session(0, i, static_cast<double>(i), "spare"));
  rows.push_back(session(1, 1, 1e6));
  scene.control.waiting_sessions(rows);
  auto& result = scene.results.at(0);
  REQUIRE(result.notices.size() == 1);
  CHECK(result.notices[0].message == "the oldest 20000 of 20005 sessions are shown");
  std::size_t given = 0;
  std::string last;
  while (auto more = result.table->more()) {
    CHECK(more->size() <= 100);
    given += more->size();
    last = text_of(more->back()[0]);
  }
  CHECK(given == kMaxSessionsShown);
  CHECK(last == "0-5");
}

TEST_CASE("so many consoles may read sessions at once, as long as their answers live") {
  Scene scene;
  for (std::size_t i = 0; i < kMaxSessionAnswers; ++i) {
    scene.run("SHOW SESSIONS");
    scene.control.waiting_sessions({session(0, i, 1)});
  }
  REQUIRE(scene.results.size() == kMaxSessionAnswers);
  std::vector<StatementResult> kept = std::move(scene.results);
  scene.control.waiting_sessions = nullptr;
  scene.results.clear();
  scene.run("SHOW SESSIONS");
  REQUIRE(scene.results.size() == 1);
  REQUIRE(scene.results[0].error);
  CHECK(scene.results[0].error->sqlstate == "53400");
  CHECK_FALSE(scene.control.waiting_sessions);
  kept.pop_back();
  scene.run("SHOW SESSIONS");
  CHECK(scene.control.waiting_sessions);
}

TEST_CASE("a route answers what /api/route answers") {
  Scene scene;
  scene.control.route_answer = {.ok = true,
                                .text_decision = "pg-1",
                                .reason = "replica_best",
                                .sqlstate = {},
                                .detail = {},
                                .hint = {},
                                .role = "alice",
                                .branch = "orders",
                                .target = "replica",
                                .address = "10.0.0.11:5432",
                                .candidates = {"pg-1: chosen", "pg-2: down"}};
  CHECK(scene.show("SHOW ROUTE FOR 'alice.orders|replica' ON direct") ==
        Lines{"what|value", "ok|yes", "role|alice", "branch|orders", "target|replica", "destination|pg-1",
              "address|10.0.0.11:5432", "reason|replica_best", "candidate|pg-1: chosen", "candidate|pg-2: down"});
  CHECK(scene.control.asked_user == "alice.orders|replica");
  CHECK(scene.control.asked_listener == "direct");
  scene.control.route_answer = {.ok = false,
                                .text_decision = "no",
                                .reason = "no_primary",
                                .sqlstate = "57P03",
                                .detail = "d",
                                .hint = "h",
                                .role = {},
                                .branch = {},
                                .target = {},
                                .address = {},
                                .candidates = {}};
  CHECK(scene.show("SHOW ROUTE FOR x.y") ==
        Lines{"what|value", "ok|no", "message|no", "reason|no_primary", "sqlstate|57P03", "detail|d", "hint|h"});
  const auto nowhere = scene.one("SHOW ROUTE FOR x.y ON nowhere");
  REQUIRE(nowhere.error);
  CHECK(nowhere.error->sqlstate == "22023");
  CHECK(nowhere.error->hint == "There are: direct, pooled");
}

TEST_CASE("the configuration, without its secrets") {
  Scene scene;
  auto config = std::make_shared<routing::Config>(*scene.control.config);
  config->file = "/etc/pointsman.json";
  config->admin.emplace().token = base::SecretString("hidden-token");
  config->tls = routing::TlsConfig{"/etc/server.crt", "/etc/server.key", true};
  config->console.users["admin"] = {base::SecretString("SCRAM-SHA-256$hidden"), routing::ConsoleRole::kAdmin};
  config->console.listeners.emplace_back().name = "console";
  config->listeners[0].fixed.branch = "orders";
  config->limits.startup_timeout = std::chrono::milliseconds(1500);
  scene.control.config = config;
  scene.control.reset_directory();
  std::map<std::string, std::string> shown;
  for (const std::string& line : scene.show("SHOW CONFIG")) {
    CHECK(line.find("hidden") == std::string::npos);
    const auto bar = line.find('|');
    CHECK(shown.emplace(line.substr(0, bar), line.substr(bar + 1)).second);
  }
  CHECK(shown.at("key") == "value|default|reload");
  CHECK(shown.at("limits.startup_timeout") == "1500ms|15s|t");
  CHECK(shown.at("limits.max_connections") == "20000|-|f");
  CHECK(shown.at("admin.token_file") == "(set)|-|f");
  CHECK(shown.at("console.users.admin") == "admin|-|t");
  CHECK(shown.at("listeners.console.port") == "7531|7531|f");
  CHECK(shown.at("listeners.direct.branch") == "orders|-|t");
  CHECK(shown.at("tls.min_version") == "1.3|1.2|t");
  CHECK(shown.at("state_dir") == "-|-|f");
}

TEST_CASE("version and help") {
  Scene scene;
  CHECK(scene.show("SHOW VERSION") == Lines{"version", "Pointsman " + std::string(version())});
  const Lines help = scene.show("SHOW HELP");
  CHECK(help[0] == "statement|role|what");
  CHECK(help.size() == console_help().size() + 1);
  CHECK(help.back() == "RELOAD|admin|reads the configuration again");
}

TEST_CASE("a branch that is not configured is told, whoever asks") {
  Scene scene;
  for (const char* text : {"SHOW BRANCHES FOR no", "SHOW SESSIONS FOR no", "SHOW STATS FOR no"}) {
    const auto result = scene.one(text);
    REQUIRE(result.error);
    CHECK(result.error->sqlstate == "22023");
    CHECK(result.error->message == "no branch \"no\" is configured");
  }
  CHECK_FALSE(scene.control.waiting_sessions);
}

TEST_CASE("hold and release go to the router, and their answers to the client") {
  Scene scene;
  scene.control.switch_answer.message = "orders is on hold";
  scene.control.switch_answer.warnings = {"no state_dir"};
  scene.control.switch_answer.pgbouncers = {{"pg-0 (pgbouncer)", "paused", ""}};
  const auto held = scene.one("HOLD orders TIMEOUT 90s FORCE");
  CHECK_FALSE(held.error);
  REQUIRE(held.notices.size() == 2);
  CHECK(held.notices[0].severity == "WARNING");
  CHECK(held.notices[1].message == "orders is on hold");
  CHECK(held.notices[1].detail == "pgbouncer: pg-0 (pgbouncer): paused");
  CHECK_FALSE(scene.one("RELEASE orders").error);
  CHECK_FALSE(scene.one("HOLD orders").error);
  CHECK(scene.control.switches_asked == Lines{"hold orders 90s force", "release orders", "hold orders 30s"});
}

TEST_CASE("a refused switch says what stands in the way, up to a limit") {
  Scene scene;
  auto& answer = scene.control.switch_answer;
  answer.outcome = SwitchAnswer::Outcome::kRefused;
  answer.message = "transactions are in the way";
  for (std::size_t i = 0; i < kMaxListed + 3; ++i) answer.transactions.push_back({41, "app", "active", 12.34});
  const auto refused = scene.one("HOLD orders");
  REQUIRE(refused.error);
  CHECK(refused.error->sqlstate == "55000");
  CHECK(refused.error->detail.starts_with("transaction: pid 41, user app, active, 12.3 s\n"));
  CHECK(refused.error->detail.ends_with("\nand 3 more"));
  answer.outcome = SwitchAnswer::Outcome::kFailed;
  CHECK(scene.one("HOLD orders").error->sqlstate == "58000");
  answer.outcome = SwitchAnswer::Outcome::kNotOnHold;
  CHECK(scene.one("RELEASE orders").error->sqlstate == "55000");
  answer.outcome = SwitchAnswer::Outcome::kUnknownBranch;
  CHECK(scene.one("RELEASE orders").error->sqlstate == "22023");
}

TEST_CASE("kill names the session to its worker") {
  Scene scene;
  CHECK_FALSE(scene.one("KILL 3-17").error);
  scene.control.session_is_there = false;
  const auto gone = scene.one("KILL '0-1'");
  REQUIRE(gone.error);
  CHECK(gone.error->sqlstate == "22023");
  CHECK(gone.error->message == "there is no session 0-1");
  CHECK(scene.control.killed == Lines{"3-17", "0-1"});
}

TEST_CASE("reload says what is wrong") {
  Scene scene;
  CHECK(scene.one("RELOAD").notices.empty());
  scene.control.reload_result = {.applied = true, .errors = {"f: /branches/x: bad"}};
  const auto partly = scene.one("RELOAD");
  CHECK_FALSE(partly.error);
  REQUIRE(partly.notices.size() == 1);
  CHECK(partly.notices[0].severity == "WARNING");
  CHECK(partly.notices[0].detail == "f: /branches/x: bad");
  scene.control.reload_result = {.applied = false, .errors = {"f: /listeners: bad"}};
  const auto failed = scene.one("RELOAD");
  REQUIRE(failed.error);
  CHECK(failed.error->sqlstate == "F0000");
  CHECK(failed.error->detail == "f: /listeners: bad");
  CHECK(scene.control.reloads_asked == 3);
}

}  // namespace
}  // namespace pointsman::proxy
