#pragma once
// Observes message boundaries in a byte stream that is relayed untouched. It never delays, changes or copies a byte.
// One scanner per direction; single-threaded; 24 bytes of state. Source: protocol-overview, "Messaging Overview".
//
//   stream:   T len(4) body…  T len(4) body…  T len(
//             ^ boundary      ^ boundary      └ carried over in header_ until the next call

#include <cstdint>

#include "base/bytes.h"

namespace pointsman::protocol {

/// What a scanner saw since it was made. Counters wrap; compare by difference.
class MessageScanner {
 public:
  enum class Direction : std::uint8_t { kFromClient, kFromBackend };
  explicit MessageScanner(Direction direction) : direction_(direction) {}

  /// Looks at the next bytes of the stream. Returns false, for good, when a message announces a length below 4: the
  /// stream has no boundaries any more (the relay goes on, the backend judges; but nothing of ours may be put into it).
  bool observe(base::Bytes bytes) {
    if (bytes.size() < remaining_) {  // in the middle of a message; also every read of a broken stream
      remaining_ -= bytes.size();
      return !broken_;
    }
    if (header_size_ != 0) [[unlikely]]
      return resume(bytes);
    const auto next = static_cast<std::int64_t>(remaining_);
    return direction_ == Direction::kFromBackend ? scan_from_backend(bytes, next) : scan_from_client(bytes, next);
  }

  /// True when every byte seen so far belongs to a complete message: the only place where a message of ours may be put.
  bool at_boundary() const { return remaining_ == 0 && header_size_ == 0; }
  bool broken() const { return broken_; }
  /// Tag of the message seen last (complete, or begun with its whole header), 0 before the first.
  char last_tag() const { return static_cast<char>(last_tag_); }
  /// From the backend: status of the last ReadyForQuery ('I' idle, 'T' in a transaction, 'E' failed), 0 before the
  /// first.
  char transaction_status() const { return transaction_status_; }
  /// From the backend: ReadyForQuery messages seen; one that is not 6 bytes long is none, for backends may be hostile.
  /// From the client: messages seen that a backend answers with one (Query, Sync, FunctionCall). Equal counts in both
  /// directions: no request is under way.
  ///
  /// A backend in COPY FROM STDIN ignores Sync (protocol-flow, "COPY Operations"), and libpq sends one in front of the
  /// data when the COPY came by the extended protocol: a Sync directly followed by CopyData, CopyDone or CopyFail is
  /// therefore taken back.
  std::uint32_t ready_count() const { return ready_count_; }

 private:
  static constexpr std::uint8_t kHeaderSize = 5;
  /// No stream gets this far, so a broken one is "in the middle of a message" for good and costs what a long message
  /// costs.
  static constexpr std::uint64_t kForEver = ~std::uint64_t{0};

  bool scan_from_client(base::Bytes bytes, std::int64_t at);
  bool scan_from_backend(base::Bytes bytes, std::int64_t at);
  bool resume(base::Bytes bytes);
  bool carry_over(const base::Byte* next, std::size_t left);
  bool await_status();
  bool give_up(std::uint8_t tag);

  std::uint64_t remaining_ = 0;  // bytes of the present message's body still to come
  std::uint32_t ready_count_ = 0;
  std::uint8_t header_[kHeaderSize] = {};
  // 1 to 4: so many bytes are carried over in header_, and remaining_ is 0. kHeaderSize: the header of a ReadyForQuery
  // is whole, its status byte comes next, and remaining_ is 1.
  std::uint8_t header_size_ = 0;
  Direction direction_;
  std::uint8_t last_tag_ = 0;
  char transaction_status_ = 0;
  bool broken_ = false;
};
static_assert(sizeof(MessageScanner) == 24);

}  // namespace pointsman::protocol
