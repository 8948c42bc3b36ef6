#include "proxy/monitor/wiped_buffer.h"

#include <doctest/doctest.h>

#include <string>

namespace pointsman::proxy {

TEST_CASE("bytes leave in the order in which they came, through every growth") {
  WipedBuffer buffer;
  std::string expected;
  for (int i = 0; i < 2'000; ++i) {
    const auto piece = std::to_string(i) + ",";
    buffer.append(piece);
    expected += piece;
    if (i % 3 == 0) {
      buffer.consume(4 % expected.size());
      expected.erase(0, 4 % expected.size());
    }
    REQUIRE(buffer.view() == expected);
  }
  buffer.consume(expected.size());
  CHECK(buffer.empty());
  CHECK(buffer.view().empty());
  buffer.append("");
  CHECK(buffer.empty());
}

TEST_CASE("what was consumed is overwritten where it lay") {
  WipedBuffer buffer;
  buffer.append("secret and more");
  const char* at = buffer.view().data();
  buffer.consume(6);
  CHECK(std::string_view(at, 6) == std::string_view("\0\0\0\0\0\0", 6));
  CHECK(buffer.view() == " and more");
}

TEST_CASE("a moved buffer takes all along") {
  WipedBuffer buffer;
  buffer.append("abc");
  buffer.consume(1);
  WipedBuffer other(std::move(buffer));
  CHECK(other.view() == "bc");
  other.append("d");
  WipedBuffer third;
  third.append("x");
  third = std::move(other);
  CHECK(third.view() == "bcd");
}

}  // namespace pointsman::proxy
