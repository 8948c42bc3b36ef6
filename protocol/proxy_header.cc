#include "protocol/proxy_header.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.h"

namespace pointsman::protocol {
namespace {

using Result = std::variant<ProxyNeedMore, ProxyParsed, ProxyFault>;

// ---- version 1 (2.1): PROXY TCP4 192.0.2.1 198.51.100.1 49152 5432\r\n ------------------------------------------

constexpr std::string_view kV1Start = "PROXY ";
constexpr std::string_view kV1End = "\r\n";

// ---- version 2 (2.2): signature(12) version|command family|transport length(2) addresses TLVs ---------------------

constexpr std::string_view kV2Signature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr std::size_t kV2Header = 16;
constexpr unsigned kV2Version = 2;
constexpr unsigned kLocal = 0;
constexpr unsigned kProxy = 1;
constexpr unsigned kUnspecified = 0x00;
constexpr unsigned kTcp4 = 0x11;
constexpr unsigned kTcp6 = 0x21;
constexpr unsigned kUnixStream = 0x31;
constexpr std::size_t kTcp4Size = 12;  // two addresses, two ports
constexpr std::size_t kTcp6Size = 36;
constexpr std::size_t kUnixSize = 216;  // two paths

// TLV types for the vendors, and their subtypes of one byte.
constexpr std::uint8_t kTlvGcp = 0xE0;
constexpr std::uint8_t kTlvAws = 0xEA;
constexpr std::uint8_t kTlvAzure = 0xEE;
constexpr std::uint8_t kSubtypeEndpoint = 0x01;
constexpr std::size_t kGcpSize = 8;    // connection id, network order
constexpr std::size_t kAzureSize = 5;  // subtype, link id in little-endian order

/// True when one begins with the other.
bool agree(std::string_view a, std::string_view b) {
  return a.starts_with(b) || b.starts_with(a);
}

/// An address in the only form of its family (inet_pton() takes no leading zeros, as the specification asks).
bool parse_address(std::string_view text, bool ipv6, std::uint8_t* address) {
  char terminated[INET6_ADDRSTRLEN];
  if (text.size() >= sizeof terminated) return false;
  std::memcpy(terminated, text.data(), text.size());
  terminated[text.size()] = '\0';
  return inet_pton(ipv6 ? AF_INET6 : AF_INET, terminated, address) == 1;
}

/// "0" to "65535" without leading zeros. Requires: at most five digits.
bool parse_port(std::string_view digits, std::uint16_t& port) {
  if (digits.empty() || (digits.size() > 1 && digits[0] == '0')) return false;
  unsigned value = 0;
  for (const char digit : digits) value = value * 10 + static_cast<unsigned>(digit - '0');
  port = static_cast<std::uint16_t>(value);
  return value <= 0xffff;
}

/// Cuts the field in front of `end` off `rest`. Nothing when a byte is neither of `alphabet` nor `end`, or the field
/// too long; `more` when `rest` ends inside the field.
std::optional<std::string_view> cut_field(std::string_view& rest, char end, std::string_view alphabet, std::size_t max,
                                          bool& more) {
  const std::size_t size = std::min(rest.find_first_not_of(alphabet), rest.size());
  if (size > max) return std::nullopt;
  more = size == rest.size();
  if (more || rest[size] != end) return std::nullopt;
  const std::string_view field = rest.substr(0, size);
  rest.remove_prefix(size + 1);
  return field;
}

/// The four fields behind "TCP4 " or "TCP6 ". False: wrong, or `more` is needed.
bool parse_v1_fields(std::string_view& rest, ProxySource& source, bool& more) {
  const std::string_view letters = source.is_ipv6 ? "0123456789abcdefABCDEF:." : "0123456789.";
  const std::size_t longest = source.is_ipv6 ? INET6_ADDRSTRLEN - 1 : INET_ADDRSTRLEN - 1;
  constexpr std::string_view kDigits = "0123456789";
  constexpr std::size_t kLongestPort = 5;

  const auto from = cut_field(rest, ' ', letters, longest, more);
  if (!from || !parse_address(*from, source.is_ipv6, source.address)) return false;
  std::uint8_t destination[sizeof source.address];
  const auto to = cut_field(rest, ' ', letters, longest, more);
  if (!to || !parse_address(*to, source.is_ipv6, destination)) return false;
  const auto from_port = cut_field(rest, ' ', kDigits, kLongestPort, more);
  if (!from_port || !parse_port(*from_port, source.port)) return false;
  std::uint16_t destination_port = 0;
  const auto to_port = cut_field(rest, '\r', kDigits, kLongestPort, more);
  if (!to_port || !parse_port(*to_port, destination_port)) return false;
  more = rest.empty();
  return rest.starts_with('\n');
}

Result unfinished(std::string_view line) {
  if (line.size() == kMaxProxyV1) return ProxyFault::kTooLong;
  return ProxyNeedMore{};
}

/// Requires: `input` agrees with kV1Start.
Result parse_v1(std::string_view input) {
  const std::string_view line = input.substr(0, kMaxProxyV1);
  if (line.size() <= kV1Start.size()) return ProxyNeedMore{};
  std::string_view rest = line.substr(kV1Start.size());

  constexpr std::string_view kUnknown = "UNKNOWN";
  if (agree(rest, kUnknown)) {
    if (rest.size() <= kUnknown.size()) return unfinished(line);
    if (rest[kUnknown.size()] != ' ' && rest[kUnknown.size()] != '\r') return ProxyFault::kBadLayout;
    const std::size_t end = line.find(kV1End);  // whatever stands in front of it is to be ignored
    if (end == std::string_view::npos) return unfinished(line);
    return ProxyParsed{ProxySource{}, end + kV1End.size()};
  }
  constexpr std::string_view kIpv4 = "TCP4 ";
  constexpr std::string_view kIpv6 = "TCP6 ";
  if (!agree(rest, kIpv4) && !agree(rest, kIpv6)) return ProxyFault::kBadLayout;
  if (rest.size() < kIpv4.size()) return unfinished(line);
  ProxySource source;
  source.has_address = true;
  source.is_ipv6 = rest.starts_with(kIpv6);
  rest.remove_prefix(kIpv4.size());
  bool more = false;
  if (!parse_v1_fields(rest, source, more)) {
    if (more) return unfinished(line);
    return ProxyFault::kBadLayout;
  }
  return ProxyParsed{source, line.size() - rest.size() + 1};
}

/// The endpoint id in a TLV, or nothing when it is none of the vendors' or not of the shape they document.
std::optional<std::string> endpoint_id(std::uint8_t type, base::Bytes value) {
  if (type == kTlvAws && value.size() > 1 && value[0] == kSubtypeEndpoint)
    return std::string(base::as_text(value.subspan(1)));
  if (type == kTlvAzure && value.size() == kAzureSize && value[0] == kSubtypeEndpoint) {
    return std::to_string(__builtin_bswap32(base::load_be32(value.data() + 1)));
  }
  if (type == kTlvGcp && value.size() == kGcpSize) {
    return std::to_string(std::uint64_t{base::load_be32(value.data())} << 32 | base::load_be32(value.data() + 4));
  }
  return std::nullopt;
}

/// False when a TLV is cut, or two name an endpoint: which one counts would be a guess.
bool parse_tlvs(base::Bytes tlvs, ProxySource& source) {
  base::Cursor cursor(tlvs);
  while (cursor.remaining() > 0) {
    const std::uint8_t type = cursor.u8();
    const base::Bytes value = cursor.bytes(cursor.u16());
    if (!cursor.ok()) return false;
    if (auto id = endpoint_id(type, value)) {
      if (!source.endpoint_id.empty()) return false;
      source.endpoint_id = std::move(*id);
    }
  }
  return true;
}

/// Bytes of addresses that a family needs; nothing for a family we do not take (datagrams, unknown ones).
std::optional<std::size_t> addresses_size(unsigned family) {
  switch (family) {
    case kUnspecified:
      return 0;
    case kTcp4:
      return kTcp4Size;
    case kTcp6:
      return kTcp6Size;
    case kUnixStream:
      return kUnixSize;
    default:
      return std::nullopt;
  }
}

Result parse_v2_payload(unsigned family, base::Bytes payload, std::size_t consumed) {
  ProxyParsed parsed;
  parsed.consumed = consumed;
  ProxySource& source = parsed.source;
  if (family == kTcp4 || family == kTcp6) {
    source.has_address = true;
    source.is_ipv6 = family == kTcp6;
    const std::size_t size = source.is_ipv6 ? 16 : 4;
    std::memcpy(source.address, payload.data(), size);
    source.port = base::load_be16(payload.data() + 2 * size);
  }
  if (family != kUnspecified && !parse_tlvs(payload.subspan(*addresses_size(family)), source))
    return ProxyFault::kBadTlv;
  return parsed;
}

/// Requires: `input` agrees with kV2Signature.
Result parse_v2(base::Bytes input) {
  constexpr std::size_t kCommandAt = 12;
  constexpr std::size_t kFamilyAt = 13;
  constexpr std::size_t kLengthAt = 14;
  if (input.size() <= kCommandAt) return ProxyNeedMore{};
  const unsigned command = input[kCommandAt] & 0x0fU;
  if (input[kCommandAt] >> 4 != kV2Version) return ProxyFault::kBadVersion;
  if (command != kLocal && command != kProxy) return ProxyFault::kBadCommand;
  if (input.size() <= kFamilyAt) return ProxyNeedMore{};
  const auto addresses = addresses_size(input[kFamilyAt]);
  if (command == kProxy && !addresses) return ProxyFault::kBadFamily;
  if (input.size() < kV2Header) return ProxyNeedMore{};
  const std::size_t length = base::load_be16(input.data() + kLengthAt);
  if (length > kMaxProxyV2Payload) return ProxyFault::kTooLong;
  if (command == kProxy && length < *addresses) return ProxyFault::kBadLayout;
  const std::size_t total = kV2Header + length;
  if (input.size() < total) return ProxyNeedMore{};
  if (command == kLocal)
    return ProxyParsed{ProxySource{}, total};  // "must discard the protocol block including the family"
  return parse_v2_payload(input[kFamilyAt], input.subspan(kV2Header, length), total);
}

}  // namespace

std::string_view to_message(ProxyFault fault) {
  switch (fault) {
    case ProxyFault::kNotProxy:
      return "no PROXY header";
    case ProxyFault::kBadVersion:
      return "PROXY header of an unknown version";
    case ProxyFault::kBadCommand:
      return "PROXY header with an unknown command";
    case ProxyFault::kBadFamily:
      return "PROXY header with an unsupported address family";
    case ProxyFault::kTooLong:
      return "PROXY header too long";
    case ProxyFault::kBadLayout:
      return "malformed PROXY header";
    case ProxyFault::kBadTlv:
      return "malformed extension in PROXY header";
  }
  POINTSMAN_CHECK(false);
}

std::variant<ProxyNeedMore, ProxyParsed, ProxyFault> parse_proxy_header(base::Bytes input) {
  if (input.empty()) return ProxyNeedMore{};
  const std::string_view text = base::as_text(input);
  if (agree(text, kV2Signature)) return parse_v2(input);
  if (agree(text, kV1Start)) return parse_v1(text);
  return ProxyFault::kNotProxy;
}

}  // namespace pointsman::protocol
