#pragma once
// Every wire constant of the PostgreSQL frontend/backend protocol that this router knows, once.
// Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol" (55.2 Message Flow, 55.7 Message Formats),
// src/include/libpq/pqcomm.h and src/include/libpq/protocol.h.

#include <cstddef>
#include <cstdint>

namespace pointsman::protocol {

// Codes in the place of a version in a first packet (pqcomm.h).
inline constexpr std::uint32_t kCancelRequestCode = (1234U << 16) | 5678U;
inline constexpr std::uint32_t kSslRequestCode = (1234U << 16) | 5679U;
inline constexpr std::uint32_t kGssEncRequestCode = (1234U << 16) | 5680U;

inline constexpr std::uint16_t kProtocolMajor = 3;
/// The newest minor version we speak with a client: 3.2 (long cancel keys, PostgreSQL 18).
inline constexpr std::uint16_t kNewestProtocolMinor = 2;
/// Toward backends we always ask for 3.0: the only thing 3.2 adds is the key's length, and the client's key is ours.
inline constexpr std::uint32_t kBackendProtocolVersion = 3U << 16;

/// MAX_STARTUP_PACKET_LENGTH of pqcomm.h, which does not count the length word.
inline constexpr std::size_t kMaxStartupBody = 10'000;
inline constexpr std::size_t kMaxStartupPacket = kMaxStartupBody + 4;
/// A cancel key's secret: 4 bytes in 3.0, up to 256 in 3.2 (protocol-message-formats, BackendKeyData).
inline constexpr std::size_t kMinCancelSecret = 4;
inline constexpr std::size_t kMaxCancelSecret = 256;

/// Every packet's and message's length, which counts itself.
inline constexpr std::size_t kLengthWord = 4;

/// A typed message's header: the tag byte, which the length does not count, and the length.
inline constexpr std::size_t kMessageHeader = 1 + kLengthWord;
/// A SASL message of a client: PG_MAX_SASL_MESSAGE_LENGTH (1,024) of auth-sasl.c.
inline constexpr std::size_t kMaxSaslMessage = 1'024;
/// What we let one login message of a backend measure: an ErrorResponse or a ParameterStatus can be long, a stream
/// cannot.
inline constexpr std::size_t kMaxBackendLoginMessage = 32 * 1024;

// Authentication request codes (message 'R').
inline constexpr std::uint32_t kAuthOk = 0;
inline constexpr std::uint32_t kAuthCleartextPassword = 3;
inline constexpr std::uint32_t kAuthMd5Password = 5;
inline constexpr std::uint32_t kAuthSasl = 10;
inline constexpr std::uint32_t kAuthSaslContinue = 11;
inline constexpr std::uint32_t kAuthSaslFinal = 12;

inline constexpr char kScramSha256[] = "SCRAM-SHA-256";
inline constexpr char kScramSha256Plus[] = "SCRAM-SHA-256-PLUS";

/// NAMEDATALEN - 1: PostgreSQL cuts longer names, so a longer one would come to mean another role.
inline constexpr std::size_t kMaxRoleName = 63;

/// First byte of a TLS record that holds a ClientHello (RFC 8446, 5.1): direct TLS of PostgreSQL 17.
inline constexpr std::uint8_t kTlsHandshakeRecord = 0x16;
/// The ALPN protocol that direct TLS must offer (IANA registry; be-secure-openssl.c).
inline constexpr char kAlpnPostgresql[] = "postgresql";

}  // namespace pointsman::protocol
