#pragma once
// What two routers of a fleet say to each other, behind the TLS of their shared secret (protocol/tls_context.h).
// Frames: two bytes of length, the type, its fields; integers in network order. Sans-IO, one thread.
//
//   1 Hello    version (1), router id (16)             first, from both sides
//   2 Ask      number (4), PID (4), secret (the rest)  from the side that connected
//   3 Answer   number (4), verdict (1)                 to an Ask, in any order
//
// What follows a known frame's fields, and frames of unknown types, are passed over: later versions may say more.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/bytes.h"
#include "protocol/startup.h"

namespace pointsman::proxy {

inline constexpr std::uint8_t kPeerVersion = 1;
/// Length included. An Ask has 256 bytes of secret at most.
inline constexpr std::size_t kMaxPeerFrame = 512;

/// Random for each start of a router: how one notices that it talks to itself.
using RouterId = std::array<base::Byte, 16>;

enum class PeerVerdict : std::uint8_t {
  kUnknown = 0,    ///< no session here has this key
  kSent = 1,       ///< the backend has been told and has hung up
  kFailed = 2,     ///< a session here has it, its backend could not be told
  kThrottled = 3,  ///< nobody looked: too many asks
};

struct PeerHello {
  std::uint8_t version = kPeerVersion;
  RouterId router{};
};
struct PeerAsk {
  std::uint32_t number = 0;
  protocol::CancelRequest request;
};
struct PeerAnswer {
  std::uint32_t number = 0;
  PeerVerdict verdict = PeerVerdict::kUnknown;
};
using PeerFrame = std::variant<PeerHello, PeerAsk, PeerAnswer>;

std::string print_frame(const PeerHello& hello);
/// Requires: a secret of 4 to 256 bytes.
std::string print_frame(const PeerAsk& ask);
std::string print_frame(const PeerAnswer& answer);

/// Cuts a stream into frames.
class PeerReader {
 public:
  void add(base::Bytes bytes) { rest_.append(base::as_text(bytes)); }
  /// The next frame of a known type, until there is none. Nothing after a fault.
  std::optional<PeerFrame> next();
  /// Why the stream makes no sense; empty: it does.
  std::string_view fault() const { return fault_; }

 private:
  std::string rest_;
  std::size_t used_ = 0;    // of rest_
  std::string_view fault_;  // points to a literal
};

}  // namespace pointsman::proxy
