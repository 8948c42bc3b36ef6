#pragma once
// Carries one CancelRequest to a backend: connect, TLS when the session's leg has it, the request with the backend's
// own key, then wait for the backend to hang up, so that the cancel has been acted on before the client hears of it.
// One thread (the worker's). Source: protocol-flow, "Canceling Requests in Progress"; libpq's PQcancelPoll.

#include <memory>
#include <string>

#include "proxy/io/side.h"
#include "proxy/io/timing_wheel.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

class Worker;

struct CancelTarget {
  routing::SocketAddress address;
  std::shared_ptr<const protocol::ClientTlsContext> tls;  ///< null: in clear
  std::string server_name;
  std::uint32_t pid = 0;
  std::string secret;
  /// Who waits for the outcome: a session of `origin_worker`; 0: nobody.
  std::uint32_t origin_worker = 0;
  std::uint64_t origin_session = 0;
};

class CancelDial final : private SocketOwner, private WheelEntry {
 public:
  CancelDial(Worker& worker, CancelTarget target);
  ~CancelDial() override;
  /// Cancels is told once, by dial_done(); then the object may be deleted.
  void start();
  void stop() { finish(false); }
  const CancelTarget& target() const { return target_; }

 private:
  void on_readable(Socket& socket) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  void on_deadline(base::Instant now) override;
  void handshake(base::Bytes encrypted);
  void send_request();
  void finish(bool sent);

  Worker& worker_;
  CancelTarget target_;
  Side side_;
  bool connecting_ = true;
  bool awaiting_tls_answer_ = false;
  bool sent_ = false;
  bool finished_ = false;
};

}  // namespace pointsman::proxy
