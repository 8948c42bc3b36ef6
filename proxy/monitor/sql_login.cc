// From the answer to SSLRequest to AuthenticationOk. Source: protocol-flow, "Start-up", "SSL Session Encryption", "SASL
// Authentication".
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "protocol/postgres_format.h"
#include "protocol/startup.h"
#include "proxy/monitor/sql_client.h"

namespace pointsman::proxy {

namespace {

bool has_zero_byte(std::string_view text) {
  return text.find('\0') != std::string_view::npos;
}

}  // namespace

SqlClient::SqlClient(SqlLogin login, std::string nonce) : login_(std::move(login)), nonce_(std::move(nonce)) {}

SqlClient::Event SqlClient::start() {
  POINTSMAN_CHECK(state_ == State::kNew);
  if (!login_.tls) return send_startup();
  output_.append(protocol::build_ssl_request());
  state_ = State::kTlsAnswer;
  return Event::kNothing;
}

SqlClient::Event SqlClient::on_tls_answer() {
  const char answer = input_.view().front();
  input_.consume(1);
  switch (answer) {
    case 'S':
      state_ = State::kTlsHandshake;
      // What is left came in the clear behind the answer: injected (CVE-2021-23222), run() refuses it.
      return Event::kStartTls;
    case 'N':
      return fail(Kind::kTls, "the server does not offer TLS, backend_tls requires it");
    case 'E':
      // Its text comes from before TLS, from whoever stands in between: it is shown to nobody (CVE-2024-10977).
      return fail(Kind::kNetwork, "the server answered the request for TLS with an error");
    default:
      return fail(Kind::kNetwork, "no lawful answer to the request for TLS");
  }
}

SqlClient::Event SqlClient::on_tls(std::string_view endpoint_hash) {
  POINTSMAN_CHECK(state_ == State::kTlsHandshake);
  endpoint_hash_ = endpoint_hash;
  return send_startup();
}

SqlClient::Event SqlClient::send_startup() {
  // A role's name is compared byte for byte, as in a startup packet; other encodings would be converted on the way.
  std::vector<protocol::StartupParameter> parameters = {{"user", login_.user}, {"client_encoding", "SQL_ASCII"}};
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) parameters.push_back({name, value});
  };
  add("database", login_.database);
  add("application_name", login_.application_name);
  add("options", login_.options);
  if (std::any_of(parameters.begin(), parameters.end(), [](const auto& entry) { return has_zero_byte(entry.value); }))
    return refuse_login("the login's user, database or options hold a zero byte");
  output_.append(protocol::build_startup_message(parameters));
  state_ = State::kAuthentication;
  return Event::kNothing;
}

SqlClient::Event SqlClient::refuse_login(std::string text) {
  return fail(Kind::kCredentials, std::move(text));
}

SqlClient::Event SqlClient::on_authentication(base::Bytes body) {
  const auto request = protocol::parse_authentication(body);
  if (std::holds_alternative<protocol::AuthCleartext>(request))
    return refuse_login("the server asks for the password in clear; only SCRAM-SHA-256 is answered");
  if (std::holds_alternative<protocol::AuthMd5>(request)) {
    return refuse_login(
        "the server asks for the password as MD5; only SCRAM-SHA-256 is answered: set the role's password anew with "
        "password_encryption = 'scram-sha-256'");
  }
  if (const auto* other = std::get_if<protocol::AuthUnsupported>(&request)) {
    return refuse_login("the server asks for an authentication that is not done here (code " +
                        std::to_string(other->code) + ": GSSAPI, SSPI or the like); only SCRAM-SHA-256 is answered");
  }
  if (std::holds_alternative<protocol::AuthMalformed>(request))
    return fail(Kind::kNetwork, "malformed authentication request");
  if (const auto* offer = std::get_if<protocol::AuthSasl>(&request)) {
    if (state_ != State::kAuthentication) return fail(Kind::kNetwork, "a second SASL exchange");
    return begin_scram(*offer);
  }
  if (const auto* next = std::get_if<protocol::AuthSaslContinue>(&request)) {
    if (state_ != State::kScramFirst) return fail(Kind::kNetwork, "SASL message out of order");
    return on_scram_data(next->data);
  }
  if (const auto* last = std::get_if<protocol::AuthSaslFinal>(&request)) {
    if (state_ != State::kScramFinal) return fail(Kind::kNetwork, "SASL message out of order");
    return on_scram_data(last->data);
  }
  // AuthenticationOk: without any request (trust, a client certificate), or behind an exchange that has come to its
  // end. Whoever says it in between has not shown that it knows the password.
  if (state_ != State::kAuthentication && state_ != State::kScramProved)
    return fail(Kind::kNetwork, "AuthenticationOk without the server's signature");
  state_ = State::kGreeting;
  return Event::kNothing;
}

SqlClient::Event SqlClient::begin_scram(const protocol::AuthSasl& offer) {
  const auto offers = [&offer](std::string_view mechanism) {
    return std::find(offer.mechanisms.begin(), offer.mechanisms.end(), mechanism) != offer.mechanisms.end();
  };
  const bool can_bind = !endpoint_hash_.empty();
  const bool plus = can_bind && offers(protocol::kScramSha256Plus);
  if (!plus && !offers(protocol::kScramSha256))
    return refuse_login("the server offers no SASL mechanism that is done here; only SCRAM-SHA-256 is answered");
  if (login_.password.empty()) return refuse_login("the server asks for a password and none is configured");
  scram_ = std::make_unique<protocol::ScramClient>(nonce_, plus, can_bind && !plus, endpoint_hash_);
  std::string out;
  protocol::append_sasl_initial_response(out, scram_->mechanism(), scram_->first_message());
  output_.append(out);
  state_ = State::kScramFirst;
  return Event::kNothing;
}

SqlClient::Event SqlClient::on_scram_data(std::string_view data) {
  using Outcome = protocol::ScramClient::Outcome;
  switch (state_ == State::kScramFirst ? scram_->on_continue(data) : scram_->on_final(data)) {
    case Outcome::kNeedsKeys:
      state_ = State::kScramKeys;
      return Event::kDeriveKeys;
    case Outcome::kDone:
      state_ = State::kScramProved;
      return Event::kNothing;
    case Outcome::kMalformed:
    case Outcome::kBadServerSignature:
      return fail(Kind::kNetwork, "SCRAM: " + std::string(scram_->reason()));
    case Outcome::kContinue:
      break;  // only with keys
  }
  POINTSMAN_CHECK(false);
}

SqlClient::Event SqlClient::on_keys(protocol::ScramLoginKeys keys) {
  POINTSMAN_CHECK(state_ == State::kScramKeys);
  POINTSMAN_CHECK(scram_->on_keys(std::move(keys)) == protocol::ScramClient::Outcome::kContinue);
  login_.password.clear();
  const auto& message = scram_->message();
  std::string out;
  out.reserve(message.size() + protocol::kMessageHeader);  // room at once: what grows leaves copies behind
  protocol::append_sasl_response(out, message);
  output_.append(out);
  base::wipe(out.data(), out.size());
  state_ = State::kScramFinal;
  return Event::kNothing;
}

/// NegotiateProtocolVersion: lawful from a server that knows no 3.0, of which there is none, or that counts an option
/// of ours as unknown, and we send none. Taken when it keeps to 3.x and names nothing.
SqlClient::Event SqlClient::on_negotiated_version(base::Bytes body) {
  base::Cursor cursor(body);
  const std::uint32_t version = cursor.u32();
  const std::uint32_t unknown_options = cursor.u32();
  const bool speaks_3 = version >> 16 == protocol::kProtocolMajor || version >> 16 == 0;  // older ones send the minor
  if (!cursor.ok() || cursor.remaining() != 0 || !speaks_3 || unknown_options != 0)
    return fail(Kind::kNetwork, "the server negotiates a protocol version that was not asked for");
  return Event::kNothing;
}

}  // namespace pointsman::proxy
