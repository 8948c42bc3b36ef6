#pragma once
// A non-blocking TCP socket on a loop: readiness from its epoll set, bytes by our own recv and send. One thread. Why
// not uv_tcp: docs/decisions/0004; why not uv_poll: 0008.
//
// The kernel reports edges; the socket remembers what they said until its own calls have used it up, so that owners see
// levels: while a socket is readable and wants to read, on_readable comes with every turn of the loop.
//
// Lifetime: close() is idempotent, and the owner is told by on_closed, at the end of the turn, when the loop is done
// with the memory.

#include <sys/socket.h>

#include <cstdint>

#include "base/bytes.h"
#include "proxy/io/event_loop.h"

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
  bool adopt(EventLoop& loop, int fd);
  /// Starts a connect; on_writable follows (want_write is set). 0, or an errno when it failed at once.
  int connect(EventLoop& loop, const sockaddr* address, socklen_t size, unsigned keepalive_seconds,
              unsigned user_timeout_ms);
  /// The outcome of a connect: 0 or an errno.
  int connect_error() const;

  void want_read(bool on) {
    wants_read_ = on;
    if (on && readable_) serve_again();
  }
  void want_write(bool on) {
    wants_write_ = on;
    if (on && writable_) serve_again();
  }

  struct Io {
    std::size_t bytes = 0;
    bool would_block = false;
    bool eof = false;
    int error = 0;  ///< errno; 0 none
  };
  Io receive(base::MutableBytes buffer);
  Io send(base::Bytes bytes);
  /// Of a listening socket: the next connection's descriptor (non-blocking, closed on exec), or a negative errno.
  int accept(sockaddr* peer, socklen_t* size);
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
  friend class EventLoop;
  enum class State : std::uint8_t { kUnused, kOpen, kClosing };
  void on_events(std::uint32_t events);
  void on_turn();
  void serve();
  void serve_again();
  void let_go();

  SocketOwner& owner_;
  EventLoop* loop_ = nullptr;  // with kOpen and kClosing
  int fd_ = -1;
  State state_ = State::kUnused;
  bool wants_read_ = false;
  bool wants_write_ = false;
  bool readable_ = false;
  bool writable_ = false;
  bool to_the_end_ = false;  // a short read does not mean that nothing is left: the end or urgent data came
  bool queued_ = false;      // the loop serves it in its next turn, or in this one
};

/// Options every leg gets. On a listening socket they are inherited by what it accepts.
void set_tcp_options(int fd, unsigned keepalive_seconds, unsigned user_timeout_ms);

}  // namespace pointsman::proxy
