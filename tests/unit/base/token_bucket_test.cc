#include "base/token_bucket.h"

#include <doctest/doctest.h>

namespace pointsman::base {

TEST_CASE("a bucket gives its burst at once and then one token per interval") {
  constexpr TokenRate kRate{10, 3};
  const Instant start{std::chrono::hours(1)};
  TokenBucket bucket;
  CHECK(bucket.full(start));
  for (int i = 0; i < 3; ++i) CHECK(bucket.take(kRate, start));
  CHECK_FALSE(bucket.take(kRate, start));
  CHECK_FALSE(bucket.take(kRate, start + std::chrono::milliseconds(99)));
  CHECK(bucket.take(kRate, start + std::chrono::milliseconds(100)));
  CHECK_FALSE(bucket.take(kRate, start + std::chrono::milliseconds(100)));
  CHECK_FALSE(bucket.full(start + std::chrono::milliseconds(399)));
  CHECK(bucket.full(start + std::chrono::milliseconds(400)));
}

TEST_CASE("a refused token costs nothing, and a rest saves up no more than the burst") {
  constexpr TokenRate kRate{1, 2};
  const Instant start{std::chrono::hours(1)};
  TokenBucket bucket;
  CHECK(bucket.take(kRate, start));
  CHECK(bucket.take(kRate, start));
  for (int i = 0; i < 100; ++i) CHECK_FALSE(bucket.take(kRate, start));
  CHECK(bucket.take(kRate, start + std::chrono::seconds(1)));
  const auto much_later = start + std::chrono::hours(1);
  CHECK(bucket.take(kRate, much_later));
  CHECK(bucket.take(kRate, much_later));
  CHECK_FALSE(bucket.take(kRate, much_later));
}

}  // namespace pointsman::base
