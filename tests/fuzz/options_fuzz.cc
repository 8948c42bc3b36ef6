// The `options` parameter: what extract_options() leaves sets what it set before without ours, as judged by getopt().

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "protocol/startup.h"
#include "tests/unit/support/options_oracle.h"

namespace {

bool is_subsequence(std::string_view part, std::string_view whole) {
  std::size_t at = 0;
  for (const char byte : part) {
    at = whole.find(byte, at);
    if (at == std::string_view::npos) return false;
    ++at;
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pointsman;
  constexpr std::string_view kPrefix = "pointsman.";
  std::string options(reinterpret_cast<const char*>(data), size);
  std::replace(options.begin(), options.end(), '\0', 'c');  // no parameter of a startup packet can hold a zero byte

  const protocol::SplitOptions split = protocol::extract_options(options, kPrefix);
  std::vector<std::string> extracted;
  for (const auto& [name, value] : split.extracted) extracted.push_back(name + "=" + value);
  const std::string wrong = test::judge_extraction(options, kPrefix, split.rest, extracted);
  POINTSMAN_CHECK(wrong.empty());
  POINTSMAN_CHECK(is_subsequence(split.rest, options));

  const protocol::SplitOptions again = protocol::extract_options(split.rest, kPrefix);
  POINTSMAN_CHECK(again.extracted.empty() && again.rest == split.rest);
  return 0;
}
