#pragma once
// Views of raw bytes and bounded big-endian access. Any thread; nothing here owns memory.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace pointsman::base {

using Byte = std::uint8_t;
using Bytes = std::span<const Byte>;
using MutableBytes = std::span<Byte>;

inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const Byte*>(text.data()), text.size()};
}
inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::uint16_t load_be16(const Byte* p) {
  return static_cast<std::uint16_t>((p[0] << 8) | p[1]);
}
inline std::uint32_t load_be32(const Byte* p) {
  std::uint32_t value = 0;
  std::memcpy(&value, p, sizeof value);
  return __builtin_bswap32(value);
}
inline void store_be32(Byte* p, std::uint32_t value) {
  value = __builtin_bswap32(value);
  std::memcpy(p, &value, sizeof value);
}

/// Reads forward over a Bytes view and cannot overrun it: a read that does not fit leaves the cursor where it is
/// and makes ok() false for good. Check ok() once, at the end of a group of reads.
class Cursor {
 public:
  explicit Cursor(Bytes bytes) : rest_(bytes) {}

  std::uint8_t u8() {
    if (!take(1)) return 0;
    return taken_[0];
  }
  std::uint16_t u16() {
    if (!take(2)) return 0;
    return load_be16(taken_.data());
  }
  std::uint32_t u32() {
    if (!take(4)) return 0;
    return load_be32(taken_.data());
  }
  Bytes bytes(std::size_t count) {
    if (!take(count)) return {};
    return taken_;
  }
  /// A string up to its zero byte, which is consumed and not returned. Fails when there is none.
  std::string_view c_string() {
    const void* end = rest_.empty() ? nullptr : std::memchr(rest_.data(), 0, rest_.size());
    if (end == nullptr) {
      ok_ = false;
      return {};
    }
    const auto length = static_cast<std::size_t>(static_cast<const Byte*>(end) - rest_.data());
    const auto text = as_text(rest_.first(length));
    rest_ = rest_.subspan(length + 1);
    return text;
  }
  Bytes rest() const { return rest_; }
  std::size_t remaining() const { return rest_.size(); }
  bool ok() const { return ok_; }

 private:
  bool take(std::size_t count) {
    if (!ok_ || rest_.size() < count) {
      ok_ = false;
      return false;
    }
    taken_ = rest_.first(count);
    rest_ = rest_.subspan(count);
    return true;
  }

  Bytes rest_;
  Bytes taken_;
  bool ok_ = true;
};

inline void append_u8(std::string& out, std::uint8_t value) {
  out.push_back(static_cast<char>(value));
}
inline void append_be16(std::string& out, std::uint16_t value) {
  out.push_back(static_cast<char>(value >> 8));
  out.push_back(static_cast<char>(value & 0xff));
}
inline void append_be32(std::string& out, std::uint32_t value) {
  Byte raw[4];
  store_be32(raw, value);
  out.append(reinterpret_cast<const char*>(raw), sizeof raw);
}
inline void append_c_string(std::string& out, std::string_view text) {
  out.append(text);
  out.push_back('\0');
}

}  // namespace pointsman::base
