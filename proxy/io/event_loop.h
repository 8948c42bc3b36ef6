#pragma once
// The event loop of a thread: an epoll set of our own for the sockets, and libuv's loop, as one more descriptor of that
// set, for everything else (timers, mailboxes, signals, files, DNS). A turn that only moves bytes never enters libuv.
// Why: docs/decisions/0008. One thread, from the first watch() to the end of run().

#include <sys/epoll.h>
#include <uv.h>

#include <array>
#include <cstddef>
#include <vector>

#include "base/descriptor.h"

namespace pointsman::proxy {

class Socket;

class EventLoop {
 public:
  EventLoop();
  /// Requires: every handle of libuv's loop is closed and every socket let go. This is our leak check.
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// For handles of libuv. It must not be run by others.
  uv_loop_t* uv() { return &uv_; }
  /// Until no active handle and no socket is left.
  void run();

 private:
  friend class Socket;
  int until_uv_is_due() const;
  /// Edge-triggered, for everything, once: no system call when a socket's interest changes.
  bool watch(Socket& socket, int fd);
  /// Takes the descriptor out, before it is closed: behind that its number may belong to another thread.
  void forget(Socket& socket, int fd);
  /// The socket has readiness that it was not told of, or did not use up: it is served in the next turn.
  void serve_again(Socket& socket);
  void serve_rest();
  void let_go();

  static constexpr std::size_t kEventsPerTurn = 256;

  uv_loop_t uv_{};
  base::Descriptor epoll_;
  std::array<epoll_event, kEventsPerTurn> events_;
  std::vector<Socket*> again_;
  std::vector<Socket*> serving_;  // what again_ was when this turn began
  std::vector<Socket*> closing_;  // closed in this turn: their memory goes at its end
  std::size_t sockets_ = 0;       // watched or closing
};

}  // namespace pointsman::proxy
