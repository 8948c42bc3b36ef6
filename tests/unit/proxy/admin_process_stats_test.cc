#include "proxy/admin/process_stats.h"

#include <doctest/doctest.h>

#include <string>

using pointsman::proxy::parse_process_stat;
using pointsman::proxy::ProcessStats;

namespace {
constexpr std::string_view kTail =
    " S 1 2 3 4 5 6 7 8 9 10 250 150 13 14 15 16 17 18 6000 1048576 300 18446744073709551615 1 1\n";
}

TEST_CASE("CPU, memory and start time are read behind a name of any kind") {
  for (const std::string_view name : {"pointsman", "a b", "x) S 9 9 (y", "()"}) {
    ProcessStats stats;
    parse_process_stat("42 (" + std::string(name) + ")" + std::string(kTail), 100, 4096, 1'700'000'000, stats);
    CHECK(stats.cpu_seconds == doctest::Approx(4.0));
    CHECK(stats.start_time_seconds == doctest::Approx(1'700'000'060.0));
    CHECK(stats.virtual_bytes == 1048576);
    CHECK(stats.resident_bytes == 300 * 4096);
  }
}

TEST_CASE("what cannot be read stays absent") {
  ProcessStats stats;
  parse_process_stat("", 100, 4096, 1, stats);
  parse_process_stat("42 (x", 100, 4096, 1, stats);
  parse_process_stat("42 (x) S 1 2", 100, 4096, 1, stats);
  CHECK_FALSE(stats.cpu_seconds.has_value());
  CHECK_FALSE(stats.start_time_seconds.has_value());
  CHECK_FALSE(stats.resident_bytes.has_value());
  parse_process_stat("42 (x)" + std::string(kTail), 100, 4096, std::nullopt, stats);
  CHECK(stats.cpu_seconds.has_value());
  CHECK_FALSE(stats.start_time_seconds.has_value());
}
