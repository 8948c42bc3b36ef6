#pragma once
// Encoding and decoding of the few messages the router itself speaks. Sans-IO, any thread.
// Sources: protocol-message-formats, protocol-error-fields. Encoders append to a caller's string.

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"

namespace pointsman::protocol {

// ---- encoding -------------------------------------------------------------------------------------------------

/// An ErrorResponse or NoticeResponse of ours. Empty fields are left out, a text ends at its first zero byte. Severity
/// goes into S and V.
struct ErrorFields {
  std::string_view severity = "FATAL";
  std::string_view sqlstate;  ///< five characters
  std::string_view message;
  std::string_view detail;
  std::string_view hint;
  std::string_view routine;  ///< field R: the reason word of contract section 4
  std::size_t position = 0;  ///< field P: of a character in the query, from 1; 0: none
};
void append_error_response(std::string& out, const ErrorFields& fields);
void append_notice_response(std::string& out, const ErrorFields& fields);

void append_authentication_ok(std::string& out);
void append_authentication_sasl(std::string& out, const std::vector<std::string_view>& mechanisms);
void append_authentication_sasl_continue(std::string& out, std::string_view data);
void append_authentication_sasl_final(std::string& out, std::string_view data);
void append_backend_key_data(std::string& out, std::uint32_t pid, std::string_view secret);
/// `newest_minor` is what we go on with, sent with the major version as PostgreSQL sends it
/// (SendNegotiateProtocolVersion() in backend_startup.c); `unknown_options` are all `_pq_.` names, none of which we
/// know.
void append_negotiate_protocol_version(std::string& out, std::uint32_t newest_minor,
                                       const std::vector<std::string>& unknown_options);
void append_sasl_initial_response(std::string& out, std::string_view mechanism, std::string_view initial_response);
void append_sasl_response(std::string& out, std::string_view data);
void append_terminate(std::string& out);

// ---- decoding -------------------------------------------------------------------------------------------------

/// A complete typed message inside a caller's buffer.
struct MessageView {
  char tag = 0;
  base::Bytes body;       ///< without tag and length
  std::size_t total = 0;  ///< bytes of the message on the wire
};
enum class FrameStatus { kNeedMore, kMessage, kBadLength };
struct Frame {
  FrameStatus status = FrameStatus::kNeedMore;
  MessageView message;  ///< valid with kMessage, while the buffer is; its tag is set as soon as there is a byte
};
/// Cuts the message at the start of `input`. `max_body` bounds the body before it is awaited (kBadLength above it or
/// below 0). A caller that takes only certain tags judges the tag before it waits for the length: a wrong type must not
/// make us wait.
Frame next_message(base::Bytes input, std::size_t max_body);

/// A backend's authentication request. Strings are views into the message.
struct AuthOk {};
struct AuthCleartext {};
struct AuthMd5 {};
struct AuthSasl {
  std::vector<std::string_view> mechanisms;  ///< at most 16
};
struct AuthSaslContinue {
  std::string_view data;
};
struct AuthSaslFinal {
  std::string_view data;
};
struct AuthUnsupported {
  std::uint32_t code = 0;  ///< GSSAPI, SSPI, SCM …
};
struct AuthMalformed {};
using AuthenticationRequest = std::variant<AuthOk, AuthCleartext, AuthMd5, AuthSasl, AuthSaslContinue, AuthSaslFinal,
                                           AuthUnsupported, AuthMalformed>;
/// Requires: `body` is the body of an 'R' message.
AuthenticationRequest parse_authentication(base::Bytes body);

struct BackendKey {
  std::uint32_t pid = 0;
  std::string secret;  ///< 4 bytes from a 3.0 backend; at most kMaxCancelSecret
};
/// Body of a 'K' message; false when its size is impossible.
bool parse_backend_key_data(base::Bytes body, BackendKey& key);

/// Fields of a backend's ErrorResponse or NoticeResponse that we look at; absent ones are empty (a backend may be
/// hostile: an error without SQLSTATE is legal input here, CVE-2026-6666). Views into the message.
struct ErrorView {
  std::string_view severity;  ///< V, else S
  std::string_view sqlstate;  ///< five of 0-9 and A-Z, else empty
  std::string_view message;
};
ErrorView parse_error_fields(base::Bytes body);

/// A client's SASLInitialResponse ('p' while AuthenticationSASL is outstanding).
struct SaslInitialResponse {
  std::string_view mechanism;
  bool has_data = false;  ///< false: the length word was -1
  std::string_view data;
};
/// False unless the data's length equals the rest of the body exactly or is -1 (PgBouncer 1.18 dies of other values).
bool parse_sasl_initial_response(base::Bytes body, SaslInitialResponse& response);

}  // namespace pointsman::protocol
