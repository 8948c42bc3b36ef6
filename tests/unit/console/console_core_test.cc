#include "proxy/console/console_core.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/unit/support/console_driver.h"

namespace pointsman::proxy {
namespace {

using namespace std::chrono_literals;
using test::ConsoleDrive;
using test::query_message;
using test::startup_packet;
using test::typed_message;
using Lines = std::vector<std::string>;

const std::string kSslRequest = protocol::build_ssl_request();

/// Logged in, with nothing sent before.
struct Inside {
  explicit Inside(std::string_view user = "admin", std::size_t chunk = 0) : drive(chunk) {
    REQUIRE(drive.login(user));
    drive.sent.clear();
    drive.log.clear();
  }
  ConsoleDrive drive;
};

Lines answers(std::string_view bytes, std::string_view user = "admin") {
  Inside inside(user);
  inside.drive.client(bytes);
  return inside.drive.messages();
}

TEST_CASE("a login is greeted as psql expects it") {
  ConsoleDrive drive;
  REQUIRE(drive.login("admin"));
  const Lines messages = drive.messages();
  REQUIRE(messages.size() == 16);
  CHECK(messages.front() == "R");
  CHECK(messages[messages.size() - 2] == "K");
  CHECK(messages.back() == "Z");
  CHECK(drive.sent.find(std::string("server_version\0", 15) + "10.0 (Pointsman 1.2.3)") != std::string::npos);
  CHECK(drive.sent.find(std::string("is_superuser\0on\0", 16)) != std::string::npos);
  CHECK(drive.log == Lines{"login"});
  ConsoleDrive reader;
  REQUIRE(reader.login("reader"));
  CHECK(reader.sent.find(std::string("is_superuser\0off\0", 17)) != std::string::npos);
}

TEST_CASE("an unknown user goes through the same exchange as a wrong password") {
  const auto refused = [](std::string_view user, bool spoil) {
    ConsoleDrive drive;
    if (spoil) {
      auto other = test::console_password().verifier;
      other.stored_key = protocol::sha256("something else");
      drive.services.config.users["admin"].verifier = base::SecretString(protocol::format_scram_verifier(other));
    }
    CHECK_FALSE(drive.login(user));
    CHECK(drive.finished);
    return drive.messages();
  };
  const Lines wrong = refused("admin", true);
  CHECK(wrong == Lines{"R", "R", "E:FATAL 28P01 password authentication failed for user \"admin\""});
  CHECK(refused("nobody", false) ==
        Lines{"R", "R", "E:FATAL 28P01 password authentication failed for user \"nobody\""});
}

TEST_CASE("a user whose verifier cannot be used is nobody") {
  ConsoleDrive drive;
  drive.services.config.users["admin"].verifier = base::SecretString("md5whatever");
  CHECK_FALSE(drive.login("admin"));
  CHECK(drive.messages().back().starts_with("E:FATAL 28P01"));
}

TEST_CASE("the database is judged behind the proof") {
  ConsoleDrive other;
  CHECK_FALSE(other.login("admin", "postgres"));
  CHECK(other.messages() == Lines{"R", "R", "E:FATAL 3D000 database \"postgres\" does not exist"});
  ConsoleDrive none;
  CHECK_FALSE(none.login("admin", ""));
  CHECK(none.messages().back() == "E:FATAL 3D000 database \"admin\" does not exist");
  ConsoleDrive stranger;
  CHECK_FALSE(stranger.login("nobody", "postgres"));
  CHECK(stranger.messages().back().starts_with("E:FATAL 28P01"));
}

TEST_CASE("a place is taken only by who has proved himself") {
  ConsoleDrive full;
  full.services.has_room = false;
  CHECK_FALSE(full.login("admin"));
  CHECK(full.messages().back() == "E:FATAL 53300 too many connections to the admin console: 32 are allowed");
  ConsoleDrive stranger;
  stranger.services.has_room = false;
  CHECK_FALSE(stranger.login("nobody"));
  CHECK(stranger.messages().back().starts_with("E:FATAL 28P01"));
}

TEST_CASE("encryption is offered, refused or required as the listener says") {
  ConsoleDrive offered(0, routing::ListenerTls::kRequired);
  offered.client(kSslRequest);
  CHECK(offered.sent == "S");
  CHECK(offered.log == Lines{"tls 0"});
  offered.core().on_tls("", false);
  CHECK_FALSE(offered.finished);

  ConsoleDrive off(0, routing::ListenerTls::kOff);
  off.client(kSslRequest);
  CHECK(off.sent == "N");
  off.client(kSslRequest);
  CHECK(off.finished);

  ConsoleDrive required(0, routing::ListenerTls::kRequired);
  required.client(startup_packet("admin"));
  CHECK(required.messages().back().starts_with("E:FATAL 28000"));
}

TEST_CASE("bytes behind an SSLRequest are refused") {
  ConsoleDrive drive(0, routing::ListenerTls::kRequired);
  drive.client(kSslRequest + startup_packet("admin"));
  CHECK(drive.messages().back() == "E:FATAL 08P01 received unencrypted data after SSL request");
}

TEST_CASE("direct TLS needs ALPN") {
  ConsoleDrive drive(0, routing::ListenerTls::kRequired);
  drive.client("\x16\x03\x01");
  CHECK(drive.log == Lines{"tls 3"});
  drive.core().on_tls("", false);
  drive.pump();
  CHECK(drive.messages().back().starts_with("E:FATAL 08P01"));
  ConsoleDrive off(0, routing::ListenerTls::kOff);
  off.client("\x16\x03\x01");
  CHECK(off.finished);
  CHECK(off.sent.empty());
}

TEST_CASE("a cancel request and a failed handshake just end") {
  ConsoleDrive cancel;
  cancel.client(protocol::build_cancel_request(1, "abcd"));
  CHECK(cancel.log == Lines{"finish client_closed: "});
  CHECK(cancel.sent.empty());
  ConsoleDrive failed(0, routing::ListenerTls::kRequired);
  failed.client(kSslRequest);
  failed.core().on_tls_failed("no shared cipher");
  failed.pump();
  CHECK(failed.log.back() == "finish refused: TLS handshake failed: no shared cipher");
}

TEST_CASE("an answer has its types, its rows, its tag") {
  Inside inside;
  inside.drive.client(query_message("SHOW VERSION"));
  CHECK(inside.drive.messages() == Lines{"T", "D", "D", "C:SHOW", "Z"});
  std::string columns;
  append_row_description(
      columns,
      {{"version"}, {"number", ColumnType::kInt8}, {"share", ColumnType::kFloat8}, {"good", ColumnType::kBool}});
  CHECK(inside.drive.sent.starts_with(columns));
  std::string row(
      "D\0\0\0\x21\0\4\0\0\0\3one\0\0\0\2-7\0\0\0\5"
      "0.500\0\0\0\1t",
      34);
  CHECK(inside.drive.sent.substr(columns.size()).starts_with(row));
  CHECK(inside.drive.log == Lines{"execute SHOW", "count 0"});
}

TEST_CASE("several statements run in order, and stop at the first error") {
  CHECK(answers(query_message("RELOAD; SHOW VERSION")) ==
        Lines{"N:NOTICE 00000 done", "C:RELOAD", "T", "D", "D", "C:SHOW", "Z"});
  CHECK(answers(query_message("RELOAD; HOLD x; RELOAD")) ==
        Lines{"N:NOTICE 00000 done", "C:RELOAD", "E:ERROR 55000 no", "Z"});
  CHECK(answers(query_message("RELOAD; NONSENSE")) == Lines{"E:ERROR 42601 syntax error at or near \"NONSENSE\"", "Z"});
  CHECK(answers(query_message("")) == Lines{"I", "Z"});
  CHECK(answers(query_message("RELOAD") + query_message("RELOAD")) ==
        Lines{"N:NOTICE 00000 done", "C:RELOAD", "Z", "N:NOTICE 00000 done", "C:RELOAD", "Z"});
}

TEST_CASE("a reader is denied what acts, and what stands behind it") {
  Inside inside("reader");
  inside.drive.client(query_message("SHOW VERSION; RELOAD; SHOW VERSION"));
  CHECK(inside.drive.messages() ==
        Lines{"T", "D", "D", "C:SHOW", "E:ERROR 42501 permission denied: RELOAD needs the role \"admin\"", "Z"});
  CHECK(inside.drive.log == Lines{"execute SHOW", "count 0", "count 2"});
}

TEST_CASE("rights are those of now") {
  Inside inside;
  inside.drive.services.config.users["admin"].role = routing::ConsoleRole::kRead;
  inside.drive.client(query_message("RELOAD"));
  CHECK(inside.drive.messages().front().starts_with("E:ERROR 42501"));
  inside.drive.services.config.users.erase("admin");
  inside.drive.client(query_message("SHOW VERSION"));
  CHECK(inside.drive.finished);
  CHECK(inside.drive.messages().back().starts_with("E:FATAL 28000"));
}

TEST_CASE("the extended protocol is refused once, up to Sync") {
  const std::string parse = typed_message('P', std::string("\0SHOW VERSION\0\0\0", 16));
  const std::string bind = typed_message('B', std::string(4000, 'b'));
  CHECK(answers(parse + bind + typed_message('D', "P") + typed_message('E', "x") + typed_message('S', "") +
                query_message("RELOAD")) ==
        Lines{"E:ERROR 0A000 the admin console takes simple queries only, no prepared statements", "Z",
              "N:NOTICE 00000 done", "C:RELOAD", "Z"});
  CHECK(answers(typed_message('S', "")) == Lines{"Z"});
  CHECK(answers(typed_message('H', "") + typed_message('d', "copy") + typed_message('c', "")).empty());
  CHECK(answers(typed_message('F', "function")) ==
        Lines{"E:ERROR 0A000 function calls are not possible in the admin console", "Z"});
}

TEST_CASE("Terminate, and messages that are none") {
  Inside bye;
  bye.drive.client(typed_message('X', ""));
  CHECK(bye.drive.log == Lines{"finish client_closed: "});
  CHECK(bye.drive.sent.empty());
  CHECK(answers(typed_message('?', "")).back() == "E:FATAL 08P01 invalid frontend message type");
  CHECK(answers(std::string("Q\0\0\0\3", 5)).back() == "E:FATAL 08P01 invalid message length");
  CHECK(answers(typed_message('Q', "no zero byte")).back() == "E:FATAL 08P01 invalid string in message");
  CHECK(answers(typed_message('Q', std::string("a\0b\0", 4))).back() == "E:FATAL 08P01 invalid string in message");
  CHECK(answers(typed_message('p', "")).back() == "E:FATAL 08P01 invalid frontend message type");
}

TEST_CASE("a statement beyond the limit is skipped and told, one far beyond it ends the connection") {
  const auto of_size = [](std::size_t size) { return query_message("RELOAD--" + std::string(size - 8, 'x')); };
  CHECK(answers(of_size(kMaxQueryBytes)).size() == 3);
  for (const std::size_t size : {kMaxQueryBytes + 1, std::size_t{100'000}, kMaxSkippedBytes - 1}) {
    CHECK(answers(of_size(size) + query_message("RELOAD")) ==
          Lines{"E:ERROR 54000 a statement of more than 8192 bytes", "Z", "N:NOTICE 00000 done", "C:RELOAD", "Z"});
  }
  CHECK(answers(of_size(kMaxSkippedBytes)).back() == "E:FATAL 08P01 invalid message length");
  const std::string long_parse = typed_message('P', std::string(100'000, 'p'));
  CHECK(answers(long_parse + typed_message('S', "")).back() == "Z");
}

TEST_CASE("input is not wanted while a statement runs") {
  Inside inside;
  ConsoleDrive& drive = inside.drive;
  CHECK(drive.core().wants_input());
  bool wanted = true;
  std::optional<base::Instant> deadline;
  drive.answer = [&](const Statement&) {
    wanted = drive.core().wants_input();
    deadline = drive.core().deadline();
    return StatementResult{};
  };
  drive.client(query_message("RELOAD"));
  CHECK_FALSE(wanted);
  CHECK_FALSE(deadline);
  CHECK(drive.core().wants_input());
}

TEST_CASE("a long answer is made in pieces, and only when it is asked for") {
  Inside inside;
  ConsoleDrive& drive = inside.drive;
  std::size_t made = 0;
  drive.answer = [&made](const Statement&) {
    StatementResult result;
    result.table = Table{.columns = {{"text"}}, .more = [&made]() -> std::optional<std::vector<Row>> {
                           if (made == 10'000) return std::nullopt;
                           made += 10;
                           return std::vector<Row>(10, Row{std::string(kMaxCellBytes, 't')});
                         }};
    return result;
  };
  drive.core().on_bytes(base::as_bytes(query_message("SHOW SESSIONS")));
  auto action = drive.core().poll_action(drive.now);
  REQUIRE(action);
  REQUIRE(std::holds_alternative<ConsoleExecute>(*action));
  drive.core().on_result(drive.answer({}));
  while ((action = drive.core().poll_action(drive.now))) {
    if (const auto* send = std::get_if<ConsoleSend>(&*action)) {
      CHECK(made <= 50);  // two pieces' worth: nothing is made before it is asked for
      if (send->bytes.size() > 1000) break;
    }
  }
  drive.pump();
  CHECK(made == 10'000);
  CHECK(drive.largest_piece <= kAnswerPiece + kMaxCellBytes + 64);
  CHECK(drive.messages().size() > 9'900);
}

TEST_CASE("texts are cut at their limit, between characters") {
  Inside inside;
  inside.drive.answer = [](const Statement&) {
    StatementResult result;
    std::string text;
    while (text.size() < kMaxCellBytes + 10) text += "ü";
    result.table = Table{.columns = {{"text"}},
                         .more = [text = "x" + text, given = false]() mutable -> std::optional<std::vector<Row>> {
                           if (std::exchange(given, true)) return std::nullopt;
                           return std::vector<Row>{{text}};
                         }};
    return result;
  };
  inside.drive.client(query_message("SHOW HELP"));
  const auto at = inside.drive.sent.find("xü");
  REQUIRE(at != std::string::npos);
  CHECK(base::load_be32(base::as_bytes(inside.drive.sent).data() + at - 4) == kMaxCellBytes - 1);
}

TEST_CASE("many long notices are sent in pieces too") {
  Inside inside;
  inside.drive.answer = [](const Statement&) {
    StatementResult result;
    const std::string text(20'000, 'n');
    for (int i = 0; i < 21; ++i) {
      result.notices.push_back(
          {.severity = "WARNING", .sqlstate = "01000", .message = text, .detail = text, .hint = text});
    }
    return result;
  };
  inside.drive.client(query_message("RELOAD"));
  CHECK(inside.drive.messages().size() == 23);
  CHECK(inside.drive.largest_piece <= kAnswerPiece);
}

TEST_CASE("the login's deadline is not moved by bytes, and told where a client can be told") {
  ConsoleDrive silent;
  silent.advance(14s);
  CHECK_FALSE(silent.finished);
  silent.advance(1s);
  CHECK(silent.log == Lines{"finish refused: timeout"});
  CHECK(silent.sent.empty());
  ConsoleDrive slow;
  slow.client(startup_packet("admin"));
  slow.advance(15s);
  CHECK(slow.messages().back().starts_with("E:FATAL 57P03"));
}

TEST_CASE("an idle console ends, a busy one does not") {
  Inside inside;
  ConsoleDrive& drive = inside.drive;
  drive.services.config.idle_timeout = 60s;
  drive.advance(59s);
  drive.client(query_message("RELOAD"));
  drive.advance(59s);
  drive.client("Q");  // half a message keeps nobody busy
  CHECK_FALSE(drive.finished);
  drive.advance(1s);
  CHECK(drive.messages().back() == "E:FATAL 57P05 terminating connection due to idle-session timeout");
  CHECK(drive.log.back() == "finish idle: idle");
}

TEST_CASE("what comes when the connection has ended is without effect") {
  Inside inside;
  ConsoleDrive& drive = inside.drive;
  drive.core().on_stop();
  drive.core().on_stop();
  drive.core().on_eof();
  drive.core().on_bytes(base::as_bytes("QQQQQQ"));
  drive.core().on_result({});
  drive.core().on_deadline(drive.now + 1000h);
  drive.pump();
  CHECK(drive.messages() == Lines{"E:FATAL 57P01 terminating connection because this router is shutting down"});
  CHECK(drive.log == Lines{"finish stopped: the router stops"});
  CHECK_FALSE(drive.core().wants_input());
}

TEST_CASE("a result for a client that went meanwhile is dropped") {
  Inside inside;
  ConsoleDrive& drive = inside.drive;
  drive.answer = [&drive](const Statement&) {
    drive.core().on_eof();
    return StatementResult{};
  };
  drive.client(query_message("RELOAD"));
  CHECK(drive.finished);
  CHECK(drive.sent.empty());
}

TEST_CASE("however the bytes are cut, the answer is the same") {
  const std::string conversation =
      query_message("SHOW VERSION; RELOAD") + typed_message('P', "parse") + typed_message('E', std::string(9000, 'e')) +
      typed_message('S', "") + query_message("SELECT 1") + query_message("RELOAD--" + std::string(20'000, 'x')) +
      typed_message('S', "") + query_message("HOLD x; RELOAD") + query_message("") + typed_message('X', "");
  const auto run = [&](std::size_t chunk) {
    Inside inside("admin", chunk);
    inside.drive.client(conversation);
    CHECK(inside.drive.unread() == 0);
    Lines all = inside.drive.messages();
    all.insert(all.end(), inside.drive.log.begin(), inside.drive.log.end());
    return std::make_pair(inside.drive.sent, all);
  };
  const auto whole = run(0);
  CHECK(whole.second.back() == "finish client_closed: ");
  for (const std::size_t chunk : std::vector<std::size_t>{1, 3, 64, 4096}) CHECK(run(chunk) == whole);
}

TEST_CASE("a newer protocol and its options are negotiated down") {
  ConsoleDrive drive;
  std::string packet = startup_packet("admin");
  packet[7] = 2;  // 3.2
  drive.client(packet);
  CHECK(drive.messages() == Lines{"v", "R"});
}

}  // namespace
}  // namespace pointsman::proxy
