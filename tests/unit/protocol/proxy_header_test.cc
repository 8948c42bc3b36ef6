#include "protocol/proxy_header.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

#include "tests/unit/support/chunker.h"

namespace pointsman::protocol {
namespace {

using namespace std::string_literals;
using Result = std::variant<ProxyNeedMore, ProxyParsed, ProxyFault>;

std::string describe(const Result& result) {
  if (std::holds_alternative<ProxyNeedMore>(result)) return "need more";
  if (const auto* fault = std::get_if<ProxyFault>(&result)) return std::string(to_message(*fault));
  const auto& [source, consumed] = std::get<ProxyParsed>(result);
  std::string text = std::to_string(consumed) + " bytes:";
  if (!source.has_address)
    return text + " no address" + (source.endpoint_id.empty() ? "" : " id " + source.endpoint_id);
  for (std::size_t at = 0; at < (source.is_ipv6 ? 16U : 4U); ++at)
    text += (at == 0 ? " " : ".") + std::to_string(source.address[at]);
  text += " port " + std::to_string(source.port);
  return text + (source.endpoint_id.empty() ? "" : " id " + source.endpoint_id);
}
/// The result, found the same for every way the bytes can arrive.
std::string parse(std::string_view bytes) {
  const auto run = [](const test::Chunks& chunks) {
    return describe(test::parse_growing<ProxyNeedMore>(chunks, parse_proxy_header));
  };
  CHECK(test::chunking_difference(base::as_bytes(bytes), run) == "");
  return describe(parse_proxy_header(base::as_bytes(bytes)));
}
/// How many bytes it takes until `bytes` are refused.
std::size_t refused_at(std::string_view bytes) {
  for (std::size_t size = 1; size <= bytes.size(); ++size) {
    if (std::holds_alternative<ProxyFault>(parse_proxy_header(base::as_bytes(bytes.substr(0, size))))) return size;
  }
  return 0;
}

std::string v2(unsigned command, unsigned family, std::string_view payload, std::int64_t announced = -1) {
  std::string bytes("\r\n\r\n\0\r\nQUIT\n", 12);
  bytes.push_back(static_cast<char>(command));
  bytes.push_back(static_cast<char>(family));
  base::append_be16(bytes,
                    static_cast<std::uint16_t>(announced < 0 ? static_cast<std::int64_t>(payload.size()) : announced));
  return bytes.append(payload);
}
std::string tlv(unsigned type, std::string_view value) {
  std::string bytes(1, static_cast<char>(type));
  base::append_be16(bytes, static_cast<std::uint16_t>(value.size()));
  return bytes.append(value);
}
const std::string kTcp4 = "\xc0\0\2\1\xc6\x33\x64\1\xc0\0\x15\x38"s;  // 192.0.2.1:49152 to 198.51.100.1:5432
const std::string kTcp6 = "\x20\1\x0d\xb8"s + std::string(11, '\0') + "\1"s + std::string(16, '\1') + "\0\x50\x15\x38"s;

TEST_CASE("version 1 gives the source address and port") {
  CHECK(parse("PROXY TCP4 192.0.2.1 198.51.100.1 49152 5432\r\n") == "46 bytes: 192.0.2.1 port 49152");
  CHECK(parse("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n") == "44 bytes: 0.0.0.0 port 0");
  CHECK(parse("PROXY TCP6 2001:db8::1 ::1 80 5432\r\n") == "36 bytes: 32.1.13.184.0.0.0.0.0.0.0.0.0.0.0.1 port 80");
  CHECK(parse("PROXY TCP6 ::ffff:1.2.3.4 ABCD:ef01:2345:6789:abcd:ef01:2345:6789 1 2\r\n") ==
        "71 bytes: 0.0.0.0.0.0.0.0.0.0.255.255.1.2.3.4 port 1");
  CHECK(describe(parse_proxy_header(base::as_bytes("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n\x16\3"))) ==
        "32 bytes: 1.2.3.4 port 1");
}

TEST_CASE("version 1 UNKNOWN has no address, whatever follows the word") {
  CHECK(parse("PROXY UNKNOWN\r\n") == "15 bytes: no address");
  CHECK(parse("PROXY UNKNOWN ffff::1 \r x\n\0 \r\n"s) == "30 bytes: no address");
  CHECK(parse("PROXY UNKNOWNX\r\n") == "malformed PROXY header");
  CHECK(parse("PROXY UNKNOW\r\n") == "malformed PROXY header");
}

TEST_CASE("a version 1 line of 107 bytes is whole, one without its end is too long") {
  const std::string line = "PROXY UNKNOWN ";
  CHECK(parse(line + std::string(107 - 2 - line.size(), 'x') + "\r\n") == "107 bytes: no address");
  CHECK(parse(line + std::string(107 - 1 - line.size(), 'x') + "\r\n") == "PROXY header too long");
  CHECK(parse(line + std::string(107 - line.size(), 'x') + "\r\n") == "PROXY header too long");
  CHECK(parse(line + std::string(106 - line.size(), 'x')) == "need more");
  CHECK(parse(line + std::string(107 - line.size(), 'x')) == "PROXY header too long");
}

TEST_CASE("version 1 is refused at the first byte that does not fit") {
  const auto refused_at_end = [](const std::string& bytes) {
    CAPTURE(bytes);
    CHECK(parse(bytes) == "malformed PROXY header");
    CHECK(refused_at(bytes + "....") == bytes.size());
  };
  for (const std::string_view bytes : {"PROXY X",
                                       "PROXY  ",
                                       "PROXY TCP5",
                                       "PROXY TCP4\r",
                                       "PROXY TCP4  ",
                                       "PROXY TCP4 a",
                                       "PROXY TCP4 :",
                                       "PROXY TCP4 1.2.3 ",
                                       "PROXY TCP4 1.2.3.256 ",
                                       "PROXY TCP4 01.2.3.4 ",
                                       "PROXY TCP4 1.2.3.4\t",
                                       "PROXY TCP4 1111111111111111",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4.5 ",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4  ",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4 -",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4 +",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4 00 ",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4 65536 ",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4 111111",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 ",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r",
                                       "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r",
                                       "PROXY TCP4 1.2.3.4\r",
                                       "PROXY TCP6 g",
                                       "PROXY TCP6 ::1::2 ",
                                       "PROXY TCP6 1.2.3.4 ",
                                       "PROXY TCP6 fe80::1%"}) {
    refused_at_end(std::string(bytes));
  }
}

TEST_CASE("what is no PROXY header is known by its first bytes") {
  CHECK(parse("") == "need more");
  for (const std::string& bytes :
       {"\0\0\0\x08"s, "\x16\3\1"s, "GET /"s, "proxy "s, "PROXY\t"s, "\r\nQ"s, "\r\n\r\n\0\r\nQUIT\r"s}) {
    CAPTURE(bytes);
    CHECK(parse(bytes) == "no PROXY header");
  }
  CHECK(refused_at("\0"s) == 1);
  CHECK(refused_at("PRX") == 3);
}

TEST_CASE("version 2 gives the source address and port") {
  CHECK(parse(v2(0x21, 0x11, kTcp4)) == "28 bytes: 192.0.2.1 port 49152");
  CHECK(parse(v2(0x21, 0x21, kTcp6)) == "52 bytes: 32.1.13.184.0.0.0.0.0.0.0.0.0.0.0.1 port 80");
  CHECK(describe(parse_proxy_header(base::as_bytes(v2(0x21, 0x11, kTcp4) + "more"))) ==
        "28 bytes: 192.0.2.1 port 49152");
}

TEST_CASE("version 2 without an address of the client is taken as such") {
  CHECK(parse(v2(0x20, 0x00, "")) == "16 bytes: no address");
  CHECK(parse(v2(0x20, 0x11, kTcp4)) == "28 bytes: no address");
  CHECK(parse(v2(0x20, 0xff, "anything")) == "24 bytes: no address");
  CHECK(parse(v2(0x21, 0x00, "")) == "16 bytes: no address");
  CHECK(parse(v2(0x21, 0x00, "anything")) == "24 bytes: no address");
  CHECK(parse(v2(0x21, 0x31, std::string(216, '/'))) == "232 bytes: no address");
}

TEST_CASE("version 2 is refused by reason, at the byte that decides") {
  const auto refused = [](const std::string& bytes, const std::string& reason, std::size_t at) {
    CHECK(parse(bytes) == reason);
    CHECK(refused_at(bytes) == at);
  };
  refused(v2(0x11, 0x11, kTcp4), "PROXY header of an unknown version", 13);
  refused(v2(0x31, 0x11, kTcp4), "PROXY header of an unknown version", 13);
  refused(v2(0x22, 0x11, kTcp4), "PROXY header with an unknown command", 13);
  for (const unsigned family : {0x01U, 0x10U, 0x12U, 0x13U, 0x22U, 0x32U, 0x41U, 0xffU}) {
    refused(v2(0x21, family, kTcp4), "PROXY header with an unsupported address family", 14);
  }
  refused(v2(0x21, 0x11, kTcp4, 11), "malformed PROXY header", 16);
  refused(v2(0x21, 0x21, kTcp6, 35), "malformed PROXY header", 16);
  refused(v2(0x21, 0x31, kTcp6, 215), "malformed PROXY header", 16);
}

TEST_CASE("a version 2 payload has at most 536 bytes") {
  const auto padded = [](std::size_t size) { return kTcp4 + tlv(0x04, std::string(size - kTcp4.size() - 3, '\0')); };
  CHECK(describe(parse_proxy_header(base::as_bytes(v2(0x21, 0x11, padded(535))))) == "551 bytes: 192.0.2.1 port 49152");
  CHECK(describe(parse_proxy_header(base::as_bytes(v2(0x21, 0x11, padded(536))))) == "552 bytes: 192.0.2.1 port 49152");
  CHECK(refused_at(v2(0x21, 0x11, padded(537))) == 16);
  CHECK(describe(parse_proxy_header(base::as_bytes(v2(0x20, 0x00, "", 537)))) == "PROXY header too long");
  CHECK(describe(parse_proxy_header(base::as_bytes(v2(0x20, 0x00, "", 65'535)))) == "PROXY header too long");
}

TEST_CASE("the private endpoint's id is found in each cloud's way of writing it") {
  const std::string address = " 192.0.2.1 port 49152";
  CHECK(parse(v2(0x21, 0x11, kTcp4 + tlv(0xEA, "\1vpce-08d2bf15fac5001c9"))) ==
        "54 bytes:" + address + " id vpce-08d2bf15fac5001c9");
  CHECK(parse(v2(0x21, 0x11, kTcp4 + tlv(0xEE, "\1\x45\x23\x01\xff"))) == "36 bytes:" + address + " id 4278264645");
  CHECK(parse(v2(0x21, 0x11, kTcp4 + tlv(0xE0, "\0\0\0\1\0\0\0\2"s))) == "39 bytes:" + address + " id 4294967298");
  CHECK(parse(v2(0x21, 0x21, kTcp6 + tlv(0x03, "\1\2\3\4") + tlv(0xEA, "\1v"))) ==
        "64 bytes: 32.1.13.184.0.0.0.0.0.0.0.0.0.0.0.1 port 80 id v");
}

TEST_CASE("extensions of another shape name no endpoint") {
  for (const std::string& other :
       {tlv(0xEA, ""), tlv(0xEA, "\1"), tlv(0xEA, "\2vpce"), tlv(0xEE, "\1\1\1\1"), tlv(0xEE, "\2\1\1\1\1"),
        tlv(0xEE, "\1\1\1\1\1\1"), tlv(0xE0, "1234567"), tlv(0xE0, "123456789"), tlv(0x01, "h2"), tlv(0x20, "")}) {
    CHECK(parse(v2(0x21, 0x11, kTcp4 + other)).ends_with("port 49152"));
  }
}

TEST_CASE("a cut extension or a second endpoint id is refused") {
  const std::string reason = "malformed extension in PROXY header";
  CHECK(parse(v2(0x21, 0x11, kTcp4 + "\xea"s)) == reason);
  CHECK(parse(v2(0x21, 0x11, kTcp4 + "\xea\0"s)) == reason);
  CHECK(parse(v2(0x21, 0x11, kTcp4 + "\xea\0\2\1"s)) == reason);
  CHECK(parse(v2(0x21, 0x11, kTcp4 + tlv(0x04, "") + "\4\xff\xff"s)) == reason);
  CHECK(parse(v2(0x21, 0x11, kTcp4 + tlv(0xEA, "\1a") + tlv(0xEA, "\1a"))) == reason);
  CHECK(parse(v2(0x21, 0x11, kTcp4 + tlv(0xEA, "\1a") + tlv(0xE0, "12345678"))) == reason);
}

}  // namespace
}  // namespace pointsman::protocol
