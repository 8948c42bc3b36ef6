#pragma once
// JSON as the configuration wants it, over nlohmann/json: `//` comments, duplicate keys refused, every error with its
// JSON path, unknown keys found. Internal to routing's configuration reader; control thread only. Nothing here throws.

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "routing/config.h"
#include "routing/json_shape.h"
#include "routing/schema_recorder.h"

namespace pointsman::routing {

using Json = nlohmann::json;

/// Nesting beyond this is refused, so that walking a document needs no deep stack.
inline constexpr std::size_t kMaxJsonDepth = 32;

/// Parses a whole document. On failure the error's path is set for a duplicate key and empty for a fault of syntax.
struct ParsedJson {
  std::optional<Json> value;
  std::string error_path;
  std::string error;
};
ParsedJson parse_json(std::string_view text);

/// Where in a document something stands. Links to its parent, so that the text is made only for an error. The parent
/// and the key must outlive it.
class JsonPath {
 public:
  /// The document's root, or with `prefix` the place it was taken from ("/branches/orders").
  explicit JsonPath(std::string_view prefix = {}) : key_(prefix) {}
  JsonPath(const JsonPath& parent, std::string_view key) : parent_(&parent), key_(key) {}
  JsonPath(const JsonPath& parent, std::size_t index) : parent_(&parent), index_(index) {}
  /// RFC 6901, foreign text escaped for logs.
  std::string to_string() const;

 private:
  const JsonPath* parent_ = nullptr;
  std::string_view key_;
  std::optional<std::size_t> index_;
};
/// One more step of a path, as text.
std::string append_to_path(std::string_view path, std::string_view key);

/// Collects the errors of one file.
struct ErrorSink {
  std::string file;
  std::vector<ConfigError>* errors = nullptr;
  SchemaRecorder* recorder = nullptr;  ///< not null: nothing is read, what is asked for is written down
  void add(const JsonPath& path, std::string what) const {
    errors->push_back({file, path.to_string(), std::move(what)});
  }
};

template <typename T>
using Choices = std::span<const std::pair<std::string_view, T>>;

/// Reads the keys of one object. A key that is absent or null leaves the target as it is; a bad value is reported and
/// leaves it too. Every key asked for counts as known; finish() reports the others, but for `x-…`.
///
/// The same calls make the schema (schema_recorder.h): what a key may be is said where it is read, and nowhere else.
/// So every key is asked for on the way that a document with nothing in it takes; has() may choose between ways, for
/// it speaks of the document alone.
class ObjectReader {
 public:
  /// Reports when `value` is not an object; it then reads like an empty one.
  ObjectReader(const Json& value, const JsonPath& path, const ErrorSink& sink);

  const JsonPath& path() const { return path_; }
  const ErrorSink& sink() const { return sink_; }
  JsonPath path_of(std::string_view key) const { return {path_, key}; }

  /// The value of a key, null when absent or null. What it is worth is the caller's to judge.
  const Json* find(const Key& key, const Shape& shape);
  const Json* find_object(const Key& key, std::string_view definition = {}) {
    return find(key, Shape::object(definition));
  }
  /// Says that the value of `key`, which was found, may also have this shape.
  void allow_also(std::string_view key, const Shape& shape) const {
    if (is_recording()) sink_.recorder->record_alternative(path_, key, shape);
  }
  /// An array of `least` to `most` objects; null, and a report where there is something else. Fewer than `least` are
  /// the caller's to report.
  const Json::array_t* read_array(const Key& key, std::size_t least, std::size_t most);
  /// Whether there is a value, without asking for it.
  bool has(std::string_view key) const { return value_of(key) != nullptr; }
  /// Reports the absence of a key with what is expected; the key is read by another call.
  void require(std::string_view key, std::string_view what) const;
  /// Reports `key` when it is there: the contract names it, this version does not do it.
  void refuse(const Key& key);
  void error(std::string_view key, std::string what) const { sink_.add(path_of(key), std::move(what)); }

  /// Not empty, no longer than the form says, no control characters. The form's pattern is for the schema: the caller
  /// judges. Returns whether a good value was there.
  bool read_text(const Key& key, std::string& out, const TextForm& form = {});
  /// As above, and by the rule; `out` has the value then, too.
  bool read_text(const Key& key, std::string& out, const TextRule& rule);
  bool read_bool(const Key& key, bool& out);
  bool read_duration(const Key& key, base::Duration& out, base::Duration least, base::Duration most);
  template <typename T>
  bool read_number(const Key& key, T& out, std::uint64_t least, std::uint64_t most) {
    static_assert(std::numeric_limits<T>::is_integer && !std::numeric_limits<T>::is_signed);
    std::uint64_t value = out;
    if (!read_unsigned(key, value, least, std::min<std::uint64_t>(most, std::numeric_limits<T>::max()))) return false;
    out = static_cast<T>(value);
    return true;
  }
  template <typename T>
  bool read_choice(const Key& key, T& out, Choices<T> choices) {
    known_.push_back(key.name);
    if (is_recording()) return record_choice(key, out, choices);
    const Json* value = value_of(key.name);
    if (value == nullptr) return false;
    const std::string* text = value->get_ptr<const std::string*>();
    std::string allowed;
    for (const auto& [word, meaning] : choices) {
      if (text != nullptr && *text == word) {
        out = meaning;
        return true;
      }
      allowed += (allowed.empty() ? "\"" : ", \"") + std::string(word) + "\"";
    }
    bad_choice(key.name, *value, allowed);
    return false;
  }

  void finish();

 private:
  bool is_recording() const { return sink_.recorder != nullptr; }
  template <typename T>
  bool record_choice(const Key& key, const T& out, Choices<T> choices) {
    std::vector<std::string_view> words;
    for (const auto& [word, meaning] : choices) words.push_back(word);
    sink_.recorder->record_words(path_, key, words);
    for (const auto& [word, meaning] : choices) {
      if (meaning != out) continue;
      sink_.recorder->record_default(path_, key.name, word);
      break;
    }
    return false;
  }
  const Json* value_of(std::string_view key) const;
  bool read_unsigned(const Key& key, std::uint64_t& out, std::uint64_t least, std::uint64_t most);
  void bad_choice(std::string_view key, const Json& value, const std::string& allowed) const;

  const Json& value_;
  const JsonPath& path_;
  const ErrorSink& sink_;
  std::vector<std::string_view> known_;
};

/// The elements of an array of at most `most`; null and a report when `value` is none.
const Json::array_t* as_array(const Json& value, const JsonPath& path, const ErrorSink& sink, std::size_t most);

/// What a bad value is, in words for an error: `"text"`, 17, an object, …
std::string describe(const Json& value);

}  // namespace pointsman::routing
