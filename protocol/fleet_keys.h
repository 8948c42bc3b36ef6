#pragma once
// What the routers of one fleet share: secrets of which every other key is derived. Immutable, any thread.
//
//   cancel keys   A router seals the destination and the backend's own key into the cancel key of a client that speaks
//                 3.2 (up to 256 bytes). Any router of the fleet can open it: no shared store, no question to another.
//                 AES-256-SIV (RFC 5297): a nonce that comes twice shows no more than that the content did too, so
//                 there is no count of keys after which the secret must be changed.
//   peer TLS      TLS 1.3 by an external pre-shared key (RFC 8446, section 2.2), see tls_context.h.
//
// Rotation: the first secret seals, all of them open. A new one is appended in all routers first, then moved to the
// front, and the old one goes when no session that got a key under it is left.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/secret.h"

namespace pointsman::protocol {

inline constexpr std::size_t kMinFleetSecret = 32;
inline constexpr std::size_t kMaxFleetSecret = 1024;
inline constexpr std::size_t kMaxFleetSecrets = 16;

inline constexpr std::size_t kSealNonce = 16;
/// What a seal adds to its content: version, key id, nonce, tag.
inline constexpr std::size_t kSealOverhead = 1 + 4 + kSealNonce + 16;
/// With it a key has 256 bytes, the most that protocol 3.2 allows.
inline constexpr std::size_t kMaxSealedContent = 256 - kSealOverhead;

class FleetKeys {
 public:
  /// A secret per line, kMinFleetSecret to kMaxFleetSecret characters, kMaxFleetSecrets at most; empty lines and those
  /// that begin with `#` do not count. Errors name the line, never its text.
  static base::Result<std::shared_ptr<const FleetKeys>> parse(std::string_view text);

  /// The secret part of a cancel key. Requires: content of at most kMaxSealedContent and at least 1 byte, a nonce of
  /// kSealNonce random bytes. Empty: OpenSSL failed.
  std::string seal(std::uint32_t pid, base::Bytes nonce, std::string_view content) const;
  /// What seal() was given, when `secret` is a seal of this fleet for this PID; nothing otherwise.
  std::optional<std::string> open(std::uint32_t pid, std::string_view secret) const;

  struct PeerKey {
    std::string identity;  ///< public: tells which secret
    base::SecretArray<32> key;
  };
  /// The one this router names when it calls.
  const PeerKey& peer_key() const { return keys_.front().peer; }
  /// Null: no secret of ours.
  const PeerKey* find_peer_key(std::string_view identity) const;

 private:
  struct Key {
    std::array<base::Byte, 4> id{};
    base::SecretArray<64> seal;
    PeerKey peer;
  };
  static Key derive(std::string_view secret);
  FleetKeys() = default;

  std::vector<Key> keys_;
};

}  // namespace pointsman::protocol
