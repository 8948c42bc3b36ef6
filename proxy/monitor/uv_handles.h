#pragma once
// A timer and a descriptor watch that may be destroyed at any moment, even inside their own callback: libuv closes
// handles later than we let go of them (uv_close), so the handle lives in a box of its own which the close callback
// frees. For the control thread's many small parts; sessions embed their handles instead.

#include <uv.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "base/clock.h"

namespace pointsman::proxy {

/// Handles that are not closed yet. A part is idle when its count is back at 0.
using HandleCount = std::shared_ptr<std::size_t>;
inline HandleCount make_handle_count() {
  return std::make_shared<std::size_t>(0);
}

inline base::Instant loop_clock() {
  return base::from_hrtime(uv_hrtime());
}

/// One-shot. Loop thread only.
class LoopTimer {
 public:
  using Callback = void (*)(void* owner);

  LoopTimer(uv_loop_t* loop, const HandleCount& count, void* owner, Callback callback)
      : box_(new Box{{}, owner, callback, count}) {
    POINTSMAN_CHECK(uv_timer_init(loop, &box_->handle) == 0);
    box_->handle.data = box_;
    ++*count;
  }
  ~LoopTimer() {
    uv_close(reinterpret_cast<uv_handle_t*>(&box_->handle), [](uv_handle_t* handle) {
      const std::unique_ptr<Box> box(static_cast<Box*>(handle->data));
      --*box->count;
    });
  }
  LoopTimer(const LoopTimer&) = delete;
  LoopTimer& operator=(const LoopTimer&) = delete;

  /// Fires not before `at`, at most a millisecond late; in the next turn when `at` has passed. Replaces an earlier
  /// start.
  void start(base::Instant at) {
    uv_update_time(box_->handle.loop);
    const auto ahead = std::chrono::ceil<std::chrono::milliseconds>(at - loop_clock()).count();
    uv_timer_start(
        &box_->handle,
        [](uv_timer_t* handle) {
          const auto* box = static_cast<Box*>(handle->data);
          box->callback(box->owner);
        },
        ahead > 0 ? static_cast<std::uint64_t>(ahead) : 0, 0);
  }
  void stop() { uv_timer_stop(&box_->handle); }
  bool running() const { return uv_is_active(reinterpret_cast<const uv_handle_t*>(&box_->handle)) != 0; }

 private:
  struct Box {
    uv_timer_t handle;
    void* owner;
    Callback callback;
    HandleCount count;
  };
  Box* box_;  // frees itself when closed
};

/// Watches a descriptor that it does not own. Destroy it before the descriptor is closed: libuv finds watches by
/// number, and a number is given out again at once.
class LoopPoll {
 public:
  using Callback = void (*)(void* owner);

  LoopPoll(uv_loop_t* loop, const HandleCount& count, int fd, void* owner, Callback callback)
      : box_(new Box{{}, owner, callback, count}), fd_(fd) {
    if (uv_poll_init(loop, &box_->handle, fd) != 0) {
      delete box_;
      box_ = nullptr;
      return;
    }
    box_->handle.data = box_;
    ++*count;
  }
  ~LoopPoll() {
    if (box_ == nullptr) return;
    uv_close(reinterpret_cast<uv_handle_t*>(&box_->handle), [](uv_handle_t* handle) {
      const std::unique_ptr<Box> box(static_cast<Box*>(handle->data));
      --*box->count;
    });
  }
  LoopPoll(const LoopPoll&) = delete;
  LoopPoll& operator=(const LoopPoll&) = delete;

  /// False when libuv would not take the descriptor: then nothing else may be called.
  bool ok() const { return box_ != nullptr; }
  int fd() const { return fd_; }
  /// The callback is told nothing about what happened: errors (libuv reports EPOLLERR as UV_EBADF) are found by whoever
  /// reads the socket.
  bool start(int events) {
    return uv_poll_start(&box_->handle, events, [](uv_poll_t* handle, int, int) {
             const auto* box = static_cast<Box*>(handle->data);
             box->callback(box->owner);
           }) == 0;
  }
  void stop() { uv_poll_stop(&box_->handle); }

 private:
  struct Box {
    uv_poll_t handle;
    void* owner;
    Callback callback;
    HandleCount count;
  };
  Box* box_;  // frees itself when closed
  int fd_;
};

}  // namespace pointsman::proxy
