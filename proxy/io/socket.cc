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

bool Socket::adopt(EventLoop& loop, int fd) {
  POINTSMAN_CHECK(state_ == State::kUnused);
  if (!loop.watch(*this, fd)) {
    ::close(fd);
    return false;
  }
  loop_ = &loop;
  fd_ = fd;
  state_ = State::kOpen;
  wants_read_ = wants_write_ = readable_ = writable_ = to_the_end_ = queued_ = false;
  return true;
}

int Socket::connect(EventLoop& loop, const sockaddr* address, socklen_t size, unsigned keepalive_seconds,
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

void Socket::on_events(std::uint32_t events) {
  if (!open()) return;  // closed in this very turn
  constexpr std::uint32_t kEnds = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI;
  if ((events & (EPOLLIN | kEnds)) != 0) readable_ = true;
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) writable_ = true;
  if ((events & kEnds) != 0) [[unlikely]]
    to_the_end_ = true;
  serve();
}

void Socket::on_turn() {
  queued_ = false;
  if (open()) serve();
}

void Socket::serve() {
  if (wants_write_ && writable_) [[unlikely]] {
    owner_.on_writable(*this);
    if (!open()) return;
  }
  if (wants_read_ && readable_) {
    owner_.on_readable(*this);
    if (!open()) return;
  }
  if ((wants_read_ && readable_) || (wants_write_ && writable_)) serve_again();
}

void Socket::serve_again() {
  if (queued_ || !open()) return;
  queued_ = true;
  loop_->serve_again(*this);
}

Socket::Io Socket::receive(base::MutableBytes buffer) {
  Io io;
  for (;;) {
    const ssize_t n = ::recv(fd_, buffer.data(), buffer.size(), 0);
    if (n > 0) [[likely]] {
      io.bytes = static_cast<std::size_t>(n);
      // epoll(7): a stream that gave less than was asked for is drained, and what comes later is another edge.
      if (io.bytes < buffer.size() && !to_the_end_) [[likely]]
        readable_ = false;
      return io;
    }
    if (n == 0) {
      io.eof = true;
      return io;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      io.would_block = true;
      readable_ = false;
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
      if (io.would_block) [[unlikely]]
        writable_ = false;
      return io;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      io.would_block = true;
      writable_ = false;
    } else {
      io.error = errno;
    }
    return io;
  }
}

int Socket::accept(sockaddr* peer, socklen_t* size) {
  const int fd = ::accept4(fd_, peer, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) return fd;
  if (errno == EAGAIN || errno == EWOULDBLOCK) readable_ = false;
  return -errno;
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
  loop_->forget(*this, fd_);
  ::close(fd_);
  fd_ = -1;
  wants_read_ = wants_write_ = false;
}

void Socket::let_go() {
  state_ = State::kUnused;
  owner_.on_closed(*this);  // the memory may go
}

}  // namespace pointsman::proxy
