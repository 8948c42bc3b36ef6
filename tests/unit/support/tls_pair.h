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
  std::shared_ptr<const protocol::ClientTlsContext> client(
      protocol::BackendTlsMode mode = protocol::BackendTlsMode::kVerifyFull, bool with_certificate = false) {
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
    auto output = room(protocol::tls_output_room(plain.size()));
    const bool ok = engine->write(base::as_bytes(plain), output);
    outgoing.append(base::as_text(output.filled()));
    return ok;
  }
  void shutdown() {
    auto output = room(protocol::tls_output_room(0));
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
  protocol::TlsOutput room(std::size_t size) {
    if (output_space_.size() < size) output_space_.resize(size);
    return {base::MutableBytes(output_space_).first(size)};
  }
  Status handshake(base::Bytes piece) {
    auto output = room(protocol::kTlsHandshakeRoom);
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
    auto output = room(protocol::tls_output_room(0));
    const auto result = engine->read(piece, plain, output);
    outgoing.append(base::as_text(output.filled()));
    received.append(base::as_text(base::Bytes(plain).first(result.bytes)));
    return result.status;
  }

  std::vector<base::Byte> output_space_;
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
  RawTlsPeer(SSL_CTX* context, bool is_server)
      : ssl_(SSL_new(context)), in_(BIO_new(BIO_s_mem())), out_(BIO_new(BIO_s_mem())) {
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
  BIO* in_;  // both owned by ssl_
  BIO* out_;
};

inline constexpr std::size_t kWhole = std::string::npos;
inline constexpr std::size_t kChunks[] = {kWhole, 1, 3, 64};

/// One for all tests of a program: keys cost time.
inline TlsWorld& world() {
  static TlsWorld made;
  return made;
}

/// `size` bytes that repeat only after 251.
inline std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i % 251);
  return text;
}

inline std::shared_ptr<const protocol::ClientTlsContext> tls12_client() {
  auto context = world().client();
  SSL_CTX_set_max_proto_version(context->native(), TLS1_2_VERSION);
  return context;
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using RawContext = std::unique_ptr<SSL_CTX, FreeContext>;

/// A client that talks any version (or just `version`) with anybody.
inline RawContext raw_client_context(int version = 0) {
  RawContext context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_security_level(context.get(), 0);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_min_proto_version(context.get(), version == 0 ? TLS1_VERSION : version);
  SSL_CTX_set_max_proto_version(context.get(), version);
  return context;
}

}  // namespace pointsman::tests
