#include "protocol/tls_engine.h"

#include <doctest/doctest.h>
#include <openssl/ssl.h>

#include <string>
#include <vector>

#include "tests/unit/support/tls_pair.h"

namespace pointsman::protocol {
namespace {

using tests::contains;
using tests::kChunks;
using tests::kWhole;
using tests::pattern;
using tests::raw_client_context;
using tests::RawTlsPeer;
using tests::TestCertificateSpec;
using tests::TestKeyKind;
using tests::tls12_client;
using tests::TlsEnd;
using tests::TlsPair;
using tests::TlsWorld;
using tests::world;
using Status = TlsEngine::Status;

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
  const auto context = ServerTlsContext::create({folder.write("e.crt", certificate.certificate_pem),
                                                 folder.write("e.key", certificate.key_pem), TlsVersion::k12});
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
      for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{100}, kTlsRecordPlain - 1,
                                     kTlsRecordPlain, kTlsRecordPlain + 1, std::size_t{65'536}, std::size_t{300'000}}) {
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

}  // namespace
}  // namespace pointsman::protocol
