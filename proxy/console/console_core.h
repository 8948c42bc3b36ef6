#pragma once
// A connection to the admin console, without a socket: bytes go in, actions come out (docs/console.md).
//
//   Negotiating → TlsHandshake → AwaitingStartup → Authenticating → Ready ⇄ Running
//                                                                     ⇅
//                                                              SkippingToSync
//
// PostgreSQL's protocol 3.0, simple queries only. Work is done when it is asked for: poll_action() uses up one message,
// or makes one piece of an answer, so whoever stops polling while a write is pending bounds what the connection holds.
// What stays bounded beside it: an incomplete message of kMaxQueryBytes and one read.
//
// Rules: poll_action() is called until it has nothing, or while the socket takes it; bytes are read only while
// wants_input(). The core never calls out but for the questions of ConsoleServices. One thread. Randomness and time are
// arguments.

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "protocol/scram.h"
#include "protocol/startup.h"
#include "proxy/console/result.h"
#include "proxy/console/statement.h"
#include "routing/config.h"
#include "routing/refusal.h"

namespace pointsman::proxy {

/// An answer's rows are put together to pieces of this size, and one row more.
inline constexpr std::size_t kAnswerPiece = 32 * 1024;
/// A longer message than kMaxQueryBytes is skipped and refused; one beyond this ends the connection.
inline constexpr std::size_t kMaxSkippedBytes = 1024 * 1024;
inline constexpr std::string_view kConsoleDatabase = "pointsman";

/// What the core may ask.
class ConsoleServices {
 public:
  /// As of now: users may change at a reload.
  virtual const routing::ConsoleConfig& console() = 0;
  virtual base::Duration login_timeout() = 0;
  virtual std::string_view version() = 0;
  virtual void random_bytes(base::MutableBytes out) = 0;
  /// Secret under which mock salts are made (protocol::make_mock_verifier).
  virtual std::string_view mock_secret() = 0;
  /// Takes a place among `max_connections` for this connection; false: there is none. Called once, when the client has
  /// proved itself.
  virtual bool admit() = 0;

 protected:
  ~ConsoleServices() = default;
};

/// How an executed statement, or one that did not get so far, ended.
enum class StatementOutcome : std::uint8_t { kOk, kError, kDenied };
/// Why the connection ended, for the log.
enum class ConsoleEnd : std::uint8_t { kClientClosed, kClientError, kRefused, kIdle, kStopped };
std::string_view to_word(ConsoleEnd end);

// ---- actions ------------------------------------------------------------------------------------------------------

struct ConsoleSend {
  std::string bytes;
};
struct ConsoleStartTls {
  std::string early;  ///< what the client sent already
};
/// The login is complete.
struct ConsoleLoggedIn {};
/// Answer with on_result(), now or later.
struct ConsoleExecute {
  Statement statement;
};
struct ConsoleCount {
  StatementOutcome outcome = StatementOutcome::kOk;
};
/// Ends the connection. What was sent before goes out first.
struct ConsoleFinish {
  ConsoleEnd end = ConsoleEnd::kClientClosed;
  std::string reason;  ///< for the log; empty: the client went
};
using ConsoleAction =
    std::variant<ConsoleSend, ConsoleStartTls, ConsoleLoggedIn, ConsoleExecute, ConsoleCount, ConsoleFinish>;

class ConsoleCore {
 public:
  ConsoleCore(ConsoleServices& services, routing::ListenerTls tls, base::Instant now);
  ~ConsoleCore();
  ConsoleCore(const ConsoleCore&) = delete;
  ConsoleCore& operator=(const ConsoleCore&) = delete;

  // Events. Bytes are plain text (behind TLS: decrypted).
  void on_bytes(base::Bytes bytes);
  /// `endpoint_hash` empty: no channel binding possible. `direct`-TLS clients must have agreed on ALPN.
  void on_tls(std::string endpoint_hash, bool alpn_postgresql);
  void on_tls_failed(std::string_view why);
  void on_eof();
  void on_error();
  /// Requires: a ConsoleExecute is unanswered.
  void on_result(StatementResult result);
  void on_deadline(base::Instant now);  ///< deadline() has passed
  void on_stop();                       ///< the router ends

  std::optional<ConsoleAction> poll_action(base::Instant now);

  /// False while a statement is being executed or its answer is under way.
  bool wants_input() const;
  /// When on_deadline wants to be called; nothing while a statement runs.
  std::optional<base::Instant> deadline() const;
  bool logged_in() const { return logged_in_; }
  const std::string& user() const { return user_; }  ///< as typed; empty before the startup packet

 private:
  struct Negotiating {
    bool ssl_refused = false;
    bool gss_refused = false;
  };
  struct TlsHandshake {
    bool direct = false;
  };
  struct AwaitingStartup {};
  struct Authenticating {
    protocol::StartupMessage startup;
    std::unique_ptr<protocol::ScramServer> scram;
    bool initial_seen = false;
    bool known = false;  // for the log only
  };
  struct Ready {};
  struct Running {
    std::deque<Statement> rest;  // behind the one that runs
    std::string_view tag;        // of the one that runs
    bool executing = false;      // its result is awaited
    std::optional<Table> table;  // its rows are under way
    std::deque<Row> unsent;      // of the table's last few
  };
  struct SkippingToSync {};
  struct Closed {};
  using Phase =
      std::variant<Negotiating, TlsHandshake, AwaitingStartup, Authenticating, Ready, Running, SkippingToSync, Closed>;
  /// A step's outcome: the phase to enter, or nothing when the present one goes on.
  using Next = std::optional<Phase>;

  /// True when something was done: there may be more to do.
  bool step(base::Instant now);

  // The login: console_login.cc.
  Next step_negotiating(Negotiating& phase);
  Next step_awaiting_startup();
  Next accept_startup(protocol::StartupMessage startup);
  Next step_authenticating(Authenticating& phase, base::Instant now);
  Next sasl_outcome(Authenticating& phase, protocol::ScramServer::Outcome outcome, base::Instant now);
  Next complete_login(Authenticating& phase, base::Instant now);
  void send_greeting(const Authenticating& phase, routing::ConsoleRole role);

  // Statements: console_core.cc.
  Next step_ready(base::Instant now);
  Next step_skipping(base::Instant now);
  Next step_running(Running& phase, base::Instant now);
  Next message(char tag, base::Bytes body, base::Instant now);
  Next query(base::Bytes body, base::Instant now);
  Next run_next(Running& phase, base::Instant now);
  Next send_rows(Running& phase);
  Next ready(base::Instant now);
  Next fail_query(const Report& report, StatementOutcome outcome, base::Instant now);
  Next extended();
  bool skip();
  struct Header {
    bool complete = false;
    char tag = 0;
    std::size_t body = 0;
  };
  Header header() const;

  void send(std::string bytes);
  Next refuse(const routing::Refusal& refusal);
  Next refuse(Report report, std::string reason);
  Next close(ConsoleEnd end, std::string reason);
  void enter(Next next);

  ConsoleServices& services_;
  routing::ListenerTls tls_;
  Phase phase_{Negotiating{}};
  std::string inbox_;
  std::deque<ConsoleAction> actions_;
  std::size_t to_skip_ = 0;  // bytes of a message that is too long
  base::Instant accepted_;
  base::Instant idle_since_{};
  std::string user_;
  std::optional<std::string> endpoint_hash_;  // set: TLS is up
  bool logged_in_ = false;
};

}  // namespace pointsman::proxy
