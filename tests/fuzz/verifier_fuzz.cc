// Stored verifiers and base64: what is read is written again byte for byte, and what is written is read again.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "protocol/scram.h"

namespace {

using namespace pointsman;

void check_base64(std::string_view input) {
  POINTSMAN_CHECK(protocol::base64_decode(protocol::base64_encode(input)) == input);
  if (const auto raw = protocol::base64_decode(input)) {
    POINTSMAN_CHECK(protocol::base64_encode(*raw) == input);
    POINTSMAN_CHECK(protocol::base64_size(raw->size()) == input.size());
    POINTSMAN_CHECK(protocol::base64_decode_key(input).has_value() == (raw->size() == protocol::ScramKey::size()));
  } else {
    POINTSMAN_CHECK(!protocol::base64_decode_key(input).has_value());
  }
}

void check_verifier(std::string_view input) {
  const auto verifier = protocol::parse_scram_verifier(input);
  if (!verifier) return;
  POINTSMAN_CHECK(verifier->iterations >= 1 && verifier->iterations <= protocol::kMaxScramIterations);
  POINTSMAN_CHECK(!verifier->salt.empty() && verifier->salt.size() <= protocol::kMaxScramSalt);
  POINTSMAN_CHECK(protocol::format_scram_verifier(*verifier) == input);
}

/// A verifier made of the input, written and read.
void check_round_trip(std::string_view input) {
  protocol::ScramVerifier verifier;
  for (const char c : input.substr(0, 4)) verifier.iterations = verifier.iterations * 31 + static_cast<std::uint8_t>(c);
  verifier.iterations = verifier.iterations % protocol::kMaxScramIterations + 1;
  verifier.salt = std::string("s").append(input.substr(0, protocol::kMaxScramSalt - 1));
  verifier.stored_key = protocol::sha256(input);
  verifier.server_key = protocol::hmac_sha256(input, "server");
  const auto text = protocol::format_scram_verifier(verifier);
  const auto read = protocol::parse_scram_verifier(text);
  POINTSMAN_CHECK(read.has_value());
  POINTSMAN_CHECK(read->iterations == verifier.iterations && read->salt == verifier.salt);
  POINTSMAN_CHECK(protocol::format_scram_verifier(*read) == text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = base::as_text({data, size});
  check_base64(input);
  check_verifier(input);
  check_round_trip(input);
  return 0;
}
