#pragma once
// Deadlines of many objects on one uv_timer: slots of 100 ms, intrusive lists, no allocation. A deadline fires at most
// one slot late. The timer runs only while something waits. One thread.

#include <uv.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace pointsman::proxy {

/// Base of what can wait. Not copyable: it is linked by address. Unlinks itself on destruction.
class WheelEntry {
 public:
  WheelEntry() = default;
  WheelEntry(const WheelEntry&) = delete;
  WheelEntry& operator=(const WheelEntry&) = delete;
  virtual ~WheelEntry() { unlink(); }
  bool armed() const { return next_ != nullptr; }

 protected:
  /// May re-arm itself, or go.
  virtual void on_deadline(base::Instant now) = 0;

 private:
  friend class TimingWheel;
  void unlink() {
    if (next_ == nullptr) return;
    prev_->next_ = next_;
    next_->prev_ = prev_;
    next_ = prev_ = nullptr;
  }
  WheelEntry* prev_ = nullptr;
  WheelEntry* next_ = nullptr;
  base::Instant deadline_{};
};

class TimingWheel {
 public:
  static constexpr std::size_t kSlots = 512;
  static constexpr base::Duration kTick = std::chrono::milliseconds(100);

  TimingWheel();
  TimingWheel(const TimingWheel&) = delete;
  TimingWheel& operator=(const TimingWheel&) = delete;

  void open(uv_loop_t* loop);
  void close();

  /// Arms or moves. Past deadlines fire on the next tick.
  void arm(WheelEntry& entry, base::Instant deadline);
  static void disarm(WheelEntry& entry) { entry.unlink(); }

 private:
  class Head final : public WheelEntry {
   public:
    Head() = default;

   private:
    friend class TimingWheel;
    void on_deadline(base::Instant) override {}
  };
  static std::int64_t tick_of(base::Instant at) { return at.time_since_epoch() / kTick; }
  void link(Head& head, WheelEntry& entry);
  void on_tick();

  std::array<Head, kSlots> slots_;
  std::int64_t current_tick_ = 0;
  uv_timer_t timer_{};
  bool running_ = false;
};

}  // namespace pointsman::proxy
