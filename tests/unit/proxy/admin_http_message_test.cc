#include "proxy/admin/http_message.h"

#include <doctest/doctest.h>

using namespace std::string_view_literals;
using pointsman::proxy::json_error;
using pointsman::proxy::parse_target;
using pointsman::proxy::percent_decode;
using pointsman::proxy::percent_encode;

TEST_CASE("a request target is cut into a path and decoded parameters") {
  const auto target = parse_target("/api/route?listener=direct&user=alice.orders%7creplica");
  REQUIRE(target.ok());
  CHECK(target.value().path == "/api/route");
  REQUIRE(target.value().query.size() == 2);
  REQUIRE(target.value().find("user") != nullptr);
  CHECK(*target.value().find("user") == "alice.orders|replica");
  CHECK(target.value().find("User") == nullptr);
  CHECK(parse_target("/metrics").value().query.empty());
  CHECK(parse_target("/metrics?").value().query.empty());
  CHECK(*parse_target("/a?b=").value().find("b") == "");
  CHECK(*parse_target("/a?b=c=d").value().find("b") == "c=d");
}

TEST_CASE("a plus is a plus and a bar may stand bare") {
  CHECK(*parse_target("/r?user=a+b.orders|reads").value().find("user") == "a+b.orders|reads");
}

TEST_CASE("a target that could be read in two ways is refused") {
  CHECK(parse_target("").error() == "the request target must be a path");
  CHECK(parse_target("http://evil/metrics").error() == "the request target must be a path");
  CHECK(parse_target("*").error() == "the request target must be a path");
  CHECK(parse_target("/%zz").error() == "the path has a wrong percent escape");
  CHECK(parse_target("/a?b").error() == "the query must have the form name=value&name=value");
  CHECK(parse_target("/a?=b").error() == "the query must have the form name=value&name=value");
  CHECK(parse_target("/a?b=1&&c=2").error() == "the query must have the form name=value&name=value");
  CHECK(parse_target("/a?b=1&b=2").error() == "a query parameter is given twice");
  CHECK(parse_target("/a?b=1&%62=2").error() == "a query parameter is given twice");
  CHECK(parse_target("/a?b=%").error() == "the query has a wrong percent escape: write %25 for a percent sign");
}

TEST_CASE("percent escapes need two hexadecimal digits and never make a zero byte") {
  CHECK(percent_decode("%41%5a%7C%7c") == "AZ||");
  CHECK(percent_decode("%25%37%43") == "%7C");
  for (const auto wrong : {"%"sv, "%4"sv, "a%"sv, "%4g"sv, "%g4"sv, "%-1"sv, "% 1"sv, "%00"sv, "\0"sv})
    CHECK_FALSE(percent_decode(wrong).has_value());
}

TEST_CASE("whatever is encoded comes back decoded") {
  std::string all;
  for (int byte = 1; byte < 256; ++byte) all += static_cast<char>(byte);
  CHECK(percent_decode(percent_encode(all)) == all);
  CHECK(percent_encode("a.b-c_d~e") == "a.b-c_d~e");
  CHECK(percent_encode("a|b%c d\xC3") == "a%7Cb%25c%20d%C3");
}

TEST_CASE("an error is a JSON object whatever stands in it") {
  const auto response = json_error(404, "no \"x\"\n\xFF");
  CHECK(response.status == 404);
  CHECK(response.content_type == "application/json");
  CHECK(response.body == "{\"error\":\"no \\\"x\\\"\\n\xEF\xBF\xBD\"}\n");
}
