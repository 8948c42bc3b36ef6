#pragma once
// A rate limit with a burst, in one word of state (the generic cell rate algorithm, ITU-T I.371): the instant at which
// the bucket is full again. Time is an argument. One thread.

#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "base/clock.h"

namespace pointsman::base {

struct TokenRate {
  std::uint32_t per_second = 1;
  std::uint32_t burst = 1;
};

class TokenBucket {
 public:
  /// Takes a token; false when there is none. Requires: both members of `rate` are positive, and the same in each call.
  bool take(TokenRate rate, Instant now) {
    POINTSMAN_CHECK(rate.per_second > 0 && rate.burst > 0);
    const Duration per_token = std::chrono::nanoseconds(1'000'000'000LL / rate.per_second);
    const Instant base = std::max(full_at_, now);
    if (base - now > per_token * (rate.burst - 1)) return false;
    full_at_ = base + per_token;
    return true;
  }
  /// As good as new: whoever keeps buckets in a table may forget it.
  bool full(Instant now) const { return full_at_ <= now; }

 private:
  Instant full_at_{};
};

}  // namespace pointsman::base
