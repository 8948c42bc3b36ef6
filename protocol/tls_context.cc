#include "protocol/tls_context.h"

#include <fcntl.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/secret.h"
#include "protocol/openssl_error.h"
#include "protocol/postgres_format.h"

namespace pointsman::protocol {
namespace {

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};
using Context = std::unique_ptr<SSL_CTX, Free<&SSL_CTX_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, Free<&EVP_PKEY_free>>;
using MemoryBio = std::unique_ptr<BIO, Free<&BIO_free_all>>;

/// AEAD with forward secrecy only. The 128-bit suites stand first: they cost less, also in the handshake (SHA-256, not
/// SHA-384).
constexpr char kTls12Ciphers[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-"
    "SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
constexpr char kTls13Ciphers[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
constexpr char kGroups[] = "X25519:P-256:P-384";

/// A private key file is a few KiB at most.
constexpr off_t kMaxKeyFile = 64 * 1024;

/// Length-prefixed protocol name list of RFC 7301, with the one name.
constexpr auto kAlpnList = [] {
  std::array<unsigned char, sizeof kAlpnPostgresql> list{sizeof kAlpnPostgresql - 1};
  for (std::size_t i = 1; i < list.size(); ++i) list[i] = static_cast<unsigned char>(kAlpnPostgresql[i - 1]);
  return list;
}();

/// A client that offers ALPN must offer `postgresql`; one without ALPN is judged by the session (direct TLS needs it,
/// SSLRequest does not). As alpn_cb() of be-secure-openssl.c.
int select_alpn(SSL* /*ssl*/, const unsigned char** out, unsigned char* out_size, const unsigned char* offered,
                unsigned int offered_size, void* /*argument*/) {
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size, kAlpnList.data(), kAlpnList.size(), offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

/// OpenSSL would ask on the terminal.
int refuse_passphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*argument*/) {
  return -1;
}

base::Error openssl_failed(const std::string& what) {
  return {what + ": " + take_openssl_error("unknown error")};
}
base::Error file_failed(const std::string& path, const char* what) {
  return {path + ": " + what};
}

struct FileDescriptor {
  int value = -1;
  ~FileDescriptor() {
    if (value >= 0) ::close(value);
  }
};

/// The rule of libpq (fe-secure-openssl.c): a key of root's may be readable by its group, every other must be its
/// owner's alone.
const char* objection_to_key_file(const struct stat& status) {
  if (!S_ISREG(status.st_mode)) return "private key is not a regular file";
  if (status.st_uid != 0 && status.st_uid != ::geteuid()) return "private key must be owned by this user or root";
  const mode_t forbidden = status.st_uid == 0 ? (S_IWGRP | S_IXGRP | S_IRWXO) : (S_IRWXG | S_IRWXO);
  if ((status.st_mode & forbidden) != 0) {
    return "private key is open to others: allowed is 0600 at most, or 0640 when root owns it";
  }
  if (status.st_size > kMaxKeyFile) return "private key file is too large";
  return nullptr;
}

/// Checks and reads one open file, so that it cannot be exchanged between the two.
base::Result<base::SecretString> read_key_file(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not hang.
  const FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat status {};
  if (file.value < 0 || ::fstat(file.value, &status) != 0) return file_failed(path, std::strerror(errno));
  if (const char* const objection = objection_to_key_file(status)) return file_failed(path, objection);

  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t filled = 0;
  while (filled < text.size()) {
    const auto got = ::read(file.value, text.data() + filled, text.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    filled += static_cast<std::size_t>(got);
  }
  base::SecretString content(std::move(text));
  if (filled < content.reveal().size()) return file_failed(path, "private key could not be read whole");
  return content;
}

base::Result<PrivateKey> load_key(const std::string& path) {
  const auto content = read_key_file(path);
  if (!content.ok()) return base::Error{content.error()};
  const auto& text = content.value().reveal();
  const MemoryBio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, refuse_passphrase, nullptr));
  if (key == nullptr) return openssl_failed(path + ": not an unencrypted private key in PEM");
  return key;
}

/// Certificate chain and key of either side into `context`.
base::Result<bool> use_identity(SSL_CTX* context, const std::string& certificate_file, const std::string& key_file) {
  if (SSL_CTX_use_certificate_chain_file(context, certificate_file.c_str()) != 1) {
    return openssl_failed(certificate_file + ": no certificate in PEM");
  }
  const auto key = load_key(key_file);
  if (!key.ok()) return base::Error{key.error()};
  if (SSL_CTX_use_PrivateKey(context, key.value().get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    return openssl_failed(key_file + ": private key does not belong to " + certificate_file);
  }

  std::size_t size = static_cast<std::size_t>(i2d_X509(SSL_CTX_get0_certificate(context), nullptr));
  STACK_OF(X509)* chain = nullptr;
  SSL_CTX_get0_chain_certs(context, &chain);
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    size += static_cast<std::size_t>(i2d_X509(sk_X509_value(chain, i), nullptr));
  }
  if (size > kMaxTlsChain) return file_failed(certificate_file, "certificate chain is too long");
  return true;
}

/// What both sides share. The system's openssl.cnf may have set anything before: every rule is set here.
base::Result<Context> make_context(const SSL_METHOD* method, TlsVersion min_version) {
  Context context(SSL_CTX_new(method));
  if (context == nullptr) return openssl_failed("TLS context");
  SSL_CTX* const ctx = context.get();
  SSL_CTX_set_options(
      ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
  // Without NO_AUTO_CHAIN, OpenSSL builds and verifies a chain out of its trust store in every handshake when the file
  // has but the leaf.
  SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
  // An engine is drained after every read; quiet ones give their buffers back by TlsEngine::release_buffers().
  SSL_CTX_clear_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_default_passwd_cb(ctx, refuse_passphrase);
  const int lowest = min_version == TlsVersion::k13 ? TLS1_3_VERSION : TLS1_2_VERSION;
  if (SSL_CTX_set_min_proto_version(ctx, lowest) != 1 || SSL_CTX_set_max_proto_version(ctx, 0) != 1 ||
      SSL_CTX_set_cipher_list(ctx, kTls12Ciphers) != 1 || SSL_CTX_set_ciphersuites(ctx, kTls13Ciphers) != 1 ||
      SSL_CTX_set1_groups_list(ctx, kGroups) != 1) {
    return openssl_failed("TLS versions and ciphers");
  }
  return context;
}

std::string subject_of(const X509* certificate) {
  const MemoryBio bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || X509_NAME_print_ex(bio.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) < 0)
    return {};
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

std::int64_t seconds_of(const ASN1_TIME* time) {
  std::tm parts{};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? std::int64_t{::timegm(&parts)} : 0;
}

/// OpenSSL reads a certificate's extensions when it first needs them and keeps them in it. Threads share the
/// authorities' certificates: read now, they are the same for all from the start, and nobody waits for the lock in
/// them.
void read_extensions_of_authorities(SSL_CTX* context) {
  const STACK_OF(X509_OBJECT)* objects = X509_STORE_get0_objects(SSL_CTX_get_cert_store(context));
  for (int i = 0; i < sk_X509_OBJECT_num(objects); ++i) {
    X509* certificate = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
    if (certificate != nullptr) (void)X509_check_purpose(certificate, -1, 0);
  }
}

// ---- pre-shared keys (RFC 8446, section 4.2.11) --------------------------------------------------------------------

/// The suite whose hash an external PSK belongs to: the only one between peers.
constexpr char kPeerCiphers[] = "TLS_AES_128_GCM_SHA256";
constexpr unsigned char kPeerSuite[] = {0x13, 0x01};

const FleetKeys& keys_of(SSL* ssl) {
  return *static_cast<const FleetKeys*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
}

SSL_SESSION* session_of(SSL* ssl, const FleetKeys::PeerKey& key) {
  SSL_SESSION* const session = SSL_SESSION_new();
  if (session == nullptr) return nullptr;
  if (SSL_SESSION_set1_master_key(session, key.key.data(), base::SecretArray<32>::size()) == 1 &&
      SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, kPeerSuite)) == 1 &&
      SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1) {
    return session;
  }
  SSL_SESSION_free(session);
  return nullptr;
}

/// Without a session the handshake goes on as if no key had been named, and fails for want of a certificate.
int find_peer_session(SSL* ssl, const unsigned char* identity, std::size_t size, SSL_SESSION** session) {
  const auto* key = keys_of(ssl).find_peer_key(base::as_text({identity, size}));
  *session = key == nullptr ? nullptr : session_of(ssl, *key);
  return key == nullptr || *session != nullptr ? 1 : 0;
}

int use_peer_session(SSL* ssl, const EVP_MD* /*digest*/, const unsigned char** identity, std::size_t* size,
                     SSL_SESSION** session) {
  const auto& key = keys_of(ssl).peer_key();
  *session = session_of(ssl, key);
  if (*session == nullptr) return 0;
  *identity = base::as_bytes(key.identity).data();
  *size = key.identity.size();
  return 1;
}

base::Result<Context> make_peer_context(const SSL_METHOD* method, const FleetKeys& keys) {
  clear_openssl_errors();
  auto made = make_context(method, TlsVersion::k13);
  if (!made.ok()) return made;
  SSL_CTX* const context = made.value().get();
  if (SSL_CTX_set_ciphersuites(context, kPeerCiphers) != 1) return openssl_failed("TLS ciphers of peers");
  SSL_CTX_set_app_data(context, const_cast<FleetKeys*>(&keys));
  return made;
}

}  // namespace

std::string certificate_endpoint_hash(const x509_st* certificate) {
  int digest_nid = NID_undef;
  // Looks through RSA-PSS parameters too, which the signature's OID alone does not tell.
  if (X509_get_signature_info(const_cast<X509*>(certificate), &digest_nid, nullptr, nullptr, nullptr) != 1) {
    clear_openssl_errors();
    return {};
  }
  if (digest_nid == NID_undef) return {};
  if (digest_nid == NID_md5 || digest_nid == NID_sha1) digest_nid = NID_sha256;
  const EVP_MD* const digest = EVP_get_digestbynid(digest_nid);
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned int size = 0;
  if (digest == nullptr || X509_digest(certificate, digest, hash.data(), &size) != 1) {
    clear_openssl_errors();
    return {};
  }
  return std::string(base::as_text({hash.data(), size}));
}

// ---- server ------------------------------------------------------------------------------------------------------

base::Result<std::shared_ptr<const ServerTlsContext>> ServerTlsContext::create(const ServerTlsSettings& settings) {
  clear_openssl_errors();
  auto made = make_context(TLS_server_method(), settings.min_version);
  if (!made.ok()) return base::Error{made.error()};
  SSL_CTX* const context = made.value().get();
  // TLS 1.3's tickets are not covered by NO_TICKET, which only makes them stateful.
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_max_early_data(context, 0);
  SSL_CTX_set_alpn_select_cb(context, select_alpn, nullptr);
  const auto identity = use_identity(context, settings.certificate_file, settings.key_file);
  if (!identity.ok()) return base::Error{identity.error()};

  const X509* const leaf = SSL_CTX_get0_certificate(context);
  std::shared_ptr<ServerTlsContext> result(new ServerTlsContext);
  result->endpoint_hash_ = certificate_endpoint_hash(leaf);
  result->not_after_ = seconds_of(X509_get0_notAfter(leaf));
  result->subject_ = subject_of(leaf);
  result->context_ = made.value().release();
  return std::shared_ptr<const ServerTlsContext>(std::move(result));
}

base::Result<std::shared_ptr<const ServerTlsContext>> ServerTlsContext::create_for_peers(
    std::shared_ptr<const FleetKeys> keys) {
  auto made = make_peer_context(TLS_server_method(), *keys);
  if (!made.ok()) return base::Error{made.error()};
  SSL_CTX* const context = made.value().get();
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_max_early_data(context, 0);
  SSL_CTX_set_psk_find_session_callback(context, find_peer_session);
  std::shared_ptr<ServerTlsContext> result(new ServerTlsContext);
  result->context_ = made.value().release();
  result->keys_ = std::move(keys);
  return std::shared_ptr<const ServerTlsContext>(std::move(result));
}

ServerTlsContext::~ServerTlsContext() {
  SSL_CTX_free(context_);
}

// ---- client ------------------------------------------------------------------------------------------------------

base::Result<std::shared_ptr<const ClientTlsContext>> ClientTlsContext::create(const ClientTlsSettings& settings) {
  if (settings.mode == BackendTlsMode::kDisable) return base::Error{"TLS is disabled"};
  if (settings.certificate_file.empty() != settings.key_file.empty()) {
    return base::Error{"a client certificate needs its key, and a key its certificate"};
  }
  clear_openssl_errors();
  auto made = make_context(TLS_client_method(), TlsVersion::k12);
  if (!made.ok()) return base::Error{made.error()};
  SSL_CTX* const context = made.value().get();
  if (settings.alpn.empty() || settings.alpn.size() > 255) return base::Error{"ALPN: no lawful protocol name"};
  std::vector<unsigned char> offered{static_cast<unsigned char>(settings.alpn.size())};
  offered.insert(offered.end(), settings.alpn.begin(), settings.alpn.end());
  // This call alone returns 0 on success.
  if (SSL_CTX_set_alpn_protos(context, offered.data(), static_cast<unsigned>(offered.size())) != 0)
    return openssl_failed("ALPN");

  const bool verifies = settings.mode == BackendTlsMode::kVerifyCa || settings.mode == BackendTlsMode::kVerifyFull;
  SSL_CTX_set_verify(context, verifies ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (verifies && settings.ca_file.empty()) {
    if (SSL_CTX_set_default_verify_paths(context) != 1) return openssl_failed("the system's certificate store");
  } else if (verifies && SSL_CTX_load_verify_file(context, settings.ca_file.c_str()) != 1) {
    return openssl_failed(settings.ca_file + ": no certificate in PEM");
  }
  read_extensions_of_authorities(context);
  if (!settings.certificate_file.empty()) {
    const auto identity = use_identity(context, settings.certificate_file, settings.key_file);
    if (!identity.ok()) return base::Error{identity.error()};
  }

  std::shared_ptr<ClientTlsContext> result(new ClientTlsContext);
  result->mode_ = settings.mode;
  result->context_ = made.value().release();
  return std::shared_ptr<const ClientTlsContext>(std::move(result));
}

base::Result<std::shared_ptr<const ClientTlsContext>> ClientTlsContext::create_for_peers(
    std::shared_ptr<const FleetKeys> keys) {
  auto made = make_peer_context(TLS_client_method(), *keys);
  if (!made.ok()) return base::Error{made.error()};
  SSL_CTX* const context = made.value().get();
  // A server that cannot use the key may show a certificate instead: none is good, as no authority is trusted.
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_psk_use_session_callback(context, use_peer_session);
  std::shared_ptr<ClientTlsContext> result(new ClientTlsContext);
  result->mode_ = BackendTlsMode::kVerifyCa;
  result->context_ = made.value().release();
  result->keys_ = std::move(keys);
  return std::shared_ptr<const ClientTlsContext>(std::move(result));
}

ClientTlsContext::~ClientTlsContext() {
  SSL_CTX_free(context_);
}

}  // namespace pointsman::protocol
