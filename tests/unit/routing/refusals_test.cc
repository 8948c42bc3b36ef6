#include "routing/refusals.h"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;

TEST_CASE("every reason has a word of its own") {
  std::set<std::string_view> words;
  for (std::size_t i = 0; i < kReasonCount; ++i) words.insert(to_word(static_cast<Reason>(i)));
  CHECK(words.size() == kReasonCount);
  CHECK(to_word(static_cast<Reason>(kFirstRefusal)) == "bad_user");
  CHECK(to_word(static_cast<Reason>(kFirstRefusal - 1)) == "held");
  CHECK(to_word(Reason::kFallbackLeastLagged) == "fallback_least_lagged");
  CHECK(to_word(Reason::kDraining) == "draining");
}

TEST_CASE("each refusal has the SQLSTATE of the contract") {
  const UserName user{"app", "x", {}};
  const std::vector<std::pair<Refusal, std::string>> all = {
      {tls_required(), "28000"},
      {not_allowed("x", "10.0.0.1"), "28000"},
      {too_many_failures(), "28000"},
      {router_full(10), "57P03"},
      {branch_full("x", 10), "53300"},
      {too_many_held("x", 10), "53300"},
      {source_full(10), "53300"},
      {throttled("logins"), "53400"},
      {auth_failed("app"), "28P01"},
      {no_verifier("app", "md5"), "28P01"},
      {hidden_unknown_branch(user), "28P01"},
      {startup_timeout("waiting for the password"), "57P03"},
      {hold_expired(draining(), 1s), "57P03"},
      {draining(), "57P03"},
      {drained(), "57P01"},
      {backend_unreachable("x", "", ""), "57P03"},
      {backend_fault("x", "certificate expired"), "58000"},
      {protocol_violation("bytes behind SSLRequest"), "08P01"},
      {unsupported_protocol(2, 0), "0A000"},
      {replication_on_pool(), "0A000"},
      {bad_replication_value("maybe"), "22023"},
  };
  for (const auto& [refusal, sqlstate] : all) {
    INFO(refusal.message);
    CHECK(refusal.sqlstate == sqlstate);
    CHECK_FALSE(refusal.message.empty());
    CHECK(refusal.message.find('\n') == std::string::npos);
    CHECK(static_cast<std::size_t>(refusal.reason) >= kFirstRefusal);
  }
}

TEST_CASE("wrong password, unknown role, no verifier and a hidden branch look the same") {
  const Refusal wrong = auth_failed("app", "wrong password");
  const Refusal none = no_verifier("app", "md5 hash: set password_encryption and give the password again");
  const Refusal hidden = hidden_unknown_branch({"app", "secret-branch", {}});
  CHECK(wrong.message == "password authentication failed for user \"app\"");
  for (const Refusal& other : {none, hidden}) {
    CHECK(other.message == wrong.message);
    CHECK(other.detail == wrong.detail);
    CHECK(other.hint == wrong.hint);
    CHECK(client_word(other) == client_word(wrong));
  }
  CHECK(client_word(wrong) == "auth_failed");
  CHECK(none.reason == Reason::kNoVerifier);
  CHECK(hidden.reason == Reason::kUnknownBranch);
  CHECK(hidden.log_detail.find("secret-branch") != std::string::npos);
  CHECK(client_word(tls_required()) == "tls_required");
}

TEST_CASE("what an operator must mend is told to the log only") {
  const Refusal fault = backend_fault("x", "certificate of pg-0 has expired");
  for (const std::string& told : {fault.message, fault.detail, fault.hint})
    CHECK(told.find("pg-0") == std::string::npos);
  CHECK(fault.log_detail == "certificate of pg-0 has expired");
}

TEST_CASE("an expired hold says how long it was and what stood in the way") {
  const Refusal last{.reason = Reason::kNoPrimary,
                     .sqlstate = "57P03",
                     .message = "no primary available for branch \"x\"",
                     .detail = "No member is the verified primary.",
                     .hint = "",
                     .log_detail = ""};
  const Refusal expired = hold_expired(last, 10s + 40ms);
  CHECK(expired.reason == Reason::kHoldExpired);
  CHECK(expired.message == last.message);
  CHECK(expired.detail == "The login waited 10.0 s. No member is the verified primary.");
}

TEST_CASE("a role with quotes cannot write its own message") {
  CHECK(auth_failed("a\"\nFATAL").message == "password authentication failed for user \"a\\x22\\x0aFATAL\"");
}

}  // namespace
}  // namespace pointsman::routing
