#include "proxy/io/socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/check.h"

namespace pointsman::proxy {

void set_tcp_options(int fd, unsigned keepalive_seconds, unsigned user_timeout_ms) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (keepalive_seconds > 0) {
    // Idle time, then three probes a third of it apart: a dead peer is known after twice the configured time.
    const int idle = static_cast<int>(keepalive_seconds);
    const int interval = std::max(1, idle / 3);
    const int probes = 3;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  }
  if (user_timeout_ms > 0) setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
}

Socket::~Socket() {
  POINTSMAN_CHECK(state_ == State::kUnused);
}

bool Socket::adopt(uv_loop_t* loop, int fd) {
  POINTSMAN_CHECK(state_ == State::kUnused);
  if (uv_poll_init(loop, &poll_, fd) != 0) {
    ::close(fd);
    return false;
  }
  poll_.data = this;
  fd_ = fd;
  state_ = State::kOpen;
  return true;
}

int Socket::connect(uv_loop_t* loop, const sockaddr* address, socklen_t size, unsigned keepalive_seconds,
                    unsigned user_timeout_ms) {
  const int fd = ::socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  set_tcp_options(fd, keepalive_seconds, user_timeout_ms);
  if (::connect(fd, address, size) != 0 && errno != EINPROGRESS) {
    const int error = errno;
    ::close(fd);
    return error;
  }
  if (!adopt(loop, fd)) return EMFILE;
  want_write(true);
  return 0;
}

int Socket::connect_error() const {
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  return error;
}

void Socket::set_interest(int interest) {
  if (state_ != State::kOpen || interest == interest_) return;
  interest_ = interest;
  // With nothing wanted the descriptor leaves the epoll set: a hung-up peer would otherwise wake the loop without end.
  if (interest == 0) {
    uv_poll_stop(&poll_);
  } else {
    uv_poll_start(&poll_, interest, on_poll);
  }
}

void Socket::on_poll(uv_poll_t* handle, int status, int events) {
  auto* socket = static_cast<Socket*>(handle->data);
  if (status < 0) [[unlikely]] {
    // libuv turned EPOLLERR into an error and stopped watching. Watch on: the socket's own calls say what happened, but
    // only after the bytes that came before it, and one call need not take all of those.
    uv_poll_start(handle, socket->interest_, on_poll);
    events = (socket->interest_ & UV_READABLE) != 0 ? UV_READABLE : UV_WRITABLE;
  }
  if ((events & UV_WRITABLE) != 0) {
    socket->owner_.on_writable(*socket);
    // The call may have closed the socket, or changed what it wants: a readable descriptor is reported again on the
    // next turn.
    return;
  }
  socket->owner_.on_readable(*socket);
}

Socket::Io Socket::receive(base::MutableBytes buffer) {
  Io io;
  for (;;) {
    const ssize_t n = ::recv(fd_, buffer.data(), buffer.size(), 0);
    if (n > 0) [[likely]] {
      io.bytes = static_cast<std::size_t>(n);
      return io;
    }
    if (n == 0) {
      io.eof = true;
      return io;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      io.would_block = true;
    } else {
      io.error = errno;
    }
    return io;
  }
}

Socket::Io Socket::send(base::Bytes bytes) {
  Io io;
  for (;;) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n >= 0) [[likely]] {
      io.bytes = static_cast<std::size_t>(n);
      io.would_block = io.bytes < bytes.size();
      return io;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      io.would_block = true;
    } else {
      io.error = errno;
    }
    return io;
  }
}

void Socket::shutdown_write() {
  if (open()) ::shutdown(fd_, SHUT_WR);
}

void Socket::reset_on_close() {
  const linger hard{1, 0};
  if (open()) setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
}

void Socket::close() {
  if (state_ != State::kOpen) return;
  state_ = State::kClosing;
  // uv_close takes the descriptor out of epoll at once, so it comes before the descriptor is closed: behind that its
  // number may already belong to another thread.
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), [](uv_handle_t* handle) {
    auto* socket = static_cast<Socket*>(handle->data);
    socket->state_ = State::kUnused;
    socket->owner_.on_closed(*socket);
  });
  ::close(fd_);
  fd_ = -1;
  interest_ = 0;
}

}  // namespace pointsman::proxy
