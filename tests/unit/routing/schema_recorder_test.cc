#include "routing/schema_recorder.h"

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

#include "routing/json_reader.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using namespace std::string_view_literals;

constexpr std::array<std::pair<std::string_view, int>, 2> kSizes = {{{"small"sv, 1}, {"large"sv, 2}}};

/// The readers of a made-up configuration, as ours are written.
void read_cup(const Json& value, const JsonPath& path, const ErrorSink& sink) {
  ObjectReader reader(value, path, sink);
  std::string name;
  reader.require("name", "a name");
  reader.read_text({"name", "Whose."}, name, {.most = 9});
  reader.finish();
}
void read_lid(const Json& value, const JsonPath& path, const ErrorSink& sink) {
  ObjectReader reader(value, path, sink);
  bool tight = false;
  reader.read_bool({"tight", "Holds."}, tight);
  reader.finish();
}
void read_kitchen(const Json& value, const JsonPath& path, const ErrorSink& sink) {
  ObjectReader reader(value, path, sink);
  int size = 2;
  reader.require("size", "a size");
  reader.read_choice<int>({"size", "How large."}, size, kSizes);
  std::uint16_t none = 0;
  reader.read_number({"stove", "Which."}, none, 1, 9);
  base::Duration boil = 90s;
  reader.read_duration({"boil", "How long."}, boil, 1s, 1h);
  std::string tea = "green";
  constexpr TextForm kTea{.title = "tea", .pattern = "^[a-z]+$"};
  reader.read_text({"tea", "Which."}, tea, kTea);
  reader.allow_also("tea", {.kind = Shape::Kind::kTruth});
  reader.refuse({"oven", "Not yet."});
  if (const auto* cups = reader.read_array({"cups", "All."}, 1, 6)) {
    const JsonPath cups_path = reader.path_of("cups");
    for (std::size_t i = 0; i < cups->size(); ++i) read_cup((*cups)[i], JsonPath(cups_path, i), sink);
  }
  for (const char* key : {"lid", "other_lid"}) {
    if (const Json* lid = reader.find_object({key, "A lid."}, "lid")) read_lid(*lid, reader.path_of(key), sink);
  }
  const Shape shelf{
      .kind = Shape::Kind::kMap, .most = 3, .text = {.pattern = "^[a-z]$"}, .x_is_yours = true, .null_takes = true};
  if (const Json* shelves = reader.find({"shelves", "By letter."}, shelf)) {
    const JsonPath shelves_path = reader.path_of("shelves");
    for (const auto& [name, cup] : shelves->items()) read_cup(cup, JsonPath(shelves_path, name), sink);
  }
  (void)reader.find({"notes", "Any."}, {.kind = Shape::Kind::kTextMap, .most = 2, .text = {.pattern = "^n"}});
  (void)reader.find({"ranges", "Where."}, Shape::texts(kTea, 1, 4));
  reader.finish();
}

struct Recorded {
  Schema object;
  std::map<std::string, Schema> parts;
};
Recorded record(SchemaRecorder::Reading reading) {
  SchemaRecorder recorder(reading);
  std::vector<ConfigError> errors;
  const ErrorSink sink{"", &errors, &recorder};
  const Json nothing = Json::object();
  read_kitchen(nothing, JsonPath(), sink);
  return {recorder.finish(), recorder.definitions()};
}

Schema tail(Schema object) {
  object["patternProperties"] = {{"^x-", true}};
  object["additionalProperties"] = false;
  return object;
}

TEST_CASE("what a reader asks for is what the schema says, in that order") {
  const Schema cup = tail(Schema::parse(R"({"type": "object", "required": ["name"], "properties": {
    "name": {"title": "text of at most 9 bytes", "description": "Whose.", "type": "string", "minLength": 1, "maxLength": 9}}})"));
  Schema kitchen = tail(Schema::parse(R"({"type": "object", "required": ["size"], "properties": {
    "size": {"title": "\"small\" or \"large\"", "description": "How large.", "enum": ["small", "large"], "default": "large"},
    "stove": {"title": "whole number from 1 to 9", "description": "Which.", "type": ["integer", "null"], "minimum": 1, "maximum": 9},
    "boil": {"title": "duration from 1s to 1h", "description": "How long.", "type": ["string", "null"],
             "pattern": "^(0+|[0-9]+(ms|s|m|h))$", "default": "90s"},
    "tea": {"title": "tea; or true or false", "description": "Which.", "anyOf": [
             {"type": "string", "minLength": 1, "pattern": "^[a-z]+$", "default": "green"}, {"type": "boolean"}, {"type": "null"}]},
    "oven": {"title": "null", "description": "Not yet.", "type": "null"},
    "cups": {"title": "array of objects, at most 6", "description": "All.", "type": ["array", "null"], "minItems": 1, "maxItems": 6},
    "lid": {"title": "object", "description": "A lid.", "anyOf": [{"$ref": "#/definitions/lid"}, {"type": "null"}]},
    "other_lid": {"title": "object", "description": "A lid.", "anyOf": [{"$ref": "#/definitions/lid"}, {"type": "null"}]},
    "shelves": {"title": "object: name to object, at most 3", "description": "By letter.", "type": ["object", "null"], "maxProperties": 3},
    "notes": {"title": "object: name to text, at most 2", "description": "Any.", "type": ["object", "null"], "maxProperties": 2,
              "patternProperties": {"^n": {"type": "string", "maxLength": 256}}, "additionalProperties": false},
    "ranges": {"title": "array: tea, at most 4", "description": "Where.", "type": ["array", "null"], "minItems": 1, "maxItems": 4,
               "items": {"type": "string", "minLength": 1, "pattern": "^[a-z]+$"}}}})"));
  kitchen["properties"]["cups"]["items"] = cup;
  Schema shelf = cup;
  shelf["type"] = {"object", "null"};
  kitchen["properties"]["shelves"]["patternProperties"] = {{"^[a-z]$", shelf}, {"^x-", true}};
  kitchen["properties"]["shelves"]["additionalProperties"] = {{"type", "null"}};

  const Recorded recorded = record(SchemaRecorder::Reading::kAlone);
  CHECK(recorded.object.dump(1) == kitchen.dump(1));
  REQUIRE(recorded.parts.size() == 1);
  CHECK(recorded.parts.at("lid").dump(1) == tail(Schema::parse(R"({"type": "object", "properties": {
    "tight": {"title": "true or false", "description": "Holds.", "type": ["boolean", "null"], "default": false}}})"))
                                                .dump(1));
}

TEST_CASE("what is laid over defaults requires nothing but in arrays, and takes ${branch} in any text") {
  const Schema kitchen = record(SchemaRecorder::Reading::kMerged).object;
  CHECK_FALSE(kitchen.contains("required"));
  const Schema& keys = kitchen["properties"];
  CHECK(keys["size"]["description"] == "How large. Required, here or in `defaults`.");
  CHECK(keys["size"]["enum"].back().is_null());
  CHECK(keys["cups"]["items"]["required"] == Schema::parse(R"(["name"])"));
  const Schema& shelf = keys["shelves"]["patternProperties"]["^[a-z]$"];
  CHECK_FALSE(shelf.contains("required"));
  CHECK(shelf["properties"]["name"]["description"] == "Whose. Required, here or in `defaults`.");
  CHECK_FALSE(shelf["properties"]["name"].contains("maxLength"));
  CHECK(keys["boil"]["pattern"] == R"(^(0+|[0-9]+(ms|s|m|h))$|\$\{branch\})");
  CHECK(keys["ranges"]["items"]["pattern"] == R"(^[a-z]+$|\$\{branch\})");
}

TEST_CASE("a recorder stops every reading: no value, no complaint of what is unknown") {
  SchemaRecorder recorder(SchemaRecorder::Reading::kAlone);
  std::vector<ConfigError> errors;
  const ErrorSink sink{"", &errors, &recorder};
  const JsonPath path;
  const Json document = {{"here", "text"}};
  ObjectReader reader(document, path, sink);
  std::string text = "before";
  CHECK_FALSE(reader.read_text("here", text));
  CHECK(text == "before");
  CHECK(reader.has("here"));
}

}  // namespace
}  // namespace pointsman::routing
