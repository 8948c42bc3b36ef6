#pragma once
// Cancel keys the router gives to its clients. The PID is the backend's own (clients compare it with
// NotificationResponse and hand it to pg_terminate_backend); the secret is ours and random: 4 bytes for 3.0, 32
// for 3.2. Sans-IO, any thread.

#include <cstdint>
#include <string>

#include "base/bytes.h"

namespace pointsman::protocol {

inline constexpr std::size_t kShortCancelSecret = 4;
inline constexpr std::size_t kLongCancelSecret = 32;

struct CancelKey {
  std::uint32_t pid = 0;
  std::string secret;
};

/// Whole and in constant time for equal lengths.
bool secrets_equal(std::string_view a, std::string_view b);

}  // namespace pointsman::protocol
