#pragma once
// OpenSSL's error queue in words. The queue belongs to the calling thread.

#include <openssl/err.h>

#include <string>

namespace pointsman::protocol {

/// Forgets what earlier calls left in the queue; peeking first is much cheaper than clearing an empty queue (16 slots).
inline void clear_openssl_errors() {
  if (ERR_peek_error() != 0) ERR_clear_error();
}

/// The oldest entry, which names the cause ("wrong version number"), and empties the queue. `fallback` when there is
/// none.
inline std::string take_openssl_error(const char* fallback) {
  const unsigned long code = ERR_get_error();
  const char* const reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  std::string text = reason != nullptr ? reason : fallback;
  ERR_clear_error();
  return text;
}

}  // namespace pointsman::protocol
