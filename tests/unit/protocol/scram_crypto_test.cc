// Hashes, base64, stored verifiers (scram_crypto.cc); scram_test.cc has the exchanges.

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "protocol/scram.h"

namespace pointsman::protocol {
namespace {

std::string hex(const ScramKey& key) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const auto byte : key.span()) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

std::string_view view(const ScramKey& key) {
  return base::as_text(key.span());
}

// ---- building blocks ---------------------------------------------------------------------------------------------

TEST_CASE("SHA-256 and HMAC-SHA-256 give the published values") {
  // FIPS 180-2, appendix B.1 and B.2; RFC 4231, cases 1, 2, 6 (key longer than a block) and 7.
  CHECK(hex(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(sha256("")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(hmac_sha256(std::string(20, '\x0b'), "Hi There")) ==
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  CHECK(hex(hmac_sha256("Jefe", "what do ya want for nothing?")) ==
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CHECK(hex(hmac_sha256(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First")) ==
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
  CHECK(hex(hmac_sha256(std::string(131, '\xaa'),
                        "This is a test using a larger than block-size key and a larger than block-size data. The key "
                        "needs to be hashed before being used by the HMAC algorithm.")) ==
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
  // A key of exactly one block, and an empty one and empty data; computed with Python's hmac.
  CHECK(hex(hmac_sha256(std::string(64, 'k'), "x")) ==
        "f91c4c403625fb06910ef93999265bbd2d62baeaec6ff36455498cc124fe3e66");
  CHECK(hex(hmac_sha256("", "")) == "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

TEST_CASE("base64 is that of RFC 4648, and each value has one spelling") {
  const std::pair<std::string, std::string> pairs[] = {{"", ""},
                                                       {"f", "Zg=="},
                                                       {"fo", "Zm8="},
                                                       {"foo", "Zm9v"},
                                                       {"foob", "Zm9vYg=="},
                                                       {"fooba", "Zm9vYmE="},
                                                       {"foobar", "Zm9vYmFy"}};
  for (const auto& [raw, text] : pairs) {
    CHECK(base64_encode(raw) == text);
    CHECK(base64_decode(text) == raw);
  }
  std::string all;
  for (int i = 0; i < 256; ++i) {
    all.push_back(static_cast<char>(i));
    CHECK(base64_decode(base64_encode(all)) == all);
  }
  for (const char* bad : {"A", "AA", "AAA", "A===", "====", "=", "AA=A", "AA==AAAA", "AB==", "AAB=", "AA =", " AAA",
                          "AAA\n", "AA==\n", "AA-_", "AAAA====",
                          "\xc3\x84"
                          "AA"}) {
    CAPTURE(bad);
    CHECK_FALSE(base64_decode(bad).has_value());
  }
  CHECK_FALSE(base64_decode(std::string_view("A\0AA", 4)).has_value());
}

TEST_CASE("a key in base64 has 32 bytes") {
  CHECK(base64_decode_key(base64_encode(std::string(32, 'x'))).has_value());
  CHECK_FALSE(base64_decode_key(base64_encode(std::string(31, 'x'))).has_value());
  CHECK_FALSE(base64_decode_key(base64_encode(std::string(33, 'x'))).has_value());
  CHECK_FALSE(base64_decode_key("").has_value());
}

TEST_CASE("iteration counts are bounded and spelled in one way") {
  CHECK(parse_scram_iterations("1") == 1U);
  CHECK(parse_scram_iterations("4096") == 4'096U);
  CHECK(parse_scram_iterations("1000000") == kMaxScramIterations);
  for (const char* bad : {"", "0", "1000001", "2147483648", "4294967297", "99999999999999999999", "-1", "+1", "04096",
                          " 1", "1 ", "4096x", "1e3"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_scram_iterations(bad).has_value());
  }
}

// ---- verifiers ---------------------------------------------------------------------------------------------------

TEST_CASE("PostgreSQL's own verifiers are read, written and derived alike") {
  // rolpassword of PostgreSQL 15.20 after CREATE ROLE ... PASSWORD.
  struct Entry {
    const char* password;
    const char* verifier;
  };
  const Entry entries[] = {
      {"pencil",
       "SCRAM-SHA-256$4096:VIyI+O4gnAaJWmh/3HfJlA==$5NJMBEbx2y68tzLU5INsNj/RCc/JC7M2Y8IG7NvY2ag=:"
       "IaVvP3iZLpmjZm4O1f7FuB1emF5+sfdHfshKOGLDJV0="},
      {"a longer pass phrase, with: commas $ and = signs",
       "SCRAM-SHA-256$4096:Kj0JgZ5BM9fm99sWOoTShw==$ZrOSQfgV/n6FcnHJOErsbA+tpglSEkIcuLMqOpIMrqc=:"
       "+lBVdW411ATJGl+jOUB/t4EF/Snbk/44Z4FZ3K+0u+E="},
      {"p\u00e4ssw\u00f6rd \u2713",
       "SCRAM-SHA-256$4096:gCu9KK3OSm8SATMtGd4Gew==$Vnw1eOuB7z+vDKqPaatt9AJ8jewOxqA383emQA5qdSM=:"
       "di99DHlvQ8PNAtMTKnKB6LwIK8dH/lBOgT6iVohNyuY="},
  };
  for (const auto& entry : entries) {
    CAPTURE(entry.password);
    const auto parsed = parse_scram_verifier(entry.verifier);
    REQUIRE(parsed.has_value());
    CHECK(parsed->iterations == 4'096);
    CHECK(parsed->salt.size() == kScramSaltSize);
    CHECK(format_scram_verifier(*parsed) == entry.verifier);
    const auto derived = derive_scram(entry.password, parsed->salt, parsed->iterations);
    CHECK(format_scram_verifier(derived.verifier) == entry.verifier);
    CHECK(hex(sha256(view(derived.client_key))) == hex(parsed->stored_key));
  }
}

TEST_CASE("what is no SCRAM verifier is not taken for one") {
  const std::string good =
      "SCRAM-SHA-256$4096:VIyI+O4gnAaJWmh/3HfJlA==$5NJMBEbx2y68tzLU5INsNj/RCc/JC7M2Y8IG7NvY2ag=:"
      "IaVvP3iZLpmjZm4O1f7FuB1emF5+sfdHfshKOGLDJV0=";
  REQUIRE(parse_scram_verifier(good).has_value());
  for (std::size_t size = 0; size < good.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(parse_scram_verifier(good.substr(0, size)).has_value());
  }
  const auto with = [&](std::string_view from, std::string_view to) {
    auto text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const auto& bad :
       {good + " ", good + "\n", good + ":", " " + good, with("SCRAM-SHA-256", "scram-sha-256"),
        with("SCRAM-SHA-256", "SCRAM-SHA-1"), with("4096", "0"), with("4096", "1000001"), with("4096", "-1"),
        with("4096", "04096"), with("VIyI+O4gnAaJWmh/3HfJlA==", ""), with("VIyI", "VI*I"), with("2ag=", "2ah="),
        with("JV0=", "JV1="), with("$5N", ":5N"), with("5NJM", ""), std::string("md5a3556571e93b0d20722ba62be61e8c2d"),
        std::string("pencil"), std::string("SCRAM-SHA-256$")}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_scram_verifier(bad).has_value());
  }
  // A salt at its bound, and beyond it.
  const auto salted = [&](std::size_t size) {
    return with("VIyI+O4gnAaJWmh/3HfJlA==", base64_encode(std::string(size, 's')));
  };
  CHECK(parse_scram_verifier(salted(1)).has_value());
  CHECK(parse_scram_verifier(salted(kMaxScramSalt)).has_value());
  CHECK_FALSE(parse_scram_verifier(salted(kMaxScramSalt + 1)).has_value());
}

TEST_CASE("a mock verifier is stable per name and secret and looks like a real one") {
  const auto mock = make_mock_verifier("the secret", "nobody");
  CHECK(mock.salt.size() == kScramSaltSize);
  CHECK(mock.iterations == kDefaultScramIterations);
  CHECK(mock.salt == make_mock_verifier("the secret", "nobody").salt);
  CHECK(mock.salt != make_mock_verifier("the secret", "nobodz").salt);
  CHECK(mock.salt != make_mock_verifier("the other secret", "nobody").salt);
  CHECK(parse_scram_verifier(format_scram_verifier(mock)).has_value());
}

}  // namespace
}  // namespace pointsman::protocol
