#pragma once
// What the configuration's readers say of a key beside its name: what it is for and what may stand there. The readers
// judge by it, and the schema (routing/schema_recorder.h) is made from it. Control thread only.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pointsman::routing {

/// A key of an object and its help: one or two sentences for whoever writes a configuration. Both must be literals.
/// A key without help fails the test of the schema; where a key is asked for twice, one of the two says it.
struct Key {
  std::string_view name;
  std::string_view help;
  Key(const char* key) : name(key) {}       // NOLINT(google-explicit-constructor): a bare name is a key, too
  Key(std::string_view key) : name(key) {}  // NOLINT(google-explicit-constructor)
  Key(const char* key, const char* what) : name(key), help(what) {}
};

/// A kind of text, in words and as a pattern.
struct TextForm {
  std::string_view title = "text";
  /// ECMA-262, anchored; empty: anything. May let pass more than the reader does, never less: an editor that complains
  /// of what works is worse than one that keeps silent.
  std::string_view pattern = {};
  std::size_t most = 1024;  ///< bytes
};

/// A kind of text that one function judges.
struct TextRule {
  TextForm form;
  bool (*holds)(const std::string& text);
  std::string_view complaint;
  bool quotes_value = false;  ///< the complaint begins with the value
};

/// What may stand at a key.
struct Shape {
  enum class Kind : std::uint8_t {
    kNothing,   // null alone
    kText,      // `text`
    kTruth,     // true or false
    kNumber,    // whole, from `least` to `most`
    kDuration,  // text, `least` to `most` milliseconds
    kObject,    // with keys of its own
    kObjects,   // an array of `least` to `most` such objects
    kTexts,     // an array of `least` to `most` texts
    kMap,       // names (`text`) to objects, `least` to `most`
    kTextMap,   // names (`text`) to texts of at most 256 bytes, possibly empty
  };
  Kind kind = Kind::kNothing;
  std::uint64_t least = 0;
  std::uint64_t most = 0;
  TextForm text = {};
  /// Of an object or a map's objects: the name under which the schema keeps it once. Only for what is the same
  /// wherever it stands, its defaults too.
  std::string_view definition = {};
  bool x_is_yours = false;  ///< a map's names that begin with `x-` are passed over
  bool null_takes = false;  ///< null at a map's name takes away what `defaults` has there

  static Shape object(std::string_view definition = {}) { return {.kind = Kind::kObject, .definition = definition}; }
  static Shape texts(const TextForm& form, std::uint64_t least, std::uint64_t most) {
    return {.kind = Kind::kTexts, .least = least, .most = most, .text = form};
  }
};

}  // namespace pointsman::routing
