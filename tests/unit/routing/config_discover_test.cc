// `discover` in a configuration.

#include "routing/config_reader.h"

#include "tests/unit/routing/config_support.h"

using namespace pointsman::routing;
using namespace pointsman::routing::test;
using namespace std::chrono_literals;

namespace {

Json with_discover(const Json& discover) {
  Json document = good();
  document["branches"]["x"].erase("members");
  document["branches"]["x"]["discover"] = discover;
  return document;
}

std::shared_ptr<const BranchConfig> read(const Folder& folder, const Json& discover) {
  const LoadedConfig loaded = folder.load(with_discover(discover));
  INFO(all_errors(loaded));
  REQUIRE(loaded.errors.empty());
  return loaded.config->branches.at("x");
}

}  // namespace

TEST_CASE("members by DNS") {
  const Folder folder;
  const auto x = read(folder, {{"dns",
                                {{"name", "pg.db.svc"},
                                 {"port", 5433},
                                 {"family", "ipv6"},
                                 {"interval", "1s"},
                                 {"pgbouncer_port", 6432},
                                 {"zone", "a"}}}});
  CHECK(x->members.empty());
  const auto& dns = std::get<DnsDiscovery>(x->discover->source);
  CHECK(dns == DnsDiscovery{.name = "pg.db.svc", .port = 5433, .family = AddressFamily::kIpv6, .interval = 1s});
  CHECK(x->discover->pgbouncer_port == 6432);
  CHECK(x->discover->zone == "a");
  const auto least = read(folder, {{"dns", {{"name", "pg"}}}});
  CHECK(std::get<DnsDiscovery>(least->discover->source) == DnsDiscovery{.name = "pg"});
}

TEST_CASE("members by Patroni, by URLs alone or with settings") {
  const Folder folder;
  const Json urls = {"http://10.0.0.1:8008", "https://patroni.example:8008/base/"};
  const auto plain = read(folder, {{"patroni", urls}});
  const auto& brief = std::get<PatroniDiscovery>(plain->discover->source);
  REQUIRE(brief.urls.size() == 2);
  CHECK(brief.urls[0].to_string() == "http://10.0.0.1:8008");
  CHECK(brief.urls[1].to_string() == "https://patroni.example:8008/base");
  CHECK(brief.interval == 2s);
  const auto whole =
      read(folder, {{"patroni", {{"urls", urls}, {"ca", "ca.crt"}, {"interval", "500ms"}, {"pgbouncer_port", 6432}}}});
  const auto& patroni = std::get<PatroniDiscovery>(whole->discover->source);
  CHECK(patroni.urls == brief.urls);
  CHECK(patroni.ca == folder.path("ca.crt"));
  CHECK(patroni.interval == 500ms);
  CHECK(whole->discover->pgbouncer_port == 6432);
}

TEST_CASE("members by Kubernetes") {
  const Folder folder;
  const auto least = read(folder, {{"kubernetes", {{"namespace", "db"}, {"service", "orders-r"}}}});
  const auto& in_cluster = std::get<KubernetesDiscovery>(least->discover->source);
  CHECK_FALSE(in_cluster.api);
  CHECK(in_cluster.token_file == "/var/run/secrets/kubernetes.io/serviceaccount/token");
  CHECK(in_cluster.ca == "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt");
  const auto whole = read(folder, {{"kubernetes",
                                    {{"namespace", "db"},
                                     {"service", "orders-r"},
                                     {"leader_service", "orders-rw"},
                                     {"port_name", "db"},
                                     {"pgbouncer_port_name", "pooler"},
                                     {"port", 5433},
                                     {"api", "https://10.0.0.1:6443"},
                                     {"ca", "ca.crt"},
                                     {"token_file", "token"}}}});
  const auto& kubernetes = std::get<KubernetesDiscovery>(whole->discover->source);
  CHECK(kubernetes.namespace_name == "db");
  CHECK(kubernetes.leader_service == "orders-rw");
  CHECK(kubernetes.port_name == "db");
  CHECK(kubernetes.pgbouncer_port_name == "pooler");
  CHECK(kubernetes.port == 5433);
  CHECK(kubernetes.api->to_string() == "https://10.0.0.1:6443");
  CHECK(kubernetes.ca == folder.path("ca.crt"));
  CHECK(kubernetes.token_file == folder.path("token"));
}

TEST_CASE("${branch} stands for the name, and null takes the defaults' members away") {
  const Folder folder;
  Json document = good();
  document["defaults"]["discover"] = {{"dns", {{"name", "${branch}-pg.db.svc"}}}};
  document["branches"]["x"]["discover"] = nullptr;
  document["branches"]["y"] = {{"probe", {{"password_file", "probe.pw"}}}};
  const LoadedConfig loaded = folder.load(document);
  INFO(all_errors(loaded));
  REQUIRE(loaded.errors.empty());
  CHECK_FALSE(loaded.config->branches.at("x")->discover);
  CHECK(std::get<DnsDiscovery>(loaded.config->branches.at("y")->discover->source).name == "y-pg.db.svc");
}

TEST_CASE("every fault of discover is named by its path") {
  const Folder folder;
  const Json dns = {{"dns", {{"name", "pg"}}}};
  const Json patroni = {{"patroni", {{"urls", {"http://h:8008"}}}}};
  const Json kubernetes = {{"kubernetes", {{"namespace", "db"}, {"service", "s"}}}};
  struct Case {
    Json base;
    const char* pointer;
    Json value;
    const char* says;
  };
  for (const Case& fault : {
           Case{dns, "", 1, "no object"},
           Case{dns, "", Json::object(), "names no source"},
           Case{dns, "/patroni", {"http://h:8008"}, "more than one source"},
           Case{dns, "/consul", Json::object(), "unknown key"},
           Case{dns, "/dns/name", Json(), "is missing"},
           Case{dns, "/dns/name", "10.0.0.1", "no host name"},
           Case{dns, "/dns/name", "a b", "no host name"},
           Case{dns, "/dns/port", 0, "1 to 65535"},
           Case{dns, "/dns/family", "both", "\"any\", \"ipv4\", \"ipv6\""},
           Case{dns, "/dns/interval", "100ms", "from 200ms to 1h"},
           Case{dns, "/dns/pgbouncer_port", 65536, "1 to 65535"},
           Case{dns, "/dns/zone", "a b", "1 to 63"},
           Case{dns, "/dns/urls", Json::array(), "unknown key"},
           Case{patroni, "/patroni", Json::array(), "at least one URL"},
           Case{patroni, "/patroni", {"h:8008"}, "is no URL"},
           Case{patroni, "/patroni/urls", Json(), "is missing"},
           Case{patroni, "/patroni/urls/0", "ftp://h", "is no URL"},
           Case{patroni, "/patroni/urls", std::vector<std::string>(17, "http://h"), "16"},
           Case{patroni, "/patroni/ca", "missing.crt", "No such file"},
           Case{kubernetes, "/kubernetes/namespace", Json(), "is missing"},
           Case{kubernetes, "/kubernetes/namespace", "a/b", "1 to 63"},
           Case{kubernetes, "/kubernetes/service", "a)b", "1 to 63"},
           Case{kubernetes, "/kubernetes/service", std::string(64, 'a'), "1 to 63"},
           Case{kubernetes, "/kubernetes/leader_service", "-a", "1 to 63"},
           Case{kubernetes, "/kubernetes/port_name", "A", "1 to 63"},
           Case{kubernetes, "/kubernetes/api", "http://10.0.0.1", "https://"},
           Case{kubernetes, "/kubernetes/ca", "missing.crt", "No such file"},
       }) {
    Json discover = fault.base;
    discover[Json::json_pointer(fault.pointer)] = fault.value;
    INFO(fault.pointer, " ", fault.value.dump());
    const LoadedConfig loaded = folder.load(with_discover(discover));
    INFO(all_errors(loaded));
    CHECK(loaded.rejected_branches == std::vector<std::string>{"x"});
    REQUIRE(loaded.errors.size() == 1);
    CHECK(loaded.errors[0].path.starts_with("/branches/x/discover"));
    CHECK(loaded.errors[0].what.find(fault.says) != std::string::npos);
  }
}

TEST_CASE("a discovered member may be anywhere: weak TLS needs to be asked for") {
  const Folder folder;
  Json document = with_discover({{"dns", {{"name", "localhost"}}}});
  document["branches"]["x"]["backend_tls"] = {{"mode", "require"}};
  document["branches"]["x"].erase("pools");
  LoadedConfig loaded = folder.load(document);
  REQUIRE(loaded.errors.size() == 1);
  CHECK(loaded.errors[0].path == "/branches/x/backend_tls/mode");
  document["branches"]["x"]["insecure_backend"] = true;
  loaded = folder.load(document);
  CHECK(loaded.errors.empty());
}

TEST_CASE("descriptors are reckoned for members that are not known yet") {
  const Folder folder;
  const auto listed = folder.load(good());
  const auto found = folder.load(with_discover({{"dns", {{"name", "pg"}}}}));
  CHECK(descriptors_needed(*found.config, 100, 1) == descriptors_needed(*listed.config, 100, 1) - 2 + 8);
}
