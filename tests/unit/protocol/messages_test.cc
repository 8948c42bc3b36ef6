#include "protocol/messages.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "protocol/postgres_format.h"
#include "tests/unit/support/chunker.h"

namespace pointsman::protocol {
namespace {

using namespace std::string_literals;

/// The one message that `bytes` are: its tag and its body.
std::string body_of(std::string_view bytes, char tag) {
  const Frame frame = next_message(base::as_bytes(bytes), bytes.size());
  REQUIRE(frame.status == FrameStatus::kMessage);
  CHECK(frame.message.tag == tag);
  CHECK(frame.message.total == bytes.size());
  return std::string(base::as_text(frame.message.body));
}
template <typename Append>
std::string written(Append append) {
  std::string out = "before";
  append(out);
  CHECK(out.starts_with("before"));
  return out.substr(6);
}
AuthenticationRequest authentication(const std::string& body) {
  return parse_authentication(base::as_bytes(body));
}

TEST_CASE("an error response has the fields that are set, severity twice") {
  const std::string bytes = written([](std::string& out) {
    append_error_response(
        out,
        {.severity = "FATAL", .sqlstate = "28000", .message = "no", .detail = {}, .hint = "try", .routine = "why"});
  });
  CHECK(body_of(bytes, 'E') == "SFATAL\0VFATAL\0C28000\0Mno\0Htry\0Rwhy\0\0"s);
}

TEST_CASE("a notice has the same layout and its own tag") {
  const std::string bytes = written([](std::string& out) {
    append_notice_response(
        out, {.severity = "NOTICE", .sqlstate = "00000", .message = "m", .detail = "d", .hint = {}, .routine = {}});
  });
  CHECK(body_of(bytes, 'N') == "SNOTICE\0VNOTICE\0C00000\0Mm\0Dd\0\0"s);
}

TEST_CASE("a text of an error ends at its zero byte, so that it cannot forge fields") {
  const std::string bytes = written([](std::string& out) {
    append_error_response(out,
                          {.sqlstate = "08P01", .message = "a\0Cforged"s, .detail = "\0x"s, .hint = {}, .routine = {}});
  });
  CHECK(body_of(bytes, 'E') == "SFATAL\0VFATAL\0C08P01\0Ma\0\0"s);
}

TEST_CASE("authentication requests are read back as they were written") {
  const auto read = [](auto append) { return authentication(body_of(written(append), 'R')); };
  CHECK(std::holds_alternative<AuthOk>(read([](std::string& out) { append_authentication_ok(out); })));
  const std::string offer = body_of(written([](std::string& out) {
                                      append_authentication_sasl(out, {kScramSha256Plus, kScramSha256});
                                    }),
                                    'R');
  CHECK(offer == "\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"s);
  const AuthenticationRequest sasl = authentication(offer);
  REQUIRE(std::holds_alternative<AuthSasl>(sasl));
  CHECK(std::get<AuthSasl>(sasl).mechanisms == std::vector<std::string_view>{kScramSha256Plus, kScramSha256});
  const std::string continued =
      body_of(written([](std::string& out) { append_authentication_sasl_continue(out, "r=1"); }), 'R');
  CHECK(std::get<AuthSaslContinue>(authentication(continued)).data == "r=1");
  const std::string final =
      body_of(written([](std::string& out) { append_authentication_sasl_final(out, "v=1"); }), 'R');
  CHECK(std::get<AuthSaslFinal>(authentication(final)).data == "v=1");
}

TEST_CASE("a backend's other authentication requests are told apart") {
  CHECK(std::holds_alternative<AuthCleartext>(authentication("\0\0\0\3"s)));
  CHECK(std::holds_alternative<AuthMd5>(authentication("\0\0\0\5salt"s)));
  for (const std::uint32_t code : {2U, 6U, 7U, 8U, 9U, 13U, 0xffffffffU}) {
    std::string body;
    base::append_be32(body, code);
    const AuthenticationRequest request = authentication(body + "data");
    REQUIRE(std::holds_alternative<AuthUnsupported>(request));
    CHECK(std::get<AuthUnsupported>(request).code == code);
  }
}

TEST_CASE("an authentication request of the wrong size or an unended list is malformed") {
  for (const std::string& body :
       {""s, "\0\0\0"s, "\0\0\0\0x"s, "\0\0\0\3x"s, "\0\0\0\5sal"s, "\0\0\0\5salty"s, "\0\0\0\x0a"s,
        "\0\0\0\x0a"
        "A"s,
        "\0\0\0\x0a"
        "A\0"s,
        "\0\0\0\x0a"
        "A\0\0x"s}) {
    CAPTURE(body);
    CHECK(std::holds_alternative<AuthMalformed>(authentication(body)));
  }
  const AuthenticationRequest none = authentication("\0\0\0\x0a\0"s);
  REQUIRE(std::holds_alternative<AuthSasl>(none));
  CHECK(std::get<AuthSasl>(none).mechanisms.empty());
}

TEST_CASE("at most 16 mechanisms are taken from a backend") {
  const auto offer = [](int count) {
    std::string body = "\0\0\0\x0a"s;
    for (int at = 0; at < count; ++at) body += "M\0"s;
    return authentication(body + '\0');
  };
  CHECK(std::get<AuthSasl>(offer(15)).mechanisms.size() == 15);
  CHECK(std::get<AuthSasl>(offer(16)).mechanisms.size() == 16);
  CHECK(std::holds_alternative<AuthMalformed>(offer(17)));
}

TEST_CASE("key data have a secret of 4 to 256 bytes") {
  for (const std::size_t size : {4U, 5U, 32U, 255U, 256U}) {
    const std::string secret(size, 's');
    BackendKey key;
    CHECK(parse_backend_key_data(
        base::as_bytes(
            body_of(written([&](std::string& out) { append_backend_key_data(out, 0x80000001, secret); }), 'K')),
        key));
    CHECK(key.pid == 0x80000001);
    CHECK(key.secret == secret);
  }
  for (const std::size_t size : {0U, 3U, 4U, 7U, 261U, 1'000U}) {
    BackendKey key{.pid = 7, .secret = "kept"};
    CHECK_FALSE(parse_backend_key_data(base::as_bytes(std::string(size, 'x')), key));
    CHECK(key.secret == "kept");
  }
}

TEST_CASE("NegotiateProtocolVersion names a whole version and each unknown option") {
  const std::string bytes = written([](std::string& out) {
    append_negotiate_protocol_version(out, 2, {"_pq_.a", "_pq_.b"});
  });
  CHECK(body_of(bytes, 'v') == "\0\3\0\2\0\0\0\2_pq_.a\0_pq_.b\0"s);
  CHECK(body_of(written([](std::string& out) { append_negotiate_protocol_version(out, 0, {}); }), 'v') ==
        "\0\3\0\0\0\0\0\0"s);
}

TEST_CASE("our own messages to a backend") {
  CHECK(written([](std::string& out) { append_sasl_initial_response(out, "SCRAM-SHA-256", "n,,n=,r=x"); }) ==
        "p\0\0\0\x1fSCRAM-SHA-256\0\0\0\0\x09n,,n=,r=x"s);
  CHECK(written([](std::string& out) { append_sasl_response(out, "c=biws"); }) ==
        "p\0\0\0\x0a"
        "c=biws"s);
  CHECK(written([](std::string& out) { append_terminate(out); }) == "X\0\0\0\4"s);
}

TEST_CASE("a message is cut when it is whole, the same however it arrives") {
  const std::string bytes =
      "S\0\0\0\x08"
      "a\0b\0"s +
      "Z\0\0\0\5I"s;
  for (std::size_t size = 0; size < 9; ++size) {
    const Frame frame = next_message(base::as_bytes(std::string_view(bytes).substr(0, size)), 4);
    CHECK(frame.status == FrameStatus::kNeedMore);
    CHECK(frame.message.tag == (size == 0 ? '\0' : 'S'));
  }
  const Frame frame = next_message(base::as_bytes(bytes), 4);
  CHECK(frame.status == FrameStatus::kMessage);
  CHECK(base::as_text(frame.message.body) == "a\0b\0"s);
  CHECK(frame.message.total == 9);
}

TEST_CASE("a length is judged on the header, from 4 to the given limit") {
  const auto judged = [](std::uint32_t length) {
    std::string bytes = "p";
    base::append_be32(bytes, length);
    return next_message(base::as_bytes(bytes), kMaxSaslMessage).status;
  };
  for (const std::uint32_t length : {0U, 3U, 1'029U, 0x7fffffffU, 0x80000000U, 0xffffffffU})
    CHECK(judged(length) == FrameStatus::kBadLength);
  for (const std::uint32_t length : {5U, 1'027U, 1'028U}) CHECK(judged(length) == FrameStatus::kNeedMore);
  CHECK(judged(4) == FrameStatus::kMessage);
}

TEST_CASE("a backend's error is read by field, the unlocalized severity first") {
  const auto read = [](const std::string& body) {
    const ErrorView view = parse_error_fields(base::as_bytes(body));
    return std::string(view.severity) + "|" + std::string(view.sqlstate) + "|" + std::string(view.message);
  };
  CHECK(read("SFATAL\0VFATAL\0C53300\0Msorry\0Fx.c\0\0"s) == "FATAL|53300|sorry");
  CHECK(read("SFATALE\0VFATAL\0C53300\0Mnon\0\0"s) == "FATAL|53300|non");
  CHECK(read("SFATAL\0C57P03\0Mm\0\0"s) == "FATAL|57P03|m");
  CHECK(read("SERROR\0Mno code\0\0"s) == "ERROR||no code");
}

TEST_CASE("a hostile backend's error gives what can be read of it") {
  const auto read = [](const std::string& body) { return parse_error_fields(base::as_bytes(body)); };
  CHECK(read("").sqlstate.empty());
  CHECK(read("\0C28P01\0"s).sqlstate.empty());
  CHECK(read("C28P01"s).sqlstate.empty());
  CHECK(read("C28P01\0"s).sqlstate == "28P01");
  CHECK(read("C28P01\0Mcut"s).message.empty());
  for (const std::string& state : {"28P0"s, "28P011"s, "28p01"s, "28 01"s, ""s, "\xff\xff\xff\xff\xff"s}) {
    CHECK(read("C" + state + "\0\0"s).sqlstate.empty());
  }
}

TEST_CASE("a SASLInitialResponse must fill its message exactly") {
  const auto parse = [](const std::string& body, SaslInitialResponse& response) {
    return parse_sasl_initial_response(base::as_bytes(body), response);
  };
  SaslInitialResponse response;
  const std::string whole = "SCRAM-SHA-256\0\0\0\0\3abc"s;
  REQUIRE(parse(whole, response));
  CHECK(response.mechanism == "SCRAM-SHA-256");
  CHECK(response.has_data);
  CHECK(response.data == "abc");
  const std::string empty = "M\0\0\0\0\0"s;
  REQUIRE(parse(empty, response));
  CHECK(response.has_data);
  CHECK(response.data.empty());
  const std::string absent = "M\0\xff\xff\xff\xff"s;
  REQUIRE(parse(absent, response));
  CHECK_FALSE(response.has_data);
  for (const std::string& body : {""s, "M"s, "M\0"s, "M\0\0\0\0"s, "M\0\0\0\0\3ab"s, "M\0\0\0\0\3abcd"s,
                                  "M\0\xff\xff\xff\xff"
                                  "a"s,
                                  "M\0\xff\xff\xff\xfe"s, "M\0\x80\0\0\0"s,
                                  "M\0\x7f\xff\xff\xff"
                                  "abc"s}) {
    CAPTURE(body);
    CHECK_FALSE(parse(body, response));
  }
}

}  // namespace
}  // namespace pointsman::protocol
