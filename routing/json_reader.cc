#include "routing/json_reader.h"

#include <algorithm>

#include "routing/username.h"

namespace pointsman::routing {
namespace {

/// Builds the document from nlohmann's events: its own DOM builder keeps the last of two equal keys without a word.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  Json root;
  std::string error;
  std::string error_path;

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    auto [at, inserted] = open_.back()->get_ref<Json::object_t&>().try_emplace(name, nullptr);
    names_.back() = name;
    slot_ = &at->second;
    if (inserted) return true;
    error_path = here();
    error = "this key stands here twice";
    return false;
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& fault) override {
    error = fault.what();
    // "[json.exception.parse_error.101] parse error at line 3, column 5: …": the part in brackets helps nobody.
    if (const std::size_t end = error.find("] "); end != std::string::npos) error.erase(0, end + 2);
    for (char& c : error) {
      if (c < 0x20 || c > 0x7E) c = '?';
    }
    return false;
  }

 private:
  template <typename T>
  bool put(T&& value) {
    return place(Json(std::forward<T>(value))) != nullptr;
  }
  Json* place(Json value) {
    if (open_.empty()) {
      root = std::move(value);
      return &root;
    }
    if (open_.back()->is_array()) return &open_.back()->get_ref<Json::array_t&>().emplace_back(std::move(value));
    *slot_ = std::move(value);
    return slot_;
  }
  bool open(Json value) {
    if (open_.size() == kMaxJsonDepth) {
      error = "nested deeper than " + std::to_string(kMaxJsonDepth) + " levels";
      return false;
    }
    open_.push_back(place(std::move(value)));
    names_.emplace_back();
    return true;
  }
  bool close() {
    open_.pop_back();
    names_.pop_back();
    return true;
  }
  std::string here() const {
    std::string path;
    for (std::size_t i = 0; i < open_.size(); ++i) {
      path = append_to_path(path, open_[i]->is_array() ? std::to_string(open_[i]->size() - 1) : names_[i]);
    }
    return path;
  }

  std::vector<Json*> open_;         // containers from the root to here; each stays in place while it is open
  std::vector<std::string> names_;  // beside each: its current key
  Json* slot_ = nullptr;            // where the value of that key goes
};

}  // namespace

ParsedJson parse_json(std::string_view text) {
  ParsedJson parsed;
  Builder builder;
  const bool good = Json::sax_parse(text.begin(), text.end(), &builder, nlohmann::detail::input_format_t::json,
                                    /*strict=*/true, /*ignore_comments=*/true);
  if (good) {
    parsed.value = std::move(builder.root);
  } else {
    parsed.error_path = std::move(builder.error_path);
    parsed.error = std::move(builder.error);
  }
  return parsed;
}

std::string append_to_path(std::string_view path, std::string_view key) {
  std::string out(path);
  out += '/';
  for (const char c : escape_for_log(key, 128)) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

std::string JsonPath::to_string() const {
  if (parent_ == nullptr) return std::string(key_);
  return append_to_path(parent_->to_string(), index_ ? std::to_string(*index_) : std::string(key_));
}

std::string describe(const Json& value) {
  if (const auto* text = value.get_ptr<const std::string*>()) return "\"" + escape_for_log(*text, 80) + "\"";
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  return value.dump();  // null, true, 17, -3, 0.5: never throws for these
}

const Json::array_t* as_array(const Json& value, const JsonPath& path, const ErrorSink& sink, std::size_t most) {
  const auto* array = value.get_ptr<const Json::array_t*>();
  if (array == nullptr) {
    sink.add(path, describe(value) + " is no array");
  } else if (array->size() > most) {
    sink.add(path, std::to_string(array->size()) + " entries; at most " + std::to_string(most) + " are allowed");
    return nullptr;
  }
  return array;
}

ObjectReader::ObjectReader(const Json& value, const JsonPath& path, const ErrorSink& sink)
    : value_(value), path_(path), sink_(sink) {
  if (!value.is_object()) sink.add(path, describe(value) + " is no object");
}

const Json* ObjectReader::value_of(std::string_view key) const {
  const auto* object = value_.get_ptr<const Json::object_t*>();
  if (object == nullptr) return nullptr;
  const auto found = object->find(key);
  return found == object->end() || found->second.is_null() ? nullptr : &found->second;
}

const Json* ObjectReader::find(const Key& key, const Shape& shape) {
  known_.push_back(key.name);
  return is_recording() ? sink_.recorder->record(path_, key, shape) : value_of(key.name);
}

const Json::array_t* ObjectReader::read_array(const Key& key, std::size_t least, std::size_t most) {
  const Json* value = find(key, {.kind = Shape::Kind::kObjects, .least = least, .most = most});
  return value == nullptr ? nullptr : as_array(*value, path_of(key.name), sink_, most);
}

void ObjectReader::require(std::string_view key, std::string_view what) const {
  if (is_recording()) return sink_.recorder->record_required(path_, key);
  if (!has(key) && value_.is_object()) error(key, "is missing; " + std::string(what) + " is needed");
}

void ObjectReader::refuse(const Key& key) {
  if (find(key, {.kind = Shape::Kind::kNothing}) != nullptr) error(key.name, "not in this version");
}

bool ObjectReader::read_text(const Key& key, std::string& out, const TextForm& form) {
  const Json* value = find(key, {.kind = Shape::Kind::kText, .text = form});
  if (is_recording()) sink_.recorder->record_default(path_, key.name, out);
  if (value == nullptr) return false;
  const auto* text = value->get_ptr<const std::string*>();
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (text == nullptr || text->empty() || text->size() > form.most ||
      std::any_of(text->begin(), text->end(), control)) {
    error(key.name, describe(*value) + " is not allowed; a text of 1 to " + std::to_string(form.most) +
                        " bytes without control characters is");
    return false;
  }
  out = *text;
  return true;
}

bool ObjectReader::read_text(const Key& key, std::string& out, const TextRule& rule) {
  if (!read_text(key, out, rule.form)) return false;
  if (rule.holds(out)) return true;
  error(key.name,
        (rule.quotes_value ? "\"" + escape_for_log(out) + "\" " : std::string()) + std::string(rule.complaint));
  return false;
}

bool ObjectReader::read_bool(const Key& key, bool& out) {
  const Json* value = find(key, {.kind = Shape::Kind::kTruth});
  if (is_recording()) sink_.recorder->record_default(path_, key.name, out);
  if (value == nullptr) return false;
  if (!value->is_boolean()) {
    error(key.name, describe(*value) + " is not allowed; true or false is");
    return false;
  }
  out = value->get<bool>();
  return true;
}

bool ObjectReader::read_duration(const Key& key, base::Duration& out, base::Duration least, base::Duration most) {
  const auto milliseconds = [](base::Duration duration) {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
  };
  const Json* value =
      find(key, {.kind = Shape::Kind::kDuration, .least = milliseconds(least), .most = milliseconds(most)});
  if (is_recording()) sink_.recorder->record_default(path_, key.name, format_duration(out));
  if (value == nullptr) return false;
  const auto* text = value->get_ptr<const std::string*>();
  const auto duration = text == nullptr ? std::nullopt : parse_duration(*text);
  if (!duration || *duration < least || *duration > most) {
    error(key.name, describe(*value) + " is not allowed; a duration such as \"500ms\", \"10s\", \"1m\" from " +
                        format_duration(least) + " to " + format_duration(most) + " is");
    return false;
  }
  out = *duration;
  return true;
}

bool ObjectReader::read_unsigned(const Key& key, std::uint64_t& out, std::uint64_t least, std::uint64_t most) {
  const Json* value = find(key, {.kind = Shape::Kind::kNumber, .least = least, .most = most});
  if (is_recording()) sink_.recorder->record_default(path_, key.name, out);
  if (value == nullptr) return false;
  if (!value->is_number_unsigned() || value->get<std::uint64_t>() < least || value->get<std::uint64_t>() > most) {
    error(key.name, describe(*value) + " is not allowed; a whole number from " + std::to_string(least) + " to " +
                        std::to_string(most) + " is");
    return false;
  }
  out = value->get<std::uint64_t>();
  return true;
}

void ObjectReader::bad_choice(std::string_view key, const Json& value, const std::string& allowed) const {
  error(key, describe(value) + " is not allowed; one of " + allowed + " is");
}

void ObjectReader::finish() {
  const auto* object = value_.get_ptr<const Json::object_t*>();
  if (object == nullptr) return;
  for (const auto& [key, value] : *object) {
    if (key.starts_with("x-") || std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    std::string allowed;
    for (const std::string_view name : known_) allowed += (allowed.empty() ? "" : ", ") + std::string(name);
    error(key, "unknown key; allowed are " + allowed);
  }
}

}  // namespace pointsman::routing
