#include "proxy/server/drain_pace.h"

#include <doctest/doctest.h>

#include <numeric>

using namespace pointsman;
using namespace std::chrono_literals;
using proxy::DrainPace;
using Ids = std::vector<std::uint64_t>;

namespace {

constexpr base::Instant kBegan{1000h};

}  // namespace

TEST_CASE("without a pace all go at once") {
  DrainPace pace(Ids{3, 1, 2}, kBegan, 0s);
  CHECK_FALSE(pace.over());
  CHECK(pace.due(kBegan) == Ids{3, 1, 2});
  CHECK(pace.over());
  CHECK(pace.due(kBegan + 1s).empty());
}

TEST_CASE("sessions go in their order, evenly, and each once") {
  DrainPace pace(Ids{5, 6, 7, 8}, kBegan, 40s);
  CHECK(pace.due(kBegan) == Ids{5});
  CHECK(pace.due(kBegan + 9'999ms).empty());
  CHECK(pace.due(kBegan + 10s) == Ids{6});
  CHECK(pace.due(kBegan + 10s).empty());
  CHECK(pace.due(kBegan + 30s) == Ids{7, 8});
  CHECK(pace.over());
}

TEST_CASE("at the end nobody is left, however late the call") {
  DrainPace pace(Ids{1, 2, 3}, kBegan, 1h);
  CHECK(pace.due(kBegan + 1h) == Ids{1, 2, 3});
  CHECK(pace.over());
}

TEST_CASE("nobody is over at once, and an empty pace is no one's") {
  CHECK(DrainPace().over());
  DrainPace pace(Ids{}, kBegan, 1h);
  CHECK(pace.over());
  CHECK(pace.due(kBegan).empty());
}

TEST_CASE("many sessions over a day: never more than their share, and no step above the even one") {
  Ids ids(100'000);
  std::iota(ids.begin(), ids.end(), 0);
  DrainPace pace(ids, kBegan, 24h);
  std::size_t told = 0;
  for (auto at = kBegan; at < kBegan + 24h; at += 1min) {
    const auto due = pace.due(at);
    CHECK(due.size() <= 70 + (told == 0 ? 1u : 0u));  // 100,000 / 1,440 = 69.4
    told += due.size();
  }
  CHECK(told < ids.size());
  CHECK(told + pace.due(kBegan + 24h).size() == ids.size());
}
