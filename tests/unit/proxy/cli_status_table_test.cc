#include "proxy/cli/status_table.h"

#include <doctest/doctest.h>

#include "proxy/admin/status_json.h"
#include "tests/unit/proxy/admin_fake_control.h"

using namespace pointsman;
using proxy::FakeControl;

namespace {

std::string table_of(const FakeControl& control) {
  const auto table = proxy::status_table(*proxy::status_json(control, std::nullopt, proxy::fake_now()));
  REQUIRE(table.ok());
  return table.value().substr(table.value().find('\n') + 2);  // without the version's line
}

}  // namespace

TEST_CASE("the table has a line a member and endpoint, and one for a branch that is not in use") {
  FakeControl control;
  control.block->slot(0).active[1].set(1234);
  CHECK("\n" + table_of(control) == R"(
BRANCH  TIMELINE  NODE                  ROLE           STATE          LAG   BEHIND  SAMPLED  SESSIONS
orders  3         pg-0                  primary        ok               -        -   0.25 s         0
                  pg-1                  replica        ok          0.02 s  4.0 KiB   0.40 s      1234
                  pg-2                  replica        down             -        -        -         0
                  app/10.0.0.21:6432    pool, primary  unknown          -        -        -         0
                  reads/10.0.0.20:6432  pool, replica  unknown          -        -        -         0
                  reads/[::1]:7000      pool, replica  unknown          -        -        -         0
spare   -         1 member              -              not in use       -        -        -         -
)");
}

TEST_CASE("held logins and a missing primary are told below the table, draining above it") {
  FakeControl control;
  control.is_draining = true;
  control.in_use->primary = -1;
  control.block->slot(0).holding.set(2);
  const auto table = proxy::status_table(*proxy::status_json(control, std::nullopt, proxy::fake_now()));
  REQUIRE(table.ok());
  CHECK(table.value().find(", 2 branches, 1 in use, DRAINING\n") != std::string::npos);
  CHECK(table.value().ends_with("\norders: 2 logins held\norders: no primary\n"));
}

TEST_CASE("an answer of another shape is an error, not a crash") {
  for (const auto* text :
       {"", "[]", "{}", "null", "{\"branches\":[]}", "{\"version\":1,\"draining\":false,\"branches\":{}}",
        "{\"branches\":{\"a\":1},\"version\":\"\"}"}) {
    CAPTURE(text);
    REQUIRE_FALSE(proxy::status_table(text).ok());
    CHECK(proxy::status_table(text).error().find("another version") != std::string::npos);
    CHECK_FALSE(proxy::route_text(text).ok());
  }
  CHECK_FALSE(proxy::pretty_json("{").ok());
  CHECK(proxy::pretty_json("{\"b\":1,\"a\":2}").value() == "{\n  \"b\": 1,\n  \"a\": 2\n}\n");
}

TEST_CASE("a route is told in lines, empty ones left out") {
  proxy::ControlView::RouteAnswer answer;
  answer.ok = true;
  answer.text_decision = "pg-1";
  answer.address = "10.0.0.11:5432";
  answer.reason = "replica_best";
  answer.role = "alice";
  answer.branch = "orders";
  answer.candidates = {"pg-1: eligible", "pg-2: down"};
  const auto route = proxy::route_text(proxy::route_json(answer));
  REQUIRE(route.ok());
  CHECK(route.value().ok);
  CHECK("\n" + route.value().text == R"(
goes to pg-1 at 10.0.0.11:5432
  reason      replica_best
  role        alice
  branch      orders
  candidates  pg-1: eligible
              pg-2: down
)");
}

TEST_CASE("a refusal is told with its code and hint and is no success") {
  proxy::ControlView::RouteAnswer answer;
  answer.text_decision = "no replica is up";
  answer.reason = "no_replica";
  answer.sqlstate = "57P03";
  answer.hint = "try again";
  const auto route = proxy::route_text(proxy::route_json(answer));
  REQUIRE(route.ok());
  CHECK_FALSE(route.value().ok);
  CHECK("\n" + route.value().text == R"(
refused: no replica is up
  sqlstate    57P03
  hint        try again
  reason      no_replica
)");
}

TEST_CASE("an error answer is told by its own words, else by its status") {
  CHECK(proxy::error_text(404, "{\"error\":\"no branch\"}") == "no branch");
  CHECK(proxy::error_text(502, "<html>") == "the admin endpoint answered with status 502");
  CHECK(proxy::error_text(502, "{\"error\":1}") == "the admin endpoint answered with status 502");
}
