// The configuration's top level, its files, reload. Branches: config_branch_test.cc.

#include "routing/config.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "routing/snapshot.h"
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
    "hide_unknown_branches": true, "shutdown_delay": "5s", "drain_timeout": "1m", "x-note": {"anything": []}})"));
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
}

TEST_CASE("what the contract names and this version does not do is refused") {
  const Folder folder;
  for (const char* pointer : {"/cancel", "/state_dir", "/listeners/0/branch_from_sni"}) {
    CHECK(has(fatal_at(folder, changed(pointer, "x"), pointer), "not in this version"));
  }
  CHECK(has(fatal_at(folder, changed("/listeners/0/mode", "console"), "/listeners/0/mode"), "not in this version"));
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
  CHECK(has(fatal_at(folder, changed("/listeners/0/proxy_protocol", "required"), "/listeners/0/trusted_proxies"), "missing"));
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
  CHECK(has(error_at(folder.load(changed("/admin", {{"token_file", "pipe"}})), "/admin/token_file"), "no regular file"));
  CHECK(has(error_at(folder.load(changed("/admin", {{"token_file", "."}})), "/admin/token_file"), "no regular file"));
}

TEST_CASE("a secret of another user is refused") {
  if (::geteuid() != 0) return;  // only root can make one
  const Folder folder;
  folder.write("admin.token", "t", 0600);
  REQUIRE(::chown(folder.path("admin.token").c_str(), 12345, 12345) == 0);
  CHECK(has(error_at(folder.load(changed("/admin", {{"token_file", "admin.token"}})), "/admin/token_file"), "another user"));
}

TEST_CASE("every file whose change matters is watched") {
  const Folder folder;
  folder.write("branches.d/y.json", R"({"members": [{"name": "pg", "host": "10.0.0.1"}], "probe": {"password_file": "../missing.pw"}})");
  folder.write("u.txt", "\"app\" \"x\"\n", 0600);
  Json document = changed("/branches_dir", "branches.d");
  document["branches"]["x"]["auth"]["userlist"] = "u.txt";
  const LoadedConfig loaded = folder.load(document);
  for (const char* name : {"pointsman.json", "branches.d", "server.crt", "server.key", "ca.crt", "probe.pw", "u.txt", "missing.pw"}) {
    CHECK(watches(loaded, folder.path(name)));
  }
}

// --- branches from a folder, merging, reload ---

const char* const kMember = R"({"members": [{"name": "pg", "host": "10.0.0.1"}]})";

TEST_CASE("branches_dir holds a branch per file; dot files, ..data and other names are passed over") {
  const Folder folder;
  folder.write("branches.d/a1.json", kMember);
  folder.write("branches.d/..2026_01/a2.json", kMember);
  folder.write("branches.d/.hidden.json", "no JSON");
  folder.write("branches.d/README", "no JSON");
  folder.write("branches.d/a1.json~", "no JSON");
  std::filesystem::create_symlink("..2026_01", folder.path("branches.d/..data"));
  std::filesystem::create_symlink("..data/a2.json", folder.path("branches.d/a2.json"));
  const LoadedConfig loaded = folder.load(changed("/branches_dir", "branches.d"));
  INFO(all_errors(loaded));
  REQUIRE(loaded.config);
  CHECK(loaded.errors.empty());
  CHECK(loaded.config->branches.size() == 3);
  CHECK(loaded.config->branches.contains("a2"));
}

TEST_CASE("errors in a branch's own file carry its name and a path from its root") {
  const Folder folder;
  folder.write("branches.d/a1.json", R"({"members": [{"name": "pg", "host": "10.0.0.1", "prot": 5432}]})");
  const LoadedConfig loaded = folder.load(changed("/branches_dir", "branches.d"));
  CHECK(loaded.config);
  error_at(loaded, "/members/0/prot");
  CHECK(loaded.errors[0].file == folder.path("branches.d/a1.json"));
  CHECK(loaded.rejected_branches == std::vector<std::string>{"a1"});
}

TEST_CASE("a branch defined twice is rejected, a bad name too, and the others live") {
  const Folder folder;
  folder.write("branches.d/x.json", kMember);
  folder.write("branches.d/Bad.json", kMember);
  folder.write("branches.d/broken.json", "{");
  folder.write("branches.d/fine.json", kMember);
  const LoadedConfig loaded = folder.load(changed("/branches_dir", "branches.d"));
  REQUIRE(loaded.config);
  CHECK(loaded.errors.size() == 3);
  CHECK(loaded.rejected_branches == std::vector<std::string>{"Bad", "broken", "x"});
  CHECK(loaded.config->branches.size() == 1);
  CHECK(has(all_errors(loaded), "is defined in " + folder.path("branches.d/x.json") + " too"));
}

TEST_CASE("paths are relative to the file they stand in") {
  const Folder folder;
  folder.write("branches.d/own.pw", "own\n", 0600);
  folder.write("branches.d/a1.json", R"({"members": [{"name": "pg", "host": "10.0.0.1"}], "probe": {"password_file": "own.pw"}})");
  folder.write("branches.d/a2.json", kMember);
  Json document = changed("/branches_dir", "branches.d");
  document["defaults"] = Json::parse(R"({"probe": {"password_file": "probe.pw"}, "backend_tls": {"ca": "ca.crt"}})");
  const LoadedConfig loaded = folder.load(document);
  INFO(all_errors(loaded));
  REQUIRE(loaded.config);
  CHECK(loaded.config->branches.at("a1")->probe.password.reveal() == "own");
  CHECK(loaded.config->branches.at("a2")->probe.password.reveal() == "secret");
  CHECK(loaded.config->branches.at("a1")->backend_tls.ca == folder.path("ca.crt"));
}

TEST_CASE("defaults lie under each branch: objects key by key, arrays whole, null takes away") {
  const Folder folder;
  folder.write("x.pw", "of x\n", 0600);
  Json document = good();
  document["defaults"] = Json::parse(R"({
    "labels": {"team": "data", "cluster": "c-${branch}"}, "members": [{"name": "d", "host": "10.9.9.9"}],
    "probe": {"user": "prober", "interval": "5s", "password_file": "${branch}.pw"}, "default_pool": "app", "zone": null})");
  document["defaults"].erase("zone");
  document["branches"]["x"]["probe"] = {{"interval", "2s"}};
  document["branches"]["x"]["labels"] = {{"team", "web"}};
  document["branches"]["x"]["default_pool"] = nullptr;
  const LoadedConfig loaded = folder.load(document);
  INFO(all_errors(loaded));
  REQUIRE(loaded.config);
  const BranchConfig& x = *loaded.config->branches.at("x");
  CHECK(x.probe.user == "prober");
  CHECK(x.probe.interval == 2s);
  CHECK(x.probe.password.reveal() == "of x");
  CHECK(x.labels.at("team") == "web");
  CHECK(x.labels.at("cluster") == "c-x");
  CHECK(x.members.size() == 2);
  CHECK(x.default_pool.empty());
}

TEST_CASE("a fault in the defaults is said once, where it stands") {
  const Folder folder;
  Json document = good();
  for (int i = 0; i < 50; ++i) document["branches"]["b" + std::to_string(i)] = Json::parse(kMember);
  document["defaults"] = Json::parse(R"({"failover": {"dead_after": 0}})");
  const LoadedConfig loaded = folder.load(document);
  CHECK(loaded.config);
  error_at(loaded, "/defaults/failover/dead_after");
  CHECK(loaded.rejected_branches.size() == 51);
}

TEST_CASE("on reload a bad branch keeps its last good version while others go on") {
  const Folder folder;
  Json document = good();
  document["branches"]["y"] = Json::parse(kMember);
  const LoadedConfig first = folder.load(document);
  REQUIRE(first.config);
  document["branches"]["x"]["members"][0]["port"] = 0;
  document["branches"]["y"]["members"][0]["port"] = 5433;
  document["branches"]["z"] = Json::parse(R"({"members": []})");
  const LoadedConfig second = folder.load(document, first.config.get());
  REQUIRE(second.config);
  CHECK(second.rejected_branches == std::vector<std::string>{"x", "z"});
  CHECK(second.config->branches.at("x") == first.config->branches.at("x"));
  CHECK(second.config->branches.at("y")->members[0].port == 5433);
  CHECK_FALSE(second.config->branches.contains("z"));
}

TEST_CASE("on reload an unchanged branch keeps its object, a changed secret makes a new one") {
  const Folder folder;
  Json document = good();
  document["branches"]["y"] = Json::parse(kMember);
  const LoadedConfig first = folder.load(document);
  document["workers"] = 2;
  const LoadedConfig same = folder.load(document, first.config.get());
  CHECK(same.config->branches.at("x") == first.config->branches.at("x"));
  folder.write("probe.pw", "another\n", 0600);
  const LoadedConfig turned = folder.load(document, same.config.get());
  CHECK(turned.config->branches.at("x") != first.config->branches.at("x"));
  CHECK(turned.config->branches.at("x")->probe.password.reveal() == "another");
  CHECK(turned.config->branches.at("y") == first.config->branches.at("y"));
  document["branches"].erase("y");
  CHECK_FALSE(folder.load(document, turned.config.get()).config->branches.contains("y"));
}

TEST_CASE("a branch of a broken file keeps its last good version") {
  const Folder folder;
  folder.write("branches.d/a1.json", kMember);
  const Json document = changed("/branches_dir", "branches.d");
  const LoadedConfig first = folder.load(document);
  folder.write("branches.d/a1.json", "{");
  const LoadedConfig second = folder.load(document, first.config.get());
  CHECK(second.config->branches.at("a1") == first.config->branches.at("a1"));
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
  const std::uint32_t most = static_cast<std::uint32_t>((limit.rlim_max - descriptors_needed(*loaded.config, 0, 1)) / 2);
  document["limits"]["max_connections"] = most;
  CHECK(folder.load(document).config);
  document["limits"]["max_connections"] = most + 1;
  CHECK(has(fatal_at(folder, document, "/limits/max_connections"), "RLIMIT_NOFILE"));
}

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
  for (const char* bad : {"", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0.0/8 ", "10.0.0/8", "::/129",
                          "2001:db8::1/32", "all", "10.0.0.0/8/8", "[::]/0", "10.0.0.0/255.0.0.0"}) {
    CHECK_FALSE(Cidr::parse(bad));
  }
}

}  // namespace
}  // namespace pointsman::routing
