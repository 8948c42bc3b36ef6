#include <doctest/doctest.h>

#include "routing/topology.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;

constexpr base::Instant at(std::chrono::seconds seconds) {
  return base::Instant(seconds);
}

TEST_CASE("without a sample of the primary nothing is known") {
  const LagRing ring;
  CHECK_FALSE(ring.lag_seconds(100, at(1s)));
  CHECK_FALSE(ring.at_least(100, at(1s)));
  CHECK_FALSE(ring.newest());
  CHECK_FALSE(ring.newest_at());
}

TEST_CASE("a replica that has replayed the newest sample has no lag, however old that is") {
  LagRing ring;
  ring.add(100, at(10s));
  CHECK(ring.lag_seconds(100, at(3610s)) == 0.0);
  CHECK(ring.lag_seconds(101, at(3610s)) == 0.0);
}

TEST_CASE("lag is the age of the newest entry that was replayed") {
  LagRing ring;
  ring.add(100, at(10s));
  ring.add(200, at(11s));
  ring.add(300, at(12s));
  CHECK(ring.lag_seconds(299, at(13s)) == 2.0);
  CHECK(ring.lag_seconds(200, at(13s)) == 2.0);
  CHECK(ring.lag_seconds(199, at(13s)) == 3.0);
  CHECK(ring.lag_seconds(100, at(13s)) == 3.0);
  CHECK(ring.lag_seconds(300, at(13s)) == 0.0);
}

TEST_CASE("behind the oldest entry only a bound is known") {
  LagRing ring;
  ring.add(100, at(10s));
  CHECK_FALSE(ring.lag_seconds(99, at(15s)));
  CHECK(ring.at_least(99, at(15s)) == 5.0);
  CHECK_FALSE(ring.at_least(100, at(15s)));
}

TEST_CASE("an idle primary moves the time of its last position, so a late write is not an old lag") {
  LagRing ring;
  ring.add(100, at(10s));
  ring.add(100, at(3600s));
  CHECK(ring.size() == 1);
  ring.add(200, at(3601s));
  CHECK(ring.lag_seconds(150, at(3601s)) == 1.0);
}

TEST_CASE("a primary that comes back behind what it said takes those entries back") {
  LagRing ring;
  ring.add(100, at(10s));
  ring.add(300, at(11s));
  ring.add(200, at(12s));
  CHECK(ring.newest() == Lsn{200});
  CHECK(ring.lag_seconds(200, at(13s)) == 0.0);
  CHECK(ring.lag_seconds(150, at(13s)) == 3.0);
}

TEST_CASE("the ring stays bounded and still knows the far past, at most too pessimistic") {
  LagRing ring;
  constexpr int kSamples = 20'000;
  for (int i = 0; i < kSamples; ++i) {
    ring.add(static_cast<Lsn>(i), at(std::chrono::seconds(i)));
    REQUIRE(ring.size() <= LagRing::kMaxEntries);
  }
  const base::Instant now = at(std::chrono::seconds(kSamples - 1));
  for (const int behind : {1, 10, 100, 511, 1000, 5000, 15'000, 19'000}) {
    const auto lag = ring.lag_seconds(static_cast<Lsn>(kSamples - 1 - behind), now);
    REQUIRE(lag);
    CHECK(*lag >= behind);
    CHECK(*lag <= behind * 1.05);
  }
  CHECK(ring.lag_seconds(0, now) == static_cast<double>(kSamples - 1));
}

}  // namespace
}  // namespace pointsman::routing
