// Ends, broken records, old protocols and attacks; tls_engine_test.cc has the honest half.

#include "protocol/tls_engine.h"

#include <doctest/doctest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/support/tls_pair.h"

namespace pointsman::protocol {
namespace {

using tests::contains;
using tests::kChunks;
using tests::kWhole;
using tests::pattern;
using tests::raw_client_context;
using tests::RawContext;
using tests::RawTlsPeer;
using tests::tls12_client;
using tests::TlsEnd;
using tests::TlsPair;
using tests::world;
using Status = TlsEngine::Status;

/// The alert (level, description) in a plaintext alert record at the end of `sent`.
std::pair<int, int> last_alert(std::string_view sent) {
  if (sent.size() < 7 || sent[sent.size() - 7] != '\x15') return {0, 0};
  return {sent[sent.size() - 2], sent[sent.size() - 1]};
}

TEST_CASE("close_notify is sent once and seen behind the data before it") {
  for (const bool newest : {true, false}) {
    for (const auto chunk : kChunks) {
      TlsPair pair(world().server(), newest ? world().client() : tls12_client());
      REQUIRE(pair.shake_hands());
      REQUIRE(pair.client.write("last words"));
      pair.client.shutdown();
      const auto size = pair.client.outgoing.size();
      pair.client.shutdown();
      CHECK(pair.client.outgoing.size() == size);
      CHECK(pair.server.feed(pair.client.take_outgoing(), chunk) == Status::kClosed);
      CHECK(pair.server.received == "last words");
      CHECK(pair.server.engine->failure().empty());
      // The other direction still stands: what the backend had in flight can go out, then our own close_notify.
      REQUIRE(pair.server.write("answer"));
      pair.server.shutdown();
      CHECK(pair.client.feed(pair.server.take_outgoing(), chunk) == Status::kClosed);
      CHECK(pair.client.received == "answer");
    }
  }
}

TEST_CASE("shutdown before the handshake says nothing") {
  TlsEnd end(TlsEngine::accept(world().server()));
  end.shutdown();
  CHECK(end.outgoing.empty());
}

TEST_CASE("every flipped byte of a record is noticed, and none of the record is delivered") {
  for (const bool newest : {true, false}) {
    for (std::size_t at = 0; at < 40; ++at) {
      CAPTURE(at);
      TlsPair pair(world().server(), newest ? world().client() : tls12_client());
      REQUIRE(pair.shake_hands());
      REQUIRE(pair.client.write("before"));
      pair.pump();
      REQUIRE(pair.client.write("0123456789abcdefghij"));
      auto record = pair.client.take_outgoing();
      REQUIRE(at < record.size());
      record[at] = static_cast<char>(record[at] ^ 0x04);
      const auto status = pair.server.feed(record, kWhole);
      CHECK(pair.server.received == "before");
      // A longer length (its low byte is number 4, its high byte number 3) only waits for more.
      const bool waits = status == Status::kNeedInput;
      CHECK((status == Status::kFailed || (waits && (at == 3 || at == 4))));
      if (waits) continue;
      CHECK_FALSE(pair.server.engine->failure().empty());
      // Once failed, an engine stays so, and its alert (two bytes and their overhead) has gone out.
      CHECK_FALSE(pair.server.outgoing.empty());
      CHECK(pair.server.feed("more", kWhole) == Status::kFailed);
      CHECK_FALSE(pair.server.write("x"));
      const auto sent = pair.server.take_outgoing();
      pair.server.shutdown();
      CHECK(pair.server.outgoing.empty());
      CHECK(pair.client.feed(sent, kWhole) == Status::kFailed);
      CHECK(contains(pair.client.engine->failure(), "alert"));
    }
  }
}

TEST_CASE("a record played twice or left out is noticed") {
  for (const bool twice : {true, false}) {
    TlsPair pair(world().server(), world().client());
    REQUIRE(pair.shake_hands());
    REQUIRE(pair.client.write("one"));
    const auto first = pair.client.take_outgoing();
    REQUIRE(pair.client.write("two"));
    const auto second = pair.client.take_outgoing();
    CHECK(pair.server.feed(twice ? first + first : second, kWhole) == Status::kFailed);
    CHECK(pair.server.received == (twice ? "one" : ""));
  }
}

TEST_CASE("what is no TLS is refused in its first bytes") {
  const std::string startup("\0\0\0\x2f\0\x03\0\0user\0alice\0database\0test\0\0", 35);
  for (const auto& noise : {std::string("GET / HTTP/1.1\r\nHost: db.test\r\n\r\n"), startup, std::string(64, '\0'),
                            std::string(64, '\xff'), pattern(5'000), std::string("\x16\x03\x01\xff\xff") + pattern(100),
                            std::string("\x15\x03\x01\0\x02\x02\x28", 7), std::string("\x17\x03\x03\0\x05hello", 10)}) {
    for (const auto chunk : kChunks) {
      TlsEnd end(TlsEngine::accept(world().server()));
      CHECK(end.feed(noise, chunk) == Status::kFailed);
      CHECK_FALSE(end.engine->failure().empty());
      CHECK(end.received.empty());
      CHECK(end.engine->sni().empty());
    }
  }
  // A close_notify before there is anything to close.
  TlsEnd leaving(TlsEngine::accept(world().server()));
  CHECK(leaving.feed(std::string_view("\x15\x03\x01\0\x02\x01\0", 7), kWhole) == Status::kFailed);
  CHECK_FALSE(leaving.engine->failure().empty());
  TlsEnd http(TlsEngine::accept(world().server()));
  http.feed("GET / HTTP/1.1\r\n\r\n", kWhole);
  CHECK(http.engine->failure() == "http request");
}

TEST_CASE("a handshake that never ends is ended") {
  // A ClientHello that announces 128 KiB, in records of 1,000 bytes: OpenSSL alone would take it all.
  TlsEnd end(TlsEngine::accept(world().server()));
  std::string record("\x16\x03\x01\x03\xe8\x01\x02\0\0\x03\x03", 11);
  record.resize(1'005, 'x');
  std::size_t sent = 0;
  while (end.feed(record, kWhole) == Status::kNeedInput) {
    sent += record.size();
    record.replace(5, 6, "xxxxxx");
    REQUIRE(sent < 2 * kMaxTlsHandshakeInput);
  }
  CHECK(end.engine->failure() == "TLS handshake is too long");
  CHECK(sent > kMaxTlsHandshakeInput - record.size());
}

TEST_CASE("a handshake cut short waits for more at every byte") {
  TlsPair pair(world().server(), world().client());
  pair.client.start();
  const auto hello = pair.client.take_outgoing();
  for (std::size_t size = 0; size < hello.size(); ++size) {
    TlsEnd end(TlsEngine::accept(world().server()));
    CHECK(end.feed(std::string_view(hello).substr(0, size), kWhole) == Status::kNeedInput);
    CHECK(end.outgoing.empty());
  }
}

TEST_CASE("old versions and weak ciphers find no common ground") {
  const auto server = world().server();
  for (const int version : {TLS1_VERSION, TLS1_1_VERSION}) {
    const auto context = raw_client_context(version);
    REQUIRE(SSL_CTX_set_cipher_list(context.get(), "ALL:@SECLEVEL=0") == 1);
    TlsEnd end(TlsEngine::accept(server));
    RawTlsPeer peer(context.get(), false);
    CHECK_FALSE(peer.shake_hands(end));
    CHECK(contains(end.engine->failure(), "unsupported protocol"));
  }
  for (const char* ciphers : {"ECDHE+AES128:!AESGCM:!AESCCM", "AES128-GCM-SHA256", "aNULL", "AES128-SHA"}) {
    CAPTURE(ciphers);
    const auto context = raw_client_context(TLS1_2_VERSION);
    REQUIRE(SSL_CTX_set_cipher_list(context.get(), ciphers) == 1);
    TlsEnd end(TlsEngine::accept(server));
    RawTlsPeer peer(context.get(), false);
    CHECK_FALSE(peer.shake_hands(end));
    CHECK(contains(end.engine->failure(), "no shared cipher"));
  }
  const auto newest = world().server({.common_name = "db.test"}, TlsVersion::k13);
  const auto context = raw_client_context(TLS1_2_VERSION);
  TlsEnd end(TlsEngine::accept(newest));
  RawTlsPeer peer(context.get(), false);
  CHECK_FALSE(peer.shake_hands(end));
}

TEST_CASE("ALPN: postgresql or an alert; none is left to the session") {
  const auto server = world().server();
  const auto try_protocols = [&](std::string_view protocols, TlsEnd& end) {
    const auto context = raw_client_context();
    const auto bytes = base::as_bytes(protocols);
    if (!protocols.empty())
      REQUIRE(SSL_CTX_set_alpn_protos(context.get(), bytes.data(), static_cast<unsigned>(bytes.size())) == 0);
    RawTlsPeer peer(context.get(), false);
    return peer.shake_hands(end);
  };
  TlsEnd none(TlsEngine::accept(server));
  CHECK(try_protocols("", none));
  CHECK_FALSE(none.engine->alpn_postgresql());
  TlsEnd right(TlsEngine::accept(server));
  CHECK(try_protocols("\x0apostgresql", right));
  CHECK(right.engine->alpn_postgresql());
  TlsEnd second(TlsEngine::accept(server));
  CHECK(try_protocols("\x02h2\x0apostgresql", second));
  CHECK(second.engine->alpn_postgresql());
  for (const char* protocols : {"\x02h2", "\x08http/1.1\x02h2", "\x0bpostgresql2", "\x09postgresq", "\x0aPOSTGRESQL"}) {
    CAPTURE(protocols);
    TlsEnd end(TlsEngine::accept(server));
    const auto context = raw_client_context();
    const auto bytes = base::as_bytes(protocols);
    REQUIRE(SSL_CTX_set_alpn_protos(context.get(), bytes.data(), static_cast<unsigned>(bytes.size())) == 0);
    RawTlsPeer peer(context.get(), false);
    SSL_do_handshake(peer.ssl());
    CHECK(end.feed(peer.take_outgoing(), kWhole) == Status::kFailed);
    CHECK(last_alert(end.outgoing) == std::pair<int, int>{SSL3_AL_FATAL, TLS1_AD_NO_APPLICATION_PROTOCOL});
  }
}

TEST_CASE("no session is resumed: no ticket goes out, no session id is taken") {
  const auto server = world().server();
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    CAPTURE(version);
    const auto context = raw_client_context(version);
    SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_CLIENT);
    TlsEnd first(TlsEngine::accept(server));
    RawTlsPeer peer(context.get(), false);
    REQUIRE(peer.shake_hands(first));
    REQUIRE(first.write("data"));
    peer.feed(first.take_outgoing());
    char data[8];
    REQUIRE(SSL_read(peer.ssl(), data, sizeof data) == 4);
    SSL_SESSION* const session = SSL_get1_session(peer.ssl());
    CHECK(SSL_SESSION_has_ticket(session) == 0);
    CHECK(SSL_SESSION_is_resumable(session) == 0);

    TlsEnd second(TlsEngine::accept(server));
    RawTlsPeer again(context.get(), false);
    SSL_set_session(again.ssl(), session);
    CHECK(again.shake_hands(second));
    CHECK(SSL_session_reused(again.ssl()) == 0);
    CHECK_FALSE(second.engine->resumed());
    SSL_SESSION_free(session);
  }
}

TEST_CASE("a client's renegotiation is refused") {
  const auto context = raw_client_context(TLS1_2_VERSION);
  TlsEnd end(TlsEngine::accept(world().server()));
  RawTlsPeer peer(context.get(), false);
  REQUIRE(peer.shake_hands(end));
  REQUIRE(SSL_renegotiate(peer.ssl()) == 1);
  SSL_do_handshake(peer.ssl());
  const auto hello = peer.take_outgoing();
  REQUIRE(hello.size() > 100);
  CHECK(end.feed(hello, kWhole) == Status::kNeedInput);
  const auto answer = end.take_outgoing();
  CHECK(answer.size() > 7);
  CHECK(answer.size() < 64);  // an alert, no ServerHello
  peer.feed(answer);
  CHECK(SSL_do_handshake(peer.ssl()) < 1);
  CHECK(std::string_view(ERR_reason_error_string(ERR_peek_error())) == "no renegotiation");
  ERR_clear_error();
}

TEST_CASE("a server's wish to renegotiate is refused, and a storm of them ends the connection") {
  RawContext context(SSL_CTX_new(TLS_server_method()));
  const auto certificate = world().authority.issue({.common_name = "db.test", .dns_names = {"db.test"}});
  REQUIRE(SSL_CTX_use_certificate_file(context.get(),
                                       world().folder.write("r.crt", certificate.certificate_pem).c_str(),
                                       SSL_FILETYPE_PEM) == 1);
  REQUIRE(SSL_CTX_use_PrivateKey_file(context.get(), world().folder.write("r.key", certificate.key_pem).c_str(),
                                      SSL_FILETYPE_PEM) == 1);
  SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION);
  TlsEnd end(TlsEngine::connect(world().client(), "db.test"));
  RawTlsPeer peer(context.get(), true);
  end.start();
  peer.feed(end.take_outgoing());
  REQUIRE(peer.shake_hands(end));
  const auto hello_requests = [&](int count) {
    for (int i = 0; i < count; ++i) {
      REQUIRE(SSL_renegotiate(peer.ssl()) == 1);
      SSL_do_handshake(peer.ssl());
    }
    return peer.take_outgoing();
  };
  CHECK(end.feed(hello_requests(1), kWhole) == Status::kNeedInput);
  CHECK(end.outgoing.size() > 7);
  CHECK(end.outgoing.size() < 64);
  REQUIRE(end.write("still here"));
  peer.feed(end.take_outgoing());

  // Each is answered by an alert of about its own size: the answers to one read must stay within the room that read()
  // asks for.
  const auto storm = hello_requests(200);
  REQUIRE(storm.size() > 200 * 20);
  CHECK(end.feed(storm, kWhole) == Status::kFailed);
  CHECK(end.engine->failure() == "output buffer full");
  CHECK(end.outgoing.size() <= tls_output_room(0));
}

TEST_CASE("an output without room fails the call and is not overrun") {
  TlsPair pair(world().server(), world().client());
  pair.client.start();
  const auto hello = pair.client.take_outgoing();
  std::vector<base::Byte> space(200 + 64, 0xee);
  TlsOutput output{base::MutableBytes(space).first(200)};
  CHECK(pair.server.engine->handshake(base::as_bytes(hello), output) == Status::kFailed);
  CHECK(pair.server.engine->failure() == "output buffer full");
  CHECK(output.size <= 200);
  CHECK(std::all_of(space.begin() + 200, space.end(), [](base::Byte byte) { return byte == 0xee; }));
}

TEST_CASE("output is appended behind what is there") {
  TlsPair pair(world().server(), world().client());
  REQUIRE(pair.shake_hands());
  std::vector<base::Byte> space(3 + tls_output_room(2) + tls_output_room(3));
  space[0] = 'S';
  TlsOutput output{space, 3};
  REQUIRE(pair.client.engine->write(base::as_bytes("ab"), output));
  REQUIRE(pair.client.engine->write(base::as_bytes("cde"), output));
  CHECK(space[0] == 'S');
  CHECK(pair.server.feed(base::as_text(output.filled().subspan(3)), kWhole) == Status::kOk);
  CHECK(pair.server.received == "abcde");
}

TEST_CASE("errors that others left in the queue are not taken for ours") {
  TlsPair pair(world().server(), world().client());
  ERR_put_error(ERR_LIB_USER, 0, ERR_R_INTERNAL_ERROR, __FILE__, __LINE__);
  REQUIRE(pair.shake_hands(1));
  ERR_put_error(ERR_LIB_USER, 0, ERR_R_INTERNAL_ERROR, __FILE__, __LINE__);
  REQUIRE(pair.client.write("fine"));
  ERR_put_error(ERR_LIB_USER, 0, ERR_R_INTERNAL_ERROR, __FILE__, __LINE__);
  CHECK(pair.server.feed(pair.client.take_outgoing(), 1) == Status::kOk);
  CHECK(pair.server.received == "fine");
  ERR_clear_error();
}

TEST_CASE("contexts are shared between threads") {
  const auto server = world().server();
  const auto client = world().client();
  std::array<int, 4> good{};
  std::vector<std::thread> threads;
  for (auto& count : good) {
    threads.emplace_back([&server, &client, &count] {
      for (int i = 0; i < 5; ++i) {
        TlsPair pair(server, client);
        if (!pair.shake_hands() || !pair.client.write("hello")) continue;
        pair.pump();
        if (pair.server.received == "hello") ++count;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const int count : good) CHECK(count == 5);
}

}  // namespace
}  // namespace pointsman::protocol
