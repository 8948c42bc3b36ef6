#pragma once
// Configured OpenSSL contexts. Immutable once made and safe to share between threads by shared_ptr; a reload makes new
// ones and live connections keep the old. Files are read here: never on a worker's loop. Sources:
// src/backend/libpq/be-secure-openssl.c, RFC 5929 section 4 (tls-server-end-point), RFC 7301 (ALPN).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "protocol/fleet_keys.h"

struct ssl_ctx_st;
struct x509_st;

namespace pointsman::protocol {

/// A certificate chain's DER bytes, leaf included: what makes kTlsHandshakeRoom (tls_engine.h) enough.
inline constexpr std::size_t kMaxTlsChain = 24 * 1024;

/// tls-server-end-point data of a certificate: its hash by its signature's digest, SHA-256 in place of MD5 and SHA-1
/// (RFC 5929, section 4.1). Empty when the signature has none (Ed25519).
std::string certificate_endpoint_hash(const x509_st* certificate);

enum class TlsVersion : std::uint8_t { k12, k13 };

struct ServerTlsSettings {
  std::string certificate_file;  ///< PEM chain, leaf first
  std::string key_file;          ///< PEM; 0600 if ours, up to 0640 if root's (T28), checked here
  TlsVersion min_version = TlsVersion::k12;
};

/// The server side of TLS: TLS 1.2 (AEAD suites only) and 1.3, ALPN `postgresql`, no compression, no renegotiation, no
/// tickets and no session cache (as PostgreSQL itself), no early data.
class ServerTlsContext {
 public:
  static base::Result<std::shared_ptr<const ServerTlsContext>> create(const ServerTlsSettings& settings);
  /// Between the routers of a fleet: TLS 1.3 by the pre-shared keys of `keys`, with (EC)DHE, and no certificate: who
  /// does not know one of the secrets gets no further than the handshake, on either side.
  static base::Result<std::shared_ptr<const ServerTlsContext>> create_for_peers(std::shared_ptr<const FleetKeys> keys);
  ~ServerTlsContext();
  ServerTlsContext(const ServerTlsContext&) = delete;
  ServerTlsContext& operator=(const ServerTlsContext&) = delete;

  ssl_ctx_st* native() const { return context_; }
  /// certificate_endpoint_hash() of the leaf; empty: PLUS is not offered.
  const std::string& endpoint_hash() const { return endpoint_hash_; }
  /// notAfter of the leaf, seconds since 1970.
  std::int64_t not_after() const { return not_after_; }
  const std::string& subject() const { return subject_; }

 private:
  ServerTlsContext() = default;
  ssl_ctx_st* context_ = nullptr;
  std::string endpoint_hash_;
  std::int64_t not_after_ = 0;
  std::string subject_;
  std::shared_ptr<const FleetKeys> keys_;  // of peers
};

enum class BackendTlsMode : std::uint8_t { kDisable, kRequire, kVerifyCa, kVerifyFull };

struct ClientTlsSettings {
  BackendTlsMode mode = BackendTlsMode::kVerifyFull;
  std::string ca_file;           ///< needed by the verify modes; empty: the system's store
  std::string certificate_file;  ///< client certificate, with key_file, or both empty
  std::string key_file;
  std::string alpn = "postgresql";  ///< the one protocol offered (RFC 7301), 1 to 255 bytes
};

/// The client side of TLS toward backends. The name to verify is given per connection.
class ClientTlsContext {
 public:
  static base::Result<std::shared_ptr<const ClientTlsContext>> create(const ClientTlsSettings& settings);
  /// The other side of ServerTlsContext::create_for_peers(). No name is verified: whoever knows the secret is a router
  /// of this fleet.
  static base::Result<std::shared_ptr<const ClientTlsContext>> create_for_peers(std::shared_ptr<const FleetKeys> keys);
  ~ClientTlsContext();
  ClientTlsContext(const ClientTlsContext&) = delete;
  ClientTlsContext& operator=(const ClientTlsContext&) = delete;

  ssl_ctx_st* native() const { return context_; }
  BackendTlsMode mode() const { return mode_; }

 private:
  ClientTlsContext() = default;
  ssl_ctx_st* context_ = nullptr;
  BackendTlsMode mode_ = BackendTlsMode::kVerifyFull;
  std::shared_ptr<const FleetKeys> keys_;  // of peers
};

}  // namespace pointsman::protocol
