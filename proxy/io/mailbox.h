#pragma once
// Messages from any thread to one loop: a vector behind a mutex, swapped out whole by the loop. uv_async_send
// coalesces, so a wake-up means "drain all". Messages are values, never closures. Lifetime: open() and close() on the
// loop's thread; post() after close() drops the message.

#include <uv.h>

#include <mutex>
#include <utility>
#include <vector>

#include "base/check.h"

namespace pointsman::proxy {

template <typename Message>
class Mailbox {
 public:
  using Handler = void (*)(void* owner, Message&& message);

  Mailbox() = default;
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  void open(uv_loop_t* loop, void* owner, Handler handler) {
    owner_ = owner;
    handler_ = handler;
    POINTSMAN_CHECK(
        uv_async_init(loop, &async_, [](uv_async_t* async) { static_cast<Mailbox*>(async->data)->drain(); }) == 0);
    async_.data = this;
    const std::lock_guard lock(mutex_);
    open_ = true;
  }

  void post(Message message) {
    const std::lock_guard lock(mutex_);
    if (!open_) return;
    incoming_.push_back(std::move(message));
    if (incoming_.size() == 1) uv_async_send(&async_);
  }

  void close() {
    {
      const std::lock_guard lock(mutex_);
      if (!open_) return;
      open_ = false;
      incoming_.clear();
    }
    uv_close(reinterpret_cast<uv_handle_t*>(&async_), nullptr);
  }

 private:
  void drain() {
    std::vector<Message> batch;
    {
      const std::lock_guard lock(mutex_);
      batch.swap(incoming_);
    }
    for (auto& message : batch) handler_(owner_, std::move(message));
  }

  std::mutex mutex_;
  std::vector<Message> incoming_;
  bool open_ = false;
  uv_async_t async_{};
  void* owner_ = nullptr;
  Handler handler_ = nullptr;
};

}  // namespace pointsman::proxy
