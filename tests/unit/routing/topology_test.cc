#include "routing/topology.h"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/unit/routing/topology_support.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using test::three_members;
using test::World;

// --- waking up ---

TEST_CASE("an inactive branch has no primary, its members are unknown, its numeric addresses known") {
  BranchTopology topology(three_members());
  const auto view = topology.view(base::Instant(1s));
  CHECK_FALSE(view->active);
  CHECK_FALSE(view->settled);
  CHECK(view->primary == -1);
  CHECK(view->members[0].role == MemberRole::kUnknown);
  CHECK(view->members[0].state == MemberState::kUnknown);
  CHECK(view->members[0].address.to_string() == "10.0.0.10:5432");
  CHECK(view->members[0].pgbouncer_address.to_string() == "10.0.0.10:6432");
  CHECK(view->pools[0].endpoints[0].address.known());
  CHECK_FALSE(view->pools[0].endpoints[1].address.known());
}

TEST_CASE("a verdict is given when each member has answered or failed once") {
  World world;
  world.sample(0, world.primary(1000));
  CHECK_FALSE(world.view()->settled);
  CHECK(world.view()->primary == -1);
  world.sample(1, world.replica(1000));
  world.fail(2);
  CHECK(world.changed);
  const auto view = world.view();
  CHECK(view->settled);
  CHECK(view->primary == 0);
  CHECK(view->timeline == 1);
  CHECK(view->system_identifier == "sys-1");
  CHECK(view->members[0].role == MemberRole::kPrimary);
  CHECK(view->members[1].role == MemberRole::kReplica);
  CHECK(view->members[1].state == MemberState::kOk);
  CHECK(view->members[2].state == MemberState::kDown);
  CHECK(world.told("pg-0 is the primary, timeline 1"));
}

TEST_CASE("the order in which members answer first does not matter") {
  for (const std::vector<std::size_t>& order : {std::vector<std::size_t>{0, 1, 2}, {2, 1, 0}, {1, 0, 2}}) {
    World world;
    for (const std::size_t member : order)
      world.sample(member, member == 0 ? world.primary(1000) : world.replica(1000));
    CHECK(world.view()->primary == 0);
    CHECK(world.state(1) == MemberState::kOk);
    CHECK(world.state(2) == MemberState::kOk);
  }
}

TEST_CASE("samples that change nothing decisions depend on need no publication at once") {
  World world;
  world.settle();
  world.now += 1s;
  world.sample(0, world.primary(2000));
  CHECK_FALSE(world.changed);
  CHECK(world.topology.last_event().empty());
  world.sample(1, world.replica(1500));
  CHECK_FALSE(world.changed);
}

TEST_CASE("each view has a higher version") {
  World world;
  const auto first = world.view()->version;
  CHECK(world.view()->version == first + 1);
}

TEST_CASE("going to sleep forgets roles and lag but not who the cluster is") {
  World world;
  world.settle();
  world.topology.set_active(false);
  auto view = world.view();
  CHECK(view->primary == -1);
  CHECK(view->members[0].role == MemberRole::kUnknown);
  CHECK_FALSE(view->members[1].lag_seconds);
  CHECK(view->timeline == 1);
  world.topology.set_active(true);
  CHECK_FALSE(world.topology.settled());
  world.sample(0, world.primary(1000, 1, "sys-2"));
  world.sample(1, world.replica(1000));
  world.sample(2, world.replica(1000));
  CHECK(world.view()->primary == -1);
}

// --- who is the primary ---

TEST_CASE("a promoted replica on a higher timeline is the primary at once") {
  World world;
  world.settle();
  world.fail(0);
  world.sample(1, world.primary(2000, 2));
  CHECK(world.changed);
  CHECK(world.view()->primary == 1);
  CHECK(world.view()->timeline == 2);
  CHECK(world.member(1).state == MemberState::kOk);
  CHECK(world.told("pg-1 is the primary, timeline 2"));
}

TEST_CASE("the old primary that returns and writes on its timeline loses, with an alarm") {
  World world;
  world.settle();
  world.sample(1, world.primary(2000, 2));
  CHECK(world.view()->primary == 1);
  CHECK(world.topology.last_event_is_alarm());
  CHECK(world.told("pg-0 takes writes on timeline 1 although timeline 2 exists"));
  world.sample(0, world.primary(5000, 1));
  CHECK(world.view()->primary == 1);
  CHECK(world.member(0).role == MemberRole::kUnknown);
  CHECK(world.member(0).state == MemberState::kUnknown);
  CHECK_FALSE(world.topology.last_event_is_alarm());  // said once
}

TEST_CASE("in sight of the old primary alone nobody is the primary once a higher timeline was seen") {
  World world;
  world.settle();
  world.sample(1, world.primary(2000, 2));
  world.fail(1, ProbeFailure::kUnreachable, 3);
  world.sample(0, world.primary(5000, 1));
  CHECK(world.view()->primary == -1);
  world.topology.set_active(false);
  world.topology.set_active(true);
  world.sample(0, world.primary(5000, 1));
  world.fail(1);
  world.fail(2);
  CHECK(world.view()->primary == -1);
}

TEST_CASE("a replica that streams a higher timeline proves that it exists") {
  World world;
  world.settle();
  world.sample(2, world.replica(1500, 2, false));
  CHECK(world.view()->primary == 0);  // not streaming: no proof
  world.sample(2, world.replica(1500, 2, true));
  CHECK(world.view()->primary == -1);
  CHECK(world.told("pg-0 is no longer the primary"));
  world.sample(1, world.primary(2000, 2));
  CHECK(world.view()->primary == 1);
}

TEST_CASE("of two writers on one timeline the present one stays, with an alarm said once") {
  World world;
  world.settle();
  world.sample(1, world.primary(9000, 1));
  CHECK(world.view()->primary == 0);
  CHECK(world.topology.last_event_is_alarm());
  CHECK(world.told("pg-0 stays the primary"));
  CHECK(world.member(1).role == MemberRole::kUnknown);
  world.sample(1, world.primary(9001, 1));
  CHECK(world.topology.last_event().empty());
  world.fail(0);
  CHECK(world.view()->primary == 0);  // silence moves nothing
}

TEST_CASE("two writers on one timeline at first sight: nobody is chosen") {
  World world;
  world.sample(0, world.primary(1000));
  world.sample(1, world.primary(1000));
  world.sample(2, world.replica(1000));
  CHECK(world.view()->primary == -1);
  CHECK(world.topology.last_event_is_alarm());
  CHECK(world.told("until a person decides"));
  world.sample(1, world.replica(1000));
  CHECK(world.view()->primary == 0);
}

TEST_CASE("a writer on the same timeline takes over from a primary that is down, not from one that is silent") {
  World world;
  world.settle();
  world.fail(0, ProbeFailure::kUnreachable, 2);
  world.sample(1, world.primary(1000, 1));
  CHECK(world.view()->primary == 0);
  world.fail(0);
  CHECK(world.view()->primary == 1);
}

TEST_CASE("a primary that says it is in recovery is none, at once") {
  World world;
  world.settle();
  world.sample(0, world.replica(1000));
  CHECK(world.changed);
  CHECK(world.view()->primary == -1);
  CHECK(world.member(0).role == MemberRole::kReplica);
  CHECK(world.member(0).state == MemberState::kUnknown);
}

TEST_CASE("a member of another cluster is never used, whatever it says") {
  World world;
  world.settle();
  world.sample(2, world.primary(9000, 7, "sys-2"));
  CHECK(world.topology.last_event_is_alarm());
  CHECK(world.told("pg-2 belongs to another cluster"));
  CHECK(world.view()->primary == 0);
  CHECK(world.view()->timeline == 1);
  world.sample(2, world.replica(9000, 7, true, "sys-2"));
  CHECK(world.member(2).role == MemberRole::kUnknown);
  world.fail(2, ProbeFailure::kUnreachable, 3);
  CHECK(world.state(2) == MemberState::kDown);
  world.sample(2, world.replica(9000, 7, true, "sys-2"));
  CHECK(world.state(2) == MemberState::kUnknown);
  world.sample(2, world.replica(1000));
  CHECK(world.member(2).role == MemberRole::kReplica);
}

TEST_CASE("at first sight the cluster is the one most members belong to") {
  World world;
  world.sample(0, world.primary(9000, 3, "stranger"));
  world.sample(1, world.primary(1000, 1));
  world.sample(2, world.replica(1000));
  CHECK(world.view()->system_identifier == "sys-1");
  CHECK(world.view()->primary == 1);
}

// --- silence and other failures ---

TEST_CASE("a primary is down after dead_after failures and keeps its role") {
  World world;
  world.settle();
  world.fail(0, ProbeFailure::kUnreachable, 2);
  CHECK(world.view()->primary == 0);
  CHECK(world.state(0) == MemberState::kOk);
  world.fail(0);
  CHECK(world.changed);
  CHECK(world.view()->primary == -1);
  CHECK(world.member(0).role == MemberRole::kPrimary);
  CHECK(world.state(0) == MemberState::kDown);
  CHECK(world.told("pg-0 is down (primary): unreachable"));
  world.sample(0, world.primary(1000));
  CHECK(world.view()->primary == 0);
}

TEST_CASE("failures count only in a row") {
  World world;
  world.settle();
  for (int i = 0; i < 5; ++i) {
    world.fail(0, ProbeFailure::kUnreachable, 2);
    world.sample(0, world.primary(1000));
  }
  CHECK(world.view()->primary == 0);
}

TEST_CASE("starting up counts as a failure, a failing query makes unknown") {
  World world;
  world.settle();
  world.fail(1, ProbeFailure::kNotReady, 3);
  CHECK(world.state(1) == MemberState::kDown);
  world.fail(2, ProbeFailure::kQuery, 3);
  CHECK(world.state(2) == MemberState::kUnknown);
}

TEST_CASE("busy is not down, and neither are refused credentials, until what is known is too old") {
  for (const ProbeFailure failure : {ProbeFailure::kBusy, ProbeFailure::kCredentials}) {
    World world;
    world.settle();
    for (int second = 0; second < 60; ++second) {
      world.now += 1s;
      world.fail(0, failure);
    }
    CHECK(world.view()->primary == 0);
    CHECK(world.member(0).probe_refused == (failure == ProbeFailure::kCredentials));
    world.now += 1ms;
    world.fail(0, failure);
    CHECK(world.view()->primary == -1);
    CHECK(world.state(0) == MemberState::kUnknown);
    CHECK(world.member(0).role == MemberRole::kPrimary);
    world.sample(0, world.primary(1000));
    CHECK(world.view()->primary == 0);
    CHECK_FALSE(world.member(0).probe_refused);
  }
}

TEST_CASE("a member that never answered is down at its first failure") {
  World world;
  world.fail(0);
  CHECK(world.state(0) == MemberState::kDown);
  world.fail(1, ProbeFailure::kCredentials);
  CHECK(world.state(1) == MemberState::kUnknown);
  CHECK(world.topology.last_event_is_alarm());
}

// --- configuration and addresses ---

TEST_CASE("a resolved address stays until another good one comes") {
  World world;
  const auto address = SocketAddress::from_numeric("192.0.2.7", 6432);
  CHECK(world.topology.set_endpoint_address(0, 1, address));
  CHECK_FALSE(world.topology.set_endpoint_address(0, 1, address));
  CHECK_FALSE(world.topology.set_endpoint_address(0, 1, {}));
  CHECK(world.view()->pools[0].endpoints[1].address == address);
  CHECK(world.topology.set_address(1, SocketAddress::from_numeric("192.0.2.8", 5432)));
  CHECK(world.member(1).pgbouncer_address.to_string() == "192.0.2.8:6432");
  world.topology.set_active(false);
  CHECK(world.member(1).address.to_string() == "192.0.2.8:5432");
}

TEST_CASE("a reload keeps what is known of the members that stay") {
  World world;
  world.settle();
  const auto resolved = SocketAddress::from_numeric("192.0.2.7", 6432);
  world.topology.set_endpoint_address(0, 1, resolved);
  auto config = three_members();
  std::swap(config->members[0], config->members[2]);
  config->members.push_back({"pg-3", "10.0.0.99", 5432, 0, ""});
  config->members[1].zone = "b";
  config->pools[0].endpoints[1].port = 7432;
  world.topology.reconfigure(config);
  const auto view = world.view();
  CHECK(view->primary == 2);
  CHECK(view->members[2].name == "pg-0");
  CHECK(view->members[1].state == MemberState::kOk);
  CHECK(view->members[1].zone == "b");
  CHECK(view->members[3].role == MemberRole::kUnknown);
  CHECK_FALSE(view->members[3].pgbouncer_address.known());
  CHECK_FALSE(view->settled);
  CHECK(view->pools[0].endpoints[1].address == resolved.with_port(7432));
  world.sample(3, world.replica(1000));
  CHECK(world.view()->settled);
  CHECK(world.view()->primary == 2);
}

TEST_CASE("a member whose host or port changed is a new one") {
  World world;
  world.settle();
  auto config = three_members();
  config->members[0].port = 5433;
  world.topology.reconfigure(config);
  CHECK(world.view()->primary == -1);
  CHECK(world.member(0).role == MemberRole::kUnknown);
  CHECK(world.member(0).address.to_string() == "10.0.0.10:5433");
  CHECK(world.state(1) == MemberState::kOk);
}

TEST_CASE("a branch all of whose members were replaced may be another cluster") {
  World world;
  world.settle();
  auto config = three_members();
  for (MemberConfig& member : config->members) member.port = 5433;
  world.topology.reconfigure(config);
  CHECK(world.view()->system_identifier.empty());
  world.sample(0, world.primary(10, 1, "sys-9"));
  world.sample(1, world.replica(10, 1, true, "sys-9"));
  world.sample(2, world.replica(10, 1, true, "sys-9"));
  CHECK(world.view()->primary == 0);
}

TEST_CASE("a named leader is a veto: a clone with a higher timeline on a reused address does not win") {
  World world;
  world.settle();
  world.topology.set_named_leader("pg-0");
  world.sample(2, world.primary(5000, 9));
  CHECK(world.view()->primary == 0);
  CHECK(world.view()->timeline == 1);
  CHECK(world.topology.last_event_is_alarm());
  CHECK(world.told("pg-0 is named as the leader"));
  CHECK(world.topology.leader_in_question());
  CHECK(world.view()->failovers == 0);

  SUBCASE("it wins when it is named") {
    world.topology.set_named_leader("pg-2");
    world.sample(2, world.primary(5001, 9));
    CHECK(world.view()->primary == 2);
    CHECK(world.view()->failovers == 1);
    CHECK_FALSE(world.topology.leader_in_question());
  }
  SUBCASE("or when nobody says any more") {
    world.topology.set_named_leader(std::nullopt);
    world.sample(2, world.primary(5001, 9));
    CHECK(world.view()->primary == 2);
  }
  SUBCASE("naming another does not unseat a primary before the other is one") {
    world.topology.set_named_leader("pg-1");
    world.sample(0, world.primary(1001));
    CHECK(world.view()->primary == 0);
  }
}

TEST_CASE("another system identifier everywhere is nobody's primary until it is adopted") {
  World world;
  world.settle();
  CHECK_FALSE(world.topology.adopt(world.now).has_value());
  world.sample(0, world.primary(100, 1, "sys-2"));
  world.sample(1, world.replica(100, 1, true, "sys-2"));
  world.sample(2, world.replica(100, 1, true, "sys-2"));
  CHECK(world.view()->primary == -1);
  CHECK(world.topology.adopt(world.now) == "sys-2");
  CHECK(world.view()->primary == 0);
  CHECK(world.view()->timeline == 1);
  CHECK(world.view()->system_identifier == "sys-2");
  world.sample(1, world.replica(100, 1, true, "sys-2"));
  CHECK(world.member(1).role == MemberRole::kReplica);
}

TEST_CASE(
    "a replica that the old primary still feeds is of another history: unknown, and its position counts for nothing") {
  World world;
  world.settle();
  world.sample(1, world.primary(1100, 2));
  CHECK(world.view()->primary == 1);
  world.sample(2, world.replica(5000, 1));  // further than the new primary, on the old timeline
  CHECK_FALSE(world.member(2).position.has_value());
  CHECK_FALSE(world.member(2).lag_seconds.has_value());
  world.sample(2, world.replica(5000, 1));  // samples_out: it does not turn
  CHECK(world.state(2) == MemberState::kUnknown);
  for (int i = 0; i < 3; ++i) world.sample(2, world.replica(1100, 2));  // it follows now
  CHECK(world.state(2) == MemberState::kOk);
  CHECK(world.member(2).position == 1100);
}

TEST_CASE("failovers are counted when another member becomes the primary, not when the same one comes back") {
  World world;
  world.settle();
  world.fail(0, ProbeFailure::kUnreachable, 3);
  world.sample(0, world.primary(1001));
  CHECK(world.view()->failovers == 0);
  world.sample(1, world.primary(1002, 2));
  CHECK(world.view()->primary == 1);
  CHECK(world.view()->failovers == 1);
}

}  // namespace

TEST_CASE(
    "what was known before the start counts: another cluster is foreign, an older timeline is not the primary's") {
  World world;
  world.topology = BranchTopology(world.config);
  world.topology.restore("sys-1", 4);
  world.topology.set_active(true);
  CHECK(world.view()->system_identifier == "sys-1");
  CHECK(world.view()->timeline == 4);
  world.sample(0, world.primary(1000, 3));
  world.sample(1, world.replica(1000, 3));
  world.sample(2, world.primary(1000, 9, "sys-2"));
  CHECK(world.view()->primary == -1);
  CHECK(world.topology.last_event_is_alarm());
  world.sample(0, world.primary(1000, 4));
  CHECK(world.view()->primary == 0);
  CHECK(world.member(2).role == MemberRole::kUnknown);
}

TEST_CASE("a cluster that is another one as a whole needs a person, also after a restart") {
  World world;
  world.topology = BranchTopology(world.config);
  world.topology.restore("sys-1", 4);
  world.topology.set_active(true);
  world.sample(0, world.primary(1000, 1, "sys-2"));
  world.sample(1, world.replica(1000, 1, true, "sys-2"));
  world.sample(2, world.replica(1000, 1, true, "sys-2"));
  CHECK(world.view()->primary == -1);
  CHECK(world.topology.adopt(world.now) == "sys-2");
  CHECK(world.view()->primary == 0);
  CHECK(world.view()->timeline == 1);
}

TEST_CASE("what was known before the start outlives the discovery of the first members") {
  auto empty = std::make_shared<BranchConfig>();
  empty->name = "x";
  BranchTopology topology(empty);
  topology.restore("sys-1", 4);
  topology.reconfigure(three_members());
  CHECK(topology.view({})->system_identifier == "sys-1");
  auto others = std::make_shared<BranchConfig>(*empty);
  others->members.push_back({"new", "10.9.9.9", 5432, 0, ""});
  topology.reconfigure(others);  // nothing of the cluster is left
  CHECK(topology.view({})->system_identifier.empty());
}

}  // namespace pointsman::routing
