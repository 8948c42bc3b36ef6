#pragma once
// Time as an argument. Instants are monotonic (the loop's clock), never wall clock: a stepped wall clock moves no
// timer.

#include <chrono>
#include <cstdint>

namespace pointsman::base {

using Duration = std::chrono::nanoseconds;
/// Nanoseconds on this machine's monotonic clock (CLOCK_MONOTONIC, what uv_hrtime() returns).
using Instant = std::chrono::time_point<std::chrono::steady_clock, Duration>;

inline Instant from_hrtime(std::uint64_t nanoseconds) {
  return Instant(Duration(static_cast<std::int64_t>(nanoseconds)));
}
inline double to_seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace pointsman::base
