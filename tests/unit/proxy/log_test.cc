#include "proxy/log.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

using namespace pointsman;
using proxy::format_log_line;
using proxy::LogField;
using proxy::LogLevel;
using routing::LogFormat;

namespace {

const auto kAt =
    std::chrono::system_clock::time_point(std::chrono::milliseconds(1'767'323'045'678));  // 2026-01-02T03:04:05.678Z

std::string text(LogLevel level, std::string_view message, const std::vector<LogField>& fields) {
  return format_log_line(LogFormat::kText, kAt, level, message, fields);
}
std::string json(LogLevel level, std::string_view message, const std::vector<LogField>& fields) {
  return format_log_line(LogFormat::kJson, kAt, level, message, fields);
}

}  // namespace

TEST_CASE("a text line has time, level, message and fields") {
  CHECK(text(LogLevel::kInfo, "session ended", {{"user", "alice.orders"}, {"ms", "12"}}) ==
        "2026-01-02T03:04:05.678Z info  session ended user=alice.orders ms=12");
  CHECK(text(LogLevel::kWarning, "m", {}) == "2026-01-02T03:04:05.678Z warn  m");
  CHECK(text(LogLevel::kDebug, "m", {}) == "2026-01-02T03:04:05.678Z debug m");
  CHECK(text(LogLevel::kError, "m", {}) == "2026-01-02T03:04:05.678Z error m");
}

TEST_CASE("a JSON line is one object with the same things") {
  CHECK(
      json(LogLevel::kInfo, "session ended", {{"user", "alice.orders"}, {"ms", "12"}}) ==
      R"({"time":"2026-01-02T03:04:05.678Z","level":"info","message":"session ended","user":"alice.orders","ms":"12"})");
  CHECK(json(LogLevel::kError, "m", {}) == R"({"time":"2026-01-02T03:04:05.678Z","level":"error","message":"m"})");
}

TEST_CASE("times before a full second and at its edge keep three digits") {
  const auto at = [](int milliseconds) {
    return format_log_line(LogFormat::kText,
                           std::chrono::system_clock::time_point(std::chrono::milliseconds(milliseconds)),
                           LogLevel::kInfo, "m", {});
  };
  CHECK(at(0).starts_with("1970-01-01T00:00:00.000Z"));
  CHECK(at(7).starts_with("1970-01-01T00:00:00.007Z"));
  CHECK(at(999).starts_with("1970-01-01T00:00:00.999Z"));
  CHECK(at(1000).starts_with("1970-01-01T00:00:01.000Z"));
}

TEST_CASE("a value with spaces, an equals sign or nothing in it is quoted, so that fields can be told apart") {
  CHECK(text(LogLevel::kInfo, "m", {{"a", "x y"}, {"b", ""}, {"c", "k=v"}, {"d", "plain"}})
            .ends_with(R"(m a="x y" b="" c="k=v" d=plain)"));
}

TEST_CASE("nothing in a value or a message makes a second line or ends a quote") {
  const std::string hostile = "a\n2026-01-02T03:04:05.678Z error forged\" b=\"c\x1b[2J\r\x7f";
  for (const std::string& line :
       {text(LogLevel::kInfo, "m", {{"user", hostile}}), text(LogLevel::kInfo, hostile, {}),
        json(LogLevel::kInfo, "m", {{"user", hostile}}), json(LogLevel::kInfo, hostile, {})}) {
    CAPTURE(line);
    for (const char c : line) CHECK(static_cast<unsigned char>(c) >= 0x20);
  }
  const std::string quoted = text(LogLevel::kInfo, "m", {{"user", hostile}});
  CHECK(std::count(quoted.begin(), quoted.end(), '"') == 2);
  CHECK(nlohmann::json::parse(json(LogLevel::kInfo, "m", {{"user", hostile}}))["user"] == hostile);
}

TEST_CASE("bytes that are no UTF-8 leave a lawful JSON line") {
  const auto line = nlohmann::json::parse(json(LogLevel::kInfo, "m\xFF", {{"user", "a\xC3"}}));
  CHECK(line["message"] == "m\xEF\xBF\xBD");
  CHECK(line["user"] == "a\xEF\xBF\xBD");
}

TEST_CASE("values are cut at their limit, not inside a character") {
  const auto user = [](std::string value, std::size_t limit) {
    return nlohmann::json::parse(json(LogLevel::kInfo, "m", {{"user", std::move(value), limit}}))["user"]
        .get<std::string>();
  };
  CHECK(user(std::string(255, 'a'), 256) == std::string(255, 'a'));
  CHECK(user(std::string(256, 'a'), 256) == std::string(256, 'a'));
  CHECK(user(std::string(257, 'a'), 256) == std::string(256, 'a') + "…");
  CHECK(user("aé", 2) == "a…");
  CHECK(user("aé", 3) == "aé");
  const std::string line = text(LogLevel::kInfo, "m", {{"user", std::string(5000, 'a')}});
  CHECK(line.size() < 320);
  CHECK(text(LogLevel::kInfo, "m", {{"detail", std::string(1000, 'a'), 1024}}).find(std::string(1000, 'a')) !=
        std::string::npos);
}
