#include "proxy/admin/admin_server.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "proxy/admin/http_connection.h"
#include "proxy/admin/routes.h"
#include "proxy/io/socket.h"
#include "proxy/log.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {
namespace {

constexpr std::size_t kConnectionsPerEndpoint = 64;
constexpr int kBacklog = 64;
constexpr int kAcceptsPerTurn = 16;
constexpr std::uint64_t kTickMs = 100;

bool is_loopback(const sockaddr_storage& peer) {
  if (peer.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(peer);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  if (peer.ss_family != AF_INET6) return false;
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(peer);
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) ||
         (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && v6.sin6_addr.s6_addr[12] == 127);
}

/// A listening descriptor, or -1 with errno set.
int open_listener(const routing::SocketAddress& address) {
  const int fd = ::socket(address.base.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  set_tcp_options(fd, 30, 0);
  if (::bind(fd, &address.base, address.size) == 0 && ::listen(fd, kBacklog) == 0) return fd;
  const int error = errno;
  ::close(fd);
  errno = error;
  return -1;
}

std::string remedy(int error, std::uint16_t port) {
  if (error == EADDRINUSE) return "another process listens there; stop it or choose another port";
  if (error == EACCES && port < 1024) return "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one";
  if (error == EADDRNOTAVAIL) return "no interface of this machine has that address";
  return "choose another address or port";
}

std::uint16_t port_of(int fd) {
  routing::SocketAddress bound;
  bound.size = sizeof bound.v6;
  if (getsockname(fd, &bound.base, &bound.size) != 0) return 0;
  return ntohs(bound.base.sa_family == AF_INET ? bound.v4.sin_port : bound.v6.sin6_port);
}

}  // namespace

struct AdminServer::Impl final : SocketOwner, HttpConnectionOwner {
  struct Endpoint {
    Endpoint(SocketOwner& owner, AdminEndpointSettings given) : settings(std::move(given)), listener(owner) {}
    AdminEndpointSettings settings;
    Socket listener;
    std::size_t connections = 0;
    bool paused = false;      // no descriptor was left: listens again with the next tick
    bool complained = false;  // said so in the log, since the last connection that was taken
  };

  Impl(EventLoop& the_loop, ControlView& control) : loop(the_loop), routes(control) {}

  void on_readable(Socket& socket) override;
  void on_writable(Socket&) override {}
  void on_closed(Socket&) override { --handles; }
  void on_request(HttpConnection& connection, const HttpRequest& request) override;
  void on_gone(HttpConnection& connection) override;
  void take(std::size_t endpoint, int fd, const sockaddr_storage& peer);
  void start_ticking();
  void on_tick();

  EventLoop& loop;
  Routes routes;
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  std::unordered_map<std::uint64_t, std::unique_ptr<HttpConnection>> connections;
  std::uint64_t next_id = 1;
  std::size_t handles = 0;  // listeners and the timer, until the loop has let go of them
  uv_timer_t timer{};
  bool closing = false;
  // Rule 12: shared, so that an answer that comes when the server is gone can tell.
  std::shared_ptr<Impl*> alive = std::make_shared<Impl*>(this);
};

void AdminServer::Impl::on_readable(Socket& socket) {
  const auto found =
      std::find_if(endpoints.begin(), endpoints.end(), [&](const auto& e) { return &e->listener == &socket; });
  POINTSMAN_CHECK(found != endpoints.end());
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    const int fd = socket.accept(reinterpret_cast<sockaddr*>(&peer), &size);
    if (fd >= 0) {
      take(static_cast<std::size_t>(found - endpoints.begin()), fd, peer);
      continue;
    }
    const int error = -fd;
    if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
      // The waiting connection would be offered again without end (T22).
      if (!std::exchange((*found)->complained, true)) {
        log_record(LogLevel::kWarning, "admin endpoint cannot accept, it waits", {{"error", std::strerror(error)}});
      }
      (*found)->paused = true;
      socket.want_read(false);
      return start_ticking();
    }
    if (error != EINTR && error != ECONNABORTED) return;
  }
}

void AdminServer::Impl::take(std::size_t endpoint, int fd, const sockaddr_storage& peer) {
  endpoints[endpoint]->complained = false;
  if (endpoints[endpoint]->connections >= kConnectionsPerEndpoint) {
    ::close(fd);
    return;
  }
  auto connection = std::make_unique<HttpConnection>(*this, next_id++, is_loopback(peer));
  connection->endpoint = endpoint;
  if (!connection->start(loop, fd, base::from_hrtime(uv_hrtime()))) return;
  ++endpoints[endpoint]->connections;
  connections.emplace(connection->id(), std::move(connection));
  start_ticking();
}

void AdminServer::Impl::on_request(HttpConnection& connection, const HttpRequest& request) {
  const AdminEndpointSettings& settings = endpoints[connection.endpoint]->settings;
  const EndpointRules rules{.metrics_only = settings.metrics_only, .token = settings.token};
  const std::weak_ptr<Impl*> server = alive;
  routes.handle(request, rules, base::from_hrtime(uv_hrtime()),
                [server, id = connection.id()](const HttpResponse& response) {
                  const auto self = server.lock();
                  if (self == nullptr) return;
                  const auto found = (*self)->connections.find(id);
                  if (found != (*self)->connections.end()) found->second->respond(response);
                });
}

void AdminServer::Impl::on_gone(HttpConnection& connection) {
  --endpoints[connection.endpoint]->connections;
  connections.erase(connection.id());
}

/// One timer for all deadlines; it runs only while there are any.
void AdminServer::Impl::start_ticking() {
  if (uv_is_active(reinterpret_cast<const uv_handle_t*>(&timer)) != 0) return;
  uv_timer_start(
      &timer, [](uv_timer_t* handle) { static_cast<Impl*>(handle->data)->on_tick(); }, kTickMs, kTickMs);
}

void AdminServer::Impl::on_tick() {
  const base::Instant now = base::from_hrtime(uv_hrtime());
  for (const auto& [id, connection] : connections) connection->check_deadline(now);
  for (const auto& endpoint : endpoints) {
    if (!std::exchange(endpoint->paused, false)) continue;
    endpoint->listener.want_read(true);
  }
  if (connections.empty()) uv_timer_stop(&timer);
}

AdminServer::AdminServer(EventLoop& loop, ControlView& control) : impl_(std::make_unique<Impl>(loop, control)) {}

AdminServer::~AdminServer() {
  POINTSMAN_CHECK(idle());
}

base::Result<bool> AdminServer::listen(const AdminEndpointSettings& settings, std::uint16_t* bound_port) {
  POINTSMAN_CHECK(!impl_->closing);
  const std::string where = settings.address + ":" + std::to_string(settings.port);
  const auto address = routing::SocketAddress::from_numeric(
      settings.address == "localhost" ? "127.0.0.1" : settings.address, settings.port);
  if (!address.known())
    return base::Error{"cannot listen on " + where + ": the address must be numeric, as 127.0.0.1 or ::1"};
  const int fd = open_listener(address);
  if (fd < 0) {
    const int error = errno;
    return base::Error{"cannot listen on " + where + ": " + std::strerror(error) + "; " + remedy(error, settings.port)};
  }
  if (bound_port != nullptr) *bound_port = port_of(fd);
  auto endpoint = std::make_unique<Impl::Endpoint>(*impl_, settings);
  if (!endpoint->listener.adopt(impl_->loop, fd))
    return base::Error{"cannot listen on " + where + ": the event loop refuses the socket"};
  if (impl_->endpoints.empty()) {
    POINTSMAN_CHECK(uv_timer_init(impl_->loop.uv(), &impl_->timer) == 0);
    impl_->timer.data = impl_.get();
    ++impl_->handles;
  }
  ++impl_->handles;
  endpoint->listener.want_read(true);
  impl_->endpoints.push_back(std::move(endpoint));
  return true;
}

void AdminServer::shut_down() {
  if (impl_->closing) return;
  impl_->closing = true;
  if (impl_->endpoints.empty()) return;
  for (const auto& endpoint : impl_->endpoints) endpoint->listener.close();
  for (const auto& [id, connection] : impl_->connections) connection->begin_close();
  uv_close(reinterpret_cast<uv_handle_t*>(&impl_->timer),
           [](uv_handle_t* handle) { --static_cast<Impl*>(handle->data)->handles; });
}

bool AdminServer::idle() const {
  return impl_->handles == 0 && impl_->connections.empty();
}

}  // namespace pointsman::proxy
