#include "proxy/server/sd_notify.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <string>

using namespace pointsman;
using proxy::parse_notify_socket;

namespace {

constexpr std::size_t kPathRoom = sizeof(sockaddr_un::sun_path);
constexpr std::size_t kPathAt = offsetof(sockaddr_un, sun_path);

}  // namespace

TEST_CASE("a path is taken with its ending zero byte") {
  const auto parsed = parse_notify_socket("/run/systemd/notify");
  REQUIRE(parsed.ok());
  CHECK(parsed.value().address.sun_family == AF_UNIX);
  CHECK(std::string(parsed.value().address.sun_path) == "/run/systemd/notify");
  CHECK(parsed.value().size == kPathAt + std::strlen("/run/systemd/notify") + 1);
}

TEST_CASE("an abstract name begins with a zero byte and ends where it ends") {
  const auto parsed = parse_notify_socket("@org/notify");
  REQUIRE(parsed.ok());
  const auto& address = parsed.value().address;
  CHECK(std::string(address.sun_path, 11) == std::string("\0org/notify", 11));
  CHECK(parsed.value().size == kPathAt + 11);
}

TEST_CASE("the longest names that fit are taken, and no longer ones") {
  CHECK(parse_notify_socket("/" + std::string(kPathRoom - 2, 'a')).ok());
  CHECK(parse_notify_socket("/" + std::string(kPathRoom - 1, 'a')).error() ==
        "it is longer than " + std::to_string(kPathRoom - 1) + " bytes");
  CHECK(parse_notify_socket("@" + std::string(kPathRoom - 1, 'a')).ok());
  CHECK(parse_notify_socket("@" + std::string(kPathRoom, 'a')).error() ==
        "it is longer than " + std::to_string(kPathRoom) + " bytes");
}

TEST_CASE("what is neither a path nor an abstract name is an error") {
  for (const char* value : {"", "/", "@", "run/notify", "vsock:2:1234"}) {
    CAPTURE(value);
    CHECK(parse_notify_socket(value).error() == "it must be an absolute path, or @ and a name");
  }
  CHECK(parse_notify_socket(std::string("/run\0x", 6)).error() == "it has a zero byte");
}

TEST_CASE("the messages are lines of NAME=value") {
  using namespace std::chrono_literals;
  CHECK(proxy::ready_message("serving 3 branches") == "READY=1\nSTATUS=serving 3 branches\n");
  CHECK(proxy::reloading_message(1234567890123) == "RELOADING=1\nMONOTONIC_USEC=1234567890123\n");
  CHECK(proxy::stopping_message("draining", 1h + 40s) ==
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=3640000000\nSTATUS=draining\n");
}

TEST_CASE("a status cannot smuggle in another line and is cut") {
  CHECK(proxy::ready_message("a\nMAINPID=1\x7f") == "READY=1\nSTATUS=a MAINPID=1 \n");
  CHECK(proxy::ready_message(std::string(200, 'x')) == "READY=1\nSTATUS=" + std::string(200, 'x') + "\n");
  CHECK(proxy::ready_message(std::string(201, 'x')) == "READY=1\nSTATUS=" + std::string(200, 'x') + "\n");
}
