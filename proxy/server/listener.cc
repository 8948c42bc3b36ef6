#include "proxy/server/listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace pointsman::proxy {

namespace {

/// Connections taken per wake-up: fair to the sessions that are in.
constexpr int kAcceptsPerTurn = 16;
constexpr std::uint64_t kPauseMs = 100;
constexpr int kBacklog = 4096;

int open_spare() {
  return ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}

}  // namespace

Listener::~Listener() {
  if (fd_ >= 0) ::close(fd_);
  if (spare_ >= 0) ::close(spare_);
}

void Listener::open(EventLoop& loop) {
  POINTSMAN_CHECK(socket_.adopt(loop, std::exchange(fd_, -1)));
  POINTSMAN_CHECK(uv_timer_init(loop.uv(), &pause_) == 0);
  pause_.data = this;
  spare_ = open_spare();
  socket_.want_read(true);
}

void Listener::close() {
  if (!socket_.open()) return;
  socket_.close();
  uv_close(reinterpret_cast<uv_handle_t*>(&pause_), nullptr);
}

void Listener::on_readable(Socket& socket) {
  for (int turn = 0; turn < kAcceptsPerTurn && socket.open(); ++turn) {
    routing::SocketAddress peer;
    peer.size = sizeof peer.v6;
    const int fd = socket.accept(&peer.base, &peer.size);
    if (fd >= 0) {
      sink_.on_accepted(index_, fd, peer);
      continue;
    }
    switch (-fd) {
      case EINTR:
      case ECONNABORTED:
      case EPROTO:
        continue;
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM:
        pause(-fd);
        return;
      default:
        return;  // EAGAIN, or a fault of the network that accept(2) reports early
    }
  }
}

void Listener::pause(int error) {
  if (spare_ >= 0) {
    ::close(spare_);
    const int fd = socket_.accept(nullptr, nullptr);
    if (fd >= 0) ::close(fd);
  }
  spare_ = open_spare();
  socket_.want_read(false);
  uv_timer_start(
      &pause_,
      [](uv_timer_t* timer) {
        auto* self = static_cast<Listener*>(timer->data);
        if (self->socket_.open()) self->socket_.want_read(true);
      },
      kPauseMs, 0);
  sink_.on_accept_paused(index_, error);
}

base::Result<int> open_listening_socket(const std::string& address, std::uint16_t port, bool reuse_port,
                                        unsigned keepalive_seconds, unsigned user_timeout_ms,
                                        std::uint16_t* bound_port) {
  auto where = routing::SocketAddress::from_numeric(address, port);
  const std::string name = address + " port " + std::to_string(port);
  if (!where.known()) return base::Error{"cannot listen on " + name + ": the address is not numeric"};
  const int fd = ::socket(where.base.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return base::Error{"cannot listen on " + name + ": " + std::strerror(errno)};
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (reuse_port) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  set_tcp_options(fd, keepalive_seconds, user_timeout_ms);
  if (::bind(fd, &where.base, where.size) != 0 || ::listen(fd, kBacklog) != 0) {
    const int error = errno;
    ::close(fd);
    std::string text = "cannot listen on " + name + ": " + std::strerror(error);
    if (error == EADDRINUSE) text += " (another program has this port: stop it, or choose another port in listeners)";
    if (error == EACCES) text += " (ports below 1024 need CAP_NET_BIND_SERVICE)";
    if (error == EADDRNOTAVAIL) text += " (this machine does not have the address)";
    return base::Error{std::move(text)};
  }
  if (bound_port != nullptr) {
    routing::SocketAddress bound;
    bound.size = sizeof bound.v6;
    if (::getsockname(fd, &bound.base, &bound.size) == 0) {
      *bound_port = ntohs(bound.base.sa_family == AF_INET6 ? bound.v6.sin6_port : bound.v4.sin_port);
    }
  }
  return fd;
}

}  // namespace pointsman::proxy
