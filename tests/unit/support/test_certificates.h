#pragma once
// Certificates for tests, made in memory with fixed dates, and a folder to put them in.
//
//   TestAuthority authority("Test CA");
//   const auto server = authority.issue({.common_name = "db.test", .dns_names = {"db.test"}});
//   TestFolder folder;
//   settings.certificate_file = folder.write("server.crt", server.certificate_pem, 0644);
//   settings.key_file = folder.write("server.key", server.key_pem, 0600);

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"

namespace pointsman::tests {

enum class TestKeyKind { kP256, kRsa2048, kEd25519 };

/// What a certificate is to say.
struct TestCertificateSpec {
  std::string common_name;
  std::vector<std::string> dns_names{};  ///< subjectAltName
  std::vector<std::string> addresses{};  ///< subjectAltName, text form
  TestKeyKind key = TestKeyKind::kP256;
  bool expired = false;              ///< valid in 2020 only, else 2020 to 2100
  const char* usage = "serverAuth";  ///< extendedKeyUsage; "clientAuth" for client certificates
};

/// A certificate and its key as PEM, and the certificate as DER for look at its hash.
struct TestCertificate {
  std::string certificate_pem;
  std::string key_pem;
  std::string certificate_der;
};

namespace detail {

struct FreeOpenssl {
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
  void operator()(X509* p) const { X509_free(p); }
  void operator()(BIO* p) const { BIO_free_all(p); }
  void operator()(X509_EXTENSION* p) const { X509_EXTENSION_free(p); }
};
using Key = std::unique_ptr<EVP_PKEY, FreeOpenssl>;
using Certificate = std::unique_ptr<X509, FreeOpenssl>;

inline Key make_key(TestKeyKind kind) {
  switch (kind) {
    case TestKeyKind::kP256:
      return Key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
    case TestKeyKind::kRsa2048:
      return Key(EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", std::size_t{2048}));
    case TestKeyKind::kEd25519:
      return Key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  }
  std::abort();
}

template <typename Write>
std::string to_text(const Write& write) {
  const std::unique_ptr<BIO, FreeOpenssl> bio(BIO_new(BIO_s_mem()));
  POINTSMAN_CHECK(write(bio.get()) == 1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

inline void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context{};
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const std::unique_ptr<X509_EXTENSION, FreeOpenssl> extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  POINTSMAN_CHECK(extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1);
}

/// A certificate for `key` with names and dates; extensions and signature are left to the caller.
inline Certificate start_certificate(const std::string& common_name, EVP_PKEY* key, bool expired, long serial) {
  Certificate certificate(X509_new());
  X509* const x = certificate.get();
  X509_set_version(x, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(x), serial);
  POINTSMAN_CHECK(ASN1_TIME_set_string_X509(X509_getm_notBefore(x), "20200101000000Z") == 1);
  POINTSMAN_CHECK(ASN1_TIME_set_string_X509(X509_getm_notAfter(x), expired ? "20201231000000Z" : "21000101000000Z") ==
                  1);
  X509_NAME* const name = X509_get_subject_name(x);
  POINTSMAN_CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                             reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1,
                                             0) == 1);
  POINTSMAN_CHECK(X509_set_pubkey(x, key) == 1);
  return certificate;
}

inline TestCertificate export_certificate(X509* certificate, EVP_PKEY* key) {
  return {to_text([&](BIO* bio) { return PEM_write_bio_X509(bio, certificate); }),
          to_text([&](BIO* bio) { return PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr); }),
          to_text([&](BIO* bio) { return i2d_X509_bio(bio, certificate); })};
}

}  // namespace detail

/// A certificate authority of its own.
class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name, TestKeyKind kind = TestKeyKind::kP256,
                         const EVP_MD* digest = EVP_sha256())
      : key_(detail::make_key(kind)), digest_(kind == TestKeyKind::kEd25519 ? nullptr : digest) {
    certificate_ = detail::start_certificate(name, key_.get(), false, 1);
    X509* const x = certificate_.get();
    X509_set_issuer_name(x, X509_get_subject_name(x));
    detail::add_extension(x, x, NID_basic_constraints, "critical,CA:TRUE");
    detail::add_extension(x, x, NID_key_usage, "critical,keyCertSign,cRLSign");
    detail::add_extension(x, x, NID_subject_key_identifier, "hash");
    POINTSMAN_CHECK(X509_sign(x, key_.get(), digest_) > 0);
    pem_ = detail::export_certificate(x, key_.get()).certificate_pem;
  }

  const std::string& certificate_pem() const { return pem_; }

  TestCertificate issue(const TestCertificateSpec& spec) {
    const auto key = detail::make_key(spec.key);
    const auto certificate = detail::start_certificate(spec.common_name, key.get(), spec.expired, ++serial_);
    X509* const x = certificate.get();
    X509_set_issuer_name(x, X509_get_subject_name(certificate_.get()));
    detail::add_extension(x, certificate_.get(), NID_basic_constraints, "critical,CA:FALSE");
    detail::add_extension(x, certificate_.get(), NID_ext_key_usage, spec.usage);
    detail::add_extension(x, certificate_.get(), NID_authority_key_identifier, "keyid");
    std::string names;
    for (const auto& name : spec.dns_names) names += (names.empty() ? "DNS:" : ",DNS:") + name;
    for (const auto& address : spec.addresses) names += (names.empty() ? "IP:" : ",IP:") + address;
    if (!names.empty()) detail::add_extension(x, certificate_.get(), NID_subject_alt_name, names);
    POINTSMAN_CHECK(X509_sign(x, key_.get(), digest_) > 0);
    return detail::export_certificate(x, key.get());
  }

 private:
  detail::Key key_;
  const EVP_MD* digest_;
  detail::Certificate certificate_;
  std::string pem_;
  long serial_ = 1;
};

/// A temporary folder that goes with everything in it.
class TestFolder {
 public:
  TestFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pointsman-test-XXXXXX").string();
    POINTSMAN_CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  /// Writes a file and returns its path.
  std::string write(const std::string& name, std::string_view content, mode_t mode = 0600) const {
    const auto path = (path_ / name).string();
    std::FILE* const file = std::fopen(path.c_str(), "wb");
    POINTSMAN_CHECK(file != nullptr);
    POINTSMAN_CHECK(std::fwrite(content.data(), 1, content.size(), file) == content.size());
    POINTSMAN_CHECK(std::fclose(file) == 0);
    POINTSMAN_CHECK(::chmod(path.c_str(), mode) == 0);
    return path;
  }
  std::string path(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace pointsman::tests
