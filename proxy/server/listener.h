#pragma once
// A listening socket of one worker: our own accept4, not uv_listen, whose accept loop in libuv 1.44 spins for ever once
// descriptors run out (reliability T22). On EMFILE the spare descriptor is given up, the waiting
// connection is taken and closed, and accepting pauses 100 ms.

#include <sys/socket.h>
#include <uv.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "proxy/io/socket.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

/// Where accepted connections go. The callee owns `fd`.
class AcceptSink {
 public:
  virtual void on_accepted(std::size_t listener, int fd, const routing::SocketAddress& peer) = 0;
  virtual void on_accept_paused(std::size_t listener, int error) = 0;

 protected:
  ~AcceptSink() = default;
};

class Listener final : private SocketOwner {
 public:
  /// `fd` is a bound, non-blocking socket that listens or is about to; owned from here on.
  Listener(AcceptSink& sink, std::size_t index, int fd) : sink_(sink), index_(index), fd_(fd), socket_(*this) {}
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  void open(EventLoop& loop);
  void close();

 private:
  void on_readable(Socket& socket) override;
  void on_writable(Socket&) override {}
  void on_closed(Socket&) override {}
  void pause(int error);

  AcceptSink& sink_;
  std::size_t index_;
  int fd_;  // until open()
  int spare_ = -1;
  Socket socket_;
  uv_timer_t pause_{};
};

/// Binds and listens. With `reuse_port` several workers may have one each. Port 0: any, `bound_port` gets it. The error
/// names address, port and what to do.
base::Result<int> open_listening_socket(const std::string& address, std::uint16_t port, bool reuse_port,
                                        unsigned keepalive_seconds, unsigned user_timeout_ms,
                                        std::uint16_t* bound_port);

}  // namespace pointsman::proxy
