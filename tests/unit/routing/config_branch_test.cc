// One branch of the configuration.

#include <doctest/doctest.h>

#include <string>

#include "routing/config.h"
#include "tests/unit/routing/config_support.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using test::all_errors;
using test::changed;
using test::error_at;
using test::Folder;
using test::good;
using test::has;
using test::Json;

const std::string kX = "/branches/x";

std::shared_ptr<const BranchConfig> branch_x(const LoadedConfig& loaded) {
  INFO(all_errors(loaded));
  REQUIRE(loaded.config);
  REQUIRE(loaded.config->branches.contains("x"));
  CHECK(loaded.errors.empty());
  return loaded.config->branches.at("x");
}

/// The branch is rejected for one fault, and only the branch.
std::string rejected_at(const Folder& folder, const Json& document, const std::string& path) {
  const LoadedConfig loaded = folder.load(document);
  CHECK(loaded.config);
  CHECK(loaded.rejected_branches == std::vector<std::string>{"x"});
  if (loaded.config) CHECK_FALSE(loaded.config->branches.contains("x"));
  return error_at(loaded, path);
}

TEST_CASE("what a branch does not say has the contract's default") {
  const Folder folder;
  const auto x = branch_x(folder.load(good()));
  CHECK(x->name == "x");
  CHECK(x->members[0].port == 5432);
  CHECK(x->members[0].pgbouncer_port == 6432);
  CHECK(x->members[1].pgbouncer_port == 0);
  CHECK(x->pools[0].name == "app");
  CHECK(x->pools[0].to_primary);
  CHECK(x->pools[0].endpoints[0].port == 7432);
  CHECK(x->pools[1].name == "reads");
  CHECK_FALSE(x->pools[1].to_primary);
  CHECK(x->pools[1].endpoints[0].port == 6432);
  CHECK(x->find_pool("reads") == &x->pools[1]);
  CHECK(x->find_pool("nope") == nullptr);
  CHECK(x->probe.user == "pointsman");
  CHECK(x->probe.password.reveal() == "secret");
  CHECK(x->probe.database == "postgres");
  CHECK(x->probe.interval == 1s);
  CHECK(x->probe.timeout == 2s);
  CHECK(x->probe.idle_after == 5min);
  CHECK(x->backend_tls.mode == TlsMode::kVerifyFull);
  CHECK(x->backend_tls.ca == folder.path("ca.crt"));
  CHECK_FALSE(x->pgbouncer_tls);
  CHECK(x->auth.method == AuthMethod::kScram);
  CHECK(x->auth.userlist == nullptr);
  CHECK_FALSE(x->auth.lookup);
  CHECK(x->replicas.max_lag == 10s);
  CHECK_FALSE(x->replicas.max_lag_bytes);
  CHECK(x->replicas.fallback == Fallback::kLeastLagged);
  CHECK(x->replicas.lag_hard_cap == 60s);
  CHECK(x->replicas.samples_out == 2);
  CHECK(x->replicas.samples_in == 3);
  CHECK(x->failover.hold_timeout == 10s);
  CHECK(x->failover.dead_after == 3);
  CHECK(x->failover.grace == 30s);
  CHECK(x->allow.empty());
}

TEST_CASE("everything that a branch can say is read") {
  const Folder folder;
  folder.write("lookup.pw", "lookup\n", 0600);
  folder.write("client.crt", "c");
  folder.write("client.key", "k", 0600);
  folder.write("admin.pw", "admin\n", 0600);
  Json document = good();
  document["branches"]["x"].update(Json::parse(R"({
    "labels": {"app": "orders"}, "default_pool": "app", "pgbouncer_admin": {"user": "pooladmin", "password_file": "admin.pw"},
    "probe": {"user": "p", "password_file": "probe.pw", "database": "d", "interval": "200ms", "timeout": "1s", "idle_after": "1m"},
    "backend_tls": {"mode": "verify-ca", "ca": "ca.crt", "server_name": "cluster-rw", "certificate": "client.crt", "key": "client.key",
                    "insecure_backend": true},
    "pgbouncer_tls": {"mode": "disable", "insecure_backend": true},
    "auth": {"method": "scram", "verifiers": "lookup", "lookup": {"user": "l", "password_file": "lookup.pw", "query": "SELECT 1"}},
    "replicas": {"max_lag": "2s", "max_lag_bytes": 1048576, "fallback": "error", "lag_hard_cap": "30s", "samples_out": 1, "samples_in": 5},
    "failover": {"hold_timeout": "0s", "dead_after": 1, "grace": "1s"},
    "access": {"allow": ["10.0.0.0/8", "::/0"], "private_endpoints": []}, "x-owner": "me"})"));
  const auto x = branch_x(folder.load(document));
  CHECK(x->labels.at("app") == "orders");
  CHECK(x->default_pool == "app");
  CHECK(x->probe.interval == 200ms);
  CHECK(x->backend_tls.mode == TlsMode::kVerifyCa);
  CHECK(x->backend_tls.server_name == "cluster-rw");
  CHECK(x->backend_tls.key == folder.path("client.key"));
  CHECK(x->pgbouncer_tls->mode == TlsMode::kDisable);
  CHECK(x->pgbouncer_admin->user == "pooladmin");
  CHECK(x->pgbouncer_admin->password.reveal() == "admin");
  CHECK(x->auth.lookup->password.reveal() == "lookup");
  CHECK(x->auth.lookup->query == "SELECT 1");
  CHECK(x->replicas.max_lag_bytes == 1048576u);
  CHECK(x->replicas.fallback == Fallback::kError);
  CHECK(x->failover.hold_timeout == 0s);
  CHECK(x->allow.size() == 2);
}

TEST_CASE("every fault of a branch rejects it and is named by its path") {
  const Folder folder;
  struct Case {
    const char* pointer;
    Json value;
    const char* says;
  };
  for (const Case& fault : {
           Case{"/memebers", 1, "unknown key"},
           Case{"/members", Json::array(), "at least one member"},
           Case{"/members", Json(), "is missing"},
           Case{"/members", Json::object(), "no array"},
           Case{"/members/0", "pg-0", "no object"},
           Case{"/members/0/name", Json(), "is missing"},
           Case{"/members/1/name", "pg-0", "another member"},
           Case{"/members/0/name", "pg 0", "1 to 63"},
           Case{"/members/0/host", Json(), "is missing"},
           Case{"/members/0/host", "/var/run", "no host name"},
           Case{"/members/0/host", "[::1]", "no host name"},
           Case{"/members/1/host", "10.0.0.10", "same host and port"},
           Case{"/members/0/port", 0, "1 to 65535"},
           Case{"/members/0/pgbouncer_port", 65536, "1 to 65535"},
           Case{"/members/0/zone", "a/b", "1 to 63"},
           Case{"/members/0/weight", 1, "unknown key"},
           Case{"/discover", Json{{"dns", {{"name", "x"}}}}, "stands beside \"members\""},
           Case{"/pools", 1, "no object"},
           Case{"/pools/primary", Json{{"endpoints", Json::array({Json{{"host", "10.0.0.5"}}})}}, "no pool name"},
           Case{"/pools/app/target", "any", "\"primary\", \"replica\""},
           Case{"/pools/app/endpoints", Json::array(), "at least one endpoint"},
           Case{"/pools/app/endpoints", Json(), "is missing"},
           Case{"/pools/app/endpoints/0/host", "a b", "no host name"},
           Case{"/default_pool", "nope", "none of the branch's pools"},
           Case{"/default_pool", "reads", "stands on replicas"},
           Case{"/probe/password_file", "missing.pw", "No such file"},
           Case{"/pgbouncer_admin", Json::object(), "is missing"},
           Case{"/pgbouncer_admin", {{"user", "a"}, {"database", "b"}}, "unknown key"},
           Case{"/pgbouncer_admin", {{"user", "a"}, {"password_file", "missing.pw"}}, "No such file"},
           Case{"/probe/interval", "1ms", "from 50ms to 1h"},
           Case{"/probe/user", std::string(64, 'u'), "1 to 63"},
           Case{"/backend_tls/mode", "prefer", "\"verify-full\""},
           Case{"/backend_tls/ca", "missing.crt", "No such file"},
           Case{"/backend_tls/key", "probe.pw", "needs both"},
           Case{"/auth", Json{{"method", "md5"}}, "\"scram\", \"passthrough\""},
           Case{"/auth", Json{{"verifiers", "userlist"}}, "needs the file"},
           Case{"/auth", Json{{"userlist", "ca.crt"}}, "too open"},
           Case{"/auth", Json{{"lookup", Json{{"query", "SELECT 1"}}}}, "is missing"},
           Case{"/replicas", Json{{"max_lag", "61s"}}, "max_lag (61s) or more"},
           Case{"/replicas", Json{{"samples_in", 0}}, "1 to 100"},
           Case{"/replicas", Json{{"fallback", "any"}}, "least_lagged"},
           Case{"/failover", Json{{"dead_after", 101}}, "1 to 100"},
           Case{"/access", Json{{"allow", Json::array()}}, "nobody"},
           Case{"/access", Json{{"allow", Json::array({"10.0.0.0/8", "x"})}}, "no address range"},
           Case{"/access", Json{{"private_endpoints", Json::array({"e"})}}, "not in this version"},
           Case{"/labels", Json{{"9", "x"}}, "no label name"},
           Case{"/labels", Json{{"branch", "x"}}, "no label name"},
           Case{"/labels", Json{{"app", 1}}, "at most 256"},
           Case{"/insecure_backend", "yes", "true or false"},
       }) {
    INFO(fault.pointer, " ", fault.value.dump());
    const LoadedConfig loaded = folder.load(changed(kX + fault.pointer, fault.value));
    CHECK(loaded.config);
    CHECK(loaded.rejected_branches == std::vector<std::string>{"x"});
    INFO(all_errors(loaded));
    REQUIRE(loaded.errors.size() == 1);
    // A file that should stand beside the named one is reported at the missing one.
    if (std::string_view(fault.pointer) != "/backend_tls/key")
      CHECK(loaded.errors[0].path.starts_with(kX + fault.pointer));
    CHECK(has(loaded.errors[0].what, fault.says));
  }
}

TEST_CASE("max_lag_bytes may be null, and lag_hard_cap may equal max_lag") {
  const Folder folder;
  CHECK_FALSE(branch_x(folder.load(changed(kX + "/replicas", {{"max_lag_bytes", nullptr}, {"max_lag", "60s"}})))
                  ->replicas.max_lag_bytes);
}

// --- verifiers from a file ---

TEST_CASE("a userlist gives the verifiers, also over defaults that say lookup") {
  const Folder folder;
  folder.write("users.txt", "\"app\" \"SCRAM-SHA-256$4096:c2FsdA==$a:b\"\n", 0600);
  Json document = changed(kX + "/auth", {{"userlist", "users.txt"}});
  document["defaults"]["auth"]["verifiers"] = "lookup";
  document["branches"]["y"] = document["branches"]["x"];
  const LoadedConfig loaded = folder.load(document);
  const auto x = branch_x(loaded);
  REQUIRE(x->auth.userlist);
  CHECK(x->auth.userlist->contains("app"));
  CHECK(x->auth.userlist == loaded.config->branches.at("y")->auth.userlist);  // read once
  folder.write("users.txt", "app secret1", 0600);
  const LoadedConfig bad = folder.load(changed(kX + "/auth", {{"userlist", "users.txt"}}));
  CHECK(has(error_at(bad, kX + "/auth/userlist"), "users.txt: line 1"));
  CHECK_FALSE(has(all_errors(bad), "secret1"));
}

// --- TLS towards backends ---

Json with_tls(const char* mode) {
  return changed(kX + "/backend_tls", {{"mode", mode}, {"ca", "ca.crt"}});
}
void move_to_loopback(Json& document) {
  Json& x = document["branches"]["x"];
  x["members"][0]["host"] = "127.0.0.1";
  x["members"][1]["host"] = "localhost";
  x["pools"]["app"]["endpoints"][0]["host"] = "::1";
  x["pools"]["reads"]["endpoints"][0]["host"] = "127.255.0.1";
}

TEST_CASE("less than verify-full is an error unless every address is loopback") {
  const Folder folder;
  for (const char* mode : {"disable", "require", "verify-ca"}) {
    Json document = with_tls(mode);
    const LoadedConfig loaded = folder.load(document);
    INFO(all_errors(loaded));
    CHECK(loaded.errors.size() == 2);  // the members, and the pools behind the same settings
    for (const ConfigError& error : loaded.errors) {
      CHECK(error.path == kX + "/backend_tls/mode");
      CHECK(has(error.what, "insecure_backend"));
    }
    move_to_loopback(document);
    branch_x(folder.load(document));
    document["branches"]["x"]["members"][1]["host"] = "10.0.0.11";
    CHECK(has(rejected_at(folder, document, kX + "/backend_tls/mode"), "10.0.0.11"));
    document["branches"]["x"]["members"][1]["host"] = "localhost.example";
    CHECK(has(rejected_at(folder, document, kX + "/backend_tls/mode"), "localhost.example"));
  }
  branch_x(folder.load(with_tls("verify-full")));
}

TEST_CASE("insecure_backend is accepted inside the settings and beside them") {
  const Folder folder;
  Json inside = with_tls("require");
  inside["branches"]["x"]["backend_tls"]["insecure_backend"] = true;
  branch_x(folder.load(inside));
  Json beside = with_tls("require");
  beside["branches"]["x"]["insecure_backend"] = true;
  branch_x(folder.load(beside));
}

TEST_CASE("PgBouncers and pools with settings of their own are judged by these") {
  const Folder folder;
  CHECK(folder.load(changed(kX + "/pgbouncer_tls", {{"mode", "disable"}})).errors.size() == 1);
  Json document = changed(kX + "/pgbouncer_tls", {{"mode", "disable"}, {"insecure_backend", true}});
  branch_x(folder.load(document));
  document["branches"]["x"]["pools"]["app"]["backend_tls"] = {{"mode", "require"}};
  CHECK(has(rejected_at(folder, document, kX + "/pools/app/backend_tls/mode"), "10.0.0.21"));
  document["branches"]["x"]["pools"]["app"]["insecure_backend"] = true;
  CHECK(branch_x(folder.load(document))->pools[0].tls->mode == TlsMode::kRequire);
  // A flag for one leg says nothing about another.
  Json strict = changed(kX + "/backend_tls", {{"mode", "require"}});
  strict["branches"]["x"]["pgbouncer_tls"] = {{"mode", "disable"}, {"insecure_backend", true}};
  rejected_at(folder, strict, kX + "/backend_tls/mode");
}

TEST_CASE("passthrough is refused while a leg has TLS, since libpq's answer cannot fit both sides") {
  const Folder folder;
  Json document = changed(kX + "/auth", {{"method", "passthrough"}});
  CHECK(has(rejected_at(folder, document, kX + "/auth/method"), "/backend_tls"));
  move_to_loopback(document);
  document["branches"]["x"]["backend_tls"] = {{"mode", "disable"}};
  CHECK(branch_x(folder.load(document))->auth.method == AuthMethod::kPassthrough);
  document["branches"]["x"]["pools"]["app"]["backend_tls"] = {{"mode", "verify-full"}};
  CHECK(has(rejected_at(folder, document, kX + "/auth/method"), "/pools/app/backend_tls"));
}

TEST_CASE("the key of a client certificate is a secret") {
  const Folder folder;
  folder.write("client.crt", "c");
  folder.write("client.key", "k", 0644);
  Json document = good();
  document["branches"]["x"]["backend_tls"].update({{"certificate", "client.crt"}, {"key", "client.key"}});
  CHECK(has(rejected_at(folder, document, kX + "/backend_tls/key"), "too open"));
  folder.write("client.key", "k", 0600);
  branch_x(folder.load(document));
}

TEST_CASE("equal TLS settings share a context, whatever the server's name") {
  BackendTlsConfig a;
  a.ca = "/ca";
  BackendTlsConfig b = a;
  b.server_name = "other";
  CHECK(a.context_key() == b.context_key());
  b.mode = TlsMode::kVerifyCa;
  CHECK(a.context_key() != b.context_key());
  b = a;
  b.certificate = "/ca";
  b.ca.clear();
  CHECK(a.context_key() != b.context_key());
}

}  // namespace
}  // namespace pointsman::routing
