// The console's listeners and users.

#include <doctest/doctest.h>

#include <string>

#include "routing/config.h"
#include "tests/unit/routing/config_support.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using test::all_errors;
using test::error_at;
using test::Folder;
using test::has;
using test::Json;

const std::string kKey = std::string(43, 'A') + "=";
const std::string kVerifier = "SCRAM-SHA-256$4096:c2FsdA==$" + kKey + ":" + kKey;

/// A good configuration with a console as its first listener.
Json with_console() {
  Json document = test::good();
  document["listeners"].insert(document["listeners"].begin(), Json{{"name", "console"}, {"mode", "console"}});
  document["console"] = {{"users", {{"admin", {{"verifier", kVerifier}, {"role", "admin"}}}}}};
  return document;
}

std::string fatal_at(const Folder& folder, const Json& document, const std::string& path) {
  const LoadedConfig loaded = folder.load(document);
  CHECK(loaded.config == nullptr);
  return error_at(loaded, path);
}

TEST_CASE("a console has its defaults, and stands in no worker's list") {
  const Folder folder;
  Json document = with_console();
  document["listeners"][1]["branch"] = "x";
  const LoadedConfig loaded = folder.load(document);
  INFO(all_errors(loaded));
  REQUIRE(loaded.config);
  const ConsoleConfig& console = loaded.config->console;
  REQUIRE(console.listeners.size() == 1);
  CHECK(console.listeners[0].name == "console");
  CHECK(console.listeners[0].address == "127.0.0.1");
  CHECK(console.listeners[0].port == 7531);
  CHECK(console.listeners[0].tls == ListenerTls::kRequired);
  CHECK(console.max_connections == 32);
  CHECK(console.idle_timeout == 1h);
  CHECK(console.users.at("admin").role == ConsoleRole::kAdmin);
  CHECK(console.users.at("admin").verifier.reveal() == kVerifier);
  REQUIRE(loaded.config->listeners.size() == 2);
  CHECK(loaded.config->listeners[0].name == "direct");
}

TEST_CASE("errors of listeners behind a console keep their place in the file") {
  const Folder folder;
  Json document = with_console();
  document["listeners"][2]["branch"] = "nosuch";
  const LoadedConfig loaded = folder.load(document);
  REQUIRE(loaded.config);
  CHECK(has(error_at(loaded, "/listeners/2/branch"), "nosuch"));
}

TEST_CASE("a verifier may stand in a file, which is a secret and is watched") {
  const Folder folder;
  folder.write("v.txt", kVerifier + "\n", 0600);
  Json document = with_console();
  document["console"]["users"]["looker"] = {{"verifier_file", "v.txt"}, {"role", "read"}};
  const LoadedConfig loaded = folder.load(document);
  INFO(all_errors(loaded));
  REQUIRE(loaded.config);
  CHECK(loaded.config->console.users.at("looker").verifier.reveal() == kVerifier);
  CHECK(loaded.config->console.users.at("looker").role == ConsoleRole::kRead);
  CHECK(std::find(loaded.watched_paths.begin(), loaded.watched_paths.end(), folder.path("v.txt")) !=
        loaded.watched_paths.end());
  folder.write("v.txt", "a password\n", 0600);
  CHECK(has(fatal_at(folder, document, "/console/users/looker/verifier_file"), "SCRAM-SHA-256"));
  folder.write("v.txt", kVerifier, 0644);
  CHECK(has(fatal_at(folder, document, "/console/users/looker/verifier_file"), "0644"));
}

TEST_CASE("a console needs users, and users need a verifier and a role") {
  const Folder folder;
  Json document = with_console();
  document.erase("console");
  CHECK(has(fatal_at(folder, document, "/console"), "is missing"));
  document["console"] = Json::object();
  CHECK(has(fatal_at(folder, document, "/console/users"), "an object"));
  const auto changed = [](const std::string& pointer, const Json& value) {
    Json changed_document = with_console();
    changed_document[Json::json_pointer(pointer)] = value;
    return changed_document;
  };
  CHECK(has(fatal_at(folder, changed("/console/users", Json::object()), "/console/users"), "nobody could log in"));
  CHECK(has(fatal_at(folder, changed("/console/users", 1), "/console/users"), "is no object"));
  CHECK(has(fatal_at(folder, changed("/console/users/admin/verifier", "md5abc"), "/console/users/admin/verifier"),
            "SCRAM-SHA-256"));
  CHECK(has(fatal_at(folder, changed("/console/users/admin", {{"role", "admin"}}), "/console/users/admin/verifier"),
            "is missing"));
  CHECK(has(fatal_at(folder, changed("/console/users/admin/role", "root"), "/console/users/admin/role"), "read"));
  CHECK(has(fatal_at(folder, changed("/console/users/admin/colour", 1), "/console/users/admin/colour"), ""));
  CHECK(has(fatal_at(folder, changed("/console/users/a b", {{"verifier", kVerifier}, {"role", "read"}}),
                     "/console/users/a b"),
            "is no user name"));
  CHECK(has(fatal_at(folder, changed("/console/max_connections", 0), "/console/max_connections"), "1"));
  CHECK(has(fatal_at(folder, changed("/console/idle_timeout", "0s"), "/console/idle_timeout"), "1s"));
}

TEST_CASE("what has no meaning on a console is refused") {
  const Folder folder;
  for (const auto& [key, value] : {std::pair<std::string, Json>{"branch", "x"},
                                   {"target", "primary"},
                                   {"branch_from_sni", true},
                                   {"proxy_protocol", "required"},
                                   {"trusted_proxies", Json::array()}}) {
    Json document = with_console();
    document["listeners"][0][key] = value;
    CHECK(has(fatal_at(folder, document, "/listeners/0/" + key), "not allowed on a listener of mode \"console\""));
  }
  Json without_tls = with_console();
  without_tls.erase("tls");
  for (auto& listener : without_tls["listeners"]) listener["tls"] = "off";
  without_tls["listeners"][0].erase("tls");
  CHECK(has(fatal_at(folder, without_tls, "/listeners/0/tls"), "needs the top-level"));
  Json only = with_console();
  only["listeners"].erase(1);
  only["listeners"].erase(1);
  CHECK(has(fatal_at(folder, only, "/listeners"), "for clients"));
}

TEST_CASE("a console's port is nobody else's, whatever the address") {
  const Folder folder;
  Json document = with_console();
  document["listeners"][0]["port"] = 5432;
  CHECK(has(fatal_at(folder, document, "/listeners/0/port"), "listener direct has port 5432 too"));
  document = with_console();
  document["listeners"].push_back({{"name", "second"}, {"mode", "console"}, {"address", "127.0.0.2"}});
  CHECK(has(fatal_at(folder, document, "/listeners/3/port"), "listener console"));
  document = with_console();
  document["admin"] = {{"port", 7531}};
  CHECK(has(fatal_at(folder, document, "/listeners/0/port"), "the admin endpoint"));
  document = with_console();
  document["metrics"] = {{"port", 7531}};
  CHECK(has(fatal_at(folder, document, "/listeners/0/port"), "the metrics endpoint"));
}

TEST_CASE("a console takes descriptors") {
  const Folder folder;
  const LoadedConfig without = folder.load(test::good());
  const LoadedConfig with = folder.load(with_console());
  REQUIRE(without.config);
  REQUIRE(with.config);
  CHECK(descriptors_needed(*with.config, 100, 2) ==
        descriptors_needed(*without.config, 100, 2) + 1 + 32 + kConsoleLogins);
}

}  // namespace
}  // namespace pointsman::routing
