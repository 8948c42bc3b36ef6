#include "routing/discovery.h"

#include <doctest/doctest.h>

#include "routing/config_reader.h"

using namespace pointsman::routing;

namespace {

std::vector<SocketAddress> addresses(std::initializer_list<const char*> texts) {
  std::vector<SocketAddress> found;
  for (const char* text : texts) found.push_back(SocketAddress::from_numeric(text, 0));
  return found;
}

BranchConfig declared() {
  BranchConfig branch;
  branch.name = "x";
  branch.fingerprint = 7;
  branch.discover.emplace();
  branch.discover->pgbouncer_port = 6432;
  branch.discover->zone = "a";
  return branch;
}

}  // namespace

TEST_CASE("each address of a DNS answer is a member, whatever the answer's order") {
  const DnsDiscovery wanted{.name = "pg", .port = 5433, .family = AddressFamily::kAny, .interval = {}};
  const auto one = discovered_from_addresses(addresses({"10.0.0.9", "10.0.0.10", "fd00::7", "10.0.0.9"}), wanted);
  const auto other = discovered_from_addresses(addresses({"fd00::7", "10.0.0.10", "10.0.0.9"}), wanted);
  REQUIRE(one.ok());
  REQUIRE(other.ok());
  CHECK(one.value() == other.value());
  REQUIRE(one.value().members.size() == 3);
  CHECK(one.value().members[0].name == "10-0-0-10");
  CHECK(one.value().members[0].host == "10.0.0.10");
  CHECK(one.value().members[0].port == 5433);
  CHECK(one.value().members[1].name == "10-0-0-9");
  CHECK(one.value().members[2].name == "fd00--7");
  CHECK_FALSE(one.value().leader);
}

TEST_CASE("a dual-stack name is narrowed to one family") {
  DnsDiscovery wanted{.name = "pg", .port = 5432, .family = AddressFamily::kIpv6, .interval = {}};
  auto found = discovered_from_addresses(addresses({"10.0.0.9", "fd00::7"}), wanted);
  REQUIRE(found.ok());
  REQUIRE(found.value().members.size() == 1);
  CHECK(found.value().members[0].host == "fd00::7");
  wanted.family = AddressFamily::kIpv4;
  found = discovered_from_addresses(addresses({"10.0.0.9", "fd00::7"}), wanted);
  REQUIRE(found.ok());
  CHECK(found.value().members[0].host == "10.0.0.9");
  CHECK_FALSE(discovered_from_addresses(addresses({"fd00::7"}), wanted).ok());
}

TEST_CASE("an empty answer is a failure, not an empty set") {
  const auto found = discovered_from_addresses({}, {});
  REQUIRE_FALSE(found.ok());
  CHECK(found.error() == "the answer has no address");
}

TEST_CASE("128 addresses are members, 129 are refused as a whole") {
  std::vector<SocketAddress> many;
  for (int i = 0; i < 128; ++i) many.push_back(SocketAddress::from_numeric("10.1.0." + std::to_string(i), 0));
  auto found = discovered_from_addresses(many, {});
  REQUIRE(found.ok());
  CHECK(found.value().members.size() == kMaxMembers);
  many.push_back(SocketAddress::from_numeric("10.2.0.1", 0));
  found = discovered_from_addresses(many, {});
  REQUIRE_FALSE(found.ok());
  CHECK(found.error() == "it names more than 128 members");
}

TEST_CASE("a name made of an address is lawful") {
  for (const char* host : {"10.0.0.1", "::1", "fd00::1", "1::", "2001:db8:1:2:3:4:5:6"}) {
    CAPTURE(host);
    CHECK(is_label(member_name_of(host)));
  }
  CHECK(member_name_of("::1") == "0--1");
}

TEST_CASE("the effective branch has the found members and everything else as declared") {
  const BranchConfig branch = declared();
  Discovered found;
  found.members = {{.name = "pg-0", .host = "10.0.0.1", .port = 5433},
                   {.name = "pg-1", .host = "10.0.0.2", .pgbouncer_port = 7432, .zone = "b"}};
  const auto effective = effective_config(branch, found);
  REQUIRE(effective->members.size() == 2);
  CHECK(effective->members[0].name == "pg-0");
  CHECK(effective->members[0].port == 5433);
  CHECK(effective->members[0].pgbouncer_port == 6432);
  CHECK(effective->members[0].zone == "a");
  CHECK(effective->members[1].pgbouncer_port == 7432);
  CHECK(effective->members[1].zone == "b");
  CHECK(effective->fingerprint == 7);
  CHECK(effective->discover == branch.discover);
  CHECK(branch.members.empty());
}

TEST_CASE("URLs of discovery") {
  const auto whole = HttpUrl::parse("https://patroni.example:8008/base/");
  REQUIRE(whole);
  CHECK(whole->tls);
  CHECK(whole->host == "patroni.example");
  CHECK(whole->port == 8008);
  CHECK(whole->path == "/base");
  CHECK(whole->to_string() == "https://patroni.example:8008/base");
  CHECK(HttpUrl::parse("http://10.0.0.1")->port == 80);
  CHECK(HttpUrl::parse("https://10.0.0.1")->port == 443);
  const auto ipv6 = HttpUrl::parse("https://[fd00::1]:6443");
  REQUIRE(ipv6);
  CHECK(ipv6->host == "fd00::1");
  CHECK(ipv6->to_string() == "https://[fd00::1]:6443");
  CHECK(HttpUrl::parse("https://[fd00::1]")->port == 443);
  for (const char* bad : {"",
                          "ftp://h",
                          "h:80",
                          "http://",
                          "http://:80",
                          "http://h:",
                          "http://h:0",
                          "http://h:65536",
                          "http://h:8a",
                          "http://user@h",
                          "http://h/?q=1",
                          "http://h/#f",
                          "http://h/a b",
                          "http://[fd00::1",
                          "http://[pg]:80",
                          "http://[fd00::1]8",
                          "http://fd00::1",
                          "http://h\r\nX: y",
                          "http://h/\r\nX",
                          "HTTP://h"}) {
    CAPTURE(bad);
    CHECK_FALSE(HttpUrl::parse(bad));
  }
  using namespace std::string_view_literals;
  CHECK_FALSE(HttpUrl::parse("https://[fd00::1\0]:6443"sv));
  CHECK_FALSE(HttpUrl::parse("https://10.0.0.1\0"sv));
}
