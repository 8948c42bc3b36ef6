#include "protocol/fleet_keys.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "protocol/openssl_error.h"
#include "protocol/scram.h"

namespace pointsman::protocol {
namespace {

constexpr base::Byte kSealVersion = 1;
constexpr std::size_t kKeyId = 4;
constexpr std::size_t kTag = 16;

struct FreeCipher {
  void operator()(EVP_CIPHER* cipher) const { EVP_CIPHER_free(cipher); }
};
struct FreeCipherContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Cipher = std::unique_ptr<EVP_CIPHER, FreeCipher>;
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, FreeCipherContext>;

/// AES-SIV with one key of 512 bits (AEAD_AES_SIV_CMAC_512).
struct Siv {
  Siv() : cipher(EVP_CIPHER_fetch(nullptr, "AES-256-SIV", nullptr)), context(EVP_CIPHER_CTX_new()) {}
  bool usable() const { return cipher != nullptr && context != nullptr; }

  Cipher cipher;
  CipherContext context;
};

base::Byte* bytes_of(std::string& text) {
  return reinterpret_cast<base::Byte*>(text.data());
}

/// The associated data: everything before the tag, and the PID, which the client sends beside the secret.
std::string associated(std::string_view head, std::uint32_t pid) {
  std::string data(head);
  base::append_be32(data, pid);
  return data;
}

bool add_associated(const Siv& siv, const std::string& data) {
  int size = 0;
  return EVP_CipherUpdate(siv.context.get(), nullptr, &size, base::as_bytes(data).data(),
                          static_cast<int>(data.size())) == 1;
}

}  // namespace

FleetKeys::Key FleetKeys::derive(std::string_view secret) {
  Key key;
  const auto id = hmac_sha256(secret, "pointsman fleet: key id");
  std::memcpy(key.id.data(), id.data(), key.id.size());
  const auto first = hmac_sha256(secret, "pointsman fleet: cancel keys, 1");
  const auto second = hmac_sha256(secret, "pointsman fleet: cancel keys, 2");
  std::memcpy(key.seal.data(), first.data(), first.size());
  std::memcpy(key.seal.data() + first.size(), second.data(), second.size());
  const auto peer = hmac_sha256(secret, "pointsman fleet: peer TLS");
  std::memcpy(key.peer.key.data(), peer.data(), peer.size());
  constexpr char kHex[] = "0123456789abcdef";
  key.peer.identity = "pointsman ";
  for (const base::Byte byte : key.id) {
    key.peer.identity += kHex[byte >> 4];
    key.peer.identity += kHex[byte & 15];
  }
  return key;
}

base::Result<std::shared_ptr<const FleetKeys>> FleetKeys::parse(std::string_view text) {
  std::shared_ptr<FleetKeys> keys(new FleetKeys);
  const auto complain = [](std::size_t line, std::string_view what) {
    return base::Error{"line " + std::to_string(line) + ": " + std::string(what)};
  };
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    auto line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    if (line.size() < kMinFleetSecret)
      return complain(number, "a secret of less than 32 characters; `openssl rand -base64 32` makes one");
    if (line.size() > kMaxFleetSecret) return complain(number, "a secret of more than 1024 characters");
    if (keys->keys_.size() == kMaxFleetSecrets) return complain(number, "more than 16 secrets");
    Key key = derive(line);
    if (keys->find_peer_key(key.peer.identity) != nullptr) return complain(number, "a secret that stands here already");
    keys->keys_.push_back(std::move(key));
  }
  if (keys->keys_.empty()) return base::Error{"no secret in it; `openssl rand -base64 32` makes one"};
  return std::shared_ptr<const FleetKeys>(std::move(keys));
}

const FleetKeys::PeerKey* FleetKeys::find_peer_key(std::string_view identity) const {
  const auto found =
      std::find_if(keys_.begin(), keys_.end(), [identity](const Key& key) { return key.peer.identity == identity; });
  return found == keys_.end() ? nullptr : &found->peer;
}

std::string FleetKeys::seal(std::uint32_t pid, base::Bytes nonce, std::string_view content) const {
  POINTSMAN_CHECK(nonce.size() == kSealNonce && !content.empty() && content.size() <= kMaxSealedContent);
  clear_openssl_errors();
  const Key& key = keys_.front();
  std::string secret;
  secret.reserve(kSealOverhead + content.size());
  base::append_u8(secret, kSealVersion);
  secret.append(base::as_text(key.id));
  secret.append(base::as_text(nonce));
  const std::string data = associated(secret, pid);
  const std::size_t tag = secret.size();
  secret.resize(kSealOverhead + content.size());
  const Siv siv;
  int size = 0;
  const bool done = siv.usable() &&
                    EVP_EncryptInit_ex2(siv.context.get(), siv.cipher.get(), key.seal.data(), nullptr, nullptr) == 1 &&
                    add_associated(siv, data) &&
                    EVP_EncryptUpdate(siv.context.get(), bytes_of(secret) + kSealOverhead, &size,
                                      base::as_bytes(content).data(), static_cast<int>(content.size())) == 1 &&
                    EVP_EncryptFinal_ex(siv.context.get(), bytes_of(secret) + kSealOverhead + size, &size) == 1 &&
                    EVP_CIPHER_CTX_ctrl(siv.context.get(), EVP_CTRL_AEAD_GET_TAG, kTag, bytes_of(secret) + tag) == 1;
  clear_openssl_errors();
  return done ? secret : std::string();
}

std::optional<std::string> FleetKeys::open(std::uint32_t pid, std::string_view secret) const {
  if (secret.size() <= kSealOverhead || secret.size() > kSealOverhead + kMaxSealedContent) return std::nullopt;
  if (static_cast<base::Byte>(secret.front()) != kSealVersion) return std::nullopt;
  const auto id = secret.substr(1, kKeyId);
  const auto key = std::find_if(keys_.begin(), keys_.end(), [id](const Key& k) { return base::as_text(k.id) == id; });
  if (key == keys_.end()) return std::nullopt;
  clear_openssl_errors();
  std::string tag(secret.substr(1 + kKeyId + kSealNonce, kTag));
  const auto sealed = base::as_bytes(secret.substr(kSealOverhead));
  std::string content(sealed.size(), '\0');
  const Siv siv;
  int size = 0;
  const bool genuine =
      siv.usable() &&
      EVP_DecryptInit_ex2(siv.context.get(), siv.cipher.get(), key->seal.data(), nullptr, nullptr) == 1 &&
      EVP_CIPHER_CTX_ctrl(siv.context.get(), EVP_CTRL_AEAD_SET_TAG, kTag, tag.data()) == 1 &&
      add_associated(siv, associated(secret.substr(0, 1 + kKeyId + kSealNonce), pid)) &&
      EVP_DecryptUpdate(siv.context.get(), bytes_of(content), &size, sealed.data(), static_cast<int>(sealed.size())) ==
          1 &&
      EVP_DecryptFinal_ex(siv.context.get(), bytes_of(content) + size, &size) == 1;
  clear_openssl_errors();
  if (!genuine) return std::nullopt;
  return content;
}

}  // namespace pointsman::protocol
