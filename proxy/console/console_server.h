#pragma once
// The admin console (docs/console.md): its listeners and connections on the control loop. Bounded: connections that
// have logged in (console.max_connections), connections that have not (routing::kConsoleLogins, beyond them the oldest
// goes), and new connections per second, since each costs the control thread a TLS handshake.
//
// Lifetime: shut_down(), then run the loop until idle(), then destroy. What the control still owes an answer to is
// forgotten by then.

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "protocol/tls_context.h"
#include "proxy/admin/control_view.h"
#include "proxy/io/event_loop.h"
#include "routing/config.h"

namespace pointsman::proxy {

/// What the console needs of the process beside ControlView. Control thread.
class ConsoleHost {
 public:
  /// The certificate as of now; null: none is configured.
  virtual std::shared_ptr<const protocol::ServerTlsContext> server_tls() const = 0;
  virtual std::string_view mock_secret() const = 0;

 protected:
  ~ConsoleHost() = default;
};

class ConsoleServer {
 public:
  ConsoleServer(EventLoop& loop, ControlView& control, ConsoleHost& host);
  ~ConsoleServer();
  ConsoleServer(const ConsoleServer&) = delete;
  ConsoleServer& operator=(const ConsoleServer&) = delete;

  /// Starts a listener; may be called for several. The error names address, port and what to do.
  base::Result<bool> listen(const routing::ConsoleListener& listener, unsigned keepalive_seconds,
                            unsigned user_timeout_ms);
  const ConsoleStats& stats() const;
  /// Says goodbye to everybody and closes everything; idempotent.
  void shut_down();
  bool idle() const;  ///< nothing was started, or after shut_down(): every handle is closed

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pointsman::proxy
