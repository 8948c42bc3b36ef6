#pragma once
// Result<T>: a value or an error text, for control paths (configuration, files, look-ups). Hot paths return enums.

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace pointsman::base {

/// What failed, in words for the operator's log. Never shown to a client: refusals have their own type
/// (routing/refusal.h).
struct Error {
  std::string text;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return state_.index() == 0; }
  /// Requires: ok().
  T& value() {
    POINTSMAN_CHECK(ok());
    return *std::get_if<0>(&state_);
  }
  const T& value() const {
    POINTSMAN_CHECK(ok());
    return *std::get_if<0>(&state_);
  }
  /// Requires: !ok().
  const std::string& error() const {
    POINTSMAN_CHECK(!ok());
    return std::get_if<1>(&state_)->text;
  }

 private:
  std::variant<T, Error> state_;
};

}  // namespace pointsman::base
