#include "routing/session_options.h"

#include <doctest/doctest.h>

#include <limits>
#include <string>

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;

TEST_CASE("a WAL position is two hexadecimal halves of 1 to 8 digits") {
  CHECK(parse_lsn("16/B374D848") == Lsn{0x16B374D848});
  CHECK(parse_lsn("16/b374d848") == Lsn{0x16B374D848});
  CHECK(parse_lsn("0/0") == Lsn{0});
  CHECK(parse_lsn("FFFFFFFF/FFFFFFFF") == std::numeric_limits<Lsn>::max());
  CHECK(parse_lsn("00000001/1") == Lsn{0x100000001});
  for (const char* bad : {"", "/", "1", "1/", "/1", "1/2/3", "123456789/0", "0/123456789", "g/0", "0/g", " 1/0", "1/0 ",
                          "+1/0", "-1/0", "0x1/0", "1 /0"}) {
    CHECK_FALSE(parse_lsn(bad));
  }
}

TEST_CASE("a WAL position is printed as PostgreSQL prints it") {
  CHECK(format_lsn(0x16B374D848) == "16/B374D848");
  CHECK(format_lsn(0) == "0/0");
  CHECK(format_lsn(0x100000001) == "1/1");
  CHECK(format_lsn(std::numeric_limits<Lsn>::max()) == "FFFFFFFF/FFFFFFFF");
  for (const Lsn lsn : {Lsn{1}, Lsn{0xABCDEF}, Lsn{0x7FFFFFFF80000000}}) CHECK(parse_lsn(format_lsn(lsn)) == lsn);
}

TEST_CASE("a duration is digits and one unit") {
  CHECK(parse_duration("500ms") == 500ms);
  CHECK(parse_duration("10s") == 10s);
  CHECK(parse_duration("1m") == 1min);
  CHECK(parse_duration("2h") == 2h);
  CHECK(parse_duration("0") == 0s);
  CHECK(parse_duration("0s") == 0s);
  CHECK(parse_duration("007s") == 7s);
  for (const char* bad : {"", "s", "10", "1 s", " 1s", "1s ", "-1s", "+1s", "1.5s", "1S", "1d", "1us", "1sec", "1s1ms",
                          "ms", "0x1s", "99999999999999999999s"}) {
    CHECK_FALSE(parse_duration(bad));
  }
}

TEST_CASE("366 days are the longest duration") {
  CHECK(parse_duration("8783h") == 8783h);
  CHECK(parse_duration("8784h") == 8784h);
  CHECK_FALSE(parse_duration("8785h"));
  CHECK(parse_duration("31622400s") == 8784h);
  CHECK_FALSE(parse_duration("31622401s"));
  CHECK(parse_duration("31622400000ms") == 8784h);
  CHECK_FALSE(parse_duration("31622400001ms"));
  CHECK_FALSE(parse_duration("9223372036854775807h"));
}

TEST_CASE("a duration is printed in the largest unit that divides it") {
  CHECK(format_duration(0s) == "0s");
  CHECK(format_duration(500ms) == "500ms");
  CHECK(format_duration(1500ms) == "1500ms");
  CHECK(format_duration(10s) == "10s");
  CHECK(format_duration(60s) == "1m");
  CHECK(format_duration(90s) == "90s");
  CHECK(format_duration(120min) == "2h");
  CHECK(format_duration(-5s) == "0s");
  CHECK(format_duration(999us) == "0s");
}

TEST_CASE("each option is set by its name without the prefix, in any case, the last one counts") {
  SessionOptions options;
  CHECK_FALSE(options.set("min_lsn", "16/B374D848"));
  CHECK_FALSE(options.set("wait", "2s"));
  CHECK_FALSE(options.set("MAX_LAG", "500ms"));
  CHECK_FALSE(options.set("fallback", "primary"));
  CHECK_FALSE(options.set("explain", "on"));
  CHECK(options.min_lsn == Lsn{0x16B374D848});
  CHECK(options.wait == 2s);
  CHECK(options.max_lag == 500ms);
  CHECK(options.fallback == Fallback::kPrimary);
  CHECK(options.explain);
  CHECK_FALSE(options.set("wait", "3s"));
  CHECK_FALSE(options.set("explain", "off"));
  CHECK(options.wait == 3s);
  CHECK_FALSE(options.explain);
}

TEST_CASE("an unknown option is refused by its name, escaped") {
  SessionOptions options;
  const auto refusal = options.set("min_lns\n", "0/0");
  REQUIRE(refusal);
  CHECK(refusal->sqlstate == "22023");
  CHECK(refusal->reason == Reason::kBadOption);
  CHECK(refusal->message == "unrecognized parameter \"pointsman.min_lns\\x0a\"");
  CHECK(refusal->hint.find("pointsman.min_lsn") != std::string::npos);
  CHECK(options.set("", "1"));
}

TEST_CASE("a bad value is refused with the option's name and what is allowed, and changes nothing") {
  struct Case {
    const char* name;
    const char* value;
    const char* allowed;
  };
  for (const Case& bad :
       {Case{"min_lsn", "now", "16/B374D848"}, Case{"wait", "5", "500ms"}, Case{"max_lag", "-1s", "500ms"},
        Case{"fallback", "replica", "least_lagged, primary, error"}, Case{"fallback", "Primary", "error"},
        Case{"explain", "maybe", "on, off"}, Case{"explain", "", "on, off"}}) {
    SessionOptions options;
    const auto refusal = options.set(bad.name, bad.value);
    REQUIRE(refusal);
    CHECK(refusal->sqlstate == "22023");
    CHECK(refusal->message ==
          "invalid value for parameter \"pointsman." + std::string(bad.name) + "\": \"" + bad.value + "\"");
    CHECK(refusal->hint.find(bad.allowed) != std::string::npos);
    CHECK_FALSE(options.min_lsn);
    CHECK_FALSE(options.wait);
    CHECK_FALSE(options.max_lag);
    CHECK_FALSE(options.fallback);
    CHECK_FALSE(options.explain);
  }
}

TEST_CASE("min_lsn, wait and max_lag have no meaning on pooled routes; fallback and explain pass") {
  for (const auto& [name, value] : {std::pair{"min_lsn", "0/1"}, std::pair{"wait", "1s"}, std::pair{"max_lag", "1s"}}) {
    SessionOptions options;
    REQUIRE_FALSE(options.set(name, value));
    const auto refusal = options.check_pooled();
    REQUIRE(refusal);
    CHECK(refusal->sqlstate == "22023");
    CHECK(refusal->message.find("pointsman." + std::string(name)) != std::string::npos);
  }
  SessionOptions options;
  CHECK_FALSE(options.check_pooled());
  CHECK_FALSE(options.set("fallback", "error"));
  CHECK_FALSE(options.set("explain", "on"));
  CHECK_FALSE(options.check_pooled());
}

TEST_CASE("fallback words go both ways") {
  for (const Fallback fallback : {Fallback::kLeastLagged, Fallback::kPrimary, Fallback::kError}) {
    CHECK(parse_fallback(to_text(fallback)) == fallback);
  }
  CHECK_FALSE(parse_fallback(""));
}

}  // namespace
}  // namespace pointsman::routing
