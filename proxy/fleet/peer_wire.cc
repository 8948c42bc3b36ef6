#include "proxy/fleet/peer_wire.h"

#include <algorithm>

#include "base/check.h"

namespace pointsman::proxy {
namespace {

enum Type : std::uint8_t { kHello = 1, kAsk = 2, kAnswer = 3 };
constexpr std::size_t kHead = 3;  // length and type
constexpr std::size_t kLeastSecret = 4;
constexpr std::size_t kMostSecret = 256;

std::string frame(Type type, std::string_view fields) {
  const std::size_t size = kHead + fields.size();
  POINTSMAN_CHECK(size <= kMaxPeerFrame);
  std::string out;
  base::append_be16(out, static_cast<std::uint16_t>(size));
  base::append_u8(out, type);
  out += fields;
  return out;
}

}  // namespace

std::string print_frame(const PeerHello& hello) {
  std::string fields;
  base::append_u8(fields, hello.version);
  fields += base::as_text(hello.router);
  return frame(kHello, fields);
}

std::string print_frame(const PeerAsk& ask) {
  POINTSMAN_CHECK(ask.request.secret.size() >= kLeastSecret && ask.request.secret.size() <= kMostSecret);
  std::string fields;
  base::append_be32(fields, ask.number);
  base::append_be32(fields, ask.request.pid);
  fields += ask.request.secret;
  return frame(kAsk, fields);
}

std::string print_frame(const PeerAnswer& answer) {
  std::string fields;
  base::append_be32(fields, answer.number);
  base::append_u8(fields, static_cast<std::uint8_t>(answer.verdict));
  return frame(kAnswer, fields);
}

std::optional<PeerFrame> PeerReader::next() {
  const auto broken = [this](std::string_view why) {
    fault_ = why;
    rest_.clear();
    used_ = 0;
    return std::nullopt;
  };
  while (fault_.empty() && rest_.size() - used_ >= kHead) {
    const base::Byte* bytes = base::as_bytes(rest_).data() + used_;
    const std::size_t size = base::load_be16(bytes);
    if (size < kHead || size > kMaxPeerFrame) return broken("a frame of impossible length");
    if (rest_.size() - used_ < size) break;
    const std::uint8_t type = bytes[2];
    const std::string body = rest_.substr(used_ + kHead, size - kHead);
    used_ += size;
    bytes = base::as_bytes(body).data();
    switch (type) {
      case kHello: {
        PeerHello hello;
        if (body.size() < 1 + hello.router.size()) return broken("a Hello that is too short");
        hello.version = bytes[0];
        std::copy_n(bytes + 1, hello.router.size(), hello.router.begin());
        return hello;
      }
      case kAsk: {
        PeerAsk ask;
        if (body.size() < 8 + kLeastSecret || body.size() > 8 + kMostSecret)
          return broken("an Ask of impossible length");
        ask.number = base::load_be32(bytes);
        ask.request.pid = base::load_be32(bytes + 4);
        ask.request.secret = body.substr(8);
        return ask;
      }
      case kAnswer: {
        PeerAnswer answer;
        if (body.size() < 5) return broken("an Answer that is too short");
        answer.number = base::load_be32(bytes);
        if (bytes[4] > static_cast<std::uint8_t>(PeerVerdict::kThrottled)) return broken("an Answer of no known kind");
        answer.verdict = static_cast<PeerVerdict>(bytes[4]);
        return answer;
      }
      default:
        break;
    }
  }
  rest_.erase(0, used_);
  used_ = 0;
  return std::nullopt;
}

}  // namespace pointsman::proxy
