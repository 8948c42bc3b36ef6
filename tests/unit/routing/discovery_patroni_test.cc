#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "routing/discovery.h"

using namespace pointsman::routing;
using Json = nlohmann::json;

namespace {

/// As Patroni 3.0 prints it (patroni/utils.py, cluster_as_json).
constexpr const char* kCluster = R"({"members": [
  {"name": "pg-1", "role": "leader", "state": "running", "api_url": "http://10.0.0.2:8008/patroni", "host": "10.0.0.2", "port": 5432, "timeline": 3},
  {"name": "pg-0", "role": "replica", "state": "streaming", "api_url": "http://10.0.0.1:8008/patroni", "host": "10.0.0.1", "port": 5433, "timeline": 3, "lag": 0, "tags": {"zone": "b"}},
  {"name": "pg-2", "role": "sync_standby", "state": "stopped", "api_url": "", "host": "pg-2.example", "port": 5432, "lag": "unknown"}],
  "scope": "demo", "pause": true, "scheduled_switchover": {"at": "2030-01-01T00:00:00+00:00", "from": "pg-1"}})";

Discovered good(const std::string& text) {
  auto found = discovered_from_patroni(text);
  if (!found.ok()) FAIL(found.error());
  return found.value();
}
std::string error_of(const std::string& text) {
  const auto found = discovered_from_patroni(text);
  REQUIRE_FALSE(found.ok());
  return found.error();
}
Json cluster() {
  return Json::parse(kCluster);
}

}  // namespace

TEST_CASE("members and leader of Patroni's answer") {
  const Discovered found = good(kCluster);
  REQUIRE(found.members.size() == 3);
  CHECK(found.members[0] == DiscoveredMember{.name = "pg-0", .host = "10.0.0.1", .port = 5433, .zone = "b"});
  CHECK(found.members[1] == DiscoveredMember{.name = "pg-1", .host = "10.0.0.2"});
  CHECK(found.members[2] == DiscoveredMember{.name = "pg-2", .host = "pg-2.example", .ready = false});
  CHECK(found.leader == "pg-1");
  CHECK(found.problems.empty());
}

TEST_CASE("every word for a leader counts, two leaders count for nothing") {
  for (const char* word : {"leader", "master", "primary", "standby_leader"}) {
    Json document = cluster();
    document["members"][0]["role"] = word;
    CHECK(good(document.dump()).leader == "pg-1");
  }
  Json document = cluster();
  document["members"][1]["role"] = "leader";
  const Discovered two = good(document.dump());
  CHECK_FALSE(two.leader);
  REQUIRE(two.problems.size() == 1);
  CHECK(two.problems[0] == "it names 2 leaders; none is believed");
  document = cluster();
  document["members"][0]["role"] = "replica";
  CHECK_FALSE(good(document.dump()).leader);
}

TEST_CASE("a replica tagged noloadbalance is left out, a leader never") {
  Json document = cluster();
  document["members"][0]["tags"] = {{"noloadbalance", true}};
  document["members"][1]["tags"] = {{"noloadbalance", true}, {"nofailover", true}};
  document["members"][2]["tags"] = {{"noloadbalance", false}};
  const Discovered found = good(document.dump());
  REQUIRE(found.members.size() == 2);
  CHECK(found.members[0].name == "pg-1");
  CHECK(found.members[1].name == "pg-2");
  CHECK(found.leader == "pg-1");
}

TEST_CASE("a member that has not told where it listens is left out") {
  Json document = cluster();
  document["members"][2].erase("host");
  CHECK(good(document.dump()).members.size() == 2);
}

TEST_CASE("host and port out of a connection URL") {
  struct Case {
    const char* url;
    const char* host;
    int port;
  };
  for (const Case& c : {Case{"postgres://10.9.9.9:5439/postgres", "10.9.9.9", 5439},
                        Case{"postgresql://user:pw@pg.example/db?sslmode=require", "pg.example", 5432},
                        Case{"postgres://[fd00::9]:5444/postgres", "fd00::9", 5444},
                        Case{"postgres://[fd00::9]/postgres", "fd00::9", 5432}}) {
    Json document = cluster();
    document["members"][2].erase("host");
    document["members"][2].erase("port");
    document["members"][2]["conn_url"] = c.url;
    const Discovered found = good(document.dump());
    REQUIRE(found.members.size() == 3);
    CHECK(found.members[2].host == c.host);
    CHECK(found.members[2].port == c.port);
  }
  for (const char* url : {"", "pg.example:5432", "postgres://", "postgres://h:0/x", "postgres://h:70000",
                          "postgres://[fd00::9", "postgres://a,b/x", "postgres://h:5x"}) {
    CAPTURE(url);
    Json document = cluster();
    document["members"][2].erase("host");
    document["members"][2]["conn_url"] = url;
    CHECK(good(document.dump()).members.size() == 2);
  }
}

TEST_CASE("unlawful names are replaced, unlawful hosts, ports and repetitions left out, each told") {
  Json document = cluster();
  document["members"][0]["name"] = "pg 1\n\"}";
  Discovered found = good(document.dump());
  REQUIRE(found.members.size() == 3);
  CHECK(found.members[0].name == "10-0-0-2-5432");
  CHECK(found.leader == "10-0-0-2-5432");
  CHECK(found.problems[0] == R"("pg 1\x0a\x22}" is no lawful member name; the member is called 10-0-0-2-5432)");

  for (const Json& host : {Json("ho st"), Json(""), Json("-x"), Json(std::string(300, 'a')), Json("a/../b"),
                           Json(std::string("10.0.0.3\0x", 10)), Json(std::string("10.0.0.3\0", 9))}) {
    document = cluster();
    document["members"][2]["host"] = host;
    found = good(document.dump());
    CHECK(found.members.size() == 2);
    CHECK(found.problems.size() == 1);
  }
  for (const Json& port : {Json(0), Json(65536), Json(-1), Json("5432"), Json(1.5), Json()}) {
    document = cluster();
    document["members"][2]["port"] = port;
    CHECK(good(document.dump()).members.size() == 2);
  }
  document = cluster();
  document["members"][2]["name"] = "pg-1";
  found = good(document.dump());
  CHECK(found.members.size() == 2);
  CHECK(found.problems.size() == 1);
  document = cluster();
  document["members"][2]["host"] = "10.0.0.2";
  CHECK(good(document.dump()).members.size() == 2);
  document = cluster();
  document["members"][1]["tags"]["zone"] = "zone b";
  CHECK(good(document.dump()).members[0].zone.empty());
}

TEST_CASE("problems are told up to a limit") {
  Json document = cluster();
  for (int i = 0; i < 20; ++i)
    document["members"].push_back({{"name", "x" + std::to_string(i)}, {"role", "replica"}, {"host", "-"}});
  CHECK(good(document.dump()).problems.size() == kMaxDiscoveryProblems);
}

TEST_CASE("documents that are none") {
  CHECK(error_of("").starts_with("the answer is no JSON"));
  CHECK(error_of("<html>").starts_with("the answer is no JSON"));
  CHECK(error_of("[]") == "the answer has no \"members\"");
  CHECK(error_of("{}") == "the answer has no \"members\"");
  CHECK(error_of(R"({"members": {}})") == "the answer has no \"members\"");
  CHECK(error_of(R"({"members": []})") == "the answer names no member");
  CHECK(error_of(R"({"members": [1, null, "x", [], {}]})").starts_with("the answer names no member (a member without"));
  Json document = cluster();
  document["members"][0] = {{"name", 1}, {"role", "leader"}, {"host", "10.0.0.2"}};
  CHECK(good(document.dump()).members.size() == 2);
}

TEST_CASE("size and number are bounded") {
  std::string padded = kCluster;
  padded.resize(kMaxClusterDocument, ' ');
  CHECK(good(padded).members.size() == 3);
  padded += ' ';
  CHECK(error_of(padded).starts_with("the answer is longer than"));

  Json document = {{"members", Json::array()}};
  const auto add = [&] {
    const auto n = std::to_string(document["members"].size());
    document["members"].push_back({{"name", "pg-" + n}, {"role", "replica"}, {"host", "h" + n}, {"port", 5432}});
  };
  while (document["members"].size() < kMaxMembers) add();
  CHECK(good(document.dump()).members.size() == kMaxMembers);
  add();
  CHECK(error_of(document.dump()) == "it names more than 128 members");
}

TEST_CASE("a document cut anywhere is refused or gives lawful members") {
  const std::string whole = kCluster;
  for (std::size_t length = 0; length < whole.size(); ++length)
    CHECK_FALSE(discovered_from_patroni(std::string_view(whole).substr(0, length)).ok());
}
