#pragma once
// An SQL connection of our own: libpq, asynchronous, on a uv loop. For probes and look-ups only, never for a client's
// session. One operation at a time, each with one absolute deadline; an operation that fails otherwise than by the
// server's answer to a query closes the connection. Loop thread only. libpq blocks for DNS, so it is always given the
// address; it never sees a connection string, and no setting of this process's environment or home folder takes part
// where a keyword can rule it out.

#include <libpq-fe.h>
#include <uv.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/secret.h"
#include "proxy/monitor/pg_failure.h"
#include "proxy/monitor/uv_handles.h"
#include "routing/config.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

struct PgTarget {
  std::string host;                ///< as configured
  routing::SocketAddress address;  ///< where to connect
  std::string user;
  base::SecretString password;
  std::string database;
  std::string application_name;
  std::string options;            ///< `-c name=value …`, ours
  routing::BackendTlsConfig tls;  ///< server_name replaces `host` for verification and SNI
};

/// The rows of one answer. Wiped when it goes: they may hold verifiers.
class PgRows {
 public:
  explicit PgRows(PGresult* result) : result_(result) {}
  int rows() const { return PQntuples(result_.get()); }
  int columns() const { return PQnfields(result_.get()); }
  /// nullopt for NULL and for what is not there.
  std::optional<std::string_view> value(int row, int column) const;

 private:
  struct Wipe {
    void operator()(PGresult* result) const;
  };
  std::unique_ptr<PGresult, Wipe> result_;
};

class PgConnection {
 public:
  /// Called from the loop, never from inside a call of the owner's. The owner may destroy or use the connection in each
  /// of them.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void on_pg_connected() = 0;
    virtual void on_pg_rows(const PgRows& rows) = 0;
    /// The operation failed, or an idle connection was lost. is_open() tells whether the connection outlived it (an
    /// error as answer to a query).
    virtual void on_pg_failure(const PgFailure& failure) = 0;
  };

  PgConnection(uv_loop_t* loop, const HandleCount& count, Owner& owner);
  ~PgConnection();
  PgConnection(const PgConnection&) = delete;
  PgConnection& operator=(const PgConnection&) = delete;

  /// Requires: phase is closed. Ends in on_pg_connected or on_pg_failure.
  void connect(const PgTarget& target, base::Instant deadline);
  /// Requires: is_open() and no operation in flight. One statement, text parameters without zero bytes. Ends in
  /// on_pg_rows or on_pg_failure.
  void query(const char* sql, std::span<const std::string> parameters, base::Instant deadline);
  /// Closes at once; nothing is called any more.
  void close();

  bool is_open() const { return phase_ == Phase::kIdle || phase_ == Phase::kQuerying; }
  bool is_idle() const { return phase_ == Phase::kIdle; }
  /// What the server reported of itself ("is_superuser"); empty when it did not. Requires: is_open().
  std::string_view parameter(const char* name) const;

 private:
  enum class Phase : std::uint8_t { kClosed, kConnecting, kIdle, kQuerying, kFailing };

  void on_readiness();
  void on_timer();
  void step_connect();
  void step_query();
  void step_idle();
  bool watch(int events);
  void finish_query();
  void fail(PgFailure failure);
  void fail_later(PgFailure failure);
  PgFailure connection_failure() const;

  uv_loop_t* loop_;
  HandleCount count_;
  Owner& owner_;
  Phase phase_ = Phase::kClosed;
  PGconn* connection_ = nullptr;
  std::unique_ptr<LoopPoll> poll_;
  LoopTimer deadline_;
  PGresult* answer_ = nullptr;  // the first result of the running query
  bool flushed_ = true;         // the query has left libpq's buffer
  PgFailure pending_failure_;   // with kFailing
};

// ---- for tests
// ---------------------------------------------------------------------------------------------------------------------

/// The keywords and values given to libpq, and nothing else is.
std::vector<std::pair<const char*, std::string>> connection_keywords(const PgTarget& target);
/// The SQLSTATE in a message of libpq at PQERRORS_VERBOSE ("…FATAL:  28P01: password …"); empty when there is none.
/// libpq keeps no error fields of a failed connection; this is the only place where the code survives.
std::string_view sqlstate_in(std::string_view verbose_message);

}  // namespace pointsman::proxy
