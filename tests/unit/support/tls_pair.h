#pragma once
// Two TLS engines, or one and a bare OpenSSL peer, joined in memory.

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "protocol/tls_engine.h"
#include "tests/unit/support/test_certificates.h"

namespace pointsman::tests {

/// A certificate authority, a server's and a client's identity, and contexts made of them.
struct TlsWorld {
  TestAuthority authority{"Test CA"};
  TestFolder folder;
  std::string ca_file = folder.write("ca.crt", authority.certificate_pem(), 0644);

  std::shared_ptr<const protocol::ServerTlsContext> server(const TestCertificateSpec& spec,
                                                           protocol::TlsVersion min = protocol::TlsVersion::k12) {
    const auto certificate = authority.issue(spec);
    auto made = protocol::ServerTlsContext::create(
        {folder.write("s.crt", certificate.certificate_pem), folder.write("s.key", certificate.key_pem), min});
    POINTSMAN_CHECK(made.ok());
    return made.value();
  }
  std::shared_ptr<const protocol::ServerTlsContext> server() {
    return server({.common_name = "db.test", .dns_names = {"db.test"}, .addresses = {"192.0.2.7", "2001:db8::7"}});
  }
  std::shared_ptr<const protocol::ClientTlsContext> client(protocol::BackendTlsMode mode = protocol::BackendTlsMode::kVerifyFull,
                                                           bool with_certificate = false) {
    protocol::ClientTlsSettings settings{mode, ca_file, "", ""};
    if (with_certificate) {
      const auto certificate = authority.issue({.common_name = "router", .usage = "clientAuth"});
      settings.certificate_file = folder.write("c.crt", certificate.certificate_pem);
      settings.key_file = folder.write("c.key", certificate.key_pem);
    }
    auto made = protocol::ClientTlsContext::create(settings);
    POINTSMAN_CHECK(made.ok());
    return made.value();
  }
};

/// One end: an engine, what it has put out, and what it has read.
class TlsEnd {
 public:
  using Status = protocol::TlsEngine::Status;

  explicit TlsEnd(std::unique_ptr<protocol::TlsEngine> made) : engine(std::move(made)) {}

  /// Hands over `encrypted` in pieces of `chunk` bytes: handshake first, then records. Stops at an end or a failure.
  Status feed(std::string_view encrypted, std::size_t chunk) {
    do {
      const auto piece = base::as_bytes(encrypted.substr(0, chunk));
      encrypted.remove_prefix(piece.size());
      status = established ? read(piece) : handshake(piece);
      if (status == Status::kClosed || status == Status::kFailed) return status;
    } while (!encrypted.empty());
    return status;
  }
  Status start() { return status = handshake({}); }

  bool write(std::string_view plain) {
    output_space.resize(protocol::tls_output_room(plain.size()));
    protocol::TlsOutput output{output_space};
    const bool ok = engine->write(base::as_bytes(plain), output);
    outgoing.append(base::as_text(output.filled()));
    return ok;
  }
  void shutdown() {
    output_space.resize(protocol::tls_output_room(0));
    protocol::TlsOutput output{output_space};
    engine->shutdown(output);
    outgoing.append(base::as_text(output.filled()));
  }
  std::string take_outgoing() { return std::exchange(outgoing, {}); }

  std::unique_ptr<protocol::TlsEngine> engine;
  bool established = false;
  Status status = Status::kNeedInput;
  std::string outgoing;
  std::string received;

 private:
  Status handshake(base::Bytes piece) {
    output_space.resize(protocol::kTlsHandshakeRoom);
    protocol::TlsOutput output{output_space};
    const auto result = engine->handshake(piece, output);
    outgoing.append(base::as_text(output.filled()));
    if (result != Status::kOk) return result;
    established = true;
    const auto early = read({});
    return early == Status::kNeedInput ? Status::kOk : early;
  }
  Status read(base::Bytes piece) {
    // Exactly the room asked for, so that the sanitizer sees a byte more.
    std::vector<base::Byte> plain(piece.size() + protocol::kTlsRecordPlain);
    output_space.resize(protocol::tls_output_room(0));
    protocol::TlsOutput output{output_space};
    const auto result = engine->read(piece, plain, output);
    outgoing.append(base::as_text(output.filled()));
    received.append(base::as_text(base::Bytes(plain).first(result.bytes)));
    return result.status;
  }

  std::vector<base::Byte> output_space;
};

/// A client and a server, joined.
struct TlsPair {
  TlsPair(std::shared_ptr<const protocol::ServerTlsContext> server_context,
          std::shared_ptr<const protocol::ClientTlsContext> client_context, const std::string& name = "db.test")
      : server(protocol::TlsEngine::accept(std::move(server_context))),
        client(protocol::TlsEngine::connect(std::move(client_context), name)) {}

  /// Both sides done, or one has failed (its alert has reached the other).
  bool shake_hands(std::size_t chunk = std::string::npos) {
    client.start();
    pump(chunk);
    return client.established && server.established;
  }
  /// Carries bytes both ways until there are none.
  void pump(std::size_t chunk = std::string::npos) {
    while (!client.outgoing.empty() || !server.outgoing.empty()) {
      if (!client.outgoing.empty()) server.feed(client.take_outgoing(), chunk);
      if (!server.outgoing.empty()) client.feed(server.take_outgoing(), chunk);
    }
  }

  TlsEnd server;
  TlsEnd client;
};

/// A peer that may do what our engine does not: other versions and ciphers, renegotiation, tickets, key updates.
class RawTlsPeer {
 public:
  RawTlsPeer(SSL_CTX* context, bool is_server) : ssl_(SSL_new(context)), in_(BIO_new(BIO_s_mem())), out_(BIO_new(BIO_s_mem())) {
    POINTSMAN_CHECK(ssl_ != nullptr && in_ != nullptr && out_ != nullptr);
    SSL_set_bio(ssl_, in_, out_);
    if (is_server) {
      SSL_set_accept_state(ssl_);
    } else {
      SSL_set_connect_state(ssl_);
    }
  }
  ~RawTlsPeer() { SSL_free(ssl_); }
  RawTlsPeer(const RawTlsPeer&) = delete;
  RawTlsPeer& operator=(const RawTlsPeer&) = delete;

  SSL* ssl() { return ssl_; }
  void feed(std::string_view encrypted) { BIO_write(in_, encrypted.data(), static_cast<int>(encrypted.size())); }
  std::string take_outgoing() {
    std::string text(BIO_ctrl_pending(out_), '\0');
    if (!text.empty()) BIO_read(out_, text.data(), static_cast<int>(text.size()));
    return text;
  }
  /// Handshakes with `end` until both are done or stuck.
  bool shake_hands(TlsEnd& end) {
    for (int turn = 0; turn < 10; ++turn) {
      const int result = SSL_do_handshake(ssl_);
      const auto sent = take_outgoing();
      if (!sent.empty()) end.feed(sent, std::string::npos);
      feed(end.take_outgoing());
      if (result == 1 && end.established) return true;
    }
    return false;
  }

 private:
  SSL* ssl_;
  BIO* in_;   // both owned by ssl_
  BIO* out_;
};

}  // namespace pointsman::tests
