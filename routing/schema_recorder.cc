#include "routing/schema_recorder.h"

#include <algorithm>

#include "routing/json_reader.h"

namespace pointsman::routing {
namespace {

constexpr std::string_view kAnyName = "*";
constexpr std::string_view kReference = "#/definitions/";
/// While recording: what else may stand there. Becomes anyOf.
constexpr const char* kAlternative = "alternative";
constexpr std::string_view kDurationPattern = "^(0+|[0-9]+(ms|s|m|h))$";  // parse_duration
constexpr std::string_view kBranchMarkPattern = R"(\$\{branch\})";

std::string duration(std::uint64_t milliseconds) {
  return format_duration(std::chrono::milliseconds(milliseconds));
}

std::string at_most(std::uint64_t most) {
  return ", at most " + std::to_string(most);
}

std::string in_words(std::span<const std::string_view> words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i != 0) text += i + 1 == words.size() ? " or " : ", ";
    text += "\"" + std::string(words[i]) + "\"";
  }
  return text;
}

bool names(const Schema& list, std::string_view name) {
  return std::any_of(list.begin(), list.end(), [&](const Schema& entry) { return entry == name; });
}

/// `node`, or null instead.
Schema or_null(Schema node) {
  if (node.contains("$ref")) {
    Schema both;
    for (const char* key : {"title", "description"}) {
      if (node.contains(key)) both[key] = node[key];
    }
    both["anyOf"] = {{{"$ref", node["$ref"]}}, {{"type", "null"}}};
    return both;
  }
  if (node.contains("enum")) {
    node["enum"].push_back(nullptr);
  } else if (node.contains("anyOf")) {
    node["anyOf"].push_back({{"type", "null"}});
  } else if (node["type"] != "null") {
    node["type"] = {node["type"], "null"};
  }
  return node;
}

Schema array_node(const Shape& shape, Schema items) {
  Schema node = {{"type", "array"}};
  if (shape.least > 0) node["minItems"] = shape.least;
  node["maxItems"] = shape.most;
  if (shape.most > 0) node["items"] = std::move(items);
  return node;
}

std::string title_of(const Shape& shape) {
  switch (shape.kind) {
    case Shape::Kind::kNothing:
      return "null";
    case Shape::Kind::kText: {
      const bool bounded = shape.text.title == TextForm{}.title && shape.text.most < TextForm{}.most;
      return std::string(shape.text.title) +
             (bounded ? " of at most " + std::to_string(shape.text.most) + " bytes" : "");
    }
    case Shape::Kind::kTruth:
      return "true or false";
    case Shape::Kind::kNumber:
      return "whole number from " + std::to_string(shape.least) + " to " + std::to_string(shape.most);
    case Shape::Kind::kDuration:
      return "duration from " + duration(shape.least) + " to " + duration(shape.most);
    case Shape::Kind::kObject:
      return "object";
    case Shape::Kind::kObjects:
      return "array of objects" + at_most(shape.most);
    case Shape::Kind::kTexts:
      return shape.most == 0 ? "empty array" : "array: " + std::string(shape.text.title) + at_most(shape.most);
    case Shape::Kind::kMap:
      return "object: name to object" + (shape.most == 0 ? "" : at_most(shape.most));
    case Shape::Kind::kTextMap:
      return "object: name to text" + at_most(shape.most);
  }
  return {};
}

}  // namespace

const nlohmann::json* SchemaRecorder::record(const JsonPath& object, const Key& key, const Shape& shape) {
  static const Json nothing = Json::object();
  static const Json one = Json::array({nothing});
  static const Json any_name = {{std::string(kAnyName), nothing}};
  if (Schema node = property(object, key.name); !node.contains("title")) {
    node = node_of(shape);
    node["title"] = title_of(shape);
    property(object, key.name) = std::move(node);
  }
  if (!key.help.empty()) property(object, key.name)["description"] = key.help;
  switch (shape.kind) {
    case Shape::Kind::kObject:
      return &nothing;
    case Shape::Kind::kObjects:
      return &one;
    case Shape::Kind::kMap:
      return &any_name;
    default:
      return nullptr;
  }
}

void SchemaRecorder::record_words(const JsonPath& object, const Key& key, std::span<const std::string_view> words) {
  Schema node = {{"enum", Schema::array()}, {"title", in_words(words)}};
  for (const std::string_view word : words) node["enum"].push_back(word);
  if (!key.help.empty()) node["description"] = key.help;
  property(object, key.name) = std::move(node);
}

void SchemaRecorder::record_required(const JsonPath& object, std::string_view key) {
  Schema& required = object_at(object)["required"];
  if (!names(required, key)) required.push_back(key);
}

void SchemaRecorder::record_default(const JsonPath& object, std::string_view key, Schema value) {
  Schema& node = property(object, key);
  const bool is_number = value.is_number();
  if (is_number && (value < node["minimum"] || value > node["maximum"]))
    return;  // 0 for "none" or "as the machine has"
  if (value.is_string() && value.get_ref<const std::string&>().empty()) return;
  node["default"] = std::move(value);
}

void SchemaRecorder::record_alternative(const JsonPath& object, std::string_view key, const Shape& shape) {
  Schema alternative = node_of(shape);
  Schema& node = property(object, key);
  node["title"] = node["title"].get<std::string>() + "; or " + title_of(shape);
  node[kAlternative] = std::move(alternative);
}

Schema& SchemaRecorder::object_at(const JsonPath& path) {
  const std::string text = path.to_string();
  Schema* here = &root_;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('/', at + 1), text.size());
    const std::string step = text.substr(at + 1, end - at - 1);
    here = &resolve(here->contains("items") ? (*here)["items"]
                    : step == kAnyName      ? (*here)["patternProperties"].begin().value()
                                            : (*here)["properties"][step]);
    at = end;
  }
  return *here;
}

Schema& SchemaRecorder::resolve(Schema& node) {
  if (!node.contains("$ref")) return node;
  return definitions_[node["$ref"].get<std::string>().substr(kReference.size())];
}

/// In what is merged `${branch}` may make any text a lawful one, and a shorter one.
std::string SchemaRecorder::or_mark(std::string_view pattern) const {
  return std::string(pattern) + (merged_ ? "|" + std::string(kBranchMarkPattern) : "");
}

Schema SchemaRecorder::text_node(const TextForm& form) const {
  Schema node = {{"type", "string"}, {"minLength", 1}};
  // Of characters, which are not more than bytes. Most patterns are bound anyway.
  const bool tells = form.pattern.empty() || form.most < TextForm{}.most;
  if (!merged_ && tells) node["maxLength"] = form.most;
  if (!form.pattern.empty()) node["pattern"] = or_mark(form.pattern);
  return node;
}

Schema SchemaRecorder::object_or_reference(const Shape& shape) {
  if (shape.definition.empty()) return {{"type", "object"}};
  definitions_.try_emplace(std::string(shape.definition), Schema{{"type", "object"}});
  return {{"$ref", std::string(kReference) + std::string(shape.definition)}};
}

Schema SchemaRecorder::node_of(const Shape& shape) {
  switch (shape.kind) {
    case Shape::Kind::kNothing:
      return {{"type", "null"}};
    case Shape::Kind::kText:
      return text_node(shape.text);
    case Shape::Kind::kTruth:
      return {{"type", "boolean"}};
    case Shape::Kind::kNumber:
      return {{"type", "integer"}, {"minimum", shape.least}, {"maximum", shape.most}};
    case Shape::Kind::kDuration:
      return {{"type", "string"}, {"pattern", or_mark(kDurationPattern)}};
    case Shape::Kind::kObject:
      return object_or_reference(shape);
    case Shape::Kind::kObjects:
      return array_node(shape, object_or_reference(shape));
    case Shape::Kind::kTexts:
      return array_node(shape, text_node(shape.text));
    case Shape::Kind::kMap:
    case Shape::Kind::kTextMap: {
      Schema node = {{"type", "object"}};
      if (shape.least > 0) node["minProperties"] = shape.least;
      if (shape.most > 0) node["maxProperties"] = shape.most;
      Schema value = Schema{{"type", "string"}, {"maxLength", 256}};
      if (shape.kind == Shape::Kind::kMap) value = object_or_reference(shape);
      node["patternProperties"][std::string(shape.text.pattern)] = std::move(value);
      if (shape.x_is_yours) node["patternProperties"]["^x-"] = true;
      node["additionalProperties"] = false;
      if (shape.null_takes) node["additionalProperties"] = {{"type", "null"}};
      return node;
    }
  }
  return {};
}

Schema SchemaRecorder::finish() const {
  return finish_object(root_, false);
}

std::map<std::string, Schema> SchemaRecorder::definitions() const {
  std::map<std::string, Schema> finished;
  for (const auto& [name, node] : definitions_) {
    // One that is only named is recorded by another recorder.
    if (node.contains("properties")) finished.emplace(name, finish_object(node, false));
  }
  return finished;
}

Schema SchemaRecorder::finish_node(const Schema& node, bool array_entry) const {
  Schema out;
  for (const char* key : {"title", "description"}) {
    if (node.contains(key)) out[key] = node[key];
  }
  if (node.contains(kAlternative)) {
    Schema first = node;
    for (const char* key : {"title", "description", kAlternative}) first.erase(key);
    out["anyOf"] = {finish_node(first, array_entry), node[kAlternative]};
    return out;
  }
  Schema body = node;
  if (node.contains("properties")) {
    body = finish_object(node, array_entry);
  } else if (node.contains("items")) {
    body["items"] = finish_node(node["items"], true);
  } else if (node.contains("patternProperties")) {
    const bool null_takes = node["additionalProperties"].is_object();
    for (auto& [pattern, value] : body["patternProperties"].items()) {
      if (value.is_object())
        value = null_takes ? or_null(finish_node(value, array_entry)) : finish_node(value, array_entry);
    }
  }
  for (const auto& [key, value] : body.items()) out[key] = value;
  return out;
}

Schema SchemaRecorder::finish_object(const Schema& node, bool array_entry) const {
  // An array of a branch replaces that of the defaults whole; everything else that is required may stand there.
  const bool binding = !merged_ || array_entry;
  const Schema required = node.value("required", Schema::array());
  Schema out = {{"type", "object"}};
  if (binding && !required.empty()) out["required"] = required;
  for (const auto& [key, value] : node["properties"].items()) {
    Schema finished = finish_node(value, array_entry);
    const bool needed = names(required, key);
    if (needed && !binding) {
      finished["description"] = finished.value("description", "") + " Required, here or in `defaults`.";
    }
    out["properties"][key] = needed && binding ? std::move(finished) : or_null(std::move(finished));
  }
  out["patternProperties"]["^x-"] = true;
  out["additionalProperties"] = false;
  return out;
}

}  // namespace pointsman::routing
