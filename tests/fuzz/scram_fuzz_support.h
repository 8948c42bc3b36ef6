#pragma once
// A role, and how an input changes messages, for the SCRAM fuzz targets.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "protocol/scram.h"

namespace pointsman::fuzz {

inline constexpr char kEndpointHash[] = "0123456789abcdef0123456789abcdef";
inline constexpr char kServerNonce[] = "server-nonce-of-24-bytes";
inline constexpr char kClientNonce[] = "client-nonce-of-24-bytes";

inline const protocol::DerivedScram& role() {
  static const auto derived = protocol::derive_scram("pencil", "sixteen bytes...", 1);
  return derived;
}
inline protocol::ScramLoginKeys role_keys() {
  return {role().client_key, role().verifier.stored_key, role().verifier.server_key};
}

/// Reads the input from its front.
class Choices {
 public:
  Choices(const std::uint8_t* data, std::size_t size) : rest_(base::as_text({data, size})) {}

  std::uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto value = static_cast<std::uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return value;
  }
  std::string_view text(std::size_t size) {
    const auto part = rest_.substr(0, size);
    rest_.remove_prefix(part.size());
    return part;
  }
  std::string_view rest() const { return rest_; }
  bool empty() const { return rest_.empty(); }

  /// `message` with some bytes replaced by others, of the input; unchanged when the input has ended.
  std::string change(std::string_view message) {
    std::string changed(message);
    const std::size_t at = std::min<std::size_t>(byte(), changed.size());
    const std::size_t taken = std::min<std::size_t>(byte() % 16, changed.size() - at);
    changed.replace(at, taken, text(byte() % 32));
    return changed;
  }

 private:
  std::string_view rest_;
};

}  // namespace pointsman::fuzz
