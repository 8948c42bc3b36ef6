#include "proxy/io/event_loop.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "proxy/io/socket.h"

namespace pointsman::proxy {

EventLoop::EventLoop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  POINTSMAN_CHECK(epoll_.number() >= 0);
  POINTSMAN_CHECK(uv_loop_init(&uv_) == 0);
  // Level-triggered, and the one entry without a socket.
  epoll_event event{};
  event.events = EPOLLIN;
  POINTSMAN_CHECK(::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, uv_backend_fd(&uv_), &event) == 0);
}

EventLoop::~EventLoop() {
  POINTSMAN_CHECK(sockets_ == 0);
  POINTSMAN_CHECK(uv_loop_close(&uv_) == 0);
}

/// Milliseconds until libuv has something to do; 0: now; -1: it waits for its descriptor alone, or has nothing at all.
int EventLoop::until_uv_is_due() const {
  const int timeout = uv_backend_timeout(&uv_);
  return timeout == 0 && uv_loop_alive(&uv_) == 0 ? -1 : timeout;
}

void EventLoop::run() {
  uv_update_time(&uv_);
  int timeout = until_uv_is_due();
  while (sockets_ > 0 || uv_loop_alive(&uv_) != 0) {
    if (!again_.empty() || !closing_.empty()) timeout = 0;
    const int count = ::epoll_wait(epoll_.number(), events_.data(), static_cast<int>(events_.size()), timeout);
    POINTSMAN_CHECK(count >= 0 || errno == EINTR);
    uv_update_time(&uv_);  // what uv_backend_timeout and uv_timer_start count from
    std::swap(again_, serving_);
    bool uv_ready = false;
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events_[static_cast<std::size_t>(i)];
      if (event.data.ptr == nullptr) {
        uv_ready = true;
      } else {
        static_cast<Socket*>(event.data.ptr)->on_events(event.events);
      }
    }
    if (!serving_.empty()) serve_rest();
    if (!closing_.empty()) let_go();
    timeout = until_uv_is_due();
    if (uv_ready || timeout == 0) {
      uv_run(&uv_, UV_RUN_NOWAIT);
      if (!closing_.empty()) let_go();
      timeout = until_uv_is_due();
    }
  }
}

bool EventLoop::watch(Socket& socket, int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
  event.data.ptr = &socket;
  if (::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, fd, &event) != 0) return false;
  ++sockets_;
  return true;
}

void EventLoop::forget(Socket& socket, int fd) {
  ::epoll_ctl(epoll_.number(), EPOLL_CTL_DEL, fd, nullptr);
  closing_.push_back(&socket);
}

void EventLoop::serve_again(Socket& socket) {
  again_.push_back(&socket);
}

void EventLoop::serve_rest() {
  for (Socket* socket : serving_) socket->on_turn();
  serving_.clear();
}

void EventLoop::let_go() {
  // An owner that hears of one end may close more sockets: those are for the next round.
  std::vector<Socket*> ended;
  while (!closing_.empty()) {
    ended.swap(closing_);
    for (Socket* socket : ended) {
      if (socket->queued_) std::erase(again_, socket);
      --sockets_;
      socket->let_go();
    }
    ended.clear();
  }
}

}  // namespace pointsman::proxy
