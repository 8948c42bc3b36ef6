#pragma once
// The client side of one PostgreSQL connection for our own statements (probes, look-ups, PgBouncer's console): bytes
// in, bytes out and one event. Sans-IO: no socket, no clock, no TLS engine; the shell (pg_connection.h) has those and
// the deadline. One thread. Sources: protocol-flow, protocol-message-formats; RFC 5802 by protocol/scram.h.
//
//   TLS answer → TLS handshake → authentication ⇄ SCRAM (keys are derived by the shell) → greeting → idle ⇄ querying
//
// The server is hostile (T17). A login is AuthenticationOk (trust, client certificate) or SCRAM-SHA-256 and -PLUS with
// the server's signature verified; a password never leaves in clear or as MD5, whatever is asked. Every length is
// bounded before it is awaited, and a message out of place ends the connection with a reason. The password is used as
// given: no SASLprep (RFC 4013), which changes nothing in ASCII; a password that PostgreSQL has normalised when it was
// set (full-width letters, composed accents) must be configured in its normalised form.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/secret.h"
#include "protocol/messages.h"
#include "protocol/scram.h"
#include "proxy/monitor/pg_failure.h"
#include "proxy/monitor/pg_rows.h"
#include "proxy/monitor/wiped_buffer.h"

namespace pointsman::proxy {

/// One message of the server; all between a statement and its ReadyForQuery (also a whole login, and what comes while
/// nothing is asked).
inline constexpr std::size_t kMaxSqlMessage = 64 * 1024;
inline constexpr std::size_t kMaxSqlAnswer = 1024 * 1024;
inline constexpr std::size_t kMaxSqlColumns = 64;
inline constexpr std::size_t kMaxSqlRows = 10'000;
inline constexpr std::size_t kMaxSqlParameters = 128;
inline constexpr std::size_t kMaxSqlParameterText = 1'024;  ///< a ParameterStatus' name and value together

struct SqlLogin {
  std::string user;
  base::SecretString password;  ///< empty: none
  std::string database;         ///< empty: the server takes the user's name
  std::string application_name;
  std::string options;
  bool tls = false;  ///< ask for TLS, and never go on without it
};

class SqlClient {
 public:
  /// What the shell has to do, after it has sent output().
  enum class Event : std::uint8_t {
    kNothing,          ///< wait for bytes
    kStartTls,         ///< make TLS, then on_tls()
    kDeriveKeys,       ///< derive keys from password(), salt() and iterations(), not on the loop, then on_keys()
    kReady,            ///< logged in: query() or command() may be called
    kAnswer,           ///< the statement is done: take_rows(); the next may be given
    kStatementFailed,  ///< the statement is done: failure(); the next may be given
    kFailed,           ///< failure(); close, and call nothing more
  };

  /// `nonce`: 18 random bytes in base64.
  SqlClient(SqlLogin login, std::string nonce);
  SqlClient(const SqlClient&) = delete;
  SqlClient& operator=(const SqlClient&) = delete;

  /// The connection stands.
  Event start();
  /// Bytes as they come, decrypted when TLS is up. All are taken; an event is never lost: nothing but kFailed can
  /// follow one before the shell has acted on it.
  Event on_bytes(base::Bytes bytes);
  /// TLS is up. `endpoint_hash` is the server certificate's tls-server-end-point data; empty when it has none.
  Event on_tls(std::string_view endpoint_hash);
  Event on_keys(protocol::ScramLoginKeys keys);

  /// One statement by the extended protocol, with text parameters: it must have a result. Requires: idle().
  void query(std::string_view sql, std::span<const std::string> parameters);
  /// One or more statements by the simple protocol, all that PgBouncer's console knows. take_rows() gives the first
  /// result, if there is any. Requires: idle().
  void command(std::string_view sql);
  /// Says goodbye if there is a session to end.
  void terminate();

  bool idle() const { return state_ == State::kIdle; }
  bool logged_in() const { return state_ == State::kIdle || state_ == State::kQuerying; }
  /// To be sent; consume() what was.
  WipedBuffer& output() { return output_; }
  /// With kDeriveKeys, until on_keys().
  const base::SecretString& password() const { return login_.password; }
  const std::string& salt() const { return scram_->salt(); }
  std::uint32_t iterations() const { return scram_->iterations(); }
  /// With kAnswer, once.
  PgRows take_rows() { return std::move(rows_); }
  const PgFailure& failure() const { return failure_; }
  /// What the server reported of itself ("is_superuser"); empty when it did not.
  std::string_view parameter(std::string_view name) const;

 private:
  enum class State : std::uint8_t {
    kNew,
    kTlsAnswer,       // SSLRequest is out
    kTlsHandshake,    // the shell's
    kAuthentication,  // StartupMessage is out
    kScramFirst,      // the client-first-message is out
    kScramKeys,       // the shell derives
    kScramFinal,      // the client-final-message is out
    kScramProved,     // the server's signature was right
    kGreeting,        // AuthenticationOk came
    kIdle,
    kQuerying,
    kFailed,
  };
  // Where the answer to a statement stands.
  enum class Step : std::uint8_t {
    kParse,
    kBind,
    kDescribe,
    kRows,
    kNoRows,      // extended, without a result
    kComplete,    // extended: only ReadyForQuery is missing
    kNextResult,  // simple: between two results
    kNextRows,    // simple: in a result
    kFailed,      // after ErrorResponse
  };
  using Kind = PgFailure::Kind;

  Event run();
  Event dispatch(const protocol::MessageView& message);
  std::string_view lawful_tags() const;
  std::string_view lawful_answer_tags() const;
  Event out_of_place(char tag);
  Event fail(Kind kind, std::string text);
  Event on_error(base::Bytes body);
  Event on_parameter(base::Bytes body);
  Event on_ready_for_query(base::Bytes body);

  // sql_login.cc
  Event on_tls_answer();
  Event send_startup();
  Event on_authentication(base::Bytes body);
  Event begin_scram(const protocol::AuthSasl& offer);
  Event on_scram_data(std::string_view data);
  Event on_negotiated_version(base::Bytes body);
  Event refuse_login(std::string text);

  void begin_statement(Step first, const std::string& messages);
  Event on_answer(const protocol::MessageView& message);
  Event on_row_description(base::Bytes body);
  Event on_data_row(base::Bytes body);

  SqlLogin login_;
  std::string nonce_;
  std::string endpoint_hash_;
  State state_ = State::kNew;
  Step step_ = Step::kComplete;
  bool wanted_rows_ = false;  // the result that is being read is the one to keep
  bool has_result_ = false;   // rows_ is a result
  bool extended_ = false;
  std::size_t result_columns_ = 0;
  std::size_t result_rows_ = 0;
  std::size_t spent_ = 0;  // bytes of the answer (or login, or pause) so far
  std::unique_ptr<protocol::ScramClient> scram_;
  std::map<std::string, std::string, std::less<>> parameters_;
  WipedBuffer input_;
  WipedBuffer output_;
  PgRows rows_;
  PgFailure failure_;
};

}  // namespace pointsman::proxy
