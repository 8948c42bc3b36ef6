// Lag, and the states that follow from it.

#include <doctest/doctest.h>

#include "tests/unit/routing/topology_support.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using test::World;

TEST_CASE("an idle primary is not lag") {
  World world;
  world.settle();
  for (int minute = 0; minute < 60; ++minute) {
    world.now += 60s;
    world.sample(0, world.primary(1000));
    world.sample(1, world.replica(1000));
    world.sample(2, world.replica(1000));
  }
  CHECK(world.member(1).lag_seconds == 0.0);
  CHECK(world.member(1).lag_bytes == std::uint64_t{0});
  CHECK(world.state(1) == MemberState::kOk);
}

/// One second in which the primary writes 100 bytes and pg-1 stands at `replayed`.
void second(World& world, Lsn primary, Lsn replayed) {
  world.now += 1s;
  world.sample(0, world.primary(primary));
  world.sample(1, world.replica(replayed));
}

TEST_CASE("a paused replica's lag grows and it goes out after samples_out samples above the limit") {
  World world;
  world.settle();
  Lsn lsn = 1000;
  // The last position it replayed was current at 100 s; at 110 s the lag is the limit itself.
  for (int i = 0; i < 10; ++i) second(world, lsn += 100, 1000);
  CHECK(world.member(1).lag_seconds == 10.0);
  CHECK(world.member(1).lag_bytes == std::uint64_t{1000});
  CHECK(world.state(1) == MemberState::kOk);
  second(world, lsn += 100, 1000);
  CHECK(world.state(1) == MemberState::kOk);  // the first above
  world.now += 1s;
  ProbeSample paused = world.replica(1000);
  paused.replay_paused = true;
  world.sample(1, paused);
  CHECK(world.changed);
  CHECK(world.state(1) == MemberState::kLagging);
  CHECK(world.told("replay is paused"));
}

TEST_CASE("a single spike changes nothing") {
  World world;
  world.config->replicas.max_lag = 2s;
  world.settle();
  Lsn lsn = 1000;
  for (int i = 0; i < 20; ++i) {
    second(world, lsn + 100, lsn);
    second(world, lsn + 200, lsn);
    second(world, lsn + 300, lsn);  // 3 s behind, once
    CHECK(world.member(1).lag_seconds > 2.0);
    CHECK(world.state(1) == MemberState::kOk);
    lsn += 400;
    second(world, lsn, lsn);
  }
}

TEST_CASE("a lagging replica comes back after samples_in samples below 60 percent of the limit") {
  World world;
  world.settle();
  Lsn lsn = 1000;
  for (int i = 0; i < 12; ++i) second(world, lsn += 100, 1000);
  REQUIRE(world.state(1) == MemberState::kLagging);
  for (int i = 0; i < 10; ++i) {
    lsn += 100;
    second(world, lsn, lsn - 600);  // 6 s: exactly 60 percent, not below
    CHECK(world.member(1).lag_seconds == 6.0);
  }
  CHECK(world.state(1) == MemberState::kLagging);
  for (int i = 0; i < 2; ++i) {
    lsn += 100;
    second(world, lsn, lsn - 500);
  }
  CHECK(world.state(1) == MemberState::kLagging);
  lsn += 100;
  second(world, lsn, lsn - 500);
  CHECK(world.state(1) == MemberState::kOk);
}

TEST_CASE("a limit in bytes counts too") {
  World world;
  world.config->replicas.max_lag_bytes = 500;
  world.settle();
  Lsn lsn = 1000;
  for (int i = 0; i < 5; ++i) {
    lsn += 1000;
    second(world, lsn, lsn - 500);
  }
  CHECK(world.state(1) == MemberState::kOk);
  for (int i = 0; i < 2; ++i) {
    lsn += 1000;
    second(world, lsn, lsn - 501);
  }
  CHECK(world.state(1) == MemberState::kLagging);
}

TEST_CASE("the first sample after activation decides at once") {
  World world;
  world.config->replicas.max_lag = 0s;
  world.sample(0, world.primary(2000));
  world.sample(1, world.replica(2000));
  world.sample(2, world.replica(2000, 1, false));
  CHECK(world.state(1) == MemberState::kOk);
  CHECK(world.state(2) == MemberState::kUnknown);  // nobody feeds it
}

TEST_CASE("a replica behind everything we saw of the primary is unknown until the bound passes the limit") {
  World world;
  world.sample(0, world.primary(2000));
  world.sample(1, world.replica(1));
  world.sample(2, world.replica(2000));
  CHECK(world.state(1) == MemberState::kUnknown);
  CHECK_FALSE(world.member(1).lag_seconds);
  CHECK(world.member(1).lag_bytes == std::uint64_t{1999});
  // The bound is the age of the oldest entry, which still has its first time.
  world.now += 1s;
  world.sample(0, world.primary(3000));
  world.now += 9s;
  world.sample(1, world.replica(2));
  CHECK(world.state(1) == MemberState::kUnknown);
  CHECK(world.member(1).lag_at_least == 10.0);
  world.now += 1s;
  world.sample(1, world.replica(3));
  CHECK(world.state(1) == MemberState::kLagging);
}

TEST_CASE("a cut receiver makes a replica unknown even when it has replayed all it received") {
  World world;
  world.settle();
  world.sample(1, world.replica(1000, 1, false));
  CHECK(world.state(1) == MemberState::kOk);
  world.sample(1, world.replica(1000, 1, false));
  CHECK(world.state(1) == MemberState::kUnknown);
  CHECK(world.told("not streaming"));
  for (int i = 0; i < 2; ++i) world.sample(1, world.replica(1000));
  CHECK(world.state(1) == MemberState::kUnknown);
  world.sample(1, world.replica(1000));
  CHECK(world.state(1) == MemberState::kOk);
}

TEST_CASE("a replica left on an old timeline that nobody feeds is unknown at once") {
  World world;
  world.settle();
  world.sample(1, world.primary(2000, 2));
  CHECK(world.state(2) == MemberState::kOk);
  world.sample(2, world.replica(1000, 1, true));
  CHECK(world.state(2) == MemberState::kOk);  // it streams: it will follow
  world.sample(2, world.replica(1000, 0, false));
  CHECK(world.state(2) == MemberState::kUnknown);
  for (int i = 0; i < 3; ++i) world.sample(2, world.replica(2000, 2, true));
  CHECK(world.state(2) == MemberState::kOk);
}

TEST_CASE("a replica that was down comes back after samples_in good samples, not at first sight") {
  World world;
  world.settle();
  world.fail(1, ProbeFailure::kUnreachable, 3);
  CHECK(world.state(1) == MemberState::kDown);
  CHECK(world.member(1).role == MemberRole::kReplica);
  world.sample(1, world.replica(1000));
  CHECK(world.state(1) == MemberState::kUnknown);
  world.sample(1, world.replica(1000));
  CHECK(world.state(1) == MemberState::kUnknown);
  world.sample(1, world.replica(1000));
  CHECK(world.state(1) == MemberState::kOk);
  CHECK(world.told("pg-1 is ok (replica)"));
}

TEST_CASE("primary lost: replicas serve on, lag frozen, its age grows, past the hard cap they are unknown") {
  World world;
  world.settle();
  second(world, 1100, 1000);
  const base::Instant last_primary = world.now;
  CHECK(world.member(1).lag_seconds == 1.0);
  world.fail(0, ProbeFailure::kUnreachable, 3);
  for (int i = 0; i < 60; ++i) {
    world.now += 1s;
    world.fail(0);
    world.sample(1, world.replica(1000, 1, false));
    world.sample(2, world.replica(1000, 1, false));
  }
  CHECK(world.member(1).lag_seconds == 1.0);
  CHECK(world.state(1) == MemberState::kOk);
  CHECK(world.member(1).sampled_at == last_primary);
  world.now += 1s;
  world.sample(1, world.replica(1000, 1, false));
  CHECK(world.state(1) == MemberState::kUnknown);
  CHECK(world.state(2) == MemberState::kUnknown);
  world.sample(0, world.primary(1100));
  for (int i = 0; i < 3; ++i) world.sample(1, world.replica(1100));
  CHECK(world.state(1) == MemberState::kOk);
}

TEST_CASE("a promotion leaves the other replicas in rotation while they turn to the new primary") {
  World world;
  world.settle();
  world.sample(1, world.primary(2000, 2));
  CHECK(world.state(2) == MemberState::kOk);
  CHECK_FALSE(world.member(1).lag_seconds);
  world.now += 1s;
  world.sample(2, world.replica(1900, 1, true));
  CHECK(world.state(2) == MemberState::kOk);
  CHECK_FALSE(world.member(2).lag_seconds);  // positions of the old primary say nothing any more
  world.now += 1s;
  world.sample(2, world.replica(2000, 2, true));
  CHECK(world.member(2).lag_seconds == 0.0);
}

}  // namespace
}  // namespace pointsman::routing
