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

using tests::RawTlsPeer;
using tests::TestCertificateSpec;
using tests::TestKeyKind;
using tests::TlsEnd;
using tests::TlsPair;
using tests::TlsWorld;
using Status = TlsEngine::Status;

constexpr std::size_t kWhole = std::string::npos;
constexpr std::size_t kChunks[] = {kWhole, 1, 3, 64};

TlsWorld& world() {
  static TlsWorld made;
  return made;
}

/// `size` bytes that repeat only after 251.
std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i % 251);
  return text;
}

std::shared_ptr<const ClientTlsContext> tls12_client() {
  auto context = world().client();
  SSL_CTX_set_max_proto_version(context->native(), TLS1_2_VERSION);
  return context;
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using RawContext = std::unique_ptr<SSL_CTX, FreeContext>;

RawContext raw_client_context(int version = 0) {
  RawContext context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_security_level(context.get(), 0);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_min_proto_version(context.get(), version == 0 ? TLS1_VERSION : version);
  SSL_CTX_set_max_proto_version(context.get(), version);
  return context;
}

/// The alert (level, description) in a plaintext alert record at the end of `sent`.
std::pair<int, int> last_alert(std::string_view sent) {
  if (sent.size() < 7 || sent[sent.size() - 7] != '\x15') return {0, 0};
  return {sent[sent.size() - 2], sent[sent.size() - 1]};
}

// ---- handshakes --------------------------------------------------------------------------------------------------

TEST_CASE("handshake and data with every key kind and version, in chunks of every size") {
  for (const auto kind : {TestKeyKind::kP256, TestKeyKind::kRsa2048, TestKeyKind::kEd25519}) {
    const auto server = world().server({.common_name = "db.test", .dns_names = {"db.test"}, .key = kind});
    for (const bool newest : {true, false}) {
      for (const auto chunk : kChunks) {
        CAPTURE(static_cast<int>(kind));
        CAPTURE(newest);
        CAPTURE(chunk);
        TlsPair pair(server, newest ? world().client() : tls12_client());
        REQUIRE(pair.shake_hands(chunk));
        for (const auto* end : {&pair.server, &pair.client}) {
          CHECK(std::string_view(end->engine->version()) == (newest ? "TLSv1.3" : "TLSv1.2"));
          CHECK(end->engine->alpn_postgresql());
          CHECK_FALSE(end->engine->resumed());
          CHECK(end->engine->failure().empty());
        }
        CHECK(pair.server.engine->sni() == "db.test");
        CHECK(pair.server.engine->endpoint_hash().size() == 32);
        CHECK(pair.server.engine->endpoint_hash() == pair.client.engine->endpoint_hash());
        REQUIRE(pair.client.write("from the client"));
        REQUIRE(pair.server.write("from the server"));
        pair.pump(chunk);
        CHECK(pair.server.received == "from the client");
        CHECK(pair.client.received == "from the server");
      }
    }
  }
}

TEST_CASE("an Ed25519 signature leaves nothing to bind to") {
  tests::TestAuthority authority("Ed25519 CA", TestKeyKind::kEd25519);
  const auto certificate = authority.issue({.common_name = "db.test", .key = TestKeyKind::kEd25519});
  const auto& folder = world().folder;
  const auto context = ServerTlsContext::create(
      {folder.write("e.crt", certificate.certificate_pem), folder.write("e.key", certificate.key_pem), TlsVersion::k12});
  REQUIRE(context.ok());
  TlsPair pair(context.value(), world().client(BackendTlsMode::kRequire));
  REQUIRE(pair.shake_hands());
  CHECK(pair.server.engine->endpoint_hash().empty());
  CHECK(pair.client.engine->endpoint_hash().empty());
}

TEST_CASE("the hash is that of the handshake's certificate, also behind a rotation") {
  const auto before = world().server();
  const auto after = world().server();
  REQUIRE(before->endpoint_hash() != after->endpoint_hash());
  TlsPair old_pair(before, world().client());
  TlsPair new_pair(after, world().client());
  REQUIRE(new_pair.shake_hands());
  REQUIRE(old_pair.shake_hands());
  CHECK(old_pair.server.engine->endpoint_hash() == before->endpoint_hash());
  CHECK(old_pair.client.engine->endpoint_hash() == before->endpoint_hash());
  CHECK(new_pair.client.engine->endpoint_hash() == after->endpoint_hash());
}

TEST_CASE("an engine outlives the last other owner of its contexts") {
  auto server = world().server();
  auto client = world().client();
  TlsPair pair(std::move(server), std::move(client));
  REQUIRE(pair.shake_hands());
  CHECK(pair.client.write("x"));
}

TEST_CASE("records right behind the handshake are kept for the first read") {
  for (const auto chunk : kChunks) {
    CAPTURE(chunk);
    TlsPair pair(world().server(), world().client());
    pair.client.start();
    pair.server.feed(pair.client.take_outgoing(), kWhole);
    pair.client.feed(pair.server.take_outgoing(), kWhole);
    REQUIRE(pair.client.established);  // its Finished waits in outgoing
    REQUIRE(pair.client.write("startup packet"));
    REQUIRE(pair.client.write(pattern(9'000)));
    pair.server.feed(pair.client.take_outgoing(), chunk);
    CHECK(pair.server.received == "startup packet" + pattern(9'000));
  }
}

TEST_CASE("more than a record's worth behind the handshake ends it") {
  TlsPair pair(world().server(), world().client());
  pair.client.start();
  pair.server.feed(pair.client.take_outgoing(), kWhole);
  pair.client.feed(pair.server.take_outgoing(), kWhole);
  REQUIRE(pair.client.write(pattern(20'000)));
  CHECK(pair.server.feed(pair.client.take_outgoing(), kWhole) == Status::kFailed);
  CHECK(contains(pair.server.engine->failure(), "behind the TLS handshake"));
}

TEST_CASE("an address is verified, not sent as SNI; a trailing dot is neither") {
  for (const char* address : {"192.0.2.7", "2001:db8::7", "2001:0db8:0:0::7"}) {
    CAPTURE(address);
    TlsPair pair(world().server(), world().client(), address);
    REQUIRE(pair.shake_hands());
    CHECK(pair.server.engine->sni().empty());
  }
  TlsPair pair(world().server(), world().client(), "db.test.");
  REQUIRE(pair.shake_hands());
  CHECK(pair.server.engine->sni() == "db.test");
}

// ---- trust -------------------------------------------------------------------------------------------------------

struct Verdict {
  bool trusted = false;
  std::string client_failure;
  std::string server_failure;
};

Verdict verdict(const TestCertificateSpec& spec, BackendTlsMode mode, const std::string& name = "db.test",
                std::shared_ptr<const ClientTlsContext> client = nullptr) {
  TlsPair pair(world().server(spec), client != nullptr ? client : world().client(mode), name);
  const bool trusted = pair.shake_hands();
  return {trusted, pair.client.engine->failure(), pair.server.engine->failure()};
}

TEST_CASE("which certificates each mode accepts") {
  const TestCertificateSpec good{.common_name = "db.test", .dns_names = {"db.test", "*.pods.test"}};
  const TestCertificateSpec expired{.common_name = "db.test", .dns_names = {"db.test"}, .expired = true};
  const TestCertificateSpec of_client{.common_name = "db.test", .dns_names = {"db.test"}, .usage = "clientAuth"};
  const TestCertificateSpec only_cn{.common_name = "db.test"};
  const TestCertificateSpec addressed{.common_name = "x", .dns_names = {"192.0.2.7"}, .addresses = {"192.0.2.8"}};

  CHECK(verdict(good, BackendTlsMode::kVerifyFull).trusted);
  CHECK(verdict(good, BackendTlsMode::kVerifyFull, "DB.TEST").trusted);
  CHECK(verdict(good, BackendTlsMode::kVerifyFull, "a.pods.test").trusted);
  CHECK(verdict(only_cn, BackendTlsMode::kVerifyFull).trusted);  // as libpq, when there is no subjectAltName
  CHECK(verdict(addressed, BackendTlsMode::kVerifyFull, "192.0.2.8").trusted);

  for (const char* name : {"other.test", "a.b.pods.test", "pods.test", "db.test.evil.example", "192.0.2.7", "db"}) {
    CAPTURE(name);
    const auto result = verdict(good, BackendTlsMode::kVerifyFull, name);
    CHECK_FALSE(result.trusted);
    CHECK(contains(result.client_failure, "certificate verify failed"));
    CHECK(contains(result.client_failure, "mismatch"));
    CHECK(contains(result.server_failure, "alert"));  // the alert has arrived
    CHECK(verdict(good, BackendTlsMode::kVerifyCa, name).trusted);
    CHECK(verdict(good, BackendTlsMode::kRequire, name).trusted);
  }
  // A name in the DNS field does not vouch for an address.
  CHECK_FALSE(verdict(addressed, BackendTlsMode::kVerifyFull, "192.0.2.7").trusted);

  for (const auto mode : {BackendTlsMode::kVerifyCa, BackendTlsMode::kVerifyFull}) {
    CHECK(contains(verdict(expired, mode).client_failure, "expired"));
    CHECK(contains(verdict(of_client, mode).client_failure, "purpose"));
  }
  CHECK(verdict(expired, BackendTlsMode::kRequire).trusted);
}

TEST_CASE("an unknown authority is refused unless nothing is verified") {
  TlsWorld other;
  const TestCertificateSpec spec{.common_name = "db.test", .dns_names = {"db.test"}};
  for (const auto mode : {BackendTlsMode::kVerifyCa, BackendTlsMode::kVerifyFull}) {
    const auto result = verdict(spec, mode, "db.test", other.client(mode));
    CHECK_FALSE(result.trusted);
    CHECK(contains(result.client_failure, "unable to get local issuer certificate"));
    CHECK(contains(result.server_failure, "unknown ca"));
  }
  CHECK(verdict(spec, BackendTlsMode::kRequire, "db.test", other.client(BackendTlsMode::kRequire)).trusted);
  // The system's store does not know the test's authority either.
  const auto system_store = ClientTlsContext::create({BackendTlsMode::kVerifyFull, "", "", ""});
  REQUIRE(system_store.ok());
  CHECK_FALSE(verdict(spec, BackendTlsMode::kVerifyFull, "db.test", system_store.value()).trusted);
}

TEST_CASE("a server name that cannot be a name fails, and is not cut") {
  const TestCertificateSpec good{.common_name = "db.test", .dns_names = {"db.test"}};
  for (const auto& name : {std::string("db.test\0.evil", 13), std::string("."), std::string(300, 'a')}) {
    const auto result = verdict(good, BackendTlsMode::kVerifyFull, name);
    CHECK_FALSE(result.trusted);
    CHECK_FALSE(result.client_failure.empty());
  }
  CHECK(verdict(good, BackendTlsMode::kVerifyCa, "").trusted);
}

TEST_CASE("a client certificate is given to a backend that asks for it") {
  for (const bool with_certificate : {true, false}) {
    const auto server = world().server();
    SSL_CTX* const context = server->native();
    REQUIRE(SSL_CTX_load_verify_file(context, world().ca_file.c_str()) == 1);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    auto client = world().client(BackendTlsMode::kVerifyFull, with_certificate);
    TlsPair pair(server, client);
    CHECK(pair.shake_hands() == with_certificate);
  }
}

// ---- data --------------------------------------------------------------------------------------------------------

TEST_CASE("transfers of every size, both ways, in chunks of every size") {
  for (const bool newest : {true, false}) {
    TlsPair pair(world().server(), newest ? world().client() : tls12_client());
    REQUIRE(pair.shake_hands());
    for (const auto chunk : kChunks) {
      for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{100}, kTlsRecordPlain - 1, kTlsRecordPlain,
                                     kTlsRecordPlain + 1, std::size_t{65'536}, std::size_t{300'000}}) {
        if (size > 50'000 && chunk < 64) continue;  // tiny chunks of these only cost time
        CAPTURE(newest);
        CAPTURE(chunk);
        CAPTURE(size);
        const auto data = pattern(size);
        pair.server.received.clear();
        pair.client.received.clear();
        REQUIRE(pair.client.write(data));
        REQUIRE(pair.server.write(data));
        CHECK(pair.client.outgoing.empty() == (size == 0));
        CHECK(pair.client.outgoing.size() <= tls_output_room(size));
        pair.pump(chunk);
        CHECK((pair.server.received == data));
        CHECK((pair.client.received == data));
      }
    }
  }
}

TEST_CASE("many small records in one read come out at once") {
  TlsPair pair(world().server(), world().client());
  REQUIRE(pair.shake_hands());
  std::string sent;
  for (int i = 0; i < 500; ++i) {
    const auto piece = pattern(static_cast<std::size_t>(i % 90) + 1);
    REQUIRE(pair.client.write(piece));
    sent += piece;
  }
  CHECK(pair.server.feed(pair.client.take_outgoing(), kWhole) == Status::kOk);
  CHECK((pair.server.received == sent));
}

TEST_CASE("a record in two parts: nothing, then all") {
  for (const bool newest : {true, false}) {
    TlsPair pair(world().server(), newest ? world().client() : tls12_client());
    REQUIRE(pair.shake_hands());
    REQUIRE(pair.client.write(pattern(1'000)));
    const auto record = pair.client.take_outgoing();
    for (const std::size_t cut : {std::size_t{1}, std::size_t{5}, std::size_t{500}, record.size() - 1}) {
      // The stream's order counts, so each cut is tried on the next record.
      REQUIRE(pair.client.write(pattern(1'000)));
      const auto next = cut == 1 ? record + pair.client.take_outgoing() : pair.client.take_outgoing();
      pair.server.received.clear();
      const auto at = next.size() - record.size() + cut;
      pair.server.feed(std::string_view(next).substr(0, at), kWhole);
      CHECK(pair.server.received.size() == (cut == 1 ? 1'000 : 0));
      pair.server.received.clear();
      CHECK(pair.server.feed(std::string_view(next).substr(at), kWhole) == Status::kOk);
      CHECK((pair.server.received == pattern(1'000)));
    }
  }
}

TEST_CASE("buffers given back mid-way come back by themselves") {
  TlsPair pair(world().server(), world().client());
  pair.client.engine->release_buffers();  // before the handshake: no effect
  REQUIRE(pair.shake_hands());
  std::string sent;
  for (const std::size_t size : {std::size_t{10}, std::size_t{40'000}, std::size_t{1}, std::size_t{16'384}}) {
    pair.client.engine->release_buffers();
    pair.server.engine->release_buffers();
    REQUIRE(pair.client.write(pattern(size)));
    sent += pattern(size);
    const auto encrypted = pair.client.take_outgoing();
    const auto half = encrypted.size() / 2;
    pair.server.feed(std::string_view(encrypted).substr(0, half), kWhole);
    pair.server.engine->release_buffers();  // in mid-record: must lose nothing
    pair.server.feed(std::string_view(encrypted).substr(half), kWhole);
  }
  CHECK((pair.server.received == sent));
}

TEST_CASE("a peer's key updates are followed and answered") {
  const auto server = world().server();
  const auto context = raw_client_context();
  TlsEnd end(TlsEngine::accept(server));
  RawTlsPeer peer(context.get(), false);
  REQUIRE(peer.shake_hands(end));
  for (int i = 0; i < 40; ++i) {
    REQUIRE(SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_REQUESTED) == 1);
    REQUIRE(SSL_write(peer.ssl(), "ping", 4) == 4);
    REQUIRE(end.feed(peer.take_outgoing(), kWhole) == Status::kOk);
    REQUIRE(end.write("pong"));
    peer.feed(end.take_outgoing());
    char answer[8];
    REQUIRE(SSL_read(peer.ssl(), answer, sizeof answer) == 4);
  }
  CHECK(end.received.size() == 160);
}

// ---- ends and attacks --------------------------------------------------------------------------------------------

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
    if (!protocols.empty()) REQUIRE(SSL_CTX_set_alpn_protos(context.get(), bytes.data(), static_cast<unsigned>(bytes.size())) == 0);
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
  REQUIRE(SSL_CTX_use_certificate_file(context.get(), world().folder.write("r.crt", certificate.certificate_pem).c_str(),
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

  // Each is answered by an alert of about its own size: the answers to one read must stay within the room that read() asks for.
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
