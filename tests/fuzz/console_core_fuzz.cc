// A console connection against a hostile client. First byte: bit 0 begins behind an honest login, bit 1 as a reader,
// the others choose the size of pieces. However the bytes are cut, what is sent and done is the same; nothing acts for
// a reader; nobody gets in without the proof; every piece that is sent is bounded and whole messages.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "tests/unit/support/console_driver.h"

namespace {

using namespace pointsman;

using Outcome = std::tuple<std::string, std::vector<std::string>, bool>;

Outcome run(std::string_view input, bool logged_in, bool reader, std::size_t chunk) {
  test::ConsoleDrive drive(chunk);
  if (logged_in) POINTSMAN_CHECK(drive.login(reader ? "reader" : "admin"));
  drive.client(input);
  POINTSMAN_CHECK(logged_in || !drive.core().logged_in());
  POINTSMAN_CHECK(drive.largest_piece <= 2 * proxy::kAnswerPiece);
  (void)drive.messages();  // whole messages only
  for (const auto& line : drive.log) {
    const bool acts = line.starts_with("execute ") && line != "execute SHOW";
    POINTSMAN_CHECK(!acts || (logged_in && !reader));
  }
  Outcome outcome{drive.sent, drive.log, drive.finished};
  drive.advance(std::chrono::hours(2));
  POINTSMAN_CHECK(drive.finished);  // nobody stays for ever
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const bool logged_in = (data[0] & 1) != 0;
  const bool reader = (data[0] & 2) != 0;
  const std::size_t chunk = 1 + (data[0] >> 2);
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  // Bytes in the clear behind an SSLRequest are refused where they come with it, and where they do not they are TLS's.
  const Outcome pieces = run(input, logged_in, reader, chunk);
  const Outcome whole = run(input, logged_in, reader, 0);
  if (logged_in) POINTSMAN_CHECK(pieces == whole);
  return 0;
}
