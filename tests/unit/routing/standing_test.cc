#include "routing/standing.h"

#include <doctest/doctest.h>

#include "tests/unit/routing/selection_support.h"

using namespace pointsman::routing;
using pointsman::routing::test::Branch;

namespace {

Decision on_member(int member, RouteClass route) {
  Decision decision;
  decision.member = member;
  decision.route = route;
  return decision;
}

Decision on_endpoint(int pool, int endpoint) {
  Decision decision;
  decision.route = RouteClass::kPool;
  decision.pool = pool;
  decision.endpoint = endpoint;
  return decision;
}

}  // namespace

TEST_CASE("a verified successor ends sessions on the old primary and its PgBouncer, not those on replicas and pools") {
  const Branch then;
  Branch now;
  now.view.primary = 1;
  now.view.members[0].role = MemberRole::kReplica;
  now.view.members[1].role = MemberRole::kPrimary;
  CHECK(standing_of(then.view, on_member(0, RouteClass::kPrimary), now.view) == Standing::kDemoted);
  CHECK(standing_of(then.view, on_member(0, RouteClass::kLocalPool), now.view) == Standing::kDemoted);
  CHECK(standing_of(then.view, on_member(1, RouteClass::kReplica), now.view) == Standing::kPromoted);
  CHECK(standing_of(then.view, on_member(2, RouteClass::kReplica), now.view) == Standing::kStays);
  CHECK(standing_of(then.view, on_endpoint(0, 0), now.view) == Standing::kStays);
  CHECK(may_change_standing(then.view, now.view));
}

TEST_CASE("a silent or lost primary without a successor ends nothing") {
  const Branch then;
  Branch now;
  now.view.config = then.view.config;
  now.view.primary = -1;
  now.view.members[0].state = MemberState::kDown;
  CHECK(standing_of(then.view, on_member(0, RouteClass::kPrimary), now.view) == Standing::kStays);
  CHECK(standing_of(then.view, on_member(0, RouteClass::kLocalPool), now.view) == Standing::kStays);
  now.view.primary = 0;
  CHECK(standing_of(then.view, on_member(0, RouteClass::kPrimary), now.view) == Standing::kStays);
  CHECK_FALSE(may_change_standing(then.view, now.view));
}

TEST_CASE("a member that left the branch, or has another address, ends its sessions; a new order of members does not") {
  const Branch then;
  Branch now;
  std::swap(now.config->members[0], now.config->members[2]);
  std::swap(now.view.members[0], now.view.members[2]);
  now.view.primary = 2;
  CHECK(standing_of(then.view, on_member(0, RouteClass::kPrimary), now.view) == Standing::kStays);
  CHECK(standing_of(then.view, on_member(2, RouteClass::kReplica), now.view) == Standing::kStays);
  now.config->members[0].host = "10.9.9.9";
  CHECK(standing_of(then.view, on_member(2, RouteClass::kReplica), now.view) == Standing::kRemoved);
  now.config->members.erase(now.config->members.begin());
  CHECK(standing_of(then.view, on_member(2, RouteClass::kReplica), now.view) == Standing::kRemoved);
}

TEST_CASE("endpoints of a pool: draining, removed, moved within the list") {
  const Branch then;
  Branch now;
  now.config->pools[1].endpoints[0].draining = true;
  CHECK(standing_of(then.view, on_endpoint(1, 0), now.view) == Standing::kDraining);
  CHECK(standing_of(then.view, on_endpoint(1, 1), now.view) == Standing::kStays);
  now.config->pools[1].endpoints.erase(now.config->pools[1].endpoints.begin());
  CHECK(standing_of(then.view, on_endpoint(1, 0), now.view) == Standing::kRemoved);
  CHECK(standing_of(then.view, on_endpoint(1, 1), now.view) == Standing::kStays);
  now.config->pools.erase(now.config->pools.begin() + 1);
  CHECK(standing_of(then.view, on_endpoint(1, 1), now.view) == Standing::kRemoved);
}

TEST_CASE("the farewell names the server, says 57P01, and gives the time that the configuration allows") {
  const Branch then;
  Branch now;
  now.config->failover.grace = std::chrono::seconds(7);
  now.config->pools[1].drain_timeout = std::chrono::minutes(3);
  const auto demoted = farewell(Standing::kDemoted, then.view, on_member(0, RouteClass::kPrimary), now.view);
  CHECK(demoted.refusal.sqlstate == "57P01");
  CHECK(to_word(demoted.refusal.reason) == "demoted");
  CHECK(demoted.refusal.message.find("pg-0 is no longer the primary") != std::string::npos);
  CHECK(demoted.at_boundary);
  CHECK(demoted.grace == std::chrono::seconds(7));
  const auto draining = farewell(Standing::kDraining, then.view, on_endpoint(1, 0), now.view);
  CHECK_FALSE(draining.at_boundary);
  CHECK(draining.grace == std::chrono::minutes(3));
}
