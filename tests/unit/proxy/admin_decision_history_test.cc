#include "proxy/admin/decision_history.h"

#include <doctest/doctest.h>

#include "tests/unit/proxy/admin_fake_control.h"

using namespace pointsman;
using proxy::DecisionHistory;
using routing::Reason;

namespace {

using Bins = std::vector<std::uint32_t>;

std::size_t at(Reason reason) {
  return static_cast<std::size_t>(reason);
}

struct World {
  DecisionHistory history;
  DecisionHistory::Counts counts{};
  std::optional<DecisionHistory::Turn> add(Reason reason, std::uint64_t more) {
    counts[at(reason)] += more;
    return history.add("orders", counts);
  }
  Bins bins(Reason reason) const {
    for (const auto& [found, bins] : history.bins_of("orders")) {
      if (found == reason) return bins;
    }
    return {};
  }
};

}  // namespace

TEST_CASE("a bin holds what came since the one before, the oldest first") {
  World world;
  world.add(Reason::kPrimary, 3);
  world.add(Reason::kPrimary, 0);
  world.add(Reason::kHeld, 2);
  world.add(Reason::kPrimary, 5);
  CHECK(world.bins(Reason::kPrimary) == Bins{3, 0, 0, 5});
  CHECK(world.bins(Reason::kHeld) == Bins{0, 0, 2, 0});
  CHECK(world.bins(Reason::kTimeout).empty());
  CHECK(world.history.bins_of("other").empty());
}

TEST_CASE("the oldest bin makes room, and a reason that has been silent for so long is not told") {
  World world;
  world.add(Reason::kReplicaBest, 7);
  for (std::size_t i = 1; i < DecisionHistory::kBins; ++i) world.add(Reason::kPrimary, i);
  CHECK(world.bins(Reason::kReplicaBest).size() == DecisionHistory::kBins);
  CHECK(world.bins(Reason::kReplicaBest).front() == 7);
  world.add(Reason::kPrimary, 100);
  CHECK(world.bins(Reason::kReplicaBest).empty());
  const Bins bins = world.bins(Reason::kPrimary);
  REQUIRE(bins.size() == DecisionHistory::kBins);
  CHECK(bins.front() == 1);
  CHECK(bins.back() == 100);
}

TEST_CASE("counters that begin again at 0 do not become a huge number") {
  World world;
  world.add(Reason::kPrimary, 1000);
  world.counts = {};
  world.add(Reason::kPrimary, 4);
  CHECK(world.bins(Reason::kPrimary) == Bins{1000, 4});
}

TEST_CASE("refusals that rise are told once, and once that they are over") {
  World world;
  CHECK_FALSE(world.add(Reason::kNoReplica, DecisionHistory::kManyRefusals - 1).has_value());
  CHECK_FALSE(world.add(Reason::kPrimary, 100'000).has_value());  // decisions are no refusals
  world.counts[at(Reason::kTimeout)] += 2;
  const auto rising = world.add(Reason::kNoReplica, 80);
  REQUIRE(rising.has_value());
  CHECK(rising->rising);
  CHECK(rising->count == 82);
  CHECK(rising->reason == Reason::kNoReplica);
  CHECK_FALSE(world.add(Reason::kNoReplica, 500).has_value());
  CHECK_FALSE(world.add(Reason::kNoReplica, DecisionHistory::kManyRefusals / 4).has_value());
  const auto over = world.add(Reason::kNoReplica, DecisionHistory::kManyRefusals / 4 - 1);
  REQUIRE(over.has_value());
  CHECK_FALSE(over->rising);
}

TEST_CASE("refusals that have always been that many do not rise") {
  World world;
  REQUIRE(world.add(Reason::kAuthFailed, 50).has_value());  // out of the blue
  REQUIRE(world.add(Reason::kAuthFailed, 0).has_value());
  for (int i = 0; i < 10; ++i) CHECK_FALSE(world.add(Reason::kAuthFailed, 19).has_value());
  CHECK_FALSE(world.add(Reason::kAuthFailed, 40).has_value());
  CHECK(world.add(Reason::kAuthFailed, 100).has_value());
}

TEST_CASE("a branch that is forgotten begins anew") {
  World world;
  world.add(Reason::kPrimary, 3);
  world.history.forget("orders");
  CHECK(world.history.bins_of("orders").empty());
  proxy::FakeControl control;
  world.history.add("gone", world.counts);
  world.history.add(DecisionHistory::kNoBranch, world.counts);
  world.history.add("orders", world.counts);
  world.history.retain(*control.directory());
  CHECK(world.history.bins_of("gone").empty());
  CHECK(world.history.bins_of(DecisionHistory::kNoBranch).size() == 1);
  CHECK(world.bins(Reason::kPrimary) == Bins{3});
}

TEST_CASE("decisions and refusals of all workers, destinations and listeners are counted") {
  proxy::FakeControl control;
  const std::size_t reasons = routing::kReasonCount;
  control.block->slot(0).decisions[at(Reason::kPrimary)].set(1);
  control.block->slot(1).decisions[8 * reasons + at(Reason::kPrimary)].set(2);
  control.block->slot(1).refusals[1 * reasons + at(Reason::kRemoved)].set(4);
  const auto counts = proxy::counts_of(*control.in_use);
  CHECK(counts[at(Reason::kPrimary)] == 3);
  CHECK(counts[at(Reason::kRemoved)] == 4);
  CHECK(proxy::counts_of(*control.not_in_use) == DecisionHistory::Counts{});
  control.worker.refusals[1 * reasons + at(Reason::kUnknownBranch)].set(5);
  CHECK(proxy::counts_of(control.worker_blocks())[at(Reason::kUnknownBranch)] == 5);
}
