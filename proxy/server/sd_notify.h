#pragma once
// What systemd wants to hear from a service of `Type=notify`: ready, reloading, stopping. The protocol is a datagram of
// lines `NAME=value` to the socket that $NOTIFY_SOCKET names (sd_notify(3), systemd.service(5)), so no library is
// needed. Without that variable nothing is sent. Used by the control thread alone.

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace pointsman::proxy {

/// Where the service manager listens.
struct NotifyAddress {
  sockaddr_un address{};
  socklen_t size = 0;  ///< of the part of `address` that counts
};

/// Reads a value of $NOTIFY_SOCKET: an absolute path, or `@name` in the abstract namespace. Pure. An error for anything
/// else (systemd also knows `vsock:`, for whole virtual machines) and for a name that does not fit.
base::Result<NotifyAddress> parse_notify_socket(std::string_view value);

/// The datagrams. Pure. A status is one line for `systemctl status`: control characters become spaces, and it is cut at
/// 200 bytes.
std::string ready_message(std::string_view status);
/// `monotonic_us`: CLOCK_MONOTONIC in microseconds, by which `Type=notify-reload` tells this reload from an older one.
std::string reloading_message(std::uint64_t monotonic_us);
/// `time_needed`: how long the service may still run; systemd then does not kill it at TimeoutStopSec.
std::string stopping_message(std::string_view status, base::Duration time_needed);

/// Says these things to the manager, if there is one. A manager that takes nothing is waited for a second at most; what
/// could not be said is logged and changes nothing.
class ServiceManager {
 public:
  /// `value`: of $NOTIFY_SOCKET; null or empty: nobody listens.
  explicit ServiceManager(const char* value);
  ServiceManager(const ServiceManager&) = delete;
  ServiceManager& operator=(const ServiceManager&) = delete;

  void ready(std::string_view status) const;
  void reloading() const;
  void stopping(std::string_view status, base::Duration time_needed) const;

 private:
  void send(const std::string& message) const;

  NotifyAddress address_;  // size 0: nobody
  std::string complaint_;  // why the address cannot be used; told with the first message, when the log is up
  mutable bool complained_ = false;
};

}  // namespace pointsman::proxy
