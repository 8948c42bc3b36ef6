// The configuration's top level and its files. Branches: config_branch_test.cc; folders, defaults, reload:
// config_load_test.cc.

#include "routing/config.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <string>

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

bool watches(const LoadedConfig& loaded, const std::string& path) {
  return std::find(loaded.watched_paths.begin(), loaded.watched_paths.end(), path) != loaded.watched_paths.end();
}

/// The top level is bad in one place.
std::string fatal_at(const Folder& folder, const Json& document, const std::string& path) {
  const LoadedConfig loaded = folder.load(document);
  CHECK(loaded.config == nullptr);
  return error_at(loaded, path);
}

TEST_CASE("what is not said has the contract's default") {
  const Folder folder;
  const LoadedConfig loaded = folder.load(good());
  INFO(all_errors(loaded));
  REQUIRE(loaded.config);
  CHECK(loaded.errors.empty());
  const Config& config = *loaded.config;
  CHECK(config.file == folder.path("pointsman.json"));
  REQUIRE(config.listeners.size() == 2);
  CHECK(config.listeners[0].address == "0.0.0.0");
  CHECK(config.listeners[0].mode == ListenerMode::kDirect);
  CHECK(config.listeners[0].tls == ListenerTls::kRequired);
  CHECK_FALSE(config.listeners[0].proxy_protocol);
  CHECK(config.listeners[1].mode == ListenerMode::kPooled);
  CHECK(config.tls->certificate == folder.path("server.crt"));
  CHECK_FALSE(config.tls->min_tls13);
  CHECK_FALSE(config.admin);
  CHECK_FALSE(config.metrics);
  CHECK(config.metrics_detail == MetricsDetail::kActive);
  CHECK(config.workers == 0);
  CHECK(config.limits.startup_timeout == 15s);
  CHECK_FALSE(config.limits.max_connections);
  CHECK(config.limits.max_connections_per_branch == 5000);
  CHECK(config.limits.max_held_per_branch == 200);
  CHECK(config.tcp_keepalive == 30s);
  CHECK(config.drain_timeout == 30s);
  CHECK(config.shutdown_delay == 0s);
  CHECK(config.drain_pace == 0s);
  CHECK_FALSE(config.hide_unknown_branches);
}

TEST_CASE("everything that can be said at the top level is read") {
  const Folder folder;
  folder.write("secrets/admin.token", "token\n", 0600);
  Json document = good();
  document.update(Json::parse(R"({
    "listeners": [
      {"name": "orders-rw", "address": "127.0.0.1", "port": 7432, "mode": "direct", "branch": "x", "target": "primary", "tls": "optional"},
      {"name": "app", "address": "::1", "port": 7433, "mode": "pooled", "branch": "x", "target": "app", "tls": "off"},
      {"name": "behind", "port": 7434, "proxy_protocol": "required", "trusted_proxies": ["10.0.0.0/8", "2001:db8::/32"]}],
    "tls": {"certificate": "server.crt", "key": "server.key", "min_version": "1.3"},
    "admin": {"address": "127.0.0.1", "port": 9432, "token_file": "secrets/admin.token"},
    "metrics": {"address": "0.0.0.0", "port": 9433, "detail": "all"},
    "workers": 2, "zone": "a", "log": {"level": "debug", "format": "json"},
    "tcp": {"keepalive": "10s", "user_timeout": "20s"},
    "limits": {"startup_timeout": "5s", "max_connections": 10, "max_connections_per_branch": 20, "max_held_per_branch": 0},
    "hide_unknown_branches": true, "shutdown_delay": "5s", "drain_timeout": "1m", "drain_pace": "1m", "x-note": {"anything": []}})"));
  const LoadedConfig loaded = folder.load(document);
  INFO(all_errors(loaded));
  REQUIRE(loaded.config);
  CHECK(loaded.errors.empty());
  const Config& config = *loaded.config;
  CHECK(config.listeners[0].fixed.branch == "x");
  CHECK(config.listeners[0].fixed.target.kind == TargetKind::kPrimary);
  CHECK(config.listeners[0].tls == ListenerTls::kOptional);
  CHECK(config.listeners[1].fixed.target.pool == "app");
  CHECK(config.listeners[1].tls == ListenerTls::kOff);
  CHECK(config.listeners[2].proxy_protocol);
  CHECK(config.listeners[2].trusted_proxies.size() == 2);
  CHECK(config.tls->min_tls13);
  CHECK(config.admin->token.reveal() == "token");
  CHECK(config.metrics->port == 9433);
  CHECK(config.metrics_detail == MetricsDetail::kAll);
  CHECK(config.workers == 2);
  CHECK(config.zone == "a");
  CHECK(config.log_level == "debug");
  CHECK(config.log_format == LogFormat::kJson);
  CHECK(config.tcp_user_timeout == 20s);
  CHECK(config.limits.max_connections == 10u);
  CHECK(config.limits.max_held_per_branch == 0);
  CHECK(config.hide_unknown_branches);
  CHECK(config.shutdown_delay == 5s);
  CHECK(config.drain_timeout == 60s);
  CHECK(config.drain_pace == 60s);
}

TEST_CASE("what the contract names and this version does not do is refused") {
  const Folder folder;
}

TEST_CASE("branch_from_sni is true or a domain, needs TLS, and excludes a fixed branch") {
  const Folder folder;
  const char* pointer = "/listeners/0/branch_from_sni";
  CHECK(folder.load(changed(pointer, true)).config->listeners[0].branch_from_sni);
  const auto named = folder.load(changed(pointer, "pg.example.com")).config;
  CHECK(named->listeners[0].branch_from_sni);
  CHECK(named->listeners[0].sni_domain == "pg.example.com");
  CHECK_FALSE(folder.load(changed(pointer, false)).config->listeners[0].branch_from_sni);
  CHECK(has(fatal_at(folder, changed(pointer, "Bad domain"), pointer), "a domain such as"));
  CHECK(has(fatal_at(folder, changed(pointer, 5), pointer), "a domain such as"));
}

TEST_CASE("a state_dir is ours and nobody else writes there; one that is missing is made later") {
  const Folder folder;
  CHECK(folder.load(changed("/state_dir", "state")).config->state_dir == folder.path("state"));
  CHECK_FALSE(std::filesystem::exists(folder.path("state")));
  CHECK(has(fatal_at(folder, changed("/state_dir", "a/b"), "/state_dir"), "cannot be made in " + folder.path("a")));
  CHECK(has(fatal_at(folder, changed("/state_dir", "ca.crt"), "/state_dir"), "is no folder"));
  std::filesystem::create_directory(folder.path("state"));
  REQUIRE(::chmod(folder.path("state").c_str(), 0755) == 0);
  CHECK(folder.load(changed("/state_dir", "state")).errors.empty());
  for (const mode_t mode : {mode_t{0770}, mode_t{0702}, mode_t{0777}}) {
    REQUIRE(::chmod(folder.path("state").c_str(), mode) == 0);
    CHECK(has(fatal_at(folder, changed("/state_dir", "state"), "/state_dir"), "may be written by others"));
  }
  CHECK(has(fatal_at(folder, changed("/state_dir", 1), "/state_dir"), "1"));
}

TEST_CASE("every fault of the top level is fatal and named by its path") {
  const Folder folder;
  struct Case {
    const char* pointer;
    Json value;
    const char* says;
  };
  for (const Case& fault : {
           Case{"/listener", 1, "unknown key"},
           Case{"/listeners", Json::array(), "at least one"},
           Case{"/listeners", "x", "no array"},
           Case{"/listeners/0/name", "", "1 to 1024"},
           Case{"/listeners/0/name", "a b", "1 to 63"},
           Case{"/listeners/1/name", "direct", "another listener"},
           Case{"/listeners/0/port", 0, "1 to 65535"},
           Case{"/listeners/0/port", 65536, "1 to 65535"},
           Case{"/listeners/1/port", 5432, "same address and port"},
           Case{"/listeners/0/address", "localhost", "numeric"},
           Case{"/listeners/0/mode", "replica", "\"direct\", \"pooled\""},
           Case{"/listeners/0/tls", "on", "\"required\", \"optional\", \"off\""},
           Case{"/listeners/0/branch", "X", "a-z 0-9"},
           Case{"/listeners/0/target", "primary", "needs \"branch\""},
           Case{"/listeners/0/proxy_protocol", "optional", "\"off\", \"required\""},
           Case{"/listeners/0/trusted_proxies", Json::array({"10.0.0.0/8"}), "without"},
           Case{"/listeners/0/colour", 1, "unknown key"},
           Case{"/tls/certificate", "missing.crt", "No such file"},
           Case{"/tls/min_version", "1.1", "\"1.2\", \"1.3\""},
           Case{"/workers", 0, "1 to 256"},
           Case{"/zone", "a b", "1 to 63"},
           Case{"/log", Json{{"level", "loud"}}, ""},
           Case{"/limits", Json{{"max_connections", "many"}}, ""},
           Case{"/tcp", 5, "no object"},
           Case{"/hide_unknown_branches", "yes", "true or false"},
           Case{"/drain_timeout", 30, "a duration"},
           Case{"/drain_pace", "31s", "longer than drain_timeout"},
           Case{"/defaults", Json::array(), "no object"},
           Case{"/branches", Json::array(), "no object"},
           Case{"/branches_dir", "missing.d", "cannot read"},
       }) {
    INFO(fault.pointer, " ", fault.value.dump());
    const LoadedConfig loaded = folder.load(changed(fault.pointer, fault.value));
    CHECK(loaded.config == nullptr);
    REQUIRE(loaded.errors.size() == 1);
    CHECK(loaded.errors[0].path.starts_with(fault.pointer));
    CHECK(has(loaded.errors[0].what, fault.says));
  }
}

TEST_CASE("all errors are found in one reading") {
  const Folder folder;
  Json document = good();
  document["workers"] = 0;
  document["listeners"][0]["port"] = "x";
  document["branches"]["x"]["members"][0]["host"] = "";
  const LoadedConfig loaded = folder.load(document);
  CHECK(loaded.config == nullptr);
  CHECK(loaded.errors.size() == 3);
}

TEST_CASE("a fixed target must fit the listener's mode") {
  const Folder folder;
  Json document = good();
  document["listeners"][0].update({{"branch", "x"}, {"target", "app"}});
  CHECK(has(fatal_at(folder, document, "/listeners/0/target"), "direct listener"));
  document = good();
  document["listeners"][1].update({{"branch", "x"}, {"target", "replica"}});
  CHECK(has(fatal_at(folder, document, "/listeners/1/target"), "pooled listener"));
  document["listeners"][1]["target"] = "any";
  fatal_at(folder, document, "/listeners/1/target");
}

TEST_CASE("a listener that fixes what is not there is an error, but not one that stops the rest") {
  const Folder folder;
  Json document = good();
  document["listeners"][0]["branch"] = "y";
  const LoadedConfig loaded = folder.load(document);
  CHECK(loaded.config);
  CHECK(has(error_at(loaded, "/listeners/0/branch"), "no branch \"y\""));
  document["listeners"][1].update({{"branch", "x"}, {"target", "nope"}});
  document["listeners"][0].erase("branch");
  CHECK(has(error_at(folder.load(document), "/listeners/1/target"), "no pool \"nope\""));
}

TEST_CASE("TLS on a listener needs a certificate, off does not") {
  const Folder folder;
  Json document = good();
  document.erase("tls");
  const LoadedConfig loaded = folder.load(document);
  CHECK(loaded.config == nullptr);
  REQUIRE(loaded.errors.size() == 2);
  CHECK(loaded.errors[0].path == "/listeners/0/tls");
  document["listeners"][0]["tls"] = document["listeners"][1]["tls"] = "off";
  CHECK(folder.load(document).config);
  document["listeners"][0]["tls"] = "optional";
  fatal_at(folder, document, "/listeners/0/tls");
}

TEST_CASE("PROXY protocol needs the addresses it may come from") {
  const Folder folder;
  CHECK(has(fatal_at(folder, changed("/listeners/0/proxy_protocol", "required"), "/listeners/0/trusted_proxies"),
            "missing"));
  Json document = changed("/listeners/0/proxy_protocol", "required");
  document["listeners"][0]["trusted_proxies"] = Json::array();
  fatal_at(folder, document, "/listeners/0/trusted_proxies");
  document["listeners"][0]["trusted_proxies"] = {"10.0.0.0/8", "10.0.0.1/8"};
  fatal_at(folder, document, "/listeners/0/trusted_proxies/1");
}

TEST_CASE("comments and null are fine, a key that stands twice is not") {
  const Folder folder;
  std::string text = good().dump();
  CHECK(folder.load("// ours\n" + text).config);
  text.back() = ',';
  CHECK(folder.load(text + "\"zone\": null}").config);
  const LoadedConfig twice = folder.load(text + "\"zone\": \"a\", \"zone\": \"b\"}");
  CHECK(twice.config == nullptr);
  CHECK(has(error_at(twice, "/zone"), "twice"));
}

TEST_CASE("a file that is missing, no JSON or no object is one error without a path") {
  const Folder folder;
  const LoadedConfig missing = load_config(folder.path("nowhere.json"), nullptr);
  CHECK(missing.config == nullptr);
  CHECK(has(error_at(missing, ""), "No such file"));
  CHECK(watches(missing, folder.path("nowhere.json")));
  CHECK(has(error_at(folder.load(std::string("{")), ""), "line 1"));
  CHECK(has(error_at(folder.load(std::string("[]")), ""), "no object"));
  CHECK(has(error_at(load_config(folder.path("."), nullptr), ""), "no regular file"));
}

TEST_CASE("a secret is one line of a file that others cannot read") {
  const Folder folder;
  const auto token = [&](const std::string& text, mode_t mode) {
    folder.write("admin.token", text, mode);
    return folder.load(changed("/admin", {{"token_file", "admin.token"}}));
  };
  for (const mode_t mode : {0600u, 0400u}) CHECK(token("t", mode).config);
  CHECK(token("t\n", 0600).config->admin->token.reveal() == "t");
  CHECK(token("t\n\n", 0600).config->admin->token.reveal() == "t\n");
  CHECK(token("t\r\n", 0600).config->admin->token.reveal() == "t");
  CHECK(token(" t ", 0600).config->admin->token.reveal() == " t ");
  for (const mode_t mode : {0644u, 0604u, 0660u, 0620u, 0700u}) {
    CHECK(has(error_at(token("t", mode), "/admin/token_file"), "too open"));
  }
  // Up to 0640 is for files of root's, which ours are when the tests run as root.
  CHECK((token("t", 0640).config != nullptr) == (::geteuid() == 0));
  CHECK(has(error_at(token("", 0600), "/admin/token_file"), "empty"));
  CHECK(has(error_at(token("\n", 0600), "/admin/token_file"), "empty"));
  CHECK(has(error_at(token(std::string("a\0b", 3), 0600), "/admin/token_file"), "zero byte"));
  CHECK(token(std::string(64 * 1024 - 1, 's'), 0600).config);
  CHECK(token(std::string(64 * 1024, 's'), 0600).config);
  CHECK(has(error_at(token(std::string(64 * 1024 + 1, 's'), 0600), "/admin/token_file"), "more than 65536"));
  folder.write("server.key", "key", 0644);
  CHECK(has(error_at(folder.load(good()), "/tls/key"), "too open"));
}

TEST_CASE("a secret that is a folder or a pipe is refused, and nobody waits for the pipe") {
  const Folder folder;
  REQUIRE(::mkfifo(folder.path("pipe").c_str(), 0600) == 0);
  CHECK(
      has(error_at(folder.load(changed("/admin", {{"token_file", "pipe"}})), "/admin/token_file"), "no regular file"));
  CHECK(has(error_at(folder.load(changed("/admin", {{"token_file", "."}})), "/admin/token_file"), "no regular file"));
}

TEST_CASE("a secret of another user is refused") {
  if (::geteuid() != 0) return;  // only root can make one
  const Folder folder;
  folder.write("admin.token", "t", 0600);
  REQUIRE(::chown(folder.path("admin.token").c_str(), 12345, 12345) == 0);
  CHECK(has(error_at(folder.load(changed("/admin", {{"token_file", "admin.token"}})), "/admin/token_file"),
            "another user"));
}

TEST_CASE("every file whose change matters is watched") {
  const Folder folder;
  folder.write("branches.d/y.json",
               R"({"members": [{"name": "pg", "host": "10.0.0.1"}], "probe": {"password_file": "../missing.pw"}})");
  folder.write("u.txt", "\"app\" \"x\"\n", 0600);
  Json document = changed("/branches_dir", "branches.d");
  document["branches"]["x"]["auth"]["userlist"] = "u.txt";
  const LoadedConfig loaded = folder.load(document);
  for (const char* name :
       {"pointsman.json", "branches.d", "server.crt", "server.key", "ca.crt", "probe.pw", "u.txt", "missing.pw"}) {
    CHECK(watches(loaded, folder.path(name)));
  }
}

// --- limits of the machine ---

TEST_CASE("max_connections that RLIMIT_NOFILE cannot give is an error only when it was asked for") {
  const Folder folder;
  rlimit limit = {};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max > 1'500'000) return;  // the largest value allowed would fit
  Json document = good();
  document["workers"] = 1;
  const auto loaded = folder.load(document);
  const std::uint32_t most =
      static_cast<std::uint32_t>((limit.rlim_max - descriptors_needed(*loaded.config, 0, 1)) / 2);
  document["limits"]["max_connections"] = most;
  CHECK(folder.load(document).config);
  document["limits"]["max_connections"] = most + 1;
  CHECK(has(fatal_at(folder, document, "/limits/max_connections"), "RLIMIT_NOFILE"));
}

}  // namespace
}  // namespace pointsman::routing
