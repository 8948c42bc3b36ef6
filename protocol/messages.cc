#include "protocol/messages.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "protocol/postgres_format.h"

namespace pointsman::protocol {
namespace {

constexpr std::size_t kMd5Salt = 4;
constexpr std::uint32_t kNoInitialResponse = 0xffffffff;  // -1
/// PostgreSQL offers at most three (SCRAM with and without binding, OAUTHBEARER).
constexpr std::size_t kMaxSaslMechanisms = 16;
constexpr std::size_t kSqlstateSize = 5;

/// Appends the tag, then whatever is written into out until it goes; then the length is put in.
class MessageWriter {
 public:
  MessageWriter(std::string& out, char tag) : out_(out), length_at_(out.size() + 1) {
    out_.push_back(tag);
    out_.append(kLengthWord, '\0');
  }
  ~MessageWriter() {
    const std::size_t length = out_.size() - length_at_;
    POINTSMAN_CHECK(length <= std::numeric_limits<std::int32_t>::max());
    base::store_be32(reinterpret_cast<base::Byte*>(out_.data() + length_at_), static_cast<std::uint32_t>(length));
  }
  MessageWriter(const MessageWriter&) = delete;
  MessageWriter& operator=(const MessageWriter&) = delete;

 private:
  std::string& out_;
  std::size_t length_at_;
};

void append_field(std::string& out, char type, std::string_view text) {
  text = text.substr(0, text.find('\0'));
  if (text.empty()) return;
  out.push_back(type);
  base::append_c_string(out, text);
}

void append_report(std::string& out, char tag, const ErrorFields& fields) {
  POINTSMAN_CHECK(fields.sqlstate.size() == kSqlstateSize);
  const MessageWriter writer(out, tag);
  append_field(out, 'S', fields.severity);
  append_field(out, 'V', fields.severity);
  append_field(out, 'C', fields.sqlstate);
  append_field(out, 'M', fields.message);
  append_field(out, 'D', fields.detail);
  append_field(out, 'H', fields.hint);
  if (fields.position != 0) append_field(out, 'P', std::to_string(fields.position));
  append_field(out, 'R', fields.routine);
  out.push_back('\0');
}

void append_authentication(std::string& out, std::uint32_t code, std::string_view data) {
  const MessageWriter writer(out, 'R');
  base::append_be32(out, code);
  out.append(data);
}

AuthenticationRequest parse_mechanisms(base::Bytes list) {
  base::Cursor cursor(list);
  AuthSasl request;
  for (std::string_view name = cursor.c_string(); !name.empty(); name = cursor.c_string()) {
    if (request.mechanisms.size() == kMaxSaslMechanisms) return AuthMalformed{};
    request.mechanisms.push_back(name);
  }
  if (!cursor.ok() || cursor.remaining() != 0) return AuthMalformed{};
  return request;
}

bool is_sqlstate(std::string_view text) {
  const auto allowed = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); };
  return text.size() == kSqlstateSize && std::all_of(text.begin(), text.end(), allowed);
}

}  // namespace

void append_error_response(std::string& out, const ErrorFields& fields) {
  append_report(out, 'E', fields);
}
void append_notice_response(std::string& out, const ErrorFields& fields) {
  append_report(out, 'N', fields);
}

void append_authentication_ok(std::string& out) {
  append_authentication(out, kAuthOk, {});
}
void append_authentication_sasl_continue(std::string& out, std::string_view data) {
  append_authentication(out, kAuthSaslContinue, data);
}
void append_authentication_sasl_final(std::string& out, std::string_view data) {
  append_authentication(out, kAuthSaslFinal, data);
}

void append_authentication_sasl(std::string& out, const std::vector<std::string_view>& mechanisms) {
  const MessageWriter writer(out, 'R');
  base::append_be32(out, kAuthSasl);
  for (const std::string_view mechanism : mechanisms) {
    POINTSMAN_CHECK(!mechanism.empty());
    base::append_c_string(out, mechanism);
  }
  out.push_back('\0');
}

void append_backend_key_data(std::string& out, std::uint32_t pid, std::string_view secret) {
  POINTSMAN_CHECK(secret.size() >= kMinCancelSecret && secret.size() <= kMaxCancelSecret);
  const MessageWriter writer(out, 'K');
  base::append_be32(out, pid);
  out.append(secret);
}

void append_negotiate_protocol_version(std::string& out, std::uint32_t newest_minor,
                                       const std::vector<std::string>& unknown_options) {
  const MessageWriter writer(out, 'v');
  base::append_be32(out, std::uint32_t{kProtocolMajor} << 16 | newest_minor);
  base::append_be32(out, static_cast<std::uint32_t>(unknown_options.size()));
  for (const std::string& option : unknown_options) base::append_c_string(out, option);
}

void append_sasl_initial_response(std::string& out, std::string_view mechanism, std::string_view initial_response) {
  const MessageWriter writer(out, 'p');
  base::append_c_string(out, mechanism);
  base::append_be32(out, static_cast<std::uint32_t>(initial_response.size()));
  out.append(initial_response);
}

void append_sasl_response(std::string& out, std::string_view data) {
  const MessageWriter writer(out, 'p');
  out.append(data);
}

void append_terminate(std::string& out) {
  const MessageWriter writer(out, 'X');
}

Frame next_message(base::Bytes input, std::size_t max_body) {
  Frame frame;
  if (input.empty()) return frame;
  frame.message.tag = static_cast<char>(input[0]);
  if (input.size() < kMessageHeader) return frame;
  const std::size_t length = base::load_be32(input.data() + 1);
  if (length < kLengthWord || length - kLengthWord > max_body) {
    frame.status = FrameStatus::kBadLength;
    return frame;
  }
  const std::size_t total = length + 1;
  if (input.size() < total) return frame;
  frame.status = FrameStatus::kMessage;
  frame.message.body = input.subspan(kMessageHeader, length - kLengthWord);
  frame.message.total = total;
  return frame;
}

AuthenticationRequest parse_authentication(base::Bytes body) {
  base::Cursor cursor(body);
  const std::uint32_t code = cursor.u32();
  if (!cursor.ok()) return AuthMalformed{};
  const base::Bytes data = cursor.rest();
  switch (code) {
    case kAuthOk:
      if (!data.empty()) return AuthMalformed{};
      return AuthOk{};
    case kAuthCleartextPassword:
      if (!data.empty()) return AuthMalformed{};
      return AuthCleartext{};
    case kAuthMd5Password:
      if (data.size() != kMd5Salt) return AuthMalformed{};
      return AuthMd5{};
    case kAuthSasl:
      return parse_mechanisms(data);
    case kAuthSaslContinue:
      return AuthSaslContinue{base::as_text(data)};
    case kAuthSaslFinal:
      return AuthSaslFinal{base::as_text(data)};
    default:
      return AuthUnsupported{code};
  }
}

bool parse_backend_key_data(base::Bytes body, BackendKey& key) {
  base::Cursor cursor(body);
  const std::uint32_t pid = cursor.u32();
  const base::Bytes secret = cursor.rest();
  if (!cursor.ok() || secret.size() < kMinCancelSecret || secret.size() > kMaxCancelSecret) return false;
  key.pid = pid;
  key.secret = base::as_text(secret);
  return true;
}

ErrorView parse_error_fields(base::Bytes body) {
  base::Cursor cursor(body);
  ErrorView view;
  std::string_view localized_severity;
  for (std::uint8_t type = cursor.u8(); type != 0; type = cursor.u8()) {
    const std::string_view text = cursor.c_string();
    if (!cursor.ok()) break;
    switch (type) {
      case 'V':
        view.severity = text;
        break;
      case 'S':
        localized_severity = text;
        break;
      case 'C':
        view.sqlstate = is_sqlstate(text) ? text : std::string_view{};
        break;
      case 'M':
        view.message = text;
        break;
      default:
        break;  // fields of no concern here, and those of later versions
    }
  }
  if (view.severity.empty()) view.severity = localized_severity;
  return view;
}

bool parse_sasl_initial_response(base::Bytes body, SaslInitialResponse& response) {
  base::Cursor cursor(body);
  const std::string_view mechanism = cursor.c_string();
  const std::uint32_t length = cursor.u32();
  const base::Bytes data = cursor.rest();
  if (!cursor.ok()) return false;
  const bool has_data = length != kNoInitialResponse;
  if (data.size() != (has_data ? length : 0)) return false;
  response = {mechanism, has_data, base::as_text(data)};
  return true;
}

}  // namespace pointsman::protocol
