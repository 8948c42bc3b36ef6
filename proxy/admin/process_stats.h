#pragma once
// What the kernel says of this process, for the unprefixed process_* metrics.

#include <cstdint>
#include <optional>
#include <string_view>

namespace pointsman::proxy {

/// Absent: could not be read.
struct ProcessStats {
  std::optional<double> cpu_seconds;
  std::optional<std::uint64_t> resident_bytes;
  std::optional<std::uint64_t> virtual_bytes;
  std::optional<std::uint64_t> open_fds;
  std::optional<std::uint64_t> max_fds;
  std::optional<double> start_time_seconds;  ///< since 1970
};

ProcessStats read_process_stats();

/// Fills what stands in /proc/self/stat (proc(5)). `boot_time`: seconds since 1970, from /proc/stat's btime. Pure.
void parse_process_stat(std::string_view stat, long ticks_per_second, long page_bytes,
                        std::optional<std::uint64_t> boot_time, ProcessStats& stats);

}  // namespace pointsman::proxy
