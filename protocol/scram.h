#pragma once
// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS with stored keys, both roles, sans-IO. Single-threaded objects, no PBKDF2 in an
// exchange: the server side needs only a verifier, and it gives out the ClientKey with which the client side logs in to
// a backend that holds the same verifier. Sources: RFC 5802, RFC 7677, RFC 5929 (tls-server-end-point); PostgreSQL
// src/backend/libpq/auth-scram.c and src/common/scram-common.c.
//
//   recovering the key: ClientProof = ClientKey XOR HMAC(StoredKey, AuthMessage); the owner of StoredKey computes the
//   HMAC, so ClientKey = ClientProof XOR HMAC(StoredKey, AuthMessage), proved by SHA-256(ClientKey) == StoredKey.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"

namespace pointsman::protocol {

using ScramKey = base::SecretArray<32>;

/// pg_authid.rolpassword of a SCRAM role: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (base64 parts).
struct ScramVerifier {
  std::uint32_t iterations = 0;
  std::string salt;  ///< raw bytes
  ScramKey stored_key;
  ScramKey server_key;
};
inline constexpr std::uint32_t kDefaultScramIterations = 4'096;
inline constexpr std::size_t kScramSaltSize = 16;
/// Bounds for what a backend may ask of us, and for verifiers (T17).
inline constexpr std::uint32_t kMaxScramIterations = 1'000'000;
inline constexpr std::size_t kMaxScramSalt = 1'024;
/// Bounds for a backend's nonce (ours included) and for its messages (CVE-2026-6665: a long server nonce).
inline constexpr std::size_t kMaxScramNonce = 1'024;
inline constexpr std::size_t kMaxScramServerMessage = 4'096;

/// nullopt for anything else, MD5 hashes and other spellings of the same verifier included.
std::optional<ScramVerifier> parse_scram_verifier(std::string_view text);
/// The result is a secret: it lets its holder act as the server, and, with one overheard login, as the role.
std::string format_scram_verifier(const ScramVerifier& verifier);

/// The verifier of a role that does not exist or has none: looks real, is stable per name (salt = HMAC-SHA-256(secret,
/// name) cut to 16 bytes, as mock_scram_secret() does), and no proof fits it.
ScramVerifier make_mock_verifier(std::string_view secret, std::string_view role_name);

/// The keys for logging in elsewhere. Wiped on destruction.
struct ScramLoginKeys {
  ScramKey client_key;
  ScramKey stored_key;
  ScramKey server_key;
};

/// What channel binding the connection can do.
struct ChannelBinding {
  bool available = false;          ///< TLS is up and the certificate's hash is known
  std::string_view endpoint_hash;  ///< tls-server-end-point data; not stored beyond the call it is given to
};

/// Server side of one exchange.
class ScramServer {
 public:
  enum class Outcome {
    kContinue,       ///< send message() as AuthenticationSASLContinue
    kSuccess,        ///< send message() as AuthenticationSASLFinal (when the login is complete); login_keys() is set
    kWrongPassword,  ///< also for mock verifiers: indistinguishable outside
    kMalformed,      ///< 08P01; reason() says what
    kBindingNegotiation,  ///< `y` although we offered PLUS: 28000 (auth-scram.c, "channel binding negotiation error")
    kBindingMismatch,     ///< channel binding check failed: 28000
    kUnsupported,         ///< authzid or mandatory extension: 0A000
  };

  /// `verifier` is copied. `is_mock`: run the exchange to its end and then fail. `nonce` is 18 random bytes in base64
  /// (printable).
  ScramServer(const ScramVerifier& verifier, bool is_mock, std::string nonce, bool offer_plus,
              std::string_view endpoint_hash);

  /// The mechanisms to offer, in order.
  std::vector<std::string_view> mechanisms() const;
  /// `data` is the client-first-message. Mechanism must be one that was offered.
  Outcome on_initial(std::string_view mechanism, std::string_view data);
  /// `data` is the client-final-message. Requires: on_initial returned kContinue.
  Outcome on_final(std::string_view data);

  const std::string& message() const { return message_; }
  std::string_view reason() const { return reason_; }
  /// Requires: on_final returned kSuccess.
  const ScramLoginKeys& login_keys() const { return keys_; }

 private:
  Outcome fail(Outcome outcome, std::string_view reason);
  Outcome malformed(std::string_view reason) { return fail(Outcome::kMalformed, reason); }
  Outcome read_gs2_header(std::string_view data);
  Outcome check_binding(std::string_view value);
  Outcome check_proof(const ScramKey& proof, std::string_view final_without_proof);

  ScramVerifier verifier_;
  bool is_mock_;
  bool offer_plus_;
  bool used_plus_ = false;
  std::string server_nonce_;
  std::string endpoint_hash_;
  std::string gs2_header_;
  std::string client_first_bare_;
  std::string combined_nonce_;
  std::string server_first_;
  std::string message_;
  std::string_view reason_;  // points to literals
  ScramLoginKeys keys_;
  enum class Step : std::uint8_t { kInitial, kFinal, kDone } step_ = Step::kInitial;
};

/// Client side of one exchange, toward a hostile backend: nonce must extend ours, iterations and salt are bounded, the
/// server signature is verified.
class ScramClient {
 public:
  enum class Outcome {
    kContinue,   ///< send message()
    kNeedsKeys,  ///< made without keys: derive them from the password with salt() and iterations(), then on_keys()
    kDone,
    kMalformed,
    kBadServerSignature
  };

  /// `nonce` printable. With `use_plus` the binding is tls-server-end-point over `endpoint_hash`; otherwise the gs2
  /// flag is `n`
  /// (`tls_without_plus` false) or `y` when TLS is up but the server did not offer PLUS.
  ScramClient(ScramLoginKeys keys, std::string nonce, bool use_plus, bool tls_without_plus,
              std::string_view endpoint_hash);
  /// For who has a password: the keys depend on what the server-first-message says, and are given after it.
  ScramClient(std::string nonce, bool use_plus, bool tls_without_plus, std::string_view endpoint_hash);

  std::string_view mechanism() const;
  /// The client-first-message.
  std::string first_message();
  /// Server-first in, client-final in message(), unless the keys are not there yet.
  Outcome on_continue(std::string_view data);
  /// Client-final in message(). Requires: on_continue returned kNeedsKeys.
  Outcome on_keys(ScramLoginKeys keys);
  /// Server-final in; kDone when its signature is right.
  Outcome on_final(std::string_view data);

  const std::string& message() const { return message_.reveal(); }
  std::string_view reason() const { return reason_; }
  /// What the server named, within the bounds above. Require: on_continue returned kNeedsKeys.
  const std::string& salt() const { return salt_; }
  std::uint32_t iterations() const { return iterations_; }

 private:
  Outcome malformed(std::string_view reason);
  Outcome prove();

  std::optional<ScramLoginKeys> keys_;
  std::string nonce_;
  std::string endpoint_hash_;
  std::string gs2_header_;
  std::string client_first_bare_;
  std::string final_without_proof_;
  std::string auth_message_;
  std::string salt_;
  std::uint32_t iterations_ = 0;
  base::SecretString message_;  // with the verifier's StoredKey, the proof in it gives the ClientKey away
  std::string_view reason_;     // points to literals
  bool use_plus_;
  enum class Step : std::uint8_t { kFirst, kContinue, kKeys, kFinal, kDone } step_ = Step::kFirst;
};

// ---- building blocks, also for tests and tools -------------------------------------------------------------------

ScramKey hmac_sha256(std::string_view key, std::string_view data);
ScramKey sha256(std::string_view data);
std::string base64_encode(std::string_view raw);
/// Strict: canonical padding, unused bits zero, no white space. nullopt otherwise.
std::optional<std::string> base64_decode(std::string_view text);
/// The same for exactly 32 bytes, which are never outside of a ScramKey.
std::optional<ScramKey> base64_decode_key(std::string_view text);
constexpr std::size_t base64_size(std::size_t raw) {
  return (raw + 2) / 3 * 4;
}
/// 1..kMaxScramIterations without sign or leading zero. There is no lower bound: a role made with a small
/// `scram_iterations` (PostgreSQL 16) is lawful.
std::optional<std::uint32_t> parse_scram_iterations(std::string_view text);
/// Derives a verifier (and the ClientKey) from a password by PBKDF2. Slow on purpose: never on a loop. The password is
/// used as given; SASLprep is the caller's affair.
struct DerivedScram {
  ScramVerifier verifier;
  ScramKey client_key;
};
DerivedScram derive_scram(std::string_view password, std::string_view salt, std::uint32_t iterations);

}  // namespace pointsman::protocol
