#include "proxy/admin/status_json.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "proxy/admin/destinations.h"
#include "proxy/admin/version.h"
#include "tests/unit/proxy/admin_fake_control.h"

using namespace pointsman;
using Json = nlohmann::ordered_json;
using proxy::FakeControl;

TEST_CASE("the status has the contract's shape, keys in order") {
  FakeControl control;
  control.block->slot(0).active[1].set(3);
  control.block->slot(1).active[proxy::pgbouncer_destination(*control.in_use->config, 0)].set(2);
  control.block->slot(1).active[proxy::endpoint_destination(*control.in_use->config, 1, 0)].set(1);
  control.block->slot(1).holding.set(4);
  const auto text = proxy::status_json(control, std::nullopt, proxy::fake_now());
  REQUIRE(text.has_value());
  CHECK(
      *text ==
      "{\"version\":\"" + std::string(proxy::version()) +
          R"(","draining":false,"branches":{"orders":{"active":true,"primary":"pg-0","timeline":3,"on_hold":false,"holding":4,"members":[)"
          R"({"name":"pg-0","role":"primary","state":"ok","lag_seconds":null,"lag_bytes":null,"sample_age_seconds":0.25,"sessions":2},)"
          R"({"name":"pg-1","role":"replica","state":"ok","lag_seconds":0.021,"lag_bytes":4096,"sample_age_seconds":0.4,"sessions":3},)"
          R"({"name":"pg-2","role":"replica","state":"down","lag_seconds":null,"lag_bytes":null,"sample_age_seconds":null,"sessions":0}],)"
          R"("pools":[{"name":"app","target":"primary","endpoints":[{"address":"10.0.0.21:6432","state":"unknown","sessions":0}]},)"
          R"({"name":"reads","target":"replica","endpoints":[{"address":"10.0.0.20:6432","state":"ok","sessions":1},)"
          R"({"address":"[::1]:7000","state":"unknown","sessions":0}]}]},"spare":{"active":false,"primary":null,"timeline":null,"on_hold":false,)"
          R"("holding":0,"members":[{"name":"pg-9","role":"unknown","state":"unknown","lag_seconds":null,"lag_bytes":null,)"
          R"("sample_age_seconds":null,"sessions":0}],"pools":[]}}})"
          "\n");
}

TEST_CASE("a branch that nobody uses is listed with nothing known of it") {
  FakeControl control;
  // What was true while it was watched is not told any more.
  control.not_in_use->members[0].role = routing::MemberRole::kPrimary;
  control.not_in_use->members[0].state = routing::MemberState::kOk;
  control.not_in_use->members[0].sampled_at = proxy::fake_now();
  control.not_in_use->primary = 0;
  const auto status = Json::parse(*proxy::status_json(control, std::nullopt, proxy::fake_now()));
  REQUIRE(status["branches"].size() == 2);
  const auto& branch = status["branches"]["spare"];
  CHECK(branch["active"] == false);
  CHECK(branch["primary"].is_null());
  CHECK(branch["timeline"].is_null());
  CHECK(branch["members"][0]["role"] == "unknown");
  CHECK(branch["members"][0]["state"] == "unknown");
  CHECK(branch["members"][0]["sample_age_seconds"].is_null());
  CHECK(branch["members"][0]["sessions"] == 0);
}

TEST_CASE("an unknown branch has no status") {
  FakeControl control;
  CHECK_FALSE(proxy::status_json(control, "other", proxy::fake_now()).has_value());
  CHECK_FALSE(proxy::status_json(control, "", proxy::fake_now()).has_value());
}

TEST_CASE("draining is told, and a branch without a primary has none") {
  FakeControl control;
  control.is_draining = true;
  control.in_use->primary = -1;
  const auto status = Json::parse(*proxy::status_json(control, std::nullopt, proxy::fake_now()));
  CHECK(status["draining"] == true);
  CHECK(status["branches"]["orders"]["primary"].is_null());
}

TEST_CASE("sessions come oldest first, and a client's bytes that are no text do no harm") {
  proxy::SessionRow young;
  young.id = 2;
  young.age_seconds = 0.12345;
  young.user = "a\xFF\"\n";
  proxy::SessionRow old;
  old.id = 1;
  old.age_seconds = 60;
  old.backend_pid = 4711;
  const auto sessions = Json::parse(proxy::sessions_json({young, old}))["sessions"];
  REQUIRE(sessions.size() == 2);
  CHECK(sessions[0]["id"] == 1);
  CHECK(sessions[0]["backend_pid"] == 4711);
  CHECK(sessions[1]["age_seconds"] == 0.123);
  CHECK(sessions[1]["backend_pid"].is_null());
  CHECK(sessions[1]["user"] == "a\xEF\xBF\xBD\"\n");
}

TEST_CASE("a route is told with its destination, a refusal with its code") {
  proxy::ControlView::RouteAnswer answer;
  answer.ok = true;
  answer.text_decision = "pg-1";
  answer.reason = "replica_best";
  answer.address = "10.0.0.11:5432";
  answer.role = "alice";
  answer.branch = "orders";
  answer.target = "replica";
  answer.candidates = {"pg-1: eligible"};
  CHECK(
      proxy::route_json(answer) ==
      R"({"ok":true,"role":"alice","branch":"orders","target":"replica","reason":"replica_best","destination":"pg-1","address":"10.0.0.11:5432","candidates":["pg-1: eligible"]})"
      "\n");
  answer = {};
  answer.text_decision = "no replica is up";
  answer.reason = "no_replica";
  answer.sqlstate = "57P03";
  answer.hint = "wait";
  const auto refusal = Json::parse(proxy::route_json(answer));
  CHECK(refusal["ok"] == false);
  CHECK(refusal["message"] == "no replica is up");
  CHECK(refusal["sqlstate"] == "57P03");
  CHECK(refusal["hint"] == "wait");
  CHECK_FALSE(refusal.contains("destination"));
}

TEST_CASE("how a branch's members are found is told where they are not listed") {
  FakeControl control;
  const auto discovery = [&] {
    return Json::parse(*proxy::status_json(control, "orders", proxy::fake_now()))["branches"]["orders"]["discovery"];
  };
  control.discovery_status = {
      .source = "dns", .up = std::nullopt, .age_seconds = std::nullopt, .error = {}, .failures = 0};
  CHECK(discovery().dump() == R"({"source":"dns","state":"unknown","age_seconds":null,"error":null})");
  control.discovery_status = {.source = "patroni", .up = true, .age_seconds = 1.23456, .error = {}, .failures = 4};
  CHECK(discovery().dump() == R"({"source":"patroni","state":"ok","age_seconds":1.235,"error":null})");
  control.discovery_status = {.source = "patroni", .up = false, .age_seconds = 60, .error = "no answer", .failures = 5};
  CHECK(discovery().dump() == R"({"source":"patroni","state":"stale","age_seconds":60.0,"error":"no answer"})");
}

TEST_CASE("who asks for one branch is told all that is known of it") {
  FakeControl control;
  using routing::Reason;
  const auto at = [](Reason reason) { return static_cast<std::size_t>(reason); };
  const std::size_t reasons = routing::kReasonCount;
  control.block->slot(0).decisions[0 * reasons + at(Reason::kPrimary)].set(2);
  control.block->slot(1).decisions[3 * reasons + at(Reason::kLocalPool)].set(1);
  control.block->slot(1).decisions[0 * reasons + at(Reason::kPrimary)].set(5);
  control.block->slot(0).refusals[1 * reasons + at(Reason::kNoReplica)].set(3);
  control.block->slot(1).active[proxy::pgbouncer_destination(*control.in_use->config, 0)].set(2);
  control.in_use->failovers = 1;
  control.in_use->members[1].lag_at_least = 12.3456;
  proxy::DecisionHistory::Counts counts{};
  counts[at(Reason::kPrimary)] = 4;
  control.decisions.add("orders", counts);
  const auto branch = Json::parse(*proxy::status_json(control, "orders", proxy::fake_now()))["branches"]["orders"];
  CHECK(branch["decisions"].dump() == R"({"primary":7,"local_pool":1})");
  CHECK(branch["refusals"].dump() == R"({"no_replica":3})");
  CHECK(branch["history"].dump() == R"({"bin_seconds":10.0,"bins":36,"reasons":{"primary":[4]}})");
  CHECK(branch["lag_limit_seconds"] == 10.0);
  CHECK(branch["labels"].dump() == R"({"app":"shop"})");
  CHECK(branch["failovers"] == 1);
  CHECK(branch["health"] == "warning");
  CHECK(branch["problems"].dump() == R"([{"health":"warning","text":"pg-2 is down"}])");
  CHECK(branch["members"][0]["address"] == "10.0.0.10:5432");
  CHECK(branch["members"][0]["pgbouncer_port"] == 6432);
  CHECK(branch["members"][0]["pgbouncer_sessions"] == 2);
  CHECK(branch["members"][1]["pgbouncer_port"].is_null());
  CHECK(branch["members"][1]["lag_at_least_seconds"] == 12.346);
  CHECK(branch["members"][2]["probe_failures"] == 7);
  // Of one that nobody uses there is nothing to tell, and nothing wrong.
  const auto spare = Json::parse(*proxy::status_json(control, "spare", proxy::fake_now()))["branches"]["spare"];
  CHECK(spare["health"] == "idle");
  CHECK(spare["decisions"].dump() == "{}");
  CHECK(spare["members"][0]["timeline"].is_null());
}
