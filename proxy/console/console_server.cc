#include "proxy/console/console_server.h"

#include <openssl/rand.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/token_bucket.h"
#include "proxy/admin/version.h"
#include "proxy/console/console_connection.h"
#include "proxy/console/executor.h"
#include "proxy/log.h"
#include "proxy/server/listener.h"

namespace pointsman::proxy {
namespace {

constexpr std::uint64_t kTickMs = 100;
constexpr int kAcceptsPerTurn = 8;
/// Beyond it a listener takes one connection a tick.
constexpr base::TokenRate kAccepts = {.per_second = 50, .burst = 50};

}  // namespace

struct ConsoleServer::Impl final : SocketOwner, ConsoleOwner {
  struct Endpoint {
    Endpoint(SocketOwner& owner, routing::ConsoleListener given) : config(std::move(given)), listener(owner) {}
    routing::ConsoleListener config;
    Socket listener;
    bool paused = false;      // listens again with the next tick
    bool complained = false;  // of missing descriptors, since the last connection that was taken
  };

  Impl(EventLoop& the_loop, ControlView& the_control, ConsoleHost& the_host)
      : event_loop(the_loop), control(the_control), host(the_host), executor(the_control) {}

  // SocketOwner: the listeners
  void on_readable(Socket& socket) override;
  void on_writable(Socket&) override {}
  void on_closed(Socket&) override { --handles; }
  // ConsoleServices
  const routing::ConsoleConfig& console() override { return control.directory()->config().console; }
  base::Duration login_timeout() override { return control.directory()->config().limits.startup_timeout; }
  std::string_view version() override { return proxy::version(); }
  void random_bytes(base::MutableBytes out) override {
    POINTSMAN_CHECK(RAND_bytes(out.data(), static_cast<int>(out.size())) == 1);
  }
  std::string_view mock_secret() override { return host.mock_secret(); }
  bool admit() override;
  // ConsoleOwner
  EventLoop& loop() override { return event_loop; }
  Scratch& scratch() override { return *scratch_memory; }
  BufferPool& pool() override { return buffers; }
  std::shared_ptr<const protocol::ServerTlsContext> server_tls() override { return host.server_tls(); }
  void execute(ConsoleConnection& connection, const Statement& statement) override;
  void count(StatementOutcome outcome) override;
  void on_gone(ConsoleConnection& connection) override;

  void take(Endpoint& endpoint, int fd, const routing::SocketAddress& peer);
  void pause(Endpoint& endpoint);
  void start_ticking();
  void on_tick();

  EventLoop& event_loop;
  ControlView& control;
  ConsoleHost& host;
  Executor executor;
  std::unique_ptr<Scratch> scratch_memory;  // from the first listener on
  BufferPool buffers;
  base::TokenBucket accepts;
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  std::map<std::uint64_t, std::unique_ptr<ConsoleConnection>> connections;  // the oldest first
  std::uint64_t next_id = 1;
  ConsoleStats stats;
  std::size_t handles = 0;  // listeners and the timer, until the loop has let go of them
  uv_timer_t timer{};
  bool closing = false;
  // Rule 12: shared, so that an answer that comes when the server is gone can tell.
  std::shared_ptr<Impl*> alive = std::make_shared<Impl*>(this);
};

void ConsoleServer::Impl::on_readable(Socket& socket) {
  const auto found =
      std::find_if(endpoints.begin(), endpoints.end(), [&](const auto& e) { return &e->listener == &socket; });
  POINTSMAN_CHECK(found != endpoints.end());
  Endpoint& endpoint = **found;
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    routing::SocketAddress peer;
    peer.size = sizeof peer.v6;
    const int fd = socket.accept(&peer.base, &peer.size);
    if (fd >= 0) {
      take(endpoint, fd, peer);
      if (!accepts.take(kAccepts, base::from_hrtime(uv_hrtime()))) return pause(endpoint);
      continue;
    }
    const int error = -fd;
    if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
      // The waiting connection would be offered again without end (T22).
      if (!std::exchange(endpoint.complained, true))
        log_record(LogLevel::kWarning, "admin console cannot accept, it waits", {{"error", std::strerror(error)}});
      return pause(endpoint);
    }
    if (error != EINTR && error != ECONNABORTED) return;
  }
}

void ConsoleServer::Impl::take(Endpoint& endpoint, int fd, const routing::SocketAddress& peer) {
  endpoint.complained = false;
  // A stranger's connections cost no administrator a place: those are counted behind the login.
  const auto logging_in = [](const auto& entry) { return !entry.second->logged_in() && !entry.second->ending(); };
  const auto waiting = std::count_if(connections.begin(), connections.end(), logging_in);
  if (waiting >= std::ptrdiff_t{routing::kConsoleLogins})
    std::find_if(connections.begin(), connections.end(), logging_in)->second->drop();
  auto connection = std::make_unique<ConsoleConnection>(*this, next_id++, endpoint.config.name, endpoint.config.tls,
                                                        peer, base::from_hrtime(uv_hrtime()));
  if (!connection->start(fd)) return;
  ++stats.connections;
  connections.emplace(connection->id(), std::move(connection));
  start_ticking();
}

bool ConsoleServer::Impl::admit() {
  const auto inside = std::count_if(connections.begin(), connections.end(), [](const auto& entry) {
    return entry.second->logged_in() && !entry.second->ending();
  });
  return static_cast<std::uint64_t>(inside) < console().max_connections;
}

void ConsoleServer::Impl::execute(ConsoleConnection& connection, const Statement& statement) {
  const std::weak_ptr<Impl*> server = alive;
  executor.execute(statement, connection.caller(), base::from_hrtime(uv_hrtime()),
                   [server, id = connection.id()](StatementResult result) {
                     const auto self = server.lock();
                     if (self == nullptr) return;
                     const auto found = (*self)->connections.find(id);
                     if (found != (*self)->connections.end()) found->second->on_result(std::move(result));
                   });
}

void ConsoleServer::Impl::count(StatementOutcome outcome) {
  switch (outcome) {
    case StatementOutcome::kOk:
      ++stats.ok;
      return;
    case StatementOutcome::kError:
      ++stats.error;
      return;
    case StatementOutcome::kDenied:
      ++stats.denied;
      return;
  }
}

void ConsoleServer::Impl::on_gone(ConsoleConnection& connection) {
  --stats.connections;
  connections.erase(connection.id());
}

void ConsoleServer::Impl::pause(Endpoint& endpoint) {
  endpoint.paused = true;
  endpoint.listener.want_read(false);
  start_ticking();
}

/// One timer for all deadlines; it runs only while there are any.
void ConsoleServer::Impl::start_ticking() {
  if (closing || uv_is_active(reinterpret_cast<const uv_handle_t*>(&timer)) != 0) return;
  uv_timer_start(
      &timer, [](uv_timer_t* handle) { static_cast<Impl*>(handle->data)->on_tick(); }, kTickMs, kTickMs);
}

void ConsoleServer::Impl::on_tick() {
  const base::Instant now = base::from_hrtime(uv_hrtime());
  for (const auto& [id, connection] : connections) connection->check_deadline(now);
  for (const auto& endpoint : endpoints) {
    if (std::exchange(endpoint->paused, false)) endpoint->listener.want_read(true);
  }
  if (connections.empty()) uv_timer_stop(&timer);
}

ConsoleServer::ConsoleServer(EventLoop& loop, ControlView& control, ConsoleHost& host)
    : impl_(std::make_unique<Impl>(loop, control, host)) {}

ConsoleServer::~ConsoleServer() {
  POINTSMAN_CHECK(idle());
}

base::Result<bool> ConsoleServer::listen(const routing::ConsoleListener& listener, unsigned keepalive_seconds,
                                         unsigned user_timeout_ms) {
  POINTSMAN_CHECK(!impl_->closing);
  auto opened =
      open_listening_socket(listener.address, listener.port, false, keepalive_seconds, user_timeout_ms, nullptr);
  if (!opened.ok()) return base::Error{opened.error()};
  auto endpoint = std::make_unique<Impl::Endpoint>(*impl_, listener);
  if (!endpoint->listener.adopt(impl_->event_loop, opened.value()))
    return base::Error{"cannot listen on " + listener.address + ": the event loop refuses the socket"};
  if (impl_->endpoints.empty()) {
    impl_->scratch_memory.reset(new Scratch);  // uninitialised on purpose
    POINTSMAN_CHECK(uv_timer_init(impl_->event_loop.uv(), &impl_->timer) == 0);
    impl_->timer.data = impl_.get();
    ++impl_->handles;
  }
  ++impl_->handles;
  endpoint->listener.want_read(true);
  impl_->endpoints.push_back(std::move(endpoint));
  return true;
}

const ConsoleStats& ConsoleServer::stats() const {
  return impl_->stats;
}

void ConsoleServer::shut_down() {
  if (impl_->closing) return;
  impl_->closing = true;
  if (impl_->endpoints.empty()) return;
  for (const auto& endpoint : impl_->endpoints) endpoint->listener.close();
  for (const auto& [id, connection] : impl_->connections) connection->stop();
  uv_close(reinterpret_cast<uv_handle_t*>(&impl_->timer),
           [](uv_handle_t* handle) { --static_cast<Impl*>(handle->data)->handles; });
}

bool ConsoleServer::idle() const {
  return impl_->handles == 0 && impl_->connections.empty();
}

}  // namespace pointsman::proxy
