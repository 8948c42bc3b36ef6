#include "proxy/monitor/hold_marker.h"

#include <doctest/doctest.h>

using namespace pointsman;
using proxy::BouncerPlace;
using routing::SocketAddress;

namespace {

/// pg-0 with a PgBouncer beside it; the pools `app` of two endpoints, `more` with one of them again and a name,
/// `reads`.
std::shared_ptr<routing::BranchConfig> branch() {
  auto config = std::make_shared<routing::BranchConfig>();
  config->name = "orders";
  config->probe.user = "pointsman";
  config->probe.password = base::SecretString("probe");
  config->members = {{"pg-0", "10.0.0.10", 5432, 6432, ""}, {"pg-1", "10.0.0.11", 5432, 6432, ""}};
  config->pools.resize(3);
  config->pools[0].name = "app";
  config->pools[0].endpoints = {{"10.0.0.21", 6432, ""}, {"10.0.0.22", 6432, "", true}};
  config->pools[1].name = "more";
  config->pools[1].endpoints = {{"10.0.0.21", 6432, ""}, {"pool.internal", 6432, ""}};
  config->pools[2].name = "reads";
  config->pools[2].to_primary = false;
  config->pools[2].endpoints = {{"10.0.0.20", 6432, ""}};
  return config;
}

routing::BranchView view_of(const std::shared_ptr<routing::BranchConfig>& config) {
  routing::BranchView view;
  view.config = config;
  view.primary = 0;
  for (const auto& member : config->members) {
    auto& out = view.members.emplace_back();
    out.address = SocketAddress::from_numeric(member.host, member.port);
    out.pgbouncer_address = out.address.with_port(member.pgbouncer_port);
  }
  for (const auto& pool : config->pools) {
    auto& out = view.pools.emplace_back();
    out.name = pool.name;
    out.to_primary = pool.to_primary;
    for (const auto& endpoint : pool.endpoints)
      out.endpoints.push_back({endpoint.host, SocketAddress::from_numeric(endpoint.host, endpoint.port), ""});
  }
  return view;
}

std::vector<std::string> names(const std::vector<BouncerPlace>& places) {
  std::vector<std::string> out;
  for (const auto& place : places) out.push_back(place.name);
  return out;
}

}  // namespace

TEST_CASE("what stands on the primary is paused: beside it and in its pools, each address once, draining ones too") {
  const auto config = branch();
  auto view = view_of(config);
  CHECK(names(proxy::bouncers_of_primary(view)) == std::vector<std::string>{"pg-0 (pgbouncer)", "app/10.0.0.21:6432",
                                                                            "app/10.0.0.22:6432",
                                                                            "more/pool.internal:6432"});
  view.primary = 1;
  CHECK(names(proxy::bouncers_of_primary(view)).front() == "pg-1 (pgbouncer)");
  config->members[1].pgbouncer_port = 0;
  CHECK(names(proxy::bouncers_of_primary(view)).front() == "app/10.0.0.21:6432");
}

TEST_CASE("the console is entered as the admin, under the TLS of sessions to that PgBouncer") {
  const auto config = branch();
  config->backend_tls.ca = "backend";
  const auto places = proxy::bouncers_of_primary(view_of(config));
  auto target = proxy::console_target(*config, places[1]);
  CHECK(target.user == "pointsman");
  CHECK(target.password.reveal() == "probe");
  CHECK(target.database == "pgbouncer");
  CHECK(target.options.empty());
  CHECK(target.host == "10.0.0.21");
  CHECK(target.tls.ca == "backend");
  config->pgbouncer_tls.emplace().ca = "pgbouncer";
  config->pools[0].tls.emplace().ca = "pool";
  config->pgbouncer_admin = {"pooladmin", base::SecretString("secret")};
  CHECK(proxy::console_target(*config, places[0]).tls.ca == "pgbouncer");
  target = proxy::console_target(*config, places[1]);
  CHECK(target.tls.ca == "pool");
  CHECK(target.user == "pooladmin");
  CHECK(target.password.reveal() == "secret");
}

TEST_CASE("a marker says where to resume, and nothing is made of what is none") {
  auto places = proxy::bouncers_of_primary(view_of(branch()));
  places[0].address = SocketAddress::from_numeric("::1", 6432);
  const std::string text = proxy::hold_marker_text("orders", places);
  const auto back = proxy::parse_hold_marker(text, "orders");
  REQUIRE(back);
  places.pop_back();  // its address was never known: it cannot have been paused
  CHECK(*back == places);
  CHECK_FALSE(proxy::parse_hold_marker(text, "other"));
  for (std::size_t size = 0; size + 1 < text.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(proxy::parse_hold_marker(std::string_view(text).substr(0, size), "orders"));
  }
  for (const auto* wrong : {"", "[]", "null", R"({"branch":"orders"})", R"({"branch":"orders","paused":{}})",
                            R"({"branch":"orders","paused":[1]})", R"({"branch":"orders","paused":[{}]})",
                            R"({"branch":"orders","paused":[{"host":"h","address":"10.0.0.1","port":0}]})",
                            R"({"branch":"orders","paused":[{"host":"h","address":"10.0.0.1","port":65536}]})",
                            R"({"branch":"orders","paused":[{"host":"h","address":"name","port":1}]})",
                            R"({"branch":"orders","paused":[{"host":"","address":"10.0.0.1","port":1}]})",
                            R"({"branch":"orders","paused":[{"host":"h","address":["10.0.0.1"],"port":1}]})"}) {
    CAPTURE(wrong);
    CHECK_FALSE(proxy::parse_hold_marker(wrong, "orders"));
  }
}
