#include "proxy/cli/http_client.h"

#include <doctest/doctest.h>

using namespace std::string_view_literals;
using pointsman::proxy::parse_admin_url;
using pointsman::proxy::parse_http_answer;

TEST_CASE("an admin URL is a host, a port and perhaps a path before ours") {
  CHECK(parse_admin_url("http://127.0.0.1:9432").value().to_string() == "http://127.0.0.1:9432");
  CHECK(parse_admin_url("http://router").value().to_string() == "http://router:9432");
  CHECK(parse_admin_url("router:1").value().to_string() == "http://router:1");
  CHECK(parse_admin_url("router:65535").value().port == 65535);
  CHECK(parse_admin_url("http://[::1]:80/").value().to_string() == "http://[::1]:80");
  CHECK(parse_admin_url("[fe80::1]").value().host == "fe80::1");
  CHECK(parse_admin_url("http://gate/pointsman//").value().prefix == "/pointsman");
}

TEST_CASE("what is no admin URL is refused with the form that is") {
  for (const auto wrong : {""sv, "http://"sv, "https://router"sv, "ftp://router"sv, "router:"sv, "router:0"sv,
                           "router:65536"sv, "router:x"sv, "::1"sv, "[::1"sv, "[::1]9"sv, "user@router"sv,
                           "router/a b"sv, "router/\r\nX: y"sv, "router?x"sv}) {
    CAPTURE(wrong);
    const auto url = parse_admin_url(wrong);
    REQUIRE_FALSE(url.ok());
    CHECK(url.error().find("the form is http://HOST[:PORT]") != std::string::npos);
  }
}

TEST_CASE("an answer is a status and a body of the length it says") {
  const auto plain = parse_http_answer("HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody");
  REQUIRE(plain.ok());
  CHECK(plain.value().status == 200);
  CHECK(plain.value().body == "body");
  CHECK(parse_http_answer("HTTP/1.0 404 Not Found\r\ncontent-LENGTH:  2 \r\n\r\nbody").value().body == "bo");
  CHECK(parse_http_answer("HTTP/1.1 204\r\n\r\n").value().status == 204);
}

TEST_CASE("an answer that was cut off or is no HTTP is told so") {
  CHECK(parse_http_answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody").error() ==
        "the answer was cut off: 4 of 5 bytes");
  CHECK_FALSE(parse_http_answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").ok());
  for (const auto wrong :
       {""sv, "HTTP/1.1 200 OK\r\n"sv, "SSH-2.0-x\r\n\r\n"sv, "HTTP/1.1 2x0 OK\r\n\r\n"sv, "HTTP/1.1\r\n\r\n"sv,
        "HTTP/2 200 OK\r\n\r\n"sv, "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"sv}) {
    CAPTURE(wrong);
    REQUIRE_FALSE(parse_http_answer(wrong).ok());
    CHECK(parse_http_answer(wrong).error() == "the answer is no HTTP: does something else listen there?");
  }
}
