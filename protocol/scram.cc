#include "protocol/scram.h"

#include <openssl/crypto.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "protocol/postgres_format.h"

namespace pointsman::protocol {
namespace {

constexpr std::string_view kBindingFlag = "p=tls-server-end-point,";

/// The attributes of a SCRAM message, `a=value` each, with a comma between two (RFC 5802, section 7).
class Attributes {
 public:
  struct Attribute {
    char name = 0;
    std::string_view value;
  };

  explicit Attributes(std::string_view message) : rest_(message) {}

  /// nullopt at the end and when the next one is not well formed: at_end() tells.
  std::optional<Attribute> next() {
    if (at_end_ || rest_.size() < 2 || !is_letter(rest_[0]) || rest_[1] != '=') return std::nullopt;
    const auto comma = rest_.find(',');
    const Attribute attribute{rest_[0], rest_.substr(2, comma == std::string_view::npos ? comma : comma - 2)};
    if (comma == std::string_view::npos) {
      at_end_ = true;
    } else {
      rest_.remove_prefix(comma + 1);
    }
    return attribute;
  }
  /// The value of the next one, which must be `name`.
  std::optional<std::string_view> expect(char name) {
    const auto attribute = next();
    if (!attribute || attribute->name != name) return std::nullopt;
    return attribute->value;
  }
  bool at_end() const { return at_end_; }

 private:
  static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

  std::string_view rest_;
  bool at_end_ = false;
};

/// `printable` of RFC 5802: visible ASCII without the comma (is_scram_printable() of auth-scram.c).
bool is_nonce(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f && c != ','; });
}

std::string joined(std::string_view a, std::string_view b, std::string_view c) {
  std::string text;
  text.reserve(a.size() + b.size() + c.size() + 2);
  text.append(a).append(",").append(b).append(",").append(c);
  return text;
}

/// cbind-input of RFC 5802, as the `c` attribute carries it.
std::string binding_attribute(std::string_view gs2_header, std::string_view endpoint_hash) {
  return base64_encode(std::string(gs2_header).append(endpoint_hash));
}

ScramKey hmac(const ScramKey& key, std::string_view data) {
  return hmac_sha256(base::as_text(key.span()), data);
}

/// ClientProof to ClientKey and back.
ScramKey exclusive_or(const ScramKey& a, const ScramKey& b) {
  ScramKey result;
  for (std::size_t i = 0; i < ScramKey::size(); ++i)
    result.data()[i] = static_cast<std::uint8_t>(a.data()[i] ^ b.data()[i]);
  return result;
}

bool equal(const ScramKey& a, const ScramKey& b) {
  return CRYPTO_memcmp(a.data(), b.data(), ScramKey::size()) == 0;
}

}  // namespace

// ---- server ------------------------------------------------------------------------------------------------------

ScramServer::ScramServer(const ScramVerifier& verifier, bool is_mock, std::string nonce, bool offer_plus,
                         std::string_view endpoint_hash)
    : verifier_(verifier),
      is_mock_(is_mock),
      offer_plus_(offer_plus),
      server_nonce_(std::move(nonce)),
      endpoint_hash_(endpoint_hash) {
  POINTSMAN_CHECK(is_nonce(server_nonce_));
  POINTSMAN_CHECK(!offer_plus || !endpoint_hash_.empty());
}

std::vector<std::string_view> ScramServer::mechanisms() const {
  if (offer_plus_) return {kScramSha256Plus, kScramSha256};
  return {kScramSha256};
}

ScramServer::Outcome ScramServer::fail(Outcome outcome, std::string_view reason) {
  step_ = Step::kDone;
  reason_ = reason;
  return outcome;
}

// The order of the checks is that of read_client_first_message() in auth-scram.c.
ScramServer::Outcome ScramServer::on_initial(std::string_view mechanism, std::string_view data) {
  POINTSMAN_CHECK(step_ == Step::kInitial);
  used_plus_ = offer_plus_ && mechanism == kScramSha256Plus;
  if (!used_plus_ && mechanism != kScramSha256)
    return malformed("client selected a SASL mechanism that was not offered");
  if (data.size() > kMaxSaslMessage) return malformed("client-first-message is too long");
  if (data.find('\0') != std::string_view::npos) return malformed("zero byte in client-first-message");
  if (const auto outcome = read_gs2_header(data); outcome != Outcome::kContinue) return outcome;

  client_first_bare_ = data.substr(gs2_header_.size());
  if (client_first_bare_.starts_with('m')) return fail(Outcome::kUnsupported, "mandatory SCRAM extension");
  Attributes attributes(client_first_bare_);
  // The name is ignored, as in PostgreSQL: the startup packet's counts.
  if (!attributes.expect('n')) return malformed("user name expected in client-first-message");
  const auto nonce = attributes.expect('r');
  if (!nonce) return malformed("nonce expected in client-first-message");
  if (!is_nonce(*nonce)) return malformed("non-printable characters in SCRAM nonce");
  while (const auto extension = attributes.next()) {
    if (extension->name == 'm') return fail(Outcome::kUnsupported, "mandatory SCRAM extension");
  }
  if (!attributes.at_end()) return malformed("malformed attribute in client-first-message");

  combined_nonce_ = std::string(*nonce).append(server_nonce_);
  server_first_ =
      joined("r=" + combined_nonce_, "s=" + base64_encode(verifier_.salt), "i=" + std::to_string(verifier_.iterations));
  message_ = server_first_;
  step_ = Step::kFinal;
  return Outcome::kContinue;
}

ScramServer::Outcome ScramServer::read_gs2_header(std::string_view data) {
  const char flag = data.empty() ? '\0' : data.front();
  std::size_t size = 2;
  if (flag == 'n' || flag == 'y') {
    if (used_plus_) return malformed("SCRAM-SHA-256-PLUS without channel binding data");
    if (flag == 'y' && offer_plus_)
      return fail(Outcome::kBindingNegotiation, "SCRAM channel binding negotiation error");
    if (data.size() < size || data[1] != ',') return malformed("comma expected behind the channel-binding flag");
  } else if (flag == 'p') {
    if (!used_plus_) return malformed("channel binding data without SCRAM-SHA-256-PLUS");
    if (!data.starts_with(kBindingFlag)) return malformed("unsupported SCRAM channel-binding type");
    size = kBindingFlag.size();
  } else {
    return malformed("unexpected channel-binding flag");
  }

  if (data.substr(size).starts_with('a')) return fail(Outcome::kUnsupported, "client uses authorization identity");
  if (!data.substr(size).starts_with(',')) return malformed("unexpected attribute in the GS2 header");
  gs2_header_ = data.substr(0, size + 1);
  return Outcome::kContinue;
}

// The order of the checks is that of read_client_final_message() and scram_exchange() in auth-scram.c.
ScramServer::Outcome ScramServer::on_final(std::string_view data) {
  POINTSMAN_CHECK(step_ == Step::kFinal);
  if (data.size() > kMaxSaslMessage) return malformed("client-final-message is too long");
  Attributes attributes(data);
  const auto binding = attributes.expect('c');
  if (!binding) return malformed("channel binding expected in client-final-message");
  if (const auto outcome = check_binding(*binding); outcome != Outcome::kContinue) return outcome;
  const auto nonce = attributes.expect('r');
  if (!nonce) return malformed("nonce expected in client-final-message");

  auto attribute = attributes.next();
  while (attribute && attribute->name != 'p') {
    if (attribute->name == 'm') return fail(Outcome::kUnsupported, "mandatory SCRAM extension");
    attribute = attributes.next();
  }
  if (!attribute) return malformed("proof expected in client-final-message");
  if (!attributes.at_end()) return malformed("garbage at the end of client-final-message");
  const auto proof = base64_decode_key(attribute->value);
  if (!proof) return malformed("malformed proof in client-final-message");
  if (*nonce != combined_nonce_) return malformed("SCRAM nonce does not match");

  constexpr std::string_view kBeforeProof = ",p=";
  return check_proof(*proof, data.substr(0, data.size() - attribute->value.size() - kBeforeProof.size()));
}

ScramServer::Outcome ScramServer::check_binding(std::string_view value) {
  if (value == binding_attribute(gs2_header_, used_plus_ ? std::string_view(endpoint_hash_) : std::string_view())) {
    return Outcome::kContinue;
  }
  if (used_plus_) return fail(Outcome::kBindingMismatch, "SCRAM channel binding check failed");
  return malformed("unexpected channel-binding attribute in client-final-message");
}

ScramServer::Outcome ScramServer::check_proof(const ScramKey& proof, std::string_view final_without_proof) {
  const auto auth_message = joined(client_first_bare_, server_first_, final_without_proof);
  auto client_key = exclusive_or(proof, hmac(verifier_.stored_key, auth_message));
  // A mock does all of the work before it fails, or the clock would tell which roles exist.
  const bool fits = equal(sha256(base::as_text(client_key.span())), verifier_.stored_key);
  if (!fits || is_mock_) return fail(Outcome::kWrongPassword, "proof does not fit the verifier");

  const auto signature = hmac(verifier_.server_key, auth_message);
  message_ = "v=" + base64_encode(base::as_text(signature.span()));
  keys_ = {std::move(client_key), verifier_.stored_key, verifier_.server_key};
  step_ = Step::kDone;
  return Outcome::kSuccess;
}

// ---- client ------------------------------------------------------------------------------------------------------

ScramClient::ScramClient(ScramLoginKeys keys, std::string nonce, bool use_plus, bool tls_without_plus,
                         std::string_view endpoint_hash)
    : ScramClient(std::move(nonce), use_plus, tls_without_plus, endpoint_hash) {
  keys_ = std::move(keys);
}

ScramClient::ScramClient(std::string nonce, bool use_plus, bool tls_without_plus, std::string_view endpoint_hash)
    : nonce_(std::move(nonce)), endpoint_hash_(use_plus ? endpoint_hash : std::string_view()), use_plus_(use_plus) {
  POINTSMAN_CHECK(is_nonce(nonce_));
  POINTSMAN_CHECK(!use_plus || !endpoint_hash_.empty());
  if (use_plus) {
    gs2_header_ = std::string(kBindingFlag).append(",");
  } else {
    gs2_header_ = tls_without_plus ? "y,," : "n,,";
  }
}

std::string_view ScramClient::mechanism() const {
  return use_plus_ ? kScramSha256Plus : kScramSha256;
}

ScramClient::Outcome ScramClient::malformed(std::string_view reason) {
  step_ = Step::kDone;
  reason_ = reason;
  return Outcome::kMalformed;
}

std::string ScramClient::first_message() {
  POINTSMAN_CHECK(step_ == Step::kFirst);
  step_ = Step::kContinue;
  // No name, as libpq: the server takes the startup packet's.
  client_first_bare_ = "n=,r=" + nonce_;
  return gs2_header_ + client_first_bare_;
}

ScramClient::Outcome ScramClient::on_continue(std::string_view data) {
  POINTSMAN_CHECK(step_ == Step::kContinue);
  if (data.size() > kMaxScramServerMessage) return malformed("server-first-message is too long");
  Attributes attributes(data);
  const auto nonce = attributes.expect('r');
  if (!nonce) return malformed("nonce expected in server-first-message");
  if (nonce->size() > kMaxScramNonce || !is_nonce(*nonce)) return malformed("malformed nonce in server-first-message");
  if (nonce->size() <= nonce_.size() || !nonce->starts_with(nonce_))
    return malformed("server nonce does not extend ours");
  const auto salt_text = attributes.expect('s');
  if (!salt_text) return malformed("salt expected in server-first-message");
  auto salt = base64_decode(*salt_text);
  if (!salt || salt->empty() || salt->size() > kMaxScramSalt)
    return malformed("malformed salt in server-first-message");
  const auto iterations_text = attributes.expect('i');
  const auto iterations = iterations_text ? parse_scram_iterations(*iterations_text) : std::nullopt;
  if (!iterations) return malformed("iteration count missing or out of bounds");
  if (!attributes.at_end()) return malformed("garbage at the end of server-first-message");

  final_without_proof_ =
      std::string("c=").append(binding_attribute(gs2_header_, endpoint_hash_)).append(",r=").append(*nonce);
  auth_message_ = joined(client_first_bare_, data, final_without_proof_);
  if (keys_) return prove();
  salt_ = std::move(*salt);
  iterations_ = *iterations;
  step_ = Step::kKeys;
  return Outcome::kNeedsKeys;
}

ScramClient::Outcome ScramClient::on_keys(ScramLoginKeys keys) {
  POINTSMAN_CHECK(step_ == Step::kKeys);
  keys_ = std::move(keys);
  return prove();
}

ScramClient::Outcome ScramClient::prove() {
  const auto proof = exclusive_or(keys_->client_key, hmac(keys_->stored_key, auth_message_));
  const base::SecretString proof_text(base64_encode(base::as_text(proof.span())));
  std::string message;
  message.reserve(final_without_proof_.size() + 3 + proof_text.reveal().size());
  message.append(final_without_proof_).append(",p=").append(proof_text.reveal());
  message_ = base::SecretString(std::move(message));
  step_ = Step::kFinal;
  return Outcome::kContinue;
}

ScramClient::Outcome ScramClient::on_final(std::string_view data) {
  POINTSMAN_CHECK(step_ == Step::kFinal);
  if (data.size() > kMaxScramServerMessage) return malformed("server-final-message is too long");
  Attributes attributes(data);
  const auto attribute = attributes.next();
  if (!attribute) return malformed("malformed server-final-message");
  if (attribute->name == 'e') return malformed("server-final-message holds an error");
  if (attribute->name != 'v') return malformed("signature expected in server-final-message");
  if (!attributes.at_end()) return malformed("garbage at the end of server-final-message");
  const auto signature = base64_decode_key(attribute->value);
  if (!signature) return malformed("malformed signature in server-final-message");

  step_ = Step::kDone;
  if (!equal(*signature, hmac(keys_->server_key, auth_message_))) {
    reason_ = "server signature does not fit: the server does not hold this role's verifier";
    return Outcome::kBadServerSignature;
  }
  return Outcome::kDone;
}

}  // namespace pointsman::protocol
