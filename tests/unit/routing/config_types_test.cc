// Address ranges, and how many connections fit.

#include <doctest/doctest.h>

#include <string>

#include "routing/config.h"
#include "routing/snapshot.h"
#include "tests/unit/routing/config_support.h"

namespace pointsman::routing {
namespace {

using test::Folder;
using test::good;

TEST_CASE("the default for max_connections is what fits, 1 to 20,000") {
  const Folder folder;
  const LoadedConfig loaded = folder.load(good());
  REQUIRE(loaded.config);
  const Config& config = *loaded.config;
  const std::uint64_t fixed = descriptors_needed(config, 0, 2);
  CHECK(descriptors_needed(config, 100, 2) == fixed + 200);
  CHECK(default_max_connections(config, fixed + 199, 2) == 99);
  CHECK(default_max_connections(config, fixed + 200, 2) == 100);
  CHECK(default_max_connections(config, fixed + 201, 2) == 100);
  CHECK(default_max_connections(config, 3, 2) == 1);
  CHECK(default_max_connections(config, fixed + 39'999, 2) == 19'999);
  CHECK(default_max_connections(config, 1'000'000, 2) == 20'000);
}

// --- address ranges ---

bool contains(const char* range, const std::string& address) {
  const auto parsed = Cidr::parse(range);
  REQUIRE(parsed);
  std::uint8_t ip[16];
  SocketAddress::from_numeric(address, 0).mapped_ip(ip);
  return parsed->contains(ip);
}

TEST_CASE("an address range contains its first and last address and not their neighbours") {
  CHECK(contains("10.1.0.0/16", "10.1.0.0"));
  CHECK(contains("10.1.0.0/16", "10.1.255.255"));
  CHECK_FALSE(contains("10.1.0.0/16", "10.0.255.255"));
  CHECK_FALSE(contains("10.1.0.0/16", "10.2.0.0"));
  CHECK(contains("192.0.2.4/31", "192.0.2.5"));
  CHECK_FALSE(contains("192.0.2.4/31", "192.0.2.6"));
  CHECK(contains("192.0.2.4", "192.0.2.4"));
  CHECK_FALSE(contains("192.0.2.4", "192.0.2.5"));
  CHECK(contains("2001:db8::/32", "2001:db8:ffff::1"));
  CHECK_FALSE(contains("2001:db8::/32", "2001:db9::"));
  CHECK(contains("2001:db8::/33", "2001:db8:7fff::"));
  CHECK_FALSE(contains("2001:db8::/33", "2001:db8:8000::"));
}

TEST_CASE("everything of one family is nothing of the other") {
  CHECK(contains("0.0.0.0/0", "8.8.8.8"));
  CHECK_FALSE(contains("0.0.0.0/0", "2001:db8::1"));
  CHECK(contains("::/0", "2001:db8::1"));
  CHECK_FALSE(contains("::/0", "8.8.8.8"));
  CHECK(contains("0.0.0.0/0", "::ffff:8.8.8.8"));
}

TEST_CASE("what is no clean range is refused") {
  for (const char* bad :
       {"", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0.0/8 ", "10.0.0/8",
        "::/129", "2001:db8::1/32", "all", "10.0.0.0/8/8", "[::]/0", "10.0.0.0/255.0.0.0"}) {
    CHECK_FALSE(Cidr::parse(bad));
  }
}

}  // namespace
}  // namespace pointsman::routing
