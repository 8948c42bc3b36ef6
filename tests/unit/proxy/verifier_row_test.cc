#include "proxy/monitor/verifier_row.h"

#include <doctest/doctest.h>

namespace pointsman::proxy {
namespace {

using Kind = VerifierAnswer::Kind;
using namespace std::string_view_literals;

const base::Instant kNow{std::chrono::hours(100)};
const std::string kScram = [] {
  return protocol::format_scram_verifier(protocol::make_mock_verifier("secret", "ann"));
}();

bool says(const VerifierAnswer& answer, std::string_view words) {
  return answer.log_detail.find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("a SCRAM verifier of the role asked for is found, and VALID UNTIL bounds it") {
  const auto unlimited = judge_verifier_row(VerifierRow{"ann"sv, kScram, "t"sv, std::nullopt}, "ann", kNow);
  REQUIRE(unlimited.kind == Kind::kFound);
  CHECK(protocol::format_scram_verifier(*unlimited.verifier) == kScram);
  CHECK(unlimited.expires_at == base::Instant{});
  const auto limited = judge_verifier_row(VerifierRow{"ann"sv, kScram, std::nullopt, "2.5"sv}, "ann", kNow);
  REQUIRE(limited.kind == Kind::kFound);
  CHECK(limited.expires_at == kNow + std::chrono::milliseconds(2'500));
  // A date in the year 294276 must not overflow into the past.
  CHECK(judge_verifier_row(VerifierRow{"ann"sv, kScram, "t"sv, "9.2e12"sv}, "ann", kNow).expires_at == base::Instant{});
}

TEST_CASE("no row, or a row about somebody else, is no role") {
  CHECK(judge_verifier_row(std::nullopt, "ann", kNow).kind == Kind::kNoRole);
  CHECK(judge_verifier_row(VerifierRow{"Ann"sv, kScram, "t"sv, std::nullopt}, "ann", kNow).kind == Kind::kNoRole);
  CHECK(judge_verifier_row(VerifierRow{std::nullopt, kScram, "t"sv, std::nullopt}, "ann", kNow).kind == Kind::kNoRole);
}

TEST_CASE("a role that cannot be used says why and what to do") {
  struct Case {
    VerifierRow row;
    std::string_view word;
  };
  const Case cases[] = {
      {{"ann"sv, kScram, "f"sv, std::nullopt}, "NOLOGIN"},
      {{"ann"sv, kScram, "t"sv, "0"sv}, "VALID UNTIL has passed"},
      {{"ann"sv, kScram, "t"sv, "-1"sv}, "VALID UNTIL has passed"},
      {{"ann"sv, kScram, "t"sv, "soon"sv}, "cannot be read"},
      {{"ann"sv, kScram, "t"sv, "nan"sv}, "cannot be read"},
      {{"ann"sv, "md5c8b2d3"sv, "t"sv, std::nullopt}, "stored as md5; set password_encryption"},
      {{"ann"sv, std::nullopt, "t"sv, std::nullopt}, "no password"},
      {{"ann"sv, "SCRAM-SHA-256$4096:x"sv, "t"sv, std::nullopt}, "no SCRAM-SHA-256 verifier"},
  };
  for (const auto& one : cases) {
    const auto answer = judge_verifier_row(one.row, "ann", kNow);
    CAPTURE(answer.log_detail);
    CHECK(answer.kind == Kind::kUnusable);
    CHECK(says(answer, one.word));
  }
  const std::string long_text(5'000, 'a');
  CHECK(says(judge_verifier_row(VerifierRow{"ann"sv, long_text, "t"sv, std::nullopt}, "ann", kNow), "too long"));
}

TEST_CASE("no stored text of a role reaches the log") {
  const auto answer = judge_verifier_row(VerifierRow{"ann"sv, "hunter2"sv, "t"sv, std::nullopt}, "ann", kNow);
  CHECK(answer.kind == Kind::kUnusable);
  CHECK_FALSE(says(answer, "hunter2"));
}

TEST_CASE("a userlist entry is a verifier or is refused with the remedy") {
  CHECK(judge_userlist_entry(&kScram, kNow).kind == Kind::kFound);
  CHECK(judge_userlist_entry(&kScram, kNow).expires_at > kNow);
  CHECK(judge_userlist_entry(nullptr, kNow).kind == Kind::kNoRole);
  for (const std::string text : {"md50123", "plain text", ""}) {
    const auto answer = judge_userlist_entry(&text, kNow);
    CHECK(answer.kind == Kind::kUnusable);
    CHECK(says(answer, "into the userlist"));
  }
}

TEST_CASE("an operator's query may end as psql ends it, and a comment at its end hides nothing") {
  const auto statement = custom_statement("SELECT usename, passwd FROM pg_shadow WHERE usename=$1 ; \n");
  CHECK(statement.find("usename=$1\n) AS q(rolname, verifier)") != std::string::npos);
  CHECK(custom_statement("SELECT 1, 2 -- note").find("-- note\n)") != std::string::npos);
}

}  // namespace pointsman::proxy
