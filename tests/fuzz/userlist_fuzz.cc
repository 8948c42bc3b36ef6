// Userlist files: what was read, written again, reads the same; a fault names a line and nothing of its content.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "routing/userlist.h"
#include "tests/fuzz/texts.h"

namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += c;
    out += c;
  }
  return out + "\"";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pointsman;
  using namespace pointsman::routing;
  const auto parsed = parse_userlist({reinterpret_cast<const char*>(data), size});
  if (!parsed.ok()) {
    constexpr std::size_t kLongest = 100;
    POINTSMAN_CHECK(parsed.error().starts_with("line ") && parsed.error().size() <= kLongest);
    fuzz::check_one_line(parsed.error());
    return 0;
  }
  std::string written;
  for (const auto& [role, verifier] : parsed.value()) {
    POINTSMAN_CHECK(!role.empty() && role.size() <= 63);
    POINTSMAN_CHECK(verifier.empty() || verifier == "md5" || verifier.starts_with("SCRAM-SHA-256$"));
    const std::string secret = verifier == "md5" ? "md5" + std::string(32, '0') : verifier;
    written.append(quoted(role)).append(1, ' ').append(quoted(secret)).append(1, '\n');
  }
  const auto again = parse_userlist(written);
  POINTSMAN_CHECK(again.ok() && again.value() == parsed.value());
  return 0;
}
