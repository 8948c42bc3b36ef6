// Hashes, base64 and stored verifiers: everything of SCRAM that is not an exchange of messages.

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>
#include <charconv>
#include <memory>

#include "base/bytes.h"
#include "base/check.h"
#include "protocol/postgres_format.h"
#include "protocol/scram.h"

namespace pointsman::protocol {
namespace {

constexpr std::size_t kSha256Block = 64;

/// Fetched once: HMAC(), EVP_Q_mac() and EVP_sha256() make OpenSSL 3.0 look the algorithm up anew on every call, which
/// costs more than the hash of a short message. Never freed: it lives as long as the process.
const EVP_MD* sha256_method() {
  static const EVP_MD* const method = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  POINTSMAN_CHECK(method != nullptr);
  return method;
}

struct FreeDigest {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

/// One running SHA-256 in this thread's context: no allocation per hash. Only one may be alive on a thread at a time.
class Sha256 {
 public:
  Sha256() : context_(thread_context()) { restart(); }
  /// Starting anew overwrites the state, from which an HMAC's key could be had.
  ~Sha256() { restart(); }
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void restart() { POINTSMAN_CHECK(EVP_DigestInit_ex2(context_, sha256_method(), nullptr) == 1); }
  void update(std::span<const std::uint8_t> bytes) {
    POINTSMAN_CHECK(EVP_DigestUpdate(context_, bytes.data(), bytes.size()) == 1);
  }
  void finish(ScramKey& out) { POINTSMAN_CHECK(EVP_DigestFinal_ex(context_, out.data(), nullptr) == 1); }

 private:
  static EVP_MD_CTX* thread_context() {
    thread_local const std::unique_ptr<EVP_MD_CTX, FreeDigest> context(EVP_MD_CTX_new());
    POINTSMAN_CHECK(context != nullptr);
    return context.get();
  }

  EVP_MD_CTX* context_;
};

constexpr std::string_view kBase64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::uint8_t kNotBase64 = 0xff;

constexpr std::array<std::uint8_t, 256> make_base64_values() {
  std::array<std::uint8_t, 256> values{};
  values.fill(kNotBase64);
  for (std::size_t i = 0; i < kBase64Alphabet.size(); ++i) {
    values[static_cast<std::uint8_t>(kBase64Alphabet[i])] = static_cast<std::uint8_t>(i);
  }
  return values;
}
constexpr auto kBase64Values = make_base64_values();

/// Bytes that `text` stands for, if its length and padding are right; its characters are not looked at yet.
std::optional<std::size_t> base64_decoded_size(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::size_t padding = 0;
  if (text.ends_with("==")) {
    padding = 2;
  } else if (text.ends_with('=')) {
    padding = 1;
  }
  return text.size() / 4 * 3 - padding;
}

/// Requires: `out` has base64_decoded_size(text) bytes. False when a character is none of base64's or unused bits are
/// not zero: each value has one spelling, so that texts can be compared in place of bytes.
bool base64_decode_to(std::string_view text, std::span<std::uint8_t> out) {
  std::uint32_t bits = 0;
  unsigned held = 0;
  std::size_t written = 0;
  const auto data = text.substr(0, text.find_last_not_of('=') + 1);
  if (text.size() - data.size() > 2) return false;
  for (const char c : data) {
    const auto value = kBase64Values[static_cast<std::uint8_t>(c)];
    if (value == kNotBase64) return false;
    bits = (bits << 6) | value;
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out[written++] = static_cast<std::uint8_t>(bits >> held);
    bits &= (1U << held) - 1;
  }
  return bits == 0;
}

/// Splits at the first `separator`; nullopt when there is none.
std::optional<std::string_view> take_until(std::string_view& rest, char separator) {
  const auto at = rest.find(separator);
  if (at == std::string_view::npos) return std::nullopt;
  const auto part = rest.substr(0, at);
  rest.remove_prefix(at + 1);
  return part;
}

}  // namespace

ScramKey sha256(std::string_view data) {
  ScramKey result;
  Sha256 hash;
  hash.update(base::as_bytes(data));
  hash.finish(result);
  return result;
}

// RFC 2104: H(K ^ opad, H(K ^ ipad, data)).
ScramKey hmac_sha256(std::string_view key, std::string_view data) {
  constexpr std::uint8_t kInnerPad = 0x36;
  constexpr std::uint8_t kOuterPad = 0x5c;
  base::SecretArray<kSha256Block> block;
  if (key.size() > kSha256Block) {
    const auto shortened = sha256(key);
    std::memcpy(block.data(), shortened.data(), ScramKey::size());
  } else {
    std::memcpy(block.data(), key.data(), key.size());
  }

  ScramKey result;
  Sha256 hash;
  for (auto& byte : block.span()) byte ^= kInnerPad;
  hash.update(block.span());
  hash.update(base::as_bytes(data));
  hash.finish(result);

  hash.restart();
  for (auto& byte : block.span()) byte ^= kInnerPad ^ kOuterPad;
  hash.update(block.span());
  hash.update(result.span());
  hash.finish(result);
  return result;
}

std::string base64_encode(std::string_view raw) {
  std::string text((raw.size() + 2) / 3 * 4, '\0');
  // Writes the terminator too, where std::string keeps its own.
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), base::as_bytes(raw).data(),
                  static_cast<int>(raw.size()));
  return text;
}

std::optional<std::string> base64_decode(std::string_view text) {
  const auto size = base64_decoded_size(text);
  if (!size) return std::nullopt;
  std::string raw(*size, '\0');
  if (!base64_decode_to(text, {reinterpret_cast<std::uint8_t*>(raw.data()), raw.size()})) return std::nullopt;
  return raw;
}

std::optional<ScramKey> base64_decode_key(std::string_view text) {
  if (base64_decoded_size(text) != ScramKey::size()) return std::nullopt;
  std::optional<ScramKey> key(std::in_place);
  if (!base64_decode_to(text, key->span())) return std::nullopt;
  return key;
}

std::optional<std::uint32_t> parse_scram_iterations(std::string_view text) {
  // posit-number of RFC 5802, section 7: no sign, no leading zero.
  if (text.empty() || text.front() == '0') return std::nullopt;
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value > kMaxScramIterations) return std::nullopt;
  return value;
}

std::optional<ScramVerifier> parse_scram_verifier(std::string_view text) {
  const auto mechanism = take_until(text, '$');
  const auto iterations_text = take_until(text, ':');
  const auto salt_text = take_until(text, '$');
  const auto stored_text = take_until(text, ':');
  if (!mechanism || *mechanism != kScramSha256 || !iterations_text || !salt_text || !stored_text) return std::nullopt;

  const auto iterations = parse_scram_iterations(*iterations_text);
  if (!iterations || salt_text->size() > base64_size(kMaxScramSalt)) return std::nullopt;
  auto salt = base64_decode(*salt_text);
  auto stored_key = base64_decode_key(*stored_text);
  auto server_key = base64_decode_key(text);
  if (!salt || salt->empty() || salt->size() > kMaxScramSalt || !stored_key || !server_key) return std::nullopt;
  return ScramVerifier{*iterations, std::move(*salt), std::move(*stored_key), std::move(*server_key)};
}

std::string format_scram_verifier(const ScramVerifier& verifier) {
  base::SecretString stored_key(base64_encode(base::as_text(verifier.stored_key.span())));
  base::SecretString server_key(base64_encode(base::as_text(verifier.server_key.span())));
  std::string text;
  // Room at once: a string that grows leaves copies of the keys behind.
  text.reserve(sizeof kScramSha256 + 16 + base64_size(verifier.salt.size()) + 2 * base64_size(ScramKey::size()));
  text.append(kScramSha256).append("$").append(std::to_string(verifier.iterations));
  text.append(":").append(base64_encode(verifier.salt));
  text.append("$").append(stored_key.reveal()).append(":").append(server_key.reveal());
  return text;
}

ScramVerifier make_mock_verifier(std::string_view secret, std::string_view role_name) {
  // The keys stay zero, as in mock_scram_secret(): a fitting proof would need a SHA-256 preimage of zero, and the
  // exchange is doomed besides.
  ScramVerifier verifier;
  verifier.iterations = kDefaultScramIterations;
  verifier.salt = base::as_text(hmac_sha256(secret, role_name).span()).substr(0, kScramSaltSize);
  return verifier;
}

DerivedScram derive_scram(std::string_view password, std::string_view salt, std::uint32_t iterations) {
  ScramKey salted;
  const auto salt_bytes = base::as_bytes(salt);
  POINTSMAN_CHECK(PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()), salt_bytes.data(),
                                    static_cast<int>(salt_bytes.size()), static_cast<int>(iterations), sha256_method(),
                                    static_cast<int>(ScramKey::size()), salted.data()) == 1);
  DerivedScram derived;
  derived.client_key = hmac_sha256(base::as_text(salted.span()), "Client Key");
  derived.verifier.iterations = iterations;
  derived.verifier.salt = salt;
  derived.verifier.stored_key = sha256(base::as_text(derived.client_key.span()));
  derived.verifier.server_key = hmac_sha256(base::as_text(salted.span()), "Server Key");
  return derived;
}

}  // namespace pointsman::protocol
