// Messages of the login. The input is a stream of messages; each is given to every decoder, and what a decoder accepts
// is encoded back.

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "base/check.h"
#include "protocol/messages.h"
#include "protocol/postgres_format.h"
#include "tests/fuzz/prefixes.h"

namespace {

using namespace pointsman;

bool inside(std::string_view part, base::Bytes whole) {
  if (part.data() == nullptr) return part.empty();
  const std::string_view text = base::as_text(whole);
  return part.data() >= text.data() && part.data() + part.size() <= text.data() + text.size();
}

/// The body of the only message in `bytes`.
base::Bytes only_body(const std::string& bytes) {
  const protocol::Frame frame = protocol::next_message(base::as_bytes(bytes), bytes.size());
  POINTSMAN_CHECK(frame.status == protocol::FrameStatus::kMessage && frame.message.total == bytes.size());
  return frame.message.body;
}

void check_authentication(base::Bytes body) {
  const protocol::AuthenticationRequest request = protocol::parse_authentication(body);
  std::string again;
  if (std::holds_alternative<protocol::AuthOk>(request)) protocol::append_authentication_ok(again);
  if (const auto* sasl = std::get_if<protocol::AuthSasl>(&request))
    protocol::append_authentication_sasl(again, sasl->mechanisms);
  if (const auto* next = std::get_if<protocol::AuthSaslContinue>(&request)) {
    protocol::append_authentication_sasl_continue(again, next->data);
  }
  if (const auto* final = std::get_if<protocol::AuthSaslFinal>(&request))
    protocol::append_authentication_sasl_final(again, final->data);
  if (!again.empty()) POINTSMAN_CHECK(base::as_text(only_body(again)) == base::as_text(body));
}

void check_key(base::Bytes body) {
  protocol::BackendKey key;
  if (!protocol::parse_backend_key_data(body, key)) {
    POINTSMAN_CHECK(body.size() < 8 || body.size() > 4 + protocol::kMaxCancelSecret);
    return;
  }
  std::string again;
  protocol::append_backend_key_data(again, key.pid, key.secret);
  POINTSMAN_CHECK(base::as_text(only_body(again)) == base::as_text(body));
}

void check_error(base::Bytes body) {
  const protocol::ErrorView view = protocol::parse_error_fields(body);
  POINTSMAN_CHECK(inside(view.severity, body) && inside(view.sqlstate, body) && inside(view.message, body));
  POINTSMAN_CHECK(view.sqlstate.empty() || view.sqlstate.size() == 5);
  if (view.sqlstate.empty()) return;
  std::string again;
  protocol::append_error_response(again, {.severity = view.severity,
                                          .sqlstate = view.sqlstate,
                                          .message = view.message,
                                          .detail = "d",
                                          .hint = {},
                                          .routine = "r"});
  const protocol::ErrorView read = protocol::parse_error_fields(only_body(again));
  POINTSMAN_CHECK(read.severity == view.severity && read.sqlstate == view.sqlstate && read.message == view.message);
}

void check_initial_response(base::Bytes body) {
  protocol::SaslInitialResponse response;
  if (!protocol::parse_sasl_initial_response(body, response)) return;
  POINTSMAN_CHECK(inside(response.mechanism, body) && inside(response.data, body));
  if (!response.has_data) {
    POINTSMAN_CHECK(response.data.empty() && body.size() == response.mechanism.size() + 5);
    return;
  }
  std::string again;
  protocol::append_sasl_initial_response(again, response.mechanism, response.data);
  POINTSMAN_CHECK(base::as_text(only_body(again)) == base::as_text(body));
}

std::string describe(const protocol::Frame& frame) {
  switch (frame.status) {
    case protocol::FrameStatus::kNeedMore:
      return "need more";
    case protocol::FrameStatus::kBadLength:
      return std::string("bad length") + frame.message.tag;
    case protocol::FrameStatus::kMessage:
      return std::to_string(frame.message.total) + frame.message.tag + std::string(base::as_text(frame.message.body));
  }
  return {};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  base::Bytes input(data, size);
  const auto cut = [](base::Bytes bytes) { return describe(protocol::next_message(bytes, protocol::kMaxSaslMessage)); };
  fuzz::check_prefixes(input, cut, std::string("need more"));
  for (;;) {
    const protocol::Frame frame = protocol::next_message(input, protocol::kMaxBackendLoginMessage);
    if (frame.status != protocol::FrameStatus::kMessage) return 0;
    POINTSMAN_CHECK(frame.message.total == frame.message.body.size() + protocol::kMessageHeader);
    check_authentication(frame.message.body);
    check_key(frame.message.body);
    check_error(frame.message.body);
    check_initial_response(frame.message.body);
    input = input.subspan(frame.message.total);
  }
}
