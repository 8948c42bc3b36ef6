#pragma once
// A JSON Schema from what the configuration's readers ask for. They run over a document that has nothing, with a
// recorder in their sink: each key they ask for is written down with its shape and the value it has when nobody says
// anything. Each nested object is given to them once, so that they ask on: of an array's entries one, of a map's
// names `*`. Draft-07, which every editor knows whole. Control thread or a command; no I/O.

#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "routing/json_shape.h"

namespace pointsman::routing {

class JsonPath;
/// Keeps the order in which keys were asked for.
using Schema = nlohmann::ordered_json;

class SchemaRecorder {
 public:
  /// How documents of this kind are read. kMerged, a branch: laid over `defaults`, so that what is required may stand
  /// there instead, and `${branch}` may stand in every text.
  enum class Reading { kAlone, kMerged };
  explicit SchemaRecorder(Reading reading) : merged_(reading == Reading::kMerged) {}

  /// A key of the object at `object` was asked for. Returns what the reader goes on with: an empty object, an array
  /// of one, a map of one, and null for everything that has no keys.
  const nlohmann::json* record(const JsonPath& object, const Key& key, const Shape& shape);
  void record_words(const JsonPath& object, const Key& key, std::span<const std::string_view> words);
  void record_required(const JsonPath& object, std::string_view key);
  /// The value of a recorded key that says nothing. One that could not be said is none.
  void record_default(const JsonPath& object, std::string_view key, Schema value);
  /// Another shape (without keys) that may stand at a recorded key.
  void record_alternative(const JsonPath& object, std::string_view key, const Shape& shape);

  /// The schema of the object at the root, without `definitions`, and those.
  Schema finish() const;
  std::map<std::string, Schema> definitions() const;

 private:
  Schema& object_at(const JsonPath& path);
  Schema& property(const JsonPath& object, std::string_view key) {
    return object_at(object)["properties"][std::string(key)];
  }
  Schema& resolve(Schema& node);
  Schema node_of(const Shape& shape);
  Schema text_node(const TextForm& form) const;
  Schema object_or_reference(const Shape& shape);
  Schema finish_node(const Schema& node, bool array_entry) const;
  Schema finish_object(const Schema& node, bool array_entry) const;
  std::string or_mark(std::string_view pattern) const;

  const bool merged_;
  Schema root_ = Schema::object();
  std::map<std::string, Schema> definitions_;
};

}  // namespace pointsman::routing
