// The boundary scanner. The first byte chooses the direction and the size of the pieces, the rest is the stream. The
// state after it must be that of a walk with next_message(), however the stream was cut.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "base/check.h"
#include "protocol/framing.h"
#include "protocol/messages.h"

namespace {

using namespace pointsman;
using protocol::MessageScanner;

struct State {
  bool broken = false;
  bool at_boundary = true;
  char last_tag = 0;
  char transaction_status = 0;
  std::uint32_t ready_count = 0;
  bool operator==(const State&) const = default;
};

State observe_in_pieces(MessageScanner::Direction direction, base::Bytes stream, std::size_t piece) {
  MessageScanner scanner(direction);
  while (!stream.empty()) {
    const std::size_t size = std::min(piece, stream.size());
    POINTSMAN_CHECK(scanner.observe(stream.first(size)) == !scanner.broken());
    stream = stream.subspan(size);
  }
  return {scanner.broken(), scanner.at_boundary(), scanner.last_tag(), scanner.transaction_status(),
          scanner.ready_count()};
}

void count(State& state, MessageScanner::Direction direction, char tag, std::uint32_t length) {
  const bool copy_data = tag == 'd' || tag == 'c' || tag == 'f';
  if (direction == MessageScanner::Direction::kFromBackend) {
    if (tag == 'Z' && length == 5) ++state.ready_count;
  } else if (tag == 'Q' || tag == 'S' || tag == 'F') {
    ++state.ready_count;
  } else if (copy_data && state.last_tag == 'S') {
    --state.ready_count;
  }
  state.last_tag = tag;
}

State walk(MessageScanner::Direction direction, base::Bytes stream) {
  State state;
  while (!stream.empty()) {
    const protocol::Frame frame = protocol::next_message(stream, std::numeric_limits<std::uint32_t>::max());
    if (stream.size() >= 5) {
      const std::uint32_t length = base::load_be32(stream.data() + 1);
      if (frame.status == protocol::FrameStatus::kBadLength) {
        state.broken = true;
        state.last_tag = frame.message.tag;
      } else {
        count(state, direction, frame.message.tag, length);
      }
    }
    if (frame.status != protocol::FrameStatus::kMessage) {
      state.at_boundary = false;
      return state;
    }
    const bool ready = direction == MessageScanner::Direction::kFromBackend && frame.message.tag == 'Z';
    if (ready && frame.message.body.size() == 1) state.transaction_status = static_cast<char>(frame.message.body[0]);
    stream = stream.subspan(frame.message.total);
  }
  return state;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto direction =
      (data[0] & 1) == 0 ? MessageScanner::Direction::kFromBackend : MessageScanner::Direction::kFromClient;
  const std::size_t piece = 2 + data[0] / 2U;
  const base::Bytes stream = base::Bytes(data, size).subspan(1);
  const State expected = walk(direction, stream);
  POINTSMAN_CHECK(observe_in_pieces(direction, stream, std::max<std::size_t>(1, stream.size())) == expected);
  POINTSMAN_CHECK(observe_in_pieces(direction, stream, 1) == expected);
  POINTSMAN_CHECK(observe_in_pieces(direction, stream, piece) == expected);
  return 0;
}
