#pragma once
// The first packet of a connection: SSLRequest, GSSENCRequest, CancelRequest or StartupMessage.
// Sans-IO, any thread. Nothing is allocated by a length the client announced: the limit is checked on the header.
// Sources: protocol-flow "Start-up", "SSL Session Encryption"; ProcessStartupPacket() in
// src/backend/tcop/backend_startup.c.

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"

namespace pointsman::protocol {

struct SslRequest {};
struct GssEncRequest {};

/// A cancel key as the client sends it: 4 secret bytes from a 3.0 client, up to 256 from a 3.2 client.
struct CancelRequest {
  std::uint32_t pid = 0;
  std::string secret;
};

struct StartupParameter {
  std::string name;
  std::string value;
};

struct StartupMessage {
  std::uint16_t major = 0;
  std::uint16_t minor = 0;
  /// All parameters but those named `_pq_.…`, in the client's order. `user` and `database` occur at most once and
  /// `user` is present and not empty (the parser refuses otherwise); other names may repeat and are forwarded in order.
  std::vector<StartupParameter> parameters;
  /// Names of the protocol options (`_pq_.…`) in order, to be echoed in NegotiateProtocolVersion.
  std::vector<std::string> protocol_options;

  /// The value of the last parameter of that name, or null. Valid while this message lives.
  const std::string* find(std::string_view name) const;
};

using FirstPacket = std::variant<SslRequest, GssEncRequest, CancelRequest, StartupMessage>;

enum class StartupFault {
  kBadLength,  ///< below 8 or above kMaxStartupPacket (also negative), or an SSLRequest or GSSENCRequest that is not 8:
               ///< close, nothing is awaited
  kBadCancelLength,     ///< a CancelRequest whose size fits no protocol version
  kUnsupportedMajor,    ///< major version other than 3 (2.0 included)
  kBadLayout,           ///< no terminator, key without value, bytes after the terminator, an empty list
  kDuplicateParameter,  ///< `user`, `database`, `replication` or `options` twice: which one counts would be a guess
  kNoUser,              ///< `user` absent or empty
};

/// The reason in the words of a client's error message.
std::string_view to_message(StartupFault fault);

struct NeedMore {};
struct ParsedFirstPacket {
  FirstPacket packet;
  std::size_t consumed = 0;
};
struct StartupRejected {
  StartupFault fault = StartupFault::kBadLength;
  /// Version as sent, for the error message (0 when the packet was too short to have one).
  std::uint16_t major = 0;
  std::uint16_t minor = 0;
};

/// Parses the packet at the start of `input`, which holds all bytes received so far. Never consumes partially: call it
/// again with more bytes after NeedMore. A length fault is reported as soon as the 4-byte length is there; an unknown
/// code or major as soon as 8 bytes are.
std::variant<NeedMore, ParsedFirstPacket, StartupRejected> parse_first_packet(base::Bytes input);

/// Builds a StartupMessage for a backend: version 3.0, `parameters` in order. The result may hold client text, and may
/// be longer than kMaxStartupPacket when parameters were added to a long list (the backend then closes). Requires:
/// names are not empty, no zero bytes.
std::string build_startup_message(const std::vector<StartupParameter>& parameters);

/// The 8-byte SSLRequest, and a CancelRequest with the backend's own key. Requires: a secret of 4 to kMaxCancelSecret
/// bytes.
std::string build_ssl_request();
std::string build_cancel_request(std::uint32_t pid, std::string_view secret);

/// One `-c name=value` (also `-cname=value`, `--name=value`, `-Ecname=value`) taken out of an `options` parameter.
struct ExtractedOption {
  std::string name;   ///< as written, without the prefix; '-' is '_', as PostgreSQL reads both forms
  std::string value;  ///< without backslashes; empty also when there was no '=' (PostgreSQL: "requires a value")
};

/// Takes the settings whose name starts with `prefix` (for us "pointsman.") out of an `options` text; what stays is
/// byte for byte as sent, and sets what it set before. A removed item takes the white space in front of it along, or
/// that behind it when nothing is left in front. Reading follows pg_split_opts() (white space separates, a backslash
/// makes the next byte literal) and getopt() with the backend's switches. Names compare without case, as PostgreSQL
/// compares the names of settings; `prefix` has no '-'.
struct SplitOptions {
  std::string rest;                        ///< empty when nothing of others is left
  std::vector<ExtractedOption> extracted;  ///< in order
};
SplitOptions extract_options(std::string_view options, std::string_view prefix);

}  // namespace pointsman::protocol
