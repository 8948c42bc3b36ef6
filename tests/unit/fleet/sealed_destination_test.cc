#include "proxy/fleet/sealed_destination.h"

#include <doctest/doctest.h>

#include <string>

#include "protocol/fleet_keys.h"

namespace pointsman::proxy {
namespace {

using routing::RouteClass;
using routing::SocketAddress;

SealedDestination place(const std::string& host, RouteClass route = RouteClass::kPrimary) {
  return {"x7k2m9q4w1ab", route, SocketAddress::from_numeric(host, 5432), "abcd"};
}

TEST_CASE("every kind of destination comes back as it was") {
  for (const auto route : {RouteClass::kPrimary, RouteClass::kReplica, RouteClass::kLocalPool, RouteClass::kPool}) {
    for (const auto* host : {"10.1.2.3", "fd00::1:2"}) {
      const auto before = place(host, route);
      const auto after = decode_destination(encode_destination(before, protocol::kMaxSealedContent));
      REQUIRE(after);
      CHECK(after->branch == before.branch);
      CHECK(after->route == before.route);
      CHECK(after->address == before.address);
      CHECK(after->address.to_string() == before.address.to_string());
      CHECK(after->secret == before.secret);
    }
  }
}

TEST_CASE("a key has room for the longest branch, an IPv6 address and the usual 32 bytes of a backend's secret") {
  auto big = place("fd00::1");
  big.branch = std::string(63, 'b');
  big.secret = std::string(32, 's');
  CHECK(encode_destination(big, protocol::kMaxSealedContent).size() > 100);
  big.secret = std::string(200, 's');
  CHECK(encode_destination(big, protocol::kMaxSealedContent).empty());
  big.secret = std::string(256, 's');
  CHECK(encode_destination(big, 10'000).empty());
}

TEST_CASE("an address that means something on one machine only is not told to others") {
  auto link = place("fe80::1");
  link.address.v6.sin6_scope_id = 2;
  CHECK(encode_destination(link, protocol::kMaxSealedContent).empty());
  CHECK(encode_destination({"b", RouteClass::kPrimary, {}, "abcd"}, protocol::kMaxSealedContent).empty());
}

TEST_CASE("what is not exactly one of ours is nothing") {
  const auto content = encode_destination(place("10.1.2.3"), protocol::kMaxSealedContent);
  for (std::size_t size = 0; size < content.size(); ++size) CHECK_FALSE(decode_destination(content.substr(0, size)));
  CHECK_FALSE(decode_destination(content + "x"));
  const auto with = [&content](std::size_t at, char byte) {
    auto changed = content;
    changed[at] = byte;
    return decode_destination(changed);
  };
  CHECK_FALSE(with(0, 2));  // a later format
  CHECK_FALSE(with(1, static_cast<char>(routing::kRouteClassCount)));
  CHECK_FALSE(with(2, 5));
  CHECK_FALSE(with(2, 6));
  auto nameless = place("10.1.2.3");
  nameless.branch.clear();
  CHECK_FALSE(decode_destination(encode_destination(nameless, 100)));
  auto keyless = place("10.1.2.3");
  keyless.secret = "abc";
  CHECK_FALSE(decode_destination(encode_destination(keyless, 100)));
}

}  // namespace
}  // namespace pointsman::proxy
