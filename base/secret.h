#pragma once
// Bytes that are wiped when they go: keys, passwords. No stream operator, no copy by accident into a log.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>

namespace pointsman::base {

/// Overwrites memory in a way the compiler may not drop (glibc's explicit_bzero).
inline void wipe(void* data, std::size_t size) {
  explicit_bzero(data, size);
}

/// A fixed-size secret, wiped on destruction and on being moved from.
template <std::size_t N>
class SecretArray {
 public:
  SecretArray() { bytes_.fill(0); }
  SecretArray(const SecretArray&) = default;
  SecretArray& operator=(const SecretArray&) = default;
  SecretArray(SecretArray&& other) noexcept : bytes_(other.bytes_) { wipe(other.bytes_.data(), N); }
  SecretArray& operator=(SecretArray&& other) noexcept {
    if (this != &other) {
      bytes_ = other.bytes_;
      wipe(other.bytes_.data(), N);
    }
    return *this;
  }
  ~SecretArray() { wipe(bytes_.data(), N); }

  std::uint8_t* data() { return bytes_.data(); }
  const std::uint8_t* data() const { return bytes_.data(); }
  static constexpr std::size_t size() { return N; }
  std::span<const std::uint8_t> span() const { return bytes_; }
  std::span<std::uint8_t> span() { return bytes_; }

 private:
  std::array<std::uint8_t, N> bytes_;
};

/// A text secret (password of the probe role, token), wiped on destruction.
class SecretString {
 public:
  SecretString() = default;
  explicit SecretString(std::string text) : text_(std::move(text)) {}
  SecretString(const SecretString&) = default;
  SecretString& operator=(const SecretString&) = default;
  SecretString(SecretString&& other) noexcept { *this = std::move(other); }
  SecretString& operator=(SecretString&& other) noexcept {
    if (this != &other) {
      clear();
      text_ = other.text_;
      other.clear();
    }
    return *this;
  }
  ~SecretString() { clear(); }

  const std::string& reveal() const { return text_; }
  bool empty() const { return text_.empty(); }
  void clear() {
    wipe(text_.data(), text_.size());
    text_.clear();
  }
  friend bool operator==(const SecretString& a, const SecretString& b) { return a.text_ == b.text_; }

 private:
  std::string text_;
};

}  // namespace pointsman::base
