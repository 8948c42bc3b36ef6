#pragma once
// The admin endpoint (contract section 7) and the bare metrics endpoint, HTTP/1.1 on the control loop. Parsing by
// Boost.Beast's parser and serializer, which do no I/O; sockets by proxy/io. Bounded: header 8 KiB, body 64 KiB, 5 s
// for a request, 64 connections an endpoint (http_connection.h).
//
// Lifetime: shut_down(), then run the loop until idle(), then destroy. What the control still owes an answer to is
// forgotten by then.

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/secret.h"
#include "proxy/admin/control_view.h"
#include "proxy/io/event_loop.h"

namespace pointsman::proxy {

struct AdminEndpointSettings {
  std::string address;
  std::uint16_t port = 0;
  base::SecretString token;   ///< for writes; empty: writes from loopback only
  bool metrics_only = false;  ///< /metrics, /healthz, /readyz alone
};

class AdminServer {
 public:
  AdminServer(EventLoop& loop, ControlView& control);
  ~AdminServer();
  AdminServer(const AdminServer&) = delete;
  AdminServer& operator=(const AdminServer&) = delete;

  /// Starts one endpoint; may be called for several. `address` is numeric or "localhost". The error names address, port
  /// and remedy. `bound_port`, when not null, gets the real port.
  base::Result<bool> listen(const AdminEndpointSettings& settings, std::uint16_t* bound_port = nullptr);
  /// Closes everything; idempotent.
  void shut_down();
  bool idle() const;  ///< nothing was started, or after shut_down(): every handle is closed

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pointsman::proxy
