#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "routing/discovery.h"

using namespace pointsman::routing;
using Json = nlohmann::json;
using Event = EndpointSlices::Event;

namespace {

KubernetesDiscovery wanted() {
  KubernetesDiscovery config;
  config.namespace_name = "db";
  config.service = "orders-r";
  config.leader_service = "orders-rw";
  return config;
}

Json endpoint(const std::string& pod, const std::string& address) {
  return {{"addresses", {address}},
          {"conditions", {{"ready", true}, {"serving", true}, {"terminating", false}}},
          {"targetRef", {{"kind", "Pod"}, {"name", pod}}},
          {"zone", "z-" + pod}};
}

Json slice(const std::string& name, const std::string& service, Json endpoints, const std::string& version = "5") {
  return {{"metadata",
           {{"name", name},
            {"resourceVersion", version},
            {"labels", {{"kubernetes.io/service-name", service}}},
            {"managedFields", Json::array({{{"fieldsV1", {{"f:endpoints", Json::object()}}}}})}}},
          {"addressType", "IPv4"},
          {"endpoints", std::move(endpoints)},
          {"ports", Json::array({{{"name", "metrics"}, {"port", 9187}, {"protocol", "TCP"}},
                                 {{"name", "postgres"}, {"port", 5433}, {"protocol", "TCP"}},
                                 {{"name", "pooler"}, {"port", 6432}, {"protocol", "TCP"}}})}};
}

Json list(Json items, const std::string& version = "100") {
  return {{"kind", "EndpointSliceList"}, {"metadata", {{"resourceVersion", version}}}, {"items", std::move(items)}};
}

Json usual() {
  return list({slice("r-1", "orders-r", {endpoint("pg-1", "10.0.0.2"), endpoint("pg-0", "10.0.0.1")}),
               slice("r-2", "orders-r", {endpoint("pg-2", "10.0.0.3")}),
               slice("rw-1", "orders-rw", {endpoint("pg-1", "10.0.0.2")}),
               slice("x-1", "somebody-else", {endpoint("x", "10.9.9.9")})});
}

std::string event(const std::string& type, const Json& object) {
  return Json{{"type", type}, {"object", object}}.dump();
}

Discovered found_in(const EndpointSlices& slices) {
  auto found = slices.discovered();
  if (!found.ok()) FAIL(found.error());
  return found.value();
}
std::string names_in(const EndpointSlices& slices) {
  std::string names;
  for (const auto& member : found_in(slices).members) names += member.name + " ";
  return names;
}
std::string refusal(const Json& document) {
  EndpointSlices slices(wanted());
  const auto error = slices.load_list(document.dump());
  REQUIRE(error);
  CHECK(slices.resource_version().empty());
  return *error;
}

}  // namespace

TEST_CASE("the slices of a service together are its members, its leader's service names the leader") {
  EndpointSlices slices(wanted());
  CHECK_FALSE(slices.discovered().ok());
  REQUIRE_FALSE(slices.load_list(usual().dump()));
  CHECK(slices.resource_version() == "100");
  const Discovered found = found_in(slices);
  REQUIRE(found.members.size() == 3);
  CHECK(found.members[0] == DiscoveredMember{.name = "pg-0", .host = "10.0.0.1", .port = 5433, .zone = "z-pg-0"});
  CHECK(found.members[2].name == "pg-2");
  CHECK(found.leader == "pg-1");
  CHECK(found.problems.empty());
}

TEST_CASE("a watch adds, changes and deletes slices") {
  EndpointSlices slices(wanted());
  REQUIRE_FALSE(slices.load_list(usual().dump()));
  CHECK(slices.apply(event("ADDED", slice("r-3", "orders-r", {endpoint("pg-3", "10.0.0.4")}, "101"))).event ==
        Event::kChanged);
  CHECK(names_in(slices) == "pg-0 pg-1 pg-2 pg-3 ");
  CHECK(slices.apply(event("MODIFIED", slice("r-1", "orders-r", {endpoint("pg-1", "10.0.0.2")}, "102"))).event ==
        Event::kChanged);
  CHECK(names_in(slices) == "pg-1 pg-2 pg-3 ");
  CHECK(slices.apply(event("DELETED", slice("r-2", "orders-r", Json::array(), "103"))).event == Event::kChanged);
  CHECK(names_in(slices) == "pg-1 pg-3 ");
  CHECK(slices.resource_version() == "103");
  CHECK(slices.apply(event("BOOKMARK", {{"metadata", {{"resourceVersion", "150"}}}})).event == Event::kBookmark);
  CHECK(slices.resource_version() == "150");
  CHECK(names_in(slices) == "pg-1 pg-3 ");
  // A slice that is relabelled to another service is this one's no more.
  CHECK(slices.apply(event("MODIFIED", slice("r-3", "somebody-else", {endpoint("pg-3", "10.0.0.4")}, "151"))).event ==
        Event::kChanged);
  CHECK(names_in(slices) == "pg-1 ");
}

TEST_CASE("errors of a watch") {
  EndpointSlices slices(wanted());
  REQUIRE_FALSE(slices.load_list(usual().dump()));
  const auto gone = slices.apply(event("ERROR", {{"kind", "Status"}, {"code", 410}, {"message", "too old"}}));
  CHECK(gone.event == Event::kExpired);
  CHECK(gone.error == "the watch ended: too old");
  const auto other = slices.apply(event("ERROR", {{"kind", "Status"}, {"code", 500}, {"message", "a\nb"}}));
  CHECK(other.event == Event::kFailed);
  CHECK(other.error == R"(the watch ended: a\x0ab)");
  CHECK(slices.apply(event("ERROR", Json::object())).event == Event::kFailed);
  for (const std::string& bad :
       {std::string(), std::string("x"), std::string("[]"), std::string("{}"), std::string(R"({"type":"ADDED"})"),
        std::string(R"({"type":1,"object":{}})"), event("ADDED", Json::object()), event("ADDED", 1),
        event("ADDED", {{"metadata", {{"name", "r-1"}}}}), event("ADDED", {{"metadata", {{"resourceVersion", "5"}}}}),
        event("SURPRISE", slice("r-9", "orders-r", Json::array())), event("BOOKMARK", {{"metadata", Json::object()}}),
        event("BOOKMARK", {{"metadata", {{"resourceVersion", "5 6"}}}}),
        event("BOOKMARK", {{"metadata", {{"resourceVersion", "5&x=1"}}}}),
        event("BOOKMARK", {{"metadata", {{"resourceVersion", 5}}}})}) {
    CAPTURE(bad);
    const auto applied = slices.apply(bad);
    CHECK(applied.event == Event::kFailed);
    CHECK_FALSE(applied.error.empty());
  }
  CHECK(names_in(slices) == "pg-0 pg-1 pg-2 ");
  CHECK(slices.resource_version() == "100");
}

TEST_CASE("not ready is the source's opinion, gone is gone") {
  EndpointSlices slices(wanted());
  Json document = usual();
  Json& endpoints = document["items"][0]["endpoints"];
  endpoints[0]["conditions"] = {{"ready", false}, {"serving", true}, {"terminating", true}};
  endpoints[1]["conditions"] = {{"ready", false}, {"serving", false}, {"terminating", false}};
  document["items"][2]["endpoints"] = Json::array();
  REQUIRE_FALSE(slices.load_list(document.dump()));
  const Discovered found = found_in(slices);
  REQUIRE(found.members.size() == 3);
  CHECK_FALSE(found.members[0].ready);
  CHECK(found.members[1].terminating);
  endpoints[0]["conditions"]["serving"] = false;
  REQUIRE_FALSE(slices.load_list(document.dump()));
  CHECK(names_in(slices) == "pg-0 pg-2 ");
  // "A nil value should be interpreted as true."
  endpoints[1]["conditions"] = Json::object();
  REQUIRE_FALSE(slices.load_list(document.dump()));
  CHECK(found_in(slices).members[0].ready);
}

TEST_CASE("who leads: one ready endpoint, or nobody") {
  EndpointSlices slices(wanted());
  Json document = usual();
  Json& leaders = document["items"][2]["endpoints"];
  const auto leader = [&] {
    REQUIRE_FALSE(slices.load_list(document.dump()));
    return found_in(slices).leader;
  };
  leaders[0]["conditions"]["ready"] = false;
  CHECK_FALSE(leader());
  leaders[0]["conditions"] = {{"ready", true}, {"terminating", true}};
  CHECK_FALSE(leader());
  leaders = {endpoint("pg-1", "10.0.0.2"), endpoint("pg-2", "10.0.0.3")};
  CHECK_FALSE(leader());
  CHECK(found_in(slices).problems.size() == 1);
  // Endpoints that somebody keeps by hand (Patroni) may not say which pod they are.
  leaders = {endpoint("", "10.0.0.3")};
  leaders[0].erase("targetRef");
  CHECK(leader() == "pg-2");
  // A service of replicas beside the one of the primary makes the set whole.
  leaders = {endpoint("pg-9", "10.0.0.9")};
  CHECK(leader() == "pg-9");
  CHECK(names_in(slices) == "pg-0 pg-1 pg-2 pg-9 ");
}

TEST_CASE("a dual-stack pod counts once, by IPv4") {
  EndpointSlices slices(wanted());
  Json six = slice("r-0-v6", "orders-r", {endpoint("pg-0", "fd00::1"), endpoint("pg-6", "fd00::6")});
  six["addressType"] = "IPv6";
  Json document = usual();
  document["items"].push_back(six);
  REQUIRE_FALSE(slices.load_list(document.dump()));
  const Discovered found = found_in(slices);
  REQUIRE(found.members.size() == 4);
  CHECK(found.members[0].host == "10.0.0.1");
  CHECK(found.members[3].host == "fd00::6");
  CHECK(found.problems.empty());
}

TEST_CASE("ports by name") {
  KubernetesDiscovery config = wanted();
  config.leader_service.clear();
  const auto first = [&](Json ports) {
    EndpointSlices slices(config);
    Json one = slice("r-1", "orders-r", {endpoint("pg-0", "10.0.0.1")});
    one["ports"] = std::move(ports);
    REQUIRE_FALSE(slices.load_list(list({one}).dump()));
    const auto found = slices.discovered();
    return found.ok() ? found.value().members[0] : DiscoveredMember{.port = 0};
  };
  const Json named = slice("", "", Json::array())["ports"];
  CHECK(first(named).port == 5433);
  CHECK(first(Json::array({{{"port", 7777}}})).port == 7777);
  CHECK(first(Json::array({{{"name", "db"}, {"port", 7777}}})).port == 7777);
  CHECK(first(Json::array({{{"name", "postgresql"}, {"port", 7777}}, {{"name", "a"}, {"port", 1}}})).port == 7777);
  CHECK(first(nullptr).port == 5432);
  CHECK(first(Json::array()).port == 5432);
  CHECK(first(Json::array({{{"name", "a"}, {"port", 1}}, {{"name", "b"}, {"port", 2}}})).port == 0);
  CHECK(first(Json::array({{{"name", "postgres"}, {"port", 5432}, {"protocol", "UDP"}}})).port == 0);
  CHECK(first(Json::array({{{"name", "postgres"}, {"port", 0}}})).port == 0);
  CHECK(first(Json::array({{{"name", "postgres"}, {"port", 65536}}})).port == 0);
  CHECK(first(Json::array({{{"name", "postgres"}, {"port", "5432"}}})).port == 0);
  CHECK(first(Json::array({1, "x", nullptr})).port == 0);
  config.port_name = "metrics";
  config.pgbouncer_port_name = "pooler";
  CHECK(first(named).port == 9187);
  CHECK(first(named).pgbouncer_port == 6432);
  config.port_name = "other";
  CHECK(first(named).port == 0);
  config.port = 5499;
  CHECK(first(nullptr).port == 5499);
}

TEST_CASE("endpoints that are none are left out") {
  EndpointSlices slices(wanted());
  Json document = usual();
  document["items"][0]["endpoints"] = {1,
                                       nullptr,
                                       Json::object(),
                                       {{"addresses", Json::array()}},
                                       {{"addresses", {1}}},
                                       {{"addresses", "10.0.0.1"}},
                                       {{"addresses", {std::string(300, '1')}}},
                                       endpoint("pg-7", "not an address"),
                                       endpoint("Pod\n7", "10.0.0.7")};
  REQUIRE_FALSE(slices.load_list(document.dump()));
  CHECK(names_in(slices) == "10-0-0-7-5433 pg-1 pg-2 ");
  CHECK(found_in(slices).members[0].zone.empty());
}

TEST_CASE("a service without endpoints is a failure, not an empty set") {
  EndpointSlices slices(wanted());
  REQUIRE_FALSE(slices.load_list(list(Json::array()).dump()));
  REQUIRE_FALSE(slices.discovered().ok());
  CHECK(slices.discovered().error() == "the services have no endpoint");
  Json go = list({slice("r-1", "orders-r", nullptr)});
  REQUIRE_FALSE(slices.load_list(go.dump()));
  CHECK_FALSE(slices.discovered().ok());
}

TEST_CASE("lists that are none leave everything as it was") {
  CHECK(refusal(1) == "the answer is no EndpointSliceList");
  CHECK(refusal({{"kind", "PodList"}}) == "the answer is no EndpointSliceList");
  Json document = usual();
  document["metadata"].erase("resourceVersion");
  CHECK(refusal(document) == "the list has no resourceVersion");
  document = usual();
  document["metadata"]["continue"] = "token";
  CHECK(refusal(document) == "the list is only the first part of a longer one");
  document = usual();
  document["items"] = 1;
  CHECK(refusal(document) == "the list has no items");
  document = usual();
  document["items"][0]["metadata"].erase("name");
  CHECK(refusal(document) == "a slice has no name");
  document = usual();
  document["items"][0].erase("addressType");
  CHECK(refusal(document) == "a slice has no addressType");
  document = usual();
  document["items"][0]["endpoints"] = "x";
  CHECK(refusal(document) == "a slice's endpoints are no lawful list");

  EndpointSlices slices(wanted());
  REQUIRE_FALSE(slices.load_list(usual().dump()));
  CHECK(slices.load_list("{"));
  CHECK(names_in(slices) == "pg-0 pg-1 pg-2 ");
}

TEST_CASE("sizes and numbers are bounded") {
  Json document = usual();
  document["items"][0]["endpoints"] = Json::array();
  for (int i = 0; i < 1001; ++i) document["items"][0]["endpoints"].push_back(endpoint("p", "10.0.0.1"));
  CHECK(refusal(document) == "a slice's endpoints are no lawful list");
  document = list(Json::array());
  for (int i = 0; i < 513; ++i) document["items"].push_back(slice("s" + std::to_string(i), "orders-r", Json::array()));
  CHECK(refusal(document) == "the list has more than 512 slices");

  EndpointSlices slices(wanted());
  std::string padded = usual().dump();
  padded.resize(kMaxSliceList, ' ');
  CHECK_FALSE(slices.load_list(padded));
  padded += ' ';
  CHECK(slices.load_list(padded));
  std::string bookmark = event("BOOKMARK", {{"metadata", {{"resourceVersion", "200"}}}});
  bookmark.resize(kMaxWatchEvent, ' ');
  CHECK(slices.apply(bookmark).event == Event::kBookmark);
  bookmark += ' ';
  CHECK(slices.apply(bookmark).event == Event::kFailed);

  // More members than a branch may have: refused as a whole. A watch cannot grow without bound either.
  Json many = Json::array();
  for (int i = 0; i < 129; ++i) many.push_back(endpoint("p" + std::to_string(i), "10.1.0." + std::to_string(i)));
  REQUIRE_FALSE(slices.load_list(list({slice("r-1", "orders-r", many)}).dump()));
  CHECK(slices.discovered().error() == "it names more than 128 members");
  Event last = Event::kChanged;
  for (int i = 0; i < 600 && last == Event::kChanged; ++i)
    last = slices.apply(event("ADDED", slice("s" + std::to_string(i), "orders-r", Json::array()))).event;
  CHECK(last == Event::kFailed);
}

TEST_CASE("a document cut anywhere is refused") {
  const std::string whole = usual().dump();
  EndpointSlices slices(wanted());
  for (std::size_t length = 0; length < whole.size(); ++length)
    CHECK(slices.load_list(std::string_view(whole).substr(0, length)).has_value());
  REQUIRE_FALSE(slices.load_list(whole));
  const std::string line = event("MODIFIED", usual()["items"][0]);
  for (std::size_t length = 0; length < line.size(); ++length)
    CHECK(slices.apply(std::string_view(line).substr(0, length)).event == Event::kFailed);
  CHECK(names_in(slices) == "pg-0 pg-1 pg-2 ");
}

TEST_CASE("the words of a Status") {
  CHECK(kubernetes_status_message(R"({"kind":"Status","message":"forbidden\n"})") == R"(forbidden\x0a)");
  for (const char* other : {"", "x", "{}", R"({"kind":"Pod","message":"x"})", R"({"kind":"Status","message":1})"})
    CHECK(kubernetes_status_message(other).empty());
}
