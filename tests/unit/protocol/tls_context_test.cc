#include "protocol/tls_context.h"

#include <doctest/doctest.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "tests/unit/support/test_certificates.h"

namespace pointsman::protocol {
namespace {

using tests::TestAuthority;
using tests::TestCertificate;
using tests::TestFolder;
using tests::TestKeyKind;

struct FreeDer {
  void operator()(X509* certificate) const { X509_free(certificate); }
};

std::string endpoint_hash_of(const TestCertificate& certificate) {
  const auto* data = reinterpret_cast<const unsigned char*>(certificate.certificate_der.data());
  const std::unique_ptr<X509, FreeDer> parsed(
      d2i_X509(nullptr, &data, static_cast<long>(certificate.certificate_der.size())));
  REQUIRE(parsed != nullptr);
  return certificate_endpoint_hash(parsed.get());
}

std::string digest(const EVP_MD* method, const std::string& data) {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  REQUIRE(EVP_Digest(data.data(), data.size(), hash, &size, method, nullptr) == 1);
  return {reinterpret_cast<char*>(hash), size};
}

/// The error of a creation that must fail.
template <typename Context, typename Settings>
std::string error_of(const Settings& settings) {
  const auto result = Context::create(settings);
  REQUIRE_FALSE(result.ok());
  return result.error();
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

struct Files {
  TestAuthority authority{"Test CA"};
  TestCertificate certificate = authority.issue({.common_name = "db.test", .dns_names = {"db.test"}});
  TestFolder folder;
  std::string certificate_file = folder.write("server.crt", certificate.certificate_pem, 0644);
  std::string key_file = folder.write("server.key", certificate.key_pem, 0600);
};

TEST_CASE("a server context knows its certificate") {
  Files files;
  const auto made = ServerTlsContext::create({files.certificate_file, files.key_file, TlsVersion::k12});
  REQUIRE(made.ok());
  const auto& context = *made.value();
  CHECK(context.endpoint_hash() == digest(EVP_sha256(), files.certificate.certificate_der));
  CHECK(context.not_after() == 4'102'444'800);  // 2100-01-01
  CHECK(context.subject() == "CN=db.test");
  CHECK(context.native() != nullptr);
}

TEST_CASE("a server context states its rules, whatever the system's configuration says") {
  Files files;
  const auto made = ServerTlsContext::create({files.certificate_file, files.key_file, TlsVersion::k12});
  REQUIRE(made.ok());
  SSL_CTX* const context = made.value()->native();
  const auto options = SSL_CTX_get_options(context);
  for (const auto option : {SSL_OP_NO_COMPRESSION, SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_TICKET})
    CHECK((options & option) != 0);
  CHECK(SSL_CTX_get_min_proto_version(context) == TLS1_2_VERSION);
  CHECK(SSL_CTX_get_session_cache_mode(context) == SSL_SESS_CACHE_OFF);
  CHECK(SSL_CTX_get_num_tickets(context) == 0);
  CHECK(SSL_CTX_get_max_early_data(context) == 0);
  const auto* ciphers = SSL_CTX_get_ciphers(context);
  CHECK(sk_SSL_CIPHER_num(ciphers) == 9);
  for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); ++i) {
    const SSL_CIPHER* const cipher = sk_SSL_CIPHER_value(ciphers, i);
    CAPTURE(SSL_CIPHER_get_name(cipher));
    CHECK(SSL_CIPHER_is_aead(cipher) == 1);
    const int exchange = SSL_CIPHER_get_kx_nid(cipher);
    CHECK((exchange == NID_kx_ecdhe || exchange == NID_kx_any));  // forward secrecy
  }

  const auto newest = ServerTlsContext::create({files.certificate_file, files.key_file, TlsVersion::k13});
  REQUIRE(newest.ok());
  CHECK(SSL_CTX_get_min_proto_version(newest.value()->native()) == TLS1_3_VERSION);
}

TEST_CASE("an expired certificate is loaded, its date tells") {
  TestAuthority authority("CA");
  TestFolder folder;
  const auto old = authority.issue({.common_name = "old.test", .expired = true});
  const auto made = ServerTlsContext::create(
      {folder.write("c", old.certificate_pem), folder.write("k", old.key_pem), TlsVersion::k12});
  REQUIRE(made.ok());
  CHECK(made.value()->not_after() == 1'609'372'800);  // 2020-12-31
}

TEST_CASE("the endpoint hash follows the signature's digest") {
  const tests::TestCertificateSpec spec{.common_name = "x"};
  const auto sha256 = TestAuthority("CA").issue(spec);
  CHECK(endpoint_hash_of(sha256) == digest(EVP_sha256(), sha256.certificate_der));
  const auto sha384 = TestAuthority("CA", TestKeyKind::kP256, EVP_sha384()).issue(spec);
  CHECK(endpoint_hash_of(sha384) == digest(EVP_sha384(), sha384.certificate_der));
  const auto sha512 = TestAuthority("CA", TestKeyKind::kRsa2048, EVP_sha512()).issue(spec);
  CHECK(endpoint_hash_of(sha512) == digest(EVP_sha512(), sha512.certificate_der));
  // RFC 5929: SHA-256 in place of what is broken.
  const auto sha1 = TestAuthority("CA", TestKeyKind::kP256, EVP_sha1()).issue(spec);
  CHECK(endpoint_hash_of(sha1) == digest(EVP_sha256(), sha1.certificate_der));
  const auto md5 = TestAuthority("CA", TestKeyKind::kRsa2048, EVP_md5()).issue(spec);
  CHECK(endpoint_hash_of(md5) == digest(EVP_sha256(), md5.certificate_der));
  // Ed25519 hashes inside: the certificate names no digest. The issuer's key counts, not the certificate's own.
  CHECK(endpoint_hash_of(TestAuthority("CA", TestKeyKind::kEd25519).issue(spec)).empty());
  const auto mixed = TestAuthority("CA").issue({.common_name = "x", .key = TestKeyKind::kEd25519});
  CHECK(endpoint_hash_of(mixed) == digest(EVP_sha256(), mixed.certificate_der));
}

TEST_CASE("a private key that others can read is refused") {
  Files files;
  const auto create = [&] {
    return ServerTlsContext::create({files.certificate_file, files.key_file, TlsVersion::k12});
  };
  for (const mode_t mode : {0400U, 0600U, 0700U}) {
    REQUIRE(::chmod(files.key_file.c_str(), mode) == 0);
    CHECK(create().ok());
  }
  for (const mode_t mode : {0604U, 0602U, 0601U, 0644U, 0660U, 0650U, 0666U, 0777U}) {
    CAPTURE(mode);
    REQUIRE(::chmod(files.key_file.c_str(), mode) == 0);
    const auto made = create();
    REQUIRE_FALSE(made.ok());
    CHECK(contains(made.error(), files.key_file));
    CHECK(contains(made.error(), "0600"));
  }
  // 0640 is for root's files only.
  REQUIRE(::chmod(files.key_file.c_str(), 0640) == 0);
  CHECK(create().ok() == (::geteuid() == 0));
  if (::geteuid() == 0) {
    constexpr uid_t kNobody = 65'534;
    REQUIRE(::chmod(files.key_file.c_str(), 0600) == 0);
    REQUIRE(::chown(files.key_file.c_str(), kNobody, kNobody) == 0);
    CHECK(contains(create().error(), "owned"));
  }
}

TEST_CASE("files that hold no usable certificate and key are refused with their name") {
  Files files;
  const auto server_error = [](const std::string& certificate, const std::string& key) {
    return error_of<ServerTlsContext>(ServerTlsSettings{certificate, key, TlsVersion::k12});
  };
  const auto missing = files.folder.path("missing");
  CHECK(contains(server_error(missing, files.key_file), missing));
  CHECK(contains(server_error(files.certificate_file, missing), missing + ": No such file"));
  CHECK(contains(server_error(files.certificate_file, ""), "No such file"));

  const auto noise = files.folder.write("noise", "no PEM in here\n");
  CHECK(contains(server_error(noise, files.key_file), noise));
  CHECK(contains(server_error(files.certificate_file, noise), noise));
  const auto empty = files.folder.write("empty", "");
  CHECK(contains(server_error(empty, files.key_file), empty));
  CHECK(contains(server_error(files.certificate_file, empty), empty));
  CHECK(contains(server_error(files.certificate_file, files.folder.path("")), "not a regular file"));
  const auto large = files.folder.write("large", std::string(70'000, '\n') + files.certificate.key_pem);
  CHECK(contains(server_error(files.certificate_file, large), "too large"));

  const auto fifo = files.folder.path("fifo");
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(contains(server_error(files.certificate_file, fifo), "not a regular file"));

  const auto other = files.authority.issue({.common_name = "db.test"});
  const auto other_key = files.folder.write("other.key", other.key_pem);
  CHECK(contains(server_error(files.certificate_file, other_key), "does not belong"));
  // Another kind of key, too: OpenSSL would keep it beside the certificate.
  const auto rsa = files.authority.issue({.common_name = "db.test", .key = TestKeyKind::kRsa2048});
  CHECK(contains(server_error(files.certificate_file, files.folder.write("rsa.key", rsa.key_pem)), "does not belong"));
}

TEST_CASE("an encrypted key is refused, never asked for at a terminal") {
  Files files;
  const auto* data = files.certificate.key_pem.c_str();
  const std::unique_ptr<BIO, tests::detail::FreeOpenssl> in(BIO_new_mem_buf(data, -1));
  const tests::detail::Key key(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
  REQUIRE(key != nullptr);
  unsigned char passphrase[] = "secret";
  const auto encrypted = tests::detail::to_text([&](BIO* bio) {
    return PEM_write_bio_PrivateKey(bio, key.get(), EVP_aes_128_cbc(), passphrase, 6, nullptr, nullptr);
  });
  const auto path = files.folder.write("encrypted.key", encrypted);
  CHECK(contains(error_of<ServerTlsContext>(ServerTlsSettings{files.certificate_file, path, TlsVersion::k12}),
                 "unencrypted"));
}

TEST_CASE("a chain longer than a handshake's room is refused") {
  Files files;
  std::string chain = files.certificate.certificate_pem;
  std::size_t size = files.certificate.certificate_der.size();
  while (size <= kMaxTlsChain) {
    const auto more = files.authority.issue({.common_name = "intermediate"});
    chain += more.certificate_pem;
    size += more.certificate_der.size();
  }
  const auto path = files.folder.write("chain.crt", chain);
  CHECK(contains(error_of<ServerTlsContext>(ServerTlsSettings{path, files.key_file, TlsVersion::k12}), "too long"));
}

TEST_CASE("client contexts: what each setting needs") {
  Files files;
  const auto ca_file = files.folder.write("ca.crt", files.authority.certificate_pem(), 0644);
  const auto create = [](BackendTlsMode mode, const std::string& ca, const std::string& certificate = "",
                         const std::string& key = "") {
    return ClientTlsContext::create({mode, ca, certificate, key});
  };
  for (const auto mode : {BackendTlsMode::kRequire, BackendTlsMode::kVerifyCa, BackendTlsMode::kVerifyFull}) {
    const auto made = create(mode, ca_file);
    REQUIRE(made.ok());
    CHECK(made.value()->mode() == mode);
    const int expected = mode == BackendTlsMode::kRequire ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;
    CHECK(SSL_CTX_get_verify_mode(made.value()->native()) == expected);
    CHECK(create(mode, "").ok());  // the system's store
  }
  CHECK_FALSE(create(BackendTlsMode::kDisable, ca_file).ok());
  CHECK_FALSE(create(BackendTlsMode::kVerifyFull, files.folder.path("missing")).ok());
  CHECK_FALSE(create(BackendTlsMode::kVerifyCa, files.folder.write("noise", "no PEM")).ok());
  CHECK(create(BackendTlsMode::kVerifyFull, ca_file, files.certificate_file, files.key_file).ok());
  CHECK_FALSE(create(BackendTlsMode::kVerifyFull, ca_file, files.certificate_file, "").ok());
  CHECK_FALSE(create(BackendTlsMode::kVerifyFull, ca_file, "", files.key_file).ok());
  REQUIRE(::chmod(files.key_file.c_str(), 0644) == 0);
  CHECK_FALSE(create(BackendTlsMode::kVerifyFull, ca_file, files.certificate_file, files.key_file).ok());
}

}  // namespace
}  // namespace pointsman::protocol
