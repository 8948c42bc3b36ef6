#include "protocol/startup.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "protocol/cancel_key.h"
#include "protocol/postgres_format.h"
#include "tests/unit/support/chunker.h"
#include "tests/unit/support/options_oracle.h"

namespace pointsman::protocol {
namespace {

using namespace std::string_literals;
using Parsed = std::variant<NeedMore, ParsedFirstPacket, StartupRejected>;

constexpr std::uint32_t kVersion30 = 3U << 16;
constexpr std::uint32_t kVersion32 = 3U << 16 | 2;

std::string packet(std::uint32_t code, std::string_view body, std::int64_t announced = -1) {
  std::string bytes;
  base::append_be32(bytes,
                    static_cast<std::uint32_t>(announced < 0 ? static_cast<std::int64_t>(body.size() + 8) : announced));
  base::append_be32(bytes, code);
  bytes.append(body);
  return bytes;
}
Parsed parse(std::string_view bytes) {
  return parse_first_packet(base::as_bytes(bytes));
}

/// Everything a result says, on one line.
std::string describe(const Parsed& result) {
  if (std::holds_alternative<NeedMore>(result)) return "need more";
  if (const auto* rejected = std::get_if<StartupRejected>(&result)) {
    return "rejected: " + std::string(to_message(rejected->fault)) + " " + std::to_string(rejected->major) + "." +
           std::to_string(rejected->minor);
  }
  const auto& parsed = std::get<ParsedFirstPacket>(result);
  std::string text = std::to_string(parsed.consumed) + " bytes: ";
  if (std::holds_alternative<SslRequest>(parsed.packet)) return text + "ssl";
  if (std::holds_alternative<GssEncRequest>(parsed.packet)) return text + "gss";
  if (const auto* cancel = std::get_if<CancelRequest>(&parsed.packet)) {
    return text + "cancel " + std::to_string(cancel->pid) + " " + cancel->secret;
  }
  const auto& startup = std::get<StartupMessage>(parsed.packet);
  text += "startup " + std::to_string(startup.major) + "." + std::to_string(startup.minor);
  for (const auto& [name, value] : startup.parameters) text += " " + name + "=" + value;
  for (const auto& name : startup.protocol_options) text += " option " + name;
  return text;
}
/// The result of parsing, after it was found the same for every way the bytes can arrive.
std::string parse_in_pieces(std::string_view bytes) {
  const auto run = [](const test::Chunks& chunks) {
    return describe(test::parse_growing<NeedMore>(chunks, parse_first_packet));
  };
  CHECK(test::chunking_difference(base::as_bytes(bytes), run) == "");
  return describe(parse(bytes));
}
StartupFault fault_of(std::string_view bytes) {
  const Parsed result = parse(bytes);
  REQUIRE(std::holds_alternative<StartupRejected>(result));
  return std::get<StartupRejected>(result).fault;
}
StartupMessage startup_of(std::string_view bytes) {
  const Parsed result = parse(bytes);
  REQUIRE(std::holds_alternative<ParsedFirstPacket>(result));
  return std::get<StartupMessage>(std::get<ParsedFirstPacket>(result).packet);
}

TEST_CASE("an SSLRequest and a GSSENCRequest are eight bytes, and what follows stays") {
  CHECK(parse_in_pieces(packet(kSslRequestCode, "")) == "8 bytes: ssl");
  CHECK(parse_in_pieces(packet(kGssEncRequestCode, "")) == "8 bytes: gss");
  CHECK(describe(parse(packet(kSslRequestCode, "") + packet(kVersion30, "user\0u\0\0"s))) == "8 bytes: ssl");
}

TEST_CASE("a request that hides bytes in its own length is refused") {
  CHECK(fault_of(packet(kSslRequestCode, "x")) == StartupFault::kBadLength);
  CHECK(fault_of(packet(kGssEncRequestCode, "", 10'004)) == StartupFault::kBadLength);
}

TEST_CASE("a startup message keeps its parameters in order, repeated and empty ones too") {
  const std::string bytes = packet(kVersion30,
                                   "user\0alice\0a\0"
                                   "1\0database\0\0a\0\0a\0"
                                   "3\0\0"s);
  CHECK(parse_in_pieces(bytes) == std::to_string(bytes.size()) + " bytes: startup 3.0 user=alice a=1 database= a= a=3");
  const StartupMessage message = startup_of(bytes);
  REQUIRE(message.find("a") != nullptr);
  CHECK(*message.find("a") == "3");
  REQUIRE(message.find("database") != nullptr);
  CHECK(message.find("database")->empty());
  CHECK(message.find("A") == nullptr);
  CHECK(message.find("absent") == nullptr);
}

TEST_CASE("bytes behind a startup message are not consumed") {
  const std::string bytes = packet(kVersion30, "user\0u\0\0"s);
  CHECK(describe(parse(bytes + "p")) == describe(parse(bytes)));
  CHECK(std::get<ParsedFirstPacket>(parse(bytes + "p")).consumed == bytes.size());
}

TEST_CASE("protocol options are kept apart, and newer minor versions are accepted") {
  CHECK(parse_in_pieces(packet(3U << 16 | 9999,
                               "_pq_.test_protocol_negotiation\0\0user\0u\0_pq_.x\0"
                               "1\0\0"s)) ==
        "57 bytes: startup 3.9999 user=u option _pq_.test_protocol_negotiation option _pq_.x");
  CHECK(describe(parse(packet(kVersion32, "user\0u\0_pq_\0v\0\0"s))) == "23 bytes: startup 3.2 user=u _pq_=v");
}

TEST_CASE("a version other than 3 is refused with its number as soon as it is there") {
  for (const std::uint32_t code : {2U << 16, 1U << 16, 4U << 16, 0U, 1234U << 16 | 5681U, 0xffffffffU}) {
    const std::string bytes = packet(code, "", 296);
    CHECK(fault_of(bytes) == StartupFault::kUnsupportedMajor);
    CHECK(parse_in_pieces(bytes) == "rejected: unsupported frontend protocol " + std::to_string(code >> 16) + "." +
                                        std::to_string(code & 0xffff));
  }
}

TEST_CASE("the length is judged on four bytes, from 8 to 10,004") {
  const auto judged = [](std::uint32_t length) {
    std::string bytes;
    base::append_be32(bytes, length);
    return describe(parse(bytes));
  };
  const std::string refused = "rejected: invalid length of startup packet 0.0";
  for (const std::uint32_t length : {0U, 4U, 7U, 10'005U, 0x7fffffffU, 0x80000000U, 0xffffffffU})
    CHECK(judged(length) == refused);
  for (const std::uint32_t length : {8U, 9U, 10'003U, 10'004U}) CHECK(judged(length) == "need more");
}

TEST_CASE("a startup message of the greatest length is whole, one byte less needs more") {
  std::string body = "user\0u\0application_name\0"s;
  body.append(kMaxStartupPacket - 8 - body.size() - 2, 'x').append(2, '\0');
  const std::string bytes = packet(kVersion30, body);
  REQUIRE(bytes.size() == 10'004);
  CHECK(std::get<ParsedFirstPacket>(parse(bytes)).consumed == 10'004);
  CHECK(describe(parse(std::string_view(bytes).substr(0, 10'003))) == "need more");
}

TEST_CASE("a broken parameter list is refused") {
  for (const std::string& body : {""s,                // no terminator at all
                                  "\0"s,              // an empty list
                                  "user\0u\0"s,       // no terminator
                                  "user\0u"s,         // the value does not end
                                  "user"s,            // the name does not end
                                  "user\0u\0a\0"s,    // a name without a value
                                  "user\0u\0a\0\0"s,  // its value is the terminator: the list does not end
                                  "user\0u\0\0x"s,    // bytes behind the terminator
                                  "user\0u\0\0\0"s}) {
    CAPTURE(body);
    CHECK(fault_of(packet(kVersion30, body)) == StartupFault::kBadLayout);
    parse_in_pieces(packet(kVersion30, body));
  }
}

TEST_CASE("a list without a user, or with an empty one, has no user") {
  CHECK(fault_of(packet(kVersion30, "database\0d\0\0"s)) == StartupFault::kNoUser);
  CHECK(fault_of(packet(kVersion30, "user\0\0\0"s)) == StartupFault::kNoUser);
  CHECK(fault_of(packet(kVersion30, "_pq_.a\0b\0\0"s)) == StartupFault::kNoUser);
  CHECK(fault_of(packet(kVersion30, "User\0u\0\0"s)) == StartupFault::kNoUser);
}

TEST_CASE("a second user, database, replication or options is refused, even the same") {
  for (const std::string& name : {"user"s, "database"s, "replication"s, "options"s}) {
    CAPTURE(name);
    const std::string again = name + "\0u\0"s;
    const std::string user = name == "user" ? ""s : "user\0u\0"s;
    CHECK(fault_of(packet(kVersion30, user + again + again + "\0"s)) == StartupFault::kDuplicateParameter);
    CHECK(describe(parse(packet(kVersion30, user + again + "\0"s))).find(name + "=u") != std::string::npos);
  }
  CHECK(fault_of(packet(kVersion30, "user\0\0user\0u\0\0"s)) == StartupFault::kDuplicateParameter);
}

TEST_CASE("a cancel request has a secret of 4 to 256 bytes") {
  const auto cancel = [](std::size_t secret) {
    std::string body;
    base::append_be32(body, 4711);
    return packet(kCancelRequestCode, body + std::string(secret, 's'));
  };
  CHECK(parse_in_pieces(cancel(4)) == "16 bytes: cancel 4711 ssss");
  CHECK(parse_in_pieces(cancel(32)) == "44 bytes: cancel 4711 " + std::string(32, 's'));
  CHECK(describe(parse(cancel(256))) == "268 bytes: cancel 4711 " + std::string(256, 's'));
  for (const std::size_t secret : {0U, 1U, 3U, 257U, 9'000U})
    CHECK(fault_of(cancel(secret)) == StartupFault::kBadCancelLength);
  CHECK(fault_of(packet(kCancelRequestCode, "", 8)) == StartupFault::kBadCancelLength);
  CHECK(fault_of(packet(kCancelRequestCode, "", 10'004)) == StartupFault::kBadCancelLength);
}

TEST_CASE("what is built is parsed back") {
  const std::vector<StartupParameter> parameters = {{"user", "alice"}, {"options", ""}, {"a", "1"}, {"a", "\xff\x01"}};
  const StartupMessage message = startup_of(build_startup_message(parameters));
  CHECK(message.major == 3);
  CHECK(message.minor == 0);
  REQUIRE(message.parameters.size() == parameters.size());
  for (std::size_t at = 0; at < parameters.size(); ++at) {
    CHECK(message.parameters[at].name == parameters[at].name);
    CHECK(message.parameters[at].value == parameters[at].value);
  }
  CHECK(describe(parse(build_ssl_request())) == "8 bytes: ssl");
  CHECK(describe(parse(build_cancel_request(0xfffffffe, "abcd"))) == "16 bytes: cancel 4294967294 abcd");
  CHECK(build_startup_message({{"user", "u"}}) == "\0\0\0\x10\0\3\0\0user\0u\0\0"s);
}

TEST_CASE("secrets are equal only whole") {
  CHECK(secrets_equal("abcd", "abcd"));
  CHECK(secrets_equal("", ""));
  CHECK_FALSE(secrets_equal("abcd", "abce"));
  CHECK_FALSE(secrets_equal("abcd", "abc"));
  CHECK_FALSE(secrets_equal("\0\0\0\0"s, ""));
}

// ---- options ----------------------------------------------------------------------------------------------------

/// "rest [name=value] [name=value]", judged by the other reader of options.
std::string extract(std::string_view options) {
  const SplitOptions split = extract_options(options, "pointsman.");
  std::vector<std::string> extracted;
  std::string text = split.rest;
  for (const auto& [name, value] : split.extracted) {
    extracted.push_back(name + "=" + value);
    text += " [" + extracted.back() + "]";
  }
  CHECK(test::judge_extraction(options, "pointsman.", split.rest, extracted) == "");
  return text;
}

TEST_CASE("options without settings of ours stay byte for byte") {
  for (const std::string_view options :
       {"", "   ", "-c a=b", " -c  a=b\t", "-c pointsman=1", "-c xpointsman.a=1", "--a-b=c\\ d  ", "pointsman.a=1",
        "-c a=pointsman.a=1", "-f s -v 3 -d 5 -B 3", "\\", "-c", "--"}) {
    CHECK(extract(options) == options);
  }
}

TEST_CASE("each way of writing a setting is understood") {
  CHECK(extract("-c pointsman.max_lag=2s") == " [max_lag=2s]");
  CHECK(extract("-cpointsman.max_lag=2s") == " [max_lag=2s]");
  CHECK(extract("--pointsman.max_lag=2s") == " [max_lag=2s]");
  CHECK(extract("--pointsman.max-lag=2-s") == " [max_lag=2-s]");
  CHECK(extract("-c pointsman.max-lag=2s") == " [max_lag=2s]");
  CHECK(extract("-c PointsMan.Max_Lag=2S") == " [Max_Lag=2S]");
  CHECK(extract("-Ec pointsman.a=1") == "-E [a=1]");
  CHECK(extract("-Ecpointsman.a=1") == "-E [a=1]");
  CHECK(extract("-E-pointsman.a=1 -F") == "-E -F [a=1]");
  CHECK(extract("-E- pointsman.a=1 -F") == "-E -F [a=1]");
}

TEST_CASE("a value is what stands behind the first equals sign, without backslashes") {
  CHECK(extract("-c pointsman.a=b=c") == " [a=b=c]");
  CHECK(extract("-c pointsman.a=") == " [a=]");
  CHECK(extract("-c pointsman.a") == " [a=]");
  CHECK(extract("-c pointsman.a=1\\ 2\\\\3\\") == " [a=1 2\\3]");
  CHECK(extract("\\-\\c \\poi\\ntsman.a=1") == " [a=1]");
  CHECK(extract("-c pointsman.=1") == " [=1]");
}

TEST_CASE("the white space around a removed item goes with it") {
  CHECK(extract("-c a=b -c pointsman.x=1") == "-c a=b [x=1]");
  CHECK(extract("-c pointsman.x=1 -c a=b") == "-c a=b [x=1]");
  CHECK(extract("  -c  pointsman.x=1   -c a=b ") == "-c a=b  [x=1]");
  CHECK(extract(" -c a=b -c\tpointsman.x=1\n\n-E  -F  ") == " -c a=b\n\n-E  -F   [x=1]");
  CHECK(extract("-c a=b\\  -c pointsman.x=1 ") == "-c a=b\\  [x=1]");
  CHECK(extract(" -c pointsman.x=1 --pointsman.y=2 ") == " [x=1] [y=2]");
  CHECK(extract("-c pointsman.x=1 -E -c pointsman.x=2 -F") == "-E -F [x=1] [x=2]");
}

TEST_CASE("the argument of another switch is no setting") {
  CHECK(extract("-f -cpointsman.x=1 -c pointsman.y=1") == "-f -cpointsman.x=1 [y=1]");
  CHECK(extract("-fc pointsman.x=1") == "-fc pointsman.x=1");
  CHECK(extract("-d 5 -c pointsman.x=1") == "-d 5 [x=1]");
  CHECK(extract("-d5 -c pointsman.x=1") == "-d5 [x=1]");
  CHECK(extract("-c -cpointsman.x=1 --pointsman.y=1") == "-c -cpointsman.x=1 [y=1]");
  CHECK(extract("-c -- -c pointsman.x=1") == "-c -- [x=1]");
  CHECK(extract("-- -c pointsman.x=1 ") == "-- -c pointsman.x=1 ");
  CHECK(extract("-c pointsman.x=1 -- -c pointsman.x=1 ") == "-- -c pointsman.x=1  [x=1]");
}

TEST_CASE("random options: the backend reads from what stays what it read before, without ours") {
  const std::vector<std::string> parts = {" ",
                                          "  ",
                                          "\t",
                                          "\\",
                                          "\\ ",
                                          "-",
                                          "--",
                                          "-c",
                                          "-c ",
                                          "-E",
                                          "-f",
                                          "-d 5",
                                          "-e",
                                          "c",
                                          "=",
                                          "pointsman.",
                                          "pointsman.max-lag=2s",
                                          "PointsMan.x=1",
                                          "a.b=c",
                                          "-cpointsman.x=1",
                                          "--pointsman.y=a\\ b",
                                          "x",
                                          "-Ec",
                                          "-S 64",
                                          "s",
                                          "-v3",
                                          "-Z",
                                          "\n"};
  std::mt19937 random(20'240'229);
  std::uniform_int_distribution<std::size_t> count(0, 12);
  std::uniform_int_distribution<std::size_t> pick(0, parts.size() - 1);
  std::size_t accepted = 0;
  std::size_t extracted = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string options;
    for (std::size_t left = count(random); left > 0; --left)
      options += parts[pick(random)] + (random() % 2 == 0 ? " " : "");
    CAPTURE(options);
    const SplitOptions split = extract_options(options, "pointsman.");
    extract(options);
    const SplitOptions again = extract_options(split.rest, "pointsman.");
    CHECK(again.extracted.empty());
    CHECK(again.rest == split.rest);
    if (!split.extracted.empty() && test::read_options(options).accepted) ++extracted;
    if (test::read_options(options).accepted) ++accepted;
  }
  CHECK(accepted > 1'000);
  CHECK(extracted > 100);
}

}  // namespace
}  // namespace pointsman::protocol
