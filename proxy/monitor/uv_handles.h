#pragma once
// A timer that may be destroyed at any moment, even inside its own callback: libuv closes handles later than we let go
// of them (uv_close), so the handle lives in a box of its own which the close callback frees. For the control thread's
// many small parts; sessions embed their handles instead.

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

}  // namespace pointsman::proxy
