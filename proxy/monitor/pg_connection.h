#pragma once
// An SQL connection of our own on a uv loop, for probes and look-ups only, never for a client's session: a socket, TLS,
// a deadline and key derivation around SqlClient. One operation at a time, each with one absolute deadline; an
// operation that fails otherwise than by the server's answer to a statement closes the connection. Loop thread only.
// Nothing of this process's environment or home folder takes part.

#include <uv.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/secret.h"
#include "proxy/monitor/pg_failure.h"
#include "proxy/monitor/scram_keys.h"
#include "proxy/monitor/sql_client.h"
#include "proxy/monitor/sql_context.h"
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

class PgConnection final : private ScramKeys::Waiter {
 public:
  /// Called from the loop, never from inside a call of the owner's. The owner may destroy or use the connection in each
  /// of them.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void on_pg_connected() = 0;
    virtual void on_pg_rows(const PgRows& rows) = 0;
    /// The operation failed, or an idle connection was lost. is_open() tells whether the connection outlived it (an
    /// error as answer to a statement).
    virtual void on_pg_failure(const PgFailure& failure) = 0;
  };

  PgConnection(SqlContext& context, const HandleCount& count, Owner& owner);
  ~PgConnection();
  PgConnection(const PgConnection&) = delete;
  PgConnection& operator=(const PgConnection&) = delete;

  /// Requires: phase is closed. Ends in on_pg_connected or on_pg_failure.
  void connect(const PgTarget& target, base::Instant deadline);
  /// Requires: is_open() and no operation in flight. One statement that has a result, text parameters. Ends in
  /// on_pg_rows or on_pg_failure.
  void query(std::string_view sql, std::span<const std::string> parameters, base::Instant deadline);
  /// The same by the simple protocol, for PgBouncer's console; a statement without a result ends in rows without
  /// columns.
  void command(std::string_view sql, base::Instant deadline);
  /// Closes at once; nothing is called any more.
  void close();

  bool is_open() const { return phase_ == Phase::kIdle || phase_ == Phase::kQuerying; }
  bool is_idle() const { return phase_ == Phase::kIdle; }
  /// What the server reported of itself ("is_superuser"); empty when it did not. Requires: is_open().
  std::string_view parameter(std::string_view name) const { return client_->parameter(name); }

 private:
  enum class Phase : std::uint8_t { kClosed, kDialing, kLogin, kIdle, kQuerying, kFailing };
  class Wire;

  void on_scram_keys(const protocol::ScramLoginKeys& keys) override;
  void on_readable();
  void on_writable();
  void on_timer();
  void read();
  void start_tls();
  void read_handshake();
  void handshake(base::Bytes encrypted);
  void derive_keys();
  void act_on(SqlClient::Event event);
  bool send_output();
  void begin_operation(base::Instant deadline);
  void drop_wire();
  void fail(PgFailure failure);
  void fail_later(PgFailure failure);

  SqlContext& context_;
  HandleCount count_;
  Owner& owner_;
  Phase phase_ = Phase::kClosed;
  routing::BackendTlsConfig tls_;  // of the target, with the name to verify
  std::unique_ptr<SqlClient> client_;
  Wire* wire_ = nullptr;  // frees itself when the loop is done with it
  LoopTimer deadline_;
  PgFailure pending_failure_;  // with kFailing
};

}  // namespace pointsman::proxy
