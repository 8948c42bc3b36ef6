#pragma once
// PROXY protocol, versions 1 and 2, receiving side. Sans-IO, any thread.
// Source: HAProxy doc/proxy-protocol.txt (sections 2.1 and 2.2). A header is required or forbidden by configuration,
// never guessed.

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "base/bytes.h"

namespace pointsman::protocol {

/// Version 1: at most 107 bytes with CRLF. Version 2: our bound for addresses and TLVs (cloud balancers add some
/// hundred bytes).
inline constexpr std::size_t kMaxProxyV1 = 107;
inline constexpr std::size_t kMaxProxyV2Payload = 536;

struct ProxySource {
  /// False for v2 LOCAL, v1 UNKNOWN and v2 AF_UNSPEC/AF_UNIX: the connection's own peer address counts.
  bool has_address = false;
  bool is_ipv6 = false;
  std::uint8_t address[16] = {};  ///< network order; the first 4 bytes for IPv4
  std::uint16_t port = 0;
  /// Private endpoint id from a TLV (AWS 0xEA/0x01 text, Azure 0xEE/0x01 little-endian number as decimal text, GCP 0xE0
  /// number as decimal text); empty when none. For rules by endpoint id. Bounded by the header's size; AWS' text is as
  /// sent.
  std::string endpoint_id;
};

enum class ProxyFault {
  kNotProxy,  ///< the bytes are no PROXY header
  kBadVersion,
  kBadCommand,
  kBadFamily,  ///< v2: other than TCP over IPv4 or IPv6, a Unix stream, or unspecified (datagrams are refused)
  kTooLong,
  kBadLayout,  ///< v1 syntax, v2 length below what the family needs
  kBadTlv,     ///< a TLV longer than the header, or cut, or a second endpoint id
};
std::string_view to_message(ProxyFault fault);

struct ProxyNeedMore {};
struct ProxyParsed {
  ProxySource source;
  std::size_t consumed = 0;
};
/// Parses the header at the start of `input` (all bytes received so far). Wrong bytes are refused at the first one that
/// cannot belong to a header.
std::variant<ProxyNeedMore, ProxyParsed, ProxyFault> parse_proxy_header(base::Bytes input);

}  // namespace pointsman::protocol
