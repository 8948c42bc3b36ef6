#include "routing/json_reader.h"

#include <doctest/doctest.h>

#include <string>

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;

TEST_CASE("comments are read over") {
  const auto parsed = parse_json("// first\n{\"a\": 1, // one\n /* and */ \"b\": [true, null, \"x//y\"]}");
  REQUIRE(parsed.value);
  CHECK(*parsed.value == Json::parse("{\"a\": 1, \"b\": [true, null, \"x//y\"]}"));
}

TEST_CASE("the builder makes what nlohmann's own makes") {
  for (const char* text :
       {"{}", "[]", "17", "-3", "1.5e3", "\"\\u00e4\\n\"", "null", "[[[]],{\"a\":{\"b\":[{},{\"c\":[1,[2]]}]}}]",
        "18446744073709551615", "{\"\": {\"\": []}}"}) {
    const auto parsed = parse_json(text);
    REQUIRE(parsed.value);
    CHECK(*parsed.value == Json::parse(text));
  }
}

TEST_CASE("a key that stands twice is refused with its path") {
  const auto top = parse_json("{\"a\": 1, \"a\": 2}");
  CHECK_FALSE(top.value);
  CHECK(top.error_path == "/a");
  const auto deep = parse_json("{\"l\": [{}, {\"m\": {\"n\": 1, \"x\": {}, \"n\": 2}}]}");
  CHECK(deep.error_path == "/l/1/m/n");
  CHECK(deep.error.find("twice") != std::string::npos);
  CHECK(parse_json("{\"a\": {\"b\": 1}, \"c\": {\"b\": 1}}").value);
  CHECK(parse_json("[{\"b\": 1}, {\"b\": 1}]").value);
}

TEST_CASE("a fault of syntax says line and column") {
  const auto parsed = parse_json("{\n  \"a\": 1,\n}");
  CHECK_FALSE(parsed.value);
  CHECK(parsed.error.starts_with("parse error at line 3, column 1"));
  for (const char* bad : {"", " ", "{", "{} {}", "{\"a\"}", "[1,]", "'a'", "\"\xff\"", "nan", "01", "/* open"}) {
    const auto other = parse_json(bad);
    CHECK_FALSE(other.value);
    CHECK_FALSE(other.error.empty());
    CHECK(other.error.find('\n') == std::string::npos);
  }
}

TEST_CASE("nesting has a limit") {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK(parse_json(nested(kMaxJsonDepth - 1)).value);
  CHECK(parse_json(nested(kMaxJsonDepth)).value);
  CHECK_FALSE(parse_json(nested(kMaxJsonDepth + 1)).value);
  CHECK_FALSE(parse_json(std::string(1'000'000, '[')).value);
}

/// A reader over a text, and what it reported.
struct Reading {
  Json document;
  std::vector<ConfigError> errors;
  ErrorSink sink{"f.json", &errors};
  JsonPath path;
  ObjectReader reader;
  explicit Reading(const char* text) : document(Json::parse(text)), reader(document, path, sink) {}
  std::string only() {
    REQUIRE(errors.size() == 1);
    return errors[0].to_string();
  }
};

TEST_CASE("an absent or null key leaves the target as it is") {
  Reading reading(R"({"n": null})");
  std::string text = "before";
  bool flag = true;
  std::uint16_t number = 7;
  base::Duration duration = 3s;
  CHECK_FALSE(reading.reader.read_text("n", text));
  CHECK_FALSE(reading.reader.read_bool("absent", flag));
  CHECK_FALSE(reading.reader.read_number("n", number, 1, 9));
  CHECK_FALSE(reading.reader.read_duration("n", duration, 0s, 9s));
  CHECK(text == "before");
  CHECK(flag);
  CHECK(number == 7);
  CHECK(duration == 3s);
  reading.reader.finish();
  CHECK(reading.errors.empty());
}

TEST_CASE("numbers hold at their limits and are whole") {
  Reading reading(R"({"a": 0, "b": 1, "c": 65535, "d": 65536, "e": -1, "f": 1.0, "g": "1", "h": 300})");
  std::uint16_t port = 99;
  CHECK_FALSE(reading.reader.read_number("a", port, 1, 65535));
  CHECK(reading.errors.back().to_string() == "f.json: /a: 0 is not allowed; a whole number from 1 to 65535 is");
  CHECK(port == 99);
  CHECK(reading.reader.read_number("b", port, 1, 65535));
  CHECK(port == 1);
  CHECK(reading.reader.read_number("c", port, 1, 65535));
  CHECK(port == 65535);
  for (const char* key : {"d", "e", "f", "g"}) CHECK_FALSE(reading.reader.read_number(key, port, 1, 65535));
  CHECK(reading.errors.size() == 5);
  std::uint8_t small = 0;
  CHECK_FALSE(reading.reader.read_number("h", small, 0, 1000));  // the type's own limit counts too
}

TEST_CASE("durations hold at their limits") {
  Reading reading(R"({"a": "99ms", "b": "100ms", "c": "10s", "d": "10001ms", "e": 5, "f": "soon"})");
  base::Duration duration{};
  CHECK_FALSE(reading.reader.read_duration("a", duration, 100ms, 10s));
  CHECK(reading.reader.read_duration("b", duration, 100ms, 10s));
  CHECK(reading.reader.read_duration("c", duration, 100ms, 10s));
  CHECK(duration == 10s);
  for (const char* key : {"d", "e", "f"}) CHECK_FALSE(reading.reader.read_duration(key, duration, 100ms, 10s));
  CHECK(reading.errors.size() == 4);
  CHECK(reading.errors[3].what.find("\"soon\"") == 0);
}

TEST_CASE("texts are not empty, not too long and hold no control characters") {
  constexpr TextForm kThree{.most = 3};
  Reading reading(R"({"a": "", "b": "abc", "c": "abcd", "d": "a\nb", "e": 1})");
  std::string text;
  CHECK_FALSE(reading.reader.read_text("a", text, kThree));
  CHECK(reading.reader.read_text("b", text, kThree));
  for (const char* key : {"c", "d", "e"}) CHECK_FALSE(reading.reader.read_text(key, text, kThree));
  CHECK(text == "abc");
  CHECK(reading.errors.size() == 4);
}

TEST_CASE("a text's rule complains in its own words and leaves the text to the caller") {
  constexpr TextRule kShout{.form = {},
                            .holds = [](const std::string& text) { return text == "LOUD"; },
                            .complaint = "is not loud",
                            .quotes_value = true};
  Reading reading(R"({"a": "LOUD", "b": "low", "c": 1})");
  std::string text;
  CHECK(reading.reader.read_text("a", text, kShout));
  CHECK_FALSE(reading.reader.read_text("b", text, kShout));
  CHECK(text == "low");
  CHECK(reading.only() == "f.json: /b: \"low\" is not loud");
  CHECK_FALSE(reading.reader.read_text("c", text, kShout));
  CHECK(reading.errors.size() == 2);
}

TEST_CASE("an array of objects is one, and not too long") {
  Reading reading(R"({"a": [{}, {}], "b": [{}, {}, {}], "c": {}, "d": null})");
  const auto* two = reading.reader.read_array("a", 1, 2);
  REQUIRE(two != nullptr);
  CHECK(two->size() == 2);
  for (const char* key : {"b", "c", "d", "absent"}) CHECK(reading.reader.read_array(key, 1, 2) == nullptr);
  REQUIRE(reading.errors.size() == 2);
  CHECK(reading.errors[0].to_string() == "f.json: /b: 3 entries; at most 2 are allowed");
  CHECK(reading.errors[1].to_string() == "f.json: /c: an object is no array");
}

TEST_CASE("unknown keys are reported with those allowed, x- keys are the operator's") {
  Reading reading(R"({"name": "a", "nmae": 1, "x-note": {"any": "thing"}})");
  std::string text;
  reading.reader.read_text("name", text);
  reading.reader.read_text("zone", text);
  reading.reader.finish();
  CHECK(reading.only() == "f.json: /nmae: unknown key; allowed are name, zone");
}

TEST_CASE("what must be there is said to be missing, what is for later to be not in this version") {
  Reading reading(R"({"later": 1})");
  reading.reader.require("host", "a host name");
  reading.reader.refuse("later");
  reading.reader.refuse("much_later");
  reading.reader.finish();
  REQUIRE(reading.errors.size() == 2);
  CHECK(reading.errors[0].to_string() == "f.json: /host: is missing; a host name is needed");
  CHECK(reading.errors[1].to_string() == "f.json: /later: not in this version");
}

TEST_CASE("what is no object is said once and reads as empty") {
  Reading reading("[1]");
  std::string text;
  reading.reader.require("host", "a host");
  CHECK_FALSE(reading.reader.read_text("host", text));
  reading.reader.finish();
  CHECK(reading.only() == "f.json: an array is no object");
}

TEST_CASE("paths are written as JSON pointers, foreign text escaped") {
  const JsonPath root("/branches/x");
  const JsonPath members(root, "members");
  const JsonPath third(members, std::size_t{2});
  CHECK(JsonPath(third, "host").to_string() == "/branches/x/members/2/host");
  CHECK(JsonPath(root, "a/b~c\n").to_string() == "/branches/x/a~1b~0c\\x0a");
  CHECK(JsonPath().to_string() == "");
}

}  // namespace
}  // namespace pointsman::routing
