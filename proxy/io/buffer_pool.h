#pragma once
// Blocks for bytes that a socket did not take at once. A worker's own: leased while a peer is slow, given back when it
// caught up, so an idle connection owns none. One thread.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "protocol/tls_engine.h"

namespace pointsman::proxy {

/// What one read brings at most.
inline constexpr std::size_t kReadSize = 64 * 1024;
/// Decrypted bytes of one read, with a record that was carried over.
inline constexpr std::size_t kPlainSize = kReadSize + protocol::kTlsRecordPlain + protocol::kTlsRecordOverhead;
/// One write of all that, encrypted.
inline constexpr std::size_t kWireSize = protocol::tls_output_room(kPlainSize);

class BufferPool {
 public:
  struct Block {
    std::size_t begin = 0;
    std::size_t end = 0;
    base::Byte data[kWireSize];
  };
  struct Return {
    BufferPool* pool = nullptr;
    void operator()(Block* block) const { pool->give_back(block); }
  };
  using Lease = std::unique_ptr<Block, Return>;

  BufferPool() = default;
  ~BufferPool() {
    for (Block* block : free_) delete block;
  }
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  Lease lease() {
    ++leased_;
    if (free_.empty()) return Lease(new Block, Return{this});  // uninitialised on purpose
    Block* block = free_.back();
    free_.pop_back();
    block->begin = block->end = 0;
    return Lease(block, Return{this});
  }
  std::size_t leased() const { return leased_; }

 private:
  // Enough for a burst of slow peers; what is beyond goes back to the allocator.
  static constexpr std::size_t kKeep = 16;
  void give_back(Block* block) {
    --leased_;
    if (free_.size() < kKeep) {
      free_.push_back(block);
    } else {
      delete block;
    }
  }
  std::vector<Block*> free_;
  std::size_t leased_ = 0;
};

}  // namespace pointsman::proxy
