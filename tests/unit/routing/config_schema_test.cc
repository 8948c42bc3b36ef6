#include "routing/config_schema.h"

#include <doctest/doctest.h>

#include <regex>
#include <set>
#include <string>
#include <vector>

#include "routing/config_reader.h"
#include "tests/unit/routing/config_support.h"

namespace pointsman::routing {
namespace {

using test::error_at;
using test::Folder;
using test::good;

Schema parsed(const std::string& text) {
  CHECK(text.ends_with("}\n"));
  return Schema::parse(text);
}

/// An object of the schema with a place in a document where it holds.
struct Place {
  std::string pointer;
  const Schema* object;
};

class Places {
 public:
  explicit Places(const Schema& schema) : schema_(schema) { visit(schema, ""); }
  const std::vector<Place>& all() const { return found_; }

 private:
  void visit(const Schema& node, const std::string& pointer) {
    if (node.contains("$ref"))
      return visit(schema_[Schema::json_pointer(node["$ref"].get<std::string>().substr(1))], pointer);
    if (node.contains("anyOf")) {
      for (const Schema& choice : node["anyOf"]) visit(choice, pointer);
    }
    if (node.contains("if")) {
      visit(node["then"], pointer + "~console");
      visit(node["else"], pointer);
    }
    if (node.contains("items")) visit(node["items"], pointer + "/0");
    if (!node.contains("properties")) {
      if (node.contains("patternProperties")) visit(*node["patternProperties"].begin(), pointer + "/a");
      return;
    }
    found_.push_back({pointer, &node});
    for (const auto& [key, value] : node["properties"].items()) visit(value, pointer + "/" + key);
  }
  const Schema& schema_;
  std::vector<Place> found_;
};

/// A document with an unknown key at a place, and nothing else.
Json with_unknown_key(std::string& pointer) {
  Json document = Json::object();
  const std::size_t console = pointer.find("~console");
  if (console != std::string::npos) pointer.erase(console);
  document[Json::json_pointer(pointer + "/unheard_of")] = 1;
  if (console != std::string::npos) document[Json::json_pointer(pointer + "/mode")] = "console";
  return document;
}

std::set<std::string> keys_that_check_allows(const LoadedConfig& loaded, const std::string& path) {
  constexpr std::string_view kAllowed = "unknown key; allowed are ";
  std::set<std::string> keys;
  for (const ConfigError& error : loaded.errors) {
    if (error.path != path || !error.what.starts_with(kAllowed)) continue;
    const std::regex separator(", ");
    const std::string list = error.what.substr(kAllowed.size());
    keys = {std::sregex_token_iterator(list.begin(), list.end(), separator, -1), std::sregex_token_iterator()};
  }
  return keys;
}

TEST_CASE("every object has the keys in the schema that check allows there, no fewer and no more") {
  const Folder folder;
  const Schema schema = parsed(config_schema());
  const Places places(schema);
  CHECK(places.all().size() > 40);  // those of a branch are counted in `defaults` and in `branches`
  for (const Place& place : places.all()) {
    std::string pointer = place.pointer;
    const Json document = with_unknown_key(pointer);
    // `defaults` are read through a branch.
    Json whole = document;
    if (pointer.starts_with("/defaults")) whole["branches"]["a"] = Json::object();
    INFO(place.pointer);
    std::set<std::string> in_schema;
    for (const auto& [key, value] : (*place.object)["properties"].items()) in_schema.insert(key);
    CHECK(keys_that_check_allows(folder.load(whole), pointer + "/unheard_of") == in_schema);
  }
}

TEST_CASE("every key says what it is for and what may stand there, in whole sentences") {
  const Schema schema = parsed(config_schema());
  const Places places(schema);
  for (const Place& place : places.all()) {
    CHECK((*place.object)["additionalProperties"] == false);
    for (const auto& [key, value] : (*place.object)["properties"].items()) {
      INFO(place.pointer << "/" << key);
      CHECK_FALSE(value.value("title", "").empty());
      const std::string help = value.value("description", "");
      CHECK(help.ends_with('.'));
      CHECK(help.size() <= 240);
    }
  }
}

const Schema& at(const Schema& schema, const std::string& pointer) {
  return schema.at(Schema::json_pointer(pointer));
}

TEST_CASE("defaults, bounds and words are those of the readers") {
  const Schema schema = parsed(config_schema());
  CHECK(schema["$schema"] == "http://json-schema.org/draft-07/schema#");
  CHECK(schema["required"] == Schema::parse(R"(["listeners"])"));
  CHECK(at(schema, "/properties/limits/properties/startup_timeout/default") == "15s");
  CHECK(at(schema, "/properties/limits/properties/startup_timeout/title") == "duration from 100ms to 10m");
  CHECK_FALSE(at(schema, "/properties/limits/properties/max_connections").contains("default"));  // the machine's
  CHECK_FALSE(at(schema, "/properties/workers").contains("default"));
  CHECK(at(schema, "/properties/admin/properties/port") == Schema::parse(R"({"title": "whole number from 1 to 65535",
    "description": "Where it listens.", "type": ["integer", "null"], "minimum": 1, "maximum": 65535, "default": 9432})"));
  CHECK(at(schema, "/properties/log/properties/level/enum") ==
        Schema::parse(R"(["trace", "debug", "info", "warn", "error", null])"));
  CHECK(at(schema, "/properties/log/properties/level/default") == "info");
  const Schema& listener = at(schema, "/properties/listeners/items/else");
  CHECK(listener["required"] == Schema::parse(R"(["name", "port"])"));
  CHECK(at(listener, "/properties/mode/default") == "direct");
  CHECK(at(schema, "/properties/listeners/items/then/required") == Schema::parse(R"(["name"])"));
  const Schema& branch = at(schema, "/definitions/branch");
  CHECK_FALSE(branch.contains("required"));
  CHECK(at(branch, "/properties/members/items/required") == Schema::parse(R"(["name", "host"])"));
  CHECK(at(branch, "/properties/members/items/properties/port/default") == 5432);
  CHECK_FALSE(at(branch, "/properties/members/items/properties/pgbouncer_port").contains("default"));  // none
  CHECK(at(branch, "/properties/auth/properties/verifiers/default") == "lookup");
  CHECK(at(branch, "/properties/replicas/properties/max_lag_bytes/maximum") == std::uint64_t{1} << 50);
  CHECK(at(schema, "/definitions/backend_tls/properties/mode/default") == "verify-full");
  for (const char* pointer : {"/properties/defaults/anyOf/0", "/definitions/branch/properties/backend_tls/anyOf/0"})
    CHECK(at(schema, pointer).contains("$ref"));
}

TEST_CASE("a branch's file is described as a branch of the configuration is") {
  const Schema whole = parsed(config_schema());
  Schema branch = parsed(branch_schema());
  CHECK(branch["definitions"]["backend_tls"] == whole["definitions"]["backend_tls"]);
  for (const char* key : {"$schema", "title", "description", "definitions"}) branch.erase(key);
  CHECK(branch == whole["definitions"]["branch"]);
}

TEST_CASE("the pattern of a rule lets pass what the rule does") {
  const std::vector<std::string> samples = {"a",
                                            "A.b_c-9",
                                            "-a",
                                            "",
                                            "a b",
                                            "10.0.0.1",
                                            "::1",
                                            "fe80::1%0",
                                            "::ffff:10.0.0.1",
                                            "pg-0.example.com",
                                            "_a",
                                            "a\n",
                                            std::string(63, 'a'),
                                            std::string(64, 'a'),
                                            std::string(253, 'b'),
                                            "1.2.3",
                                            ":"};
  for (const TextRule& rule : {kLabel, kHost}) {
    const std::regex pattern{std::string(rule.form.pattern)};
    for (const std::string& text : samples) {
      INFO(rule.form.title << " " << text);
      if (rule.holds(text)) CHECK(std::regex_match(text, pattern));
    }
  }
  CHECK_FALSE(std::regex_match(std::string(64, 'a'), std::regex(std::string(kLabel.form.pattern))));
  CHECK_FALSE(std::regex_match("a b", std::regex(std::string(kHost.form.pattern))));
}

TEST_CASE("$schema is for the editor: allowed at the top, in a branch and in its file, and a text") {
  const Folder folder;
  Json document = good();
  document["$schema"] = "./pointsman.schema.json";
  document["branches"]["x"]["$schema"] = "./branch.schema.json";
  CHECK(folder.load(document).errors.empty());
  document["branches"]["x"]["probe"]["$schema"] = "no";
  CHECK(error_at(folder.load(document), "/branches/x/probe/$schema").starts_with("unknown key"));
  document = good();
  document["$schema"] = 7;
  error_at(folder.load(document), "/$schema");
}

}  // namespace
}  // namespace pointsman::routing
