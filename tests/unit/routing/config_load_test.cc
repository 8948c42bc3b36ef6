// Branches from a folder, defaults under them, reload.

#include <doctest/doctest.h>

#include <string>
#include <vector>

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
  folder.write("branches.d/a1.json",
               R"({"members": [{"name": "pg", "host": "10.0.0.1"}], "probe": {"password_file": "own.pw"}})");
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

}  // namespace
}  // namespace pointsman::routing
