// `name=value` lines as session options: what is accepted has a text that means the same.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "routing/session_options.h"
#include "tests/fuzz/texts.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pointsman;
  using namespace pointsman::routing;
  std::string_view input(reinterpret_cast<const char*>(data), size);
  SessionOptions options;
  while (!input.empty()) {
    const std::size_t end = input.find('\n');
    const std::string_view line = input.substr(0, end);
    input.remove_prefix(end == std::string_view::npos ? input.size() : end + 1);
    const std::size_t equals = line.find('=');
    const std::string_view value = equals == std::string_view::npos ? std::string_view() : line.substr(equals + 1);
    if (const auto refusal = options.set(line.substr(0, equals), value)) {
      POINTSMAN_CHECK(refusal->sqlstate == "22023");
      fuzz::check_refusal(*refusal);
    }
  }
  if (options.min_lsn) POINTSMAN_CHECK(parse_lsn(format_lsn(*options.min_lsn)) == options.min_lsn);
  for (const auto& duration : {options.wait, options.max_lag}) {
    if (!duration) continue;
    POINTSMAN_CHECK(*duration >= base::Duration::zero() && *duration <= std::chrono::hours(366 * 24));
    POINTSMAN_CHECK(parse_duration(format_duration(*duration)) == duration);
  }
  if (options.fallback) POINTSMAN_CHECK(parse_fallback(to_text(*options.fallback)) == options.fallback);
  const bool about_replicas = options.min_lsn || options.wait || options.max_lag;
  POINTSMAN_CHECK(options.check_pooled().has_value() == about_replicas);
  return 0;
}
