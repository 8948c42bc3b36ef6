#include "routing/balance.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

namespace pointsman::routing {
namespace {

constexpr int kDraws = 20'000;

/// How often each candidate is chosen over many random numbers, with loads that stay as they are.
std::vector<int> histogram(const std::vector<int>& candidates, const std::vector<std::uint32_t>& sessions,
                           std::size_t size) {
  std::mt19937_64 random(42);
  std::vector<int> counts(size, 0);
  for (int i = 0; i < kDraws; ++i) ++counts[static_cast<std::size_t>(two_choices(candidates, sessions, random()))];
  return counts;
}

TEST_CASE("scores within 20 percent of the larger one are a tie") {
  CHECK(is_tie(0, 0));
  CHECK_FALSE(is_tie(0, 1));
  CHECK(is_tie(4, 5));
  CHECK_FALSE(is_tie(3, 4));
  CHECK_FALSE(is_tie(79, 100));
  CHECK(is_tie(80, 100));
  CHECK(is_tie(81, 100));
  CHECK(is_tie(100, 80));
  CHECK(is_tie(4'000'000'000u, 4'294'967'295u));
}

TEST_CASE("a single candidate is chosen whatever its load") {
  const std::vector<int> one = {2};
  const std::vector<std::uint32_t> loads = {0, 0, 1000};
  CHECK(two_choices(one, loads, 0) == 2);
  CHECK(two_choices(one, {}, 7) == 2);
}

TEST_CASE("candidates of equal load are chosen equally often") {
  for (const std::size_t size : {std::size_t{2}, std::size_t{3}, std::size_t{5}}) {
    std::vector<int> candidates;
    for (std::size_t i = 0; i < size; ++i) candidates.push_back(static_cast<int>(i));
    const double expected = static_cast<double>(kDraws) / static_cast<double>(size);
    for (const int count : histogram(candidates, {}, size)) CHECK(count == doctest::Approx(expected).epsilon(0.05));
  }
}

TEST_CASE("of two candidates the one with fewer sessions always wins when it is no tie") {
  const std::vector<int> counts = histogram({0, 1}, {10, 5}, 2);
  CHECK(counts[0] == 0);
  CHECK(counts[1] == kDraws);
}

TEST_CASE("of three candidates the fullest is never chosen, the emptiest in two of three cases") {
  const std::vector<int> counts = histogram({0, 1, 2}, {100, 50, 10}, 3);
  CHECK(counts[0] == 0);
  CHECK(counts[1] == doctest::Approx(kDraws / 3.0).epsilon(0.05));
  CHECK(counts[2] == doctest::Approx(kDraws * 2 / 3.0).epsilon(0.05));
}

TEST_CASE("small numbers that differ in a pattern still spread") {
  // Random numbers from a poor source: consecutive integers.
  std::vector<int> counts(4, 0);
  for (std::uint64_t i = 0; i < kDraws; ++i)
    ++counts[static_cast<std::size_t>(two_choices(std::vector<int>{0, 1, 2, 3}, {}, i))];
  for (const int count : counts) CHECK(count == doctest::Approx(kDraws / 4.0).epsilon(0.05));
}

TEST_CASE("sessions that come and stay end up spread evenly") {
  std::mt19937_64 random(7);
  std::vector<std::uint32_t> sessions(6, 0);
  const std::vector<int> candidates = {0, 1, 2, 3, 4, 5};
  for (int i = 0; i < 6000; ++i) ++sessions[static_cast<std::size_t>(two_choices(candidates, sessions, random()))];
  const auto [least, most] = std::minmax_element(sessions.begin(), sessions.end());
  CHECK(*least > 800);
  CHECK(*most < 1200);
}

TEST_CASE("a member that comes back empty is filled by every second choice at most, not by all at once") {
  const std::vector<int> counts = histogram({0, 1, 2, 3}, {100, 100, 100, 0}, 4);
  // It wins whenever it is among the two looked at: half of all choices with four candidates.
  CHECK(counts[3] == doctest::Approx(kDraws / 2.0).epsilon(0.05));
}

TEST_CASE("the choice is a function of its arguments") {
  const std::vector<int> candidates = {0, 1, 2};
  const std::vector<std::uint32_t> sessions = {1, 1, 1};
  for (std::uint64_t random = 0; random < 100; ++random) {
    CHECK(two_choices(candidates, sessions, random) == two_choices(candidates, sessions, random));
  }
}

}  // namespace
}  // namespace pointsman::routing
