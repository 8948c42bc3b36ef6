#pragma once
// What a router seals into a client's cancel key, and a router that has never seen the session needs to serve it: where
// the session went, and the backend's own secret (its PID is the client's). Sans-IO, any thread.
//
//   1 format   1 route   1 family (4, 6)   2 port   4 or 16 address   1 length, branch   1 length, the backend's secret

#include <optional>
#include <string>
#include <string_view>

#include "routing/selection.h"

namespace pointsman::proxy {

struct SealedDestination {
  std::string branch;
  routing::RouteClass route = routing::RouteClass::kPrimary;
  routing::SocketAddress address;
  std::string secret;
};

/// Empty: it cannot be said in `most` bytes (a backend with a very long secret), or the address is a link's own.
std::string encode_destination(const SealedDestination& destination, std::size_t most);
/// Nothing for what is not exactly one of ours, newer formats included.
std::optional<SealedDestination> decode_destination(std::string_view content);

}  // namespace pointsman::proxy
