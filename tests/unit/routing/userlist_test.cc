#include "routing/userlist.h"

#include <doctest/doctest.h>

#include <string>

namespace pointsman::routing {
namespace {

const std::string kVerifier = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy";

std::string fault(std::string_view text) {
  const auto parsed = parse_userlist(text);
  REQUIRE_FALSE(parsed.ok());
  return parsed.error();
}

TEST_CASE("roles, verifiers, comments and empty lines of a PgBouncer userlist") {
  const auto parsed = parse_userlist("; made by hand\n\"app\" \"" + kVerifier + "\"\n\n  \t\r\n \"a.b\"\t \"" +
                                     kVerifier + "\" trailing fields\r\n;\"x\" \"y\"\n\"last\" \"" + kVerifier + "\"");
  REQUIRE(parsed.ok());
  CHECK(parsed.value().size() == 3);
  CHECK(parsed.value().at("app") == kVerifier);
  CHECK(parsed.value().contains("a.b"));
  CHECK(parsed.value().contains("last"));
}

TEST_CASE("a doubled quote stands for one") {
  const auto parsed = parse_userlist("\"we\"\"ird\" \"SCRAM-SHA-256$a\"\"b\"");
  REQUIRE(parsed.ok());
  CHECK(parsed.value().at("we\"ird") == "SCRAM-SHA-256$a\"b");
}

TEST_CASE("secrets that are no SCRAM verifier are not kept") {
  const auto parsed =
      parse_userlist("\"old\" \"md5" + std::string(32, 'a') + "\"\n\"clear\" \"hunter2\"\n\"none\" \"\"\n");
  REQUIRE(parsed.ok());
  CHECK(parsed.value().at("old") == "md5");
  CHECK(parsed.value().at("clear") == "");
  CHECK(parsed.value().at("none") == "");
}

TEST_CASE("a fault names its line and quotes nothing of it") {
  CHECK(fault("\"app\" \"ok\"\napp secret1") == "line 2: a role name in double quotes is expected");
  CHECK(fault("\"app") == "line 1: a role name in double quotes is expected");
  CHECK(fault("\"app\"") == "line 1: white space is expected behind the role name");
  CHECK(fault("\"app\"\"secret1\"") == "line 1: white space is expected behind the role name");
  CHECK(fault("\n\"app\" secret1") == "line 2: a secret in double quotes is expected behind the role name");
  CHECK(fault("\"app\" \"secret1") == "line 1: a secret in double quotes is expected behind the role name");
  CHECK(fault("\"\" \"x\"") == "line 1: a role name has 1 to 63 bytes");
  CHECK(fault("\"app\" \"a\"\n\"app\" \"b\"") == "line 2: this role stands there twice");
  CHECK(fault(std::string("\"a\0b\" \"x\"", 9)) == "line 1: a zero byte in the role name");
}

TEST_CASE("lengths hold at their limits") {
  CHECK(parse_userlist("\"" + std::string(63, 'r') + "\" \"x\"").ok());
  CHECK_FALSE(parse_userlist("\"" + std::string(64, 'r') + "\" \"x\"").ok());
  CHECK(parse_userlist("\"r\" \"" + std::string(2047, 's') + "\"").ok());
  CHECK_FALSE(parse_userlist("\"r\" \"" + std::string(2048, 's') + "\"").ok());
}

TEST_CASE("an empty file knows nobody") {
  const auto parsed = parse_userlist("");
  REQUIRE(parsed.ok());
  CHECK(parsed.value().empty());
}

}  // namespace
}  // namespace pointsman::routing
