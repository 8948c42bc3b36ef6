#include "routing/snapshot.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string>

namespace pointsman::routing {
namespace {

TEST_CASE("numeric addresses of both families are ready to connect, names are not") {
  CHECK(SocketAddress::from_numeric("10.0.0.1", 5432).to_string() == "10.0.0.1:5432");
  CHECK(SocketAddress::from_numeric("::1", 6432).to_string() == "[::1]:6432");
  CHECK(SocketAddress::from_numeric("10.0.0.1", 5432).size == sizeof(sockaddr_in));
  CHECK(SocketAddress::from_numeric("::1", 5432).size == sizeof(sockaddr_in6));
  for (const char* name : {"pg-0", "localhost", "", "10.0.0", "10.0.0.256", "[::1]"}) {
    CHECK_FALSE(SocketAddress::from_numeric(name, 1).known());
  }
  CHECK(SocketAddress{}.to_string() == "?");
}

TEST_CASE("addresses are equal when family, address and port are") {
  const auto a = SocketAddress::from_numeric("10.0.0.1", 5432);
  CHECK(a == SocketAddress::from_numeric("10.0.0.1", 5432));
  CHECK_FALSE(a == SocketAddress::from_numeric("10.0.0.1", 5433));
  CHECK_FALSE(a == SocketAddress::from_numeric("10.0.0.2", 5432));
  CHECK_FALSE(a == SocketAddress::from_numeric("::ffff:10.0.0.1", 5432));
  CHECK_FALSE(a == SocketAddress{});
  CHECK(SocketAddress{} == SocketAddress{});
  CHECK(SocketAddress::from_numeric("::1", 1) == SocketAddress::from_numeric("0:0:0:0:0:0:0:1", 1));
}

TEST_CASE("with_port moves the port and nothing else") {
  CHECK(SocketAddress::from_numeric("10.0.0.1", 5432).with_port(6432).to_string() == "10.0.0.1:6432");
  CHECK(SocketAddress::from_numeric("fe80::1", 5432).with_port(6432).to_string() == "[fe80::1]:6432");
  CHECK_FALSE(SocketAddress{}.with_port(6432).known());
}

TEST_CASE("an IPv4 address is mapped into IPv6") {
  std::uint8_t ip[16];
  SocketAddress::from_numeric("1.2.3.4", 0).mapped_ip(ip);
  const std::uint8_t expected[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 1, 2, 3, 4};
  CHECK(std::memcmp(ip, expected, sizeof ip) == 0);
  std::uint8_t same[16];
  SocketAddress::from_numeric("::ffff:1.2.3.4", 0).mapped_ip(same);
  CHECK(std::memcmp(ip, same, sizeof ip) == 0);
}

TEST_CASE("a directory finds every branch by name and nothing else") {
  auto config = std::make_shared<Config>();
  for (int i = 0; i < 1000; ++i) {
    auto branch = std::make_shared<BranchConfig>();
    branch->name = "b" + std::to_string(i);
    config->branches.emplace(branch->name, branch);
  }
  const Directory directory(config);
  CHECK(directory.size() == 1000);
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "b" + std::to_string(i);
    const int index = directory.find(name);
    REQUIRE(index >= 0);
    CHECK(directory.name(static_cast<std::size_t>(index)) == name);
  }
  CHECK(directory.find("b1000") == -1);
  CHECK(directory.find("") == -1);
}

TEST_CASE("a pool of a view is found with its index") {
  BranchView view;
  view.pools.resize(2);
  view.pools[0].name = "app";
  view.pools[1].name = "reads";
  std::size_t index = 99;
  CHECK(view.find_pool("reads", &index) == &view.pools[1]);
  CHECK(index == 1);
  CHECK(view.find_pool("other", &index) == nullptr);
  CHECK(index == 1);
}

TEST_CASE("roles and states have the words of the status document") {
  CHECK(to_text(MemberRole::kReplica) == "replica");
  CHECK(to_text(MemberRole::kUnknown) == "unknown");
  CHECK(to_text(MemberState::kOk) == "ok");
  CHECK(to_text(MemberState::kLagging) == "lagging");
  CHECK(to_text(MemberState::kDown) == "down");
}

}  // namespace
}  // namespace pointsman::routing
