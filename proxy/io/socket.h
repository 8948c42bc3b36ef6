#pragma once
// A non-blocking TCP socket on a loop: readiness by uv_poll, bytes by our own recv and send. One thread. Why not
// uv_tcp: docs/decisions/0004.
//
// Lifetime: the handle is a member; close() is idempotent and the owner is told by on_closed when the loop is done with
// the memory.

#include <sys/socket.h>
#include <uv.h>

#include <cstdint>

#include "base/bytes.h"

namespace pointsman::proxy {

class Socket;

/// Whoever owns sockets. A call may close any of them, the caller included: nothing touches the socket after it.
class SocketOwner {
 public:
  virtual void on_readable(Socket& socket) = 0;  ///< also on error and hang-up: the next recv() tells
  virtual void on_writable(Socket& socket) = 0;  ///< also when a connect ended: connect_error() tells
  virtual void on_closed(Socket& socket) = 0;    ///< the memory may go

 protected:
  ~SocketOwner() = default;
};

class Socket {
 public:
  explicit Socket(SocketOwner& owner) : owner_(owner) {}
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  /// Takes a connected, non-blocking descriptor. False when the loop cannot watch it (the descriptor is closed then).
  bool adopt(uv_loop_t* loop, int fd);
  /// Starts a connect; on_writable follows (want_write is set). 0, or an errno when it failed at once.
  int connect(uv_loop_t* loop, const sockaddr* address, socklen_t size, unsigned keepalive_seconds,
              unsigned user_timeout_ms);
  /// The outcome of a connect: 0 or an errno.
  int connect_error() const;

  void want_read(bool on) { set_interest(on ? interest_ | UV_READABLE : interest_ & ~UV_READABLE); }
  void want_write(bool on) { set_interest(on ? interest_ | UV_WRITABLE : interest_ & ~UV_WRITABLE); }
  bool wants_read() const { return (interest_ & UV_READABLE) != 0; }

  struct Io {
    std::size_t bytes = 0;
    bool would_block = false;
    bool eof = false;
    int error = 0;  ///< errno; 0 none
  };
  Io receive(base::MutableBytes buffer);
  Io send(base::Bytes bytes);
  void shutdown_write();
  /// Makes the coming close() send a reset instead of an orderly end.
  void reset_on_close();

  /// Closes the descriptor at once and the handle with the loop. on_closed follows, unless nothing was ever adopted
  /// (then it never comes).
  void close();
  /// open: adopted and not closed. busy: the loop still has the memory (until on_closed).
  bool open() const { return fd_ >= 0; }
  bool busy() const { return state_ != State::kUnused; }
  int fd() const { return fd_; }

 private:
  enum class State : std::uint8_t { kUnused, kOpen, kClosing };
  void set_interest(int interest);
  static void on_poll(uv_poll_t* handle, int status, int events);

  SocketOwner& owner_;
  uv_poll_t poll_{};
  int fd_ = -1;
  int interest_ = 0;
  State state_ = State::kUnused;
};

/// Options every leg gets. On a listening socket they are inherited by what it accepts.
void set_tcp_options(int fd, unsigned keepalive_seconds, unsigned user_timeout_ms);

}  // namespace pointsman::proxy
