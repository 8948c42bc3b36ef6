// PROXY headers: every prefix agrees with the whole, what follows the header is left alone, and an address that was
// found reads the same when it is written again in version 1.

#include <arpa/inet.h>

#include <cstdint>
#include <string>
#include <variant>

#include "base/check.h"
#include "protocol/proxy_header.h"
#include "tests/fuzz/prefixes.h"

namespace {

using namespace pointsman;

std::string describe_address(const protocol::ProxySource& source) {
  std::string text = source.has_address ? source.is_ipv6 ? "6 " : "4 " : "none ";
  text.append(reinterpret_cast<const char*>(source.address), sizeof source.address);
  return text + std::to_string(source.port);
}

std::string describe(base::Bytes bytes) {
  const auto result = protocol::parse_proxy_header(bytes);
  if (std::holds_alternative<protocol::ProxyNeedMore>(result)) return "need more";
  if (const auto* fault = std::get_if<protocol::ProxyFault>(&result)) return std::string(to_message(*fault));
  const auto& [source, consumed] = std::get<protocol::ProxyParsed>(result);
  return std::to_string(consumed) + " " + describe_address(source) + " " + source.endpoint_id;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const base::Bytes input(data, size);
  const std::string whole = describe(input);
  fuzz::check_prefixes(input, describe, std::string("need more"));
  if (whole == "need more") POINTSMAN_CHECK(size < 16 + protocol::kMaxProxyV2Payload);

  const auto result = protocol::parse_proxy_header(input);
  const auto* const parsed = std::get_if<protocol::ProxyParsed>(&result);
  if (parsed == nullptr) return 0;
  POINTSMAN_CHECK(parsed->consumed <= size && parsed->consumed <= 16 + protocol::kMaxProxyV2Payload);
  POINTSMAN_CHECK(describe(input.first(parsed->consumed)) == whole);
  const protocol::ProxySource& source = parsed->source;
  if (!source.has_address) {
    POINTSMAN_CHECK(describe_address(source) == describe_address(protocol::ProxySource{}));
    return 0;
  }
  char address[INET6_ADDRSTRLEN];
  POINTSMAN_CHECK(inet_ntop(source.is_ipv6 ? AF_INET6 : AF_INET, source.address, address, sizeof address) != nullptr);
  const std::string line = std::string("PROXY ") + (source.is_ipv6 ? "TCP6 " : "TCP4 ") + address + " " + address +
                           " " + std::to_string(source.port) + " 5432\r\n";
  const auto again = protocol::parse_proxy_header(base::as_bytes(line));
  POINTSMAN_CHECK(std::holds_alternative<protocol::ProxyParsed>(again));
  POINTSMAN_CHECK(describe_address(std::get<protocol::ProxyParsed>(again).source) == describe_address(source));
  return 0;
}
