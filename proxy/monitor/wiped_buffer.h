#pragma once
// A byte queue that leaves nothing behind: what is taken out of it, what it grows out of and what it still holds at its
// end is overwritten. For buffers that verifiers and proofs pass through. One thread.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/secret.h"

namespace pointsman::proxy {

class WipedBuffer {
 public:
  WipedBuffer() = default;
  WipedBuffer(WipedBuffer&& other) noexcept { *this = std::move(other); }
  WipedBuffer& operator=(WipedBuffer&& other) noexcept {
    if (this != &other) {
      clear();
      memory_ = std::move(other.memory_);
      capacity_ = std::exchange(other.capacity_, 0);
      begin_ = std::exchange(other.begin_, 0);
      end_ = std::exchange(other.end_, 0);
    }
    return *this;
  }
  ~WipedBuffer() { clear(); }

  void append(std::string_view bytes) {
    if (capacity_ - end_ < bytes.size()) make_room(bytes.size());
    if (!bytes.empty()) std::memcpy(memory_.get() + end_, bytes.data(), bytes.size());
    end_ += bytes.size();
  }
  /// Takes bytes from the front. An empty buffer owns no memory.
  void consume(std::size_t count) {
    POINTSMAN_CHECK(count <= size());
    if (count == size()) return clear();
    base::wipe(memory_.get() + begin_, count);
    begin_ += count;
  }
  void clear() {
    if (memory_ != nullptr) base::wipe(memory_.get() + begin_, size());
    memory_.reset();
    capacity_ = begin_ = end_ = 0;
  }

  std::string_view view() const { return {memory_.get() + begin_, size()}; }
  base::Bytes bytes() const { return base::as_bytes(view()); }
  std::size_t size() const { return end_ - begin_; }
  bool empty() const { return begin_ == end_; }

 private:
  static constexpr std::size_t kSmallest = 256;

  void make_room(std::size_t more) {
    const std::size_t held = size();
    const std::size_t capacity = std::max({kSmallest, held + more, 2 * held});
    std::unique_ptr<char[]> memory(new char[capacity]);
    if (held > 0) {
      std::memcpy(memory.get(), memory_.get() + begin_, held);
      base::wipe(memory_.get() + begin_, held);
    }
    memory_ = std::move(memory);
    capacity_ = capacity;
    begin_ = 0;
    end_ = held;
  }

  std::unique_ptr<char[]> memory_;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace pointsman::proxy
