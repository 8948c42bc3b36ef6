#include "proxy/admin/overview_json.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "proxy/admin/branch_health.h"
#include "proxy/admin/version.h"
#include "tests/unit/proxy/admin_fake_control.h"

using namespace pointsman;
using Json = nlohmann::ordered_json;
using proxy::EventKind;
using proxy::EventsQuery;
using proxy::FakeControl;
using proxy::LogLevel;
using proxy::OverviewQuery;
using routing::MemberState;

namespace {

OverviewQuery asking(std::string_view search) {
  auto query = OverviewQuery::parse(search);
  REQUIRE(query.ok());
  return query.value();
}

Json overview(const FakeControl& control, const OverviewQuery& query) {
  proxy::SearchIndex index;
  return Json::parse(proxy::overview_json(control, query, index));
}
Json overview(const FakeControl& control, std::string_view search = "") {
  return overview(control, asking(search));
}

std::vector<std::string> names(const Json& overview) {
  std::vector<std::string> out;
  for (const auto& row : overview["rows"]) out.push_back(row["name"]);
  return out;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("the overview is the router in short and a small row for each branch") {
  FakeControl control;
  control.worker.sessions.set(12);
  control.block->slot(0).active[1].set(3);
  control.block->slot(1).active[8].set(2);
  control.reloads.branches_rejected = 1;
  control.in_use->members[2].state = MemberState::kOk;
  control.in_use->members[2].lag_seconds = 3.26;
  const auto told = overview(control);
  CHECK(told["version"] == proxy::version());
  CHECK(told["branches"].dump() == R"({"configured":2,"active":1,"error":0,"warning":0,"on_hold":0})");
  CHECK(told["sessions"] == 12);
  CHECK(told["config"]["rejected_branches"] == 1);
  CHECK(told["listeners"][1]["name"] == "pooled");
  CHECK(told["matching"] == 2);
  CHECK(
      told["rows"].dump() ==
      R"([{"name":"orders","health":"ok","primary":"pg-0","lag_seconds":3.3,"lag_limit_seconds":10.0,"sessions":5,"holding":0,"problem":null,"problems":0},)"
      R"({"name":"spare","health":"idle","primary":null,"lag_seconds":null,"lag_limit_seconds":10.0,"sessions":0,"holding":0,"problem":null,"problems":0}])");
}

TEST_CASE("branches in trouble come first") {
  FakeControl control;
  CHECK(names(overview(control)) == Names{"orders", "spare"});
  control.not_in_use->active = true;
  control.not_in_use->settled = true;  // and without a primary
  CHECK(names(overview(control)) == Names{"spare", "orders"});
  CHECK(overview(control)["rows"][0]["problem"] == "no primary");
  CHECK(overview(control)["branches"].dump() == R"({"configured":2,"active":2,"error":1,"warning":1,"on_hold":0})");
}

TEST_CASE("a search looks at names, labels and hosts, in any case; its words must all be there") {
  FakeControl control;
  const auto found = [&](std::string_view search) { return names(overview(control, search)); };
  CHECK(found("ORD") == Names{"orders"});
  CHECK(found("shop") == Names{"orders"});
  CHECK(found("app=sh") == Names{"orders"});
  CHECK(found("10.0.0.99") == Names{"spare"});
  CHECK(found("10.0.0 spa") == Names{"spare"});
  CHECK(found("  ").size() == 2);
  CHECK(found("app=ledger").empty());
  CHECK(found("is:active") == Names{"orders"});
  CHECK(found("is:problem") == Names{"orders"});  // pg-2 is down
  control.in_use->members[2].state = MemberState::kOk;
  CHECK(found("is:problem").empty());
  CHECK(overview(control, "is:problem")["branches"]["configured"] == 2);
}

TEST_CASE("a branch with another configuration is found by what it has now") {
  FakeControl control;
  proxy::SearchIndex index;
  const auto matching = [&](std::string_view search) {
    return Json::parse(proxy::overview_json(control, asking(search), index))["matching"].get<int>();
  };
  CHECK(matching("10.0.0.10") == 1);
  auto moved = std::make_shared<routing::BranchConfig>(*control.in_use->config);
  moved->members[0].host = "New.Example";
  control.in_use->config = moved;
  CHECK(matching("10.0.0.10") == 0);
  CHECK(matching("new.example") == 1);
  CHECK(matching("shop\nnew") == 1);  // two words
  CHECK(matching("shopnew") == 0);
}

TEST_CASE("only the rows that were asked for are told") {
  FakeControl control;
  OverviewQuery query = asking("");
  query.limit = 1;
  CHECK(names(overview(control, query)) == Names{"orders"});
  query.offset = 1;
  const auto second = overview(control, query);
  CHECK(names(second) == Names{"spare"});
  CHECK(second["matching"] == 2);
  CHECK(second["offset"] == 1);
  query.offset = 2;
  CHECK(overview(control, query)["rows"].empty());
  query.offset = 0;
  query.limit = 0;
  CHECK(overview(control, query)["rows"].empty());
}

TEST_CASE("what is wrong with a branch is told worst first") {
  FakeControl control;
  control.in_use->primary = -1;
  control.in_use->on_hold = true;
  control.block->slot(0).holding.set(2);
  control.in_use->members[0].probe_refused = true;
  control.in_use->members[1].state = MemberState::kLagging;
  control.in_use->members[1].lag_seconds = 42;
  std::string all;
  for (const auto& problem : proxy::problems_of(*control.in_use, std::nullopt))
    all += std::string(to_text(problem.health)) + ": " + problem.text + "\n";
  CHECK(all ==
        "error: no primary\nerror: pg-0 refuses the probe login\nwarning: on hold for a planned switch\n"
        "warning: 2 logins wait\nwarning: pg-1 is 42.0 s behind\nwarning: pg-2 is down\n");
  CHECK(proxy::health_of(*control.in_use, std::nullopt, 0) == proxy::Health::kError);
}

TEST_CASE("a source of members that does not answer is a warning, without members an error") {
  FakeControl control;
  control.in_use->members.resize(2);
  const proxy::DiscoveryStatus stale{
      .source = "dns", .up = false, .age_seconds = 60, .error = "no answer", .failures = 5};
  CHECK(proxy::health_of(*control.in_use, std::nullopt, 0) == proxy::Health::kOk);
  CHECK(proxy::health_of(*control.in_use, stale, 0) == proxy::Health::kWarning);
  control.in_use->members.clear();
  control.in_use->settled = false;
  control.in_use->primary = -1;
  CHECK(proxy::problems_of(*control.in_use, stale).front().text == "discovery has named no member");
  control.in_use->active = false;
  CHECK(proxy::health_of(*control.in_use, stale, 0) == proxy::Health::kIdle);
}

TEST_CASE("a branch that is still looking around is in no trouble yet") {
  FakeControl control;
  control.in_use->settled = false;
  control.in_use->primary = -1;
  CHECK(proxy::health_of(*control.in_use, std::nullopt, 0) == proxy::Health::kOk);
}

TEST_CASE("events after an id, of one branch or all, the newest of them") {
  FakeControl control;
  for (int i = 1; i <= 5; ++i)
    control.ring.add(1000 + i, LogLevel::kWarning, EventKind::kMember, i % 2 == 0 ? "orders" : "", std::to_string(i));
  const auto told = [&](EventsQuery query) {
    const auto json = Json::parse(proxy::events_json(control, query));
    CHECK(json["last_id"] == 5);
    CHECK(json["started_unix_ms"] == control.started_unix_ms());
    std::string texts;
    for (const auto& event : json["events"]) texts += event["text"].get<std::string>();
    return texts;
  };
  CHECK(told({}) == "12345");
  CHECK(told({.after = 3, .branch = {}, .limit = 100}) == "45");
  CHECK(told({.after = 0, .branch = {}, .limit = 2}) == "45");
  CHECK(told({.after = 0, .branch = "orders", .limit = 100}) == "24");
  CHECK(told({.after = 5, .branch = {}, .limit = 100}).empty());
  CHECK(told({.after = 6, .branch = {}, .limit = 100}).empty());
  CHECK(Json::parse(proxy::events_json(control, {.after = 4, .branch = {}, .limit = 1}))["events"][0].dump() ==
        R"({"id":5,"time_unix_ms":1005,"level":"warning","kind":"member","branch":null,"text":"5"})");
}
