#include "proxy/io/timing_wheel.h"

#include <algorithm>

#include "base/check.h"

namespace pointsman::proxy {

TimingWheel::TimingWheel() {
  for (auto& head : slots_) head.prev_ = head.next_ = &head;
}

void TimingWheel::open(uv_loop_t* loop) {
  POINTSMAN_CHECK(uv_timer_init(loop, &timer_) == 0);
  timer_.data = this;
}

void TimingWheel::close() {
  running_ = false;
  uv_close(reinterpret_cast<uv_handle_t*>(&timer_), nullptr);
}

void TimingWheel::link(Head& head, WheelEntry& entry) {
  entry.prev_ = head.prev_;
  entry.next_ = &head;
  head.prev_->next_ = &entry;
  head.prev_ = &entry;
}

void TimingWheel::arm(WheelEntry& entry, base::Instant deadline) {
  entry.unlink();
  entry.deadline_ = deadline;
  if (!running_) {
    current_tick_ = tick_of(base::from_hrtime(uv_hrtime()));
    running_ = true;
    const auto tick_ms =
        static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(kTick).count());
    uv_timer_start(
        &timer_, [](uv_timer_t* timer) { static_cast<TimingWheel*>(timer->data)->on_tick(); }, tick_ms, tick_ms);
  }
  // One tick later than the deadline's own, so that it has passed when the slot comes round; a far one comes round
  // again.
  const std::int64_t tick =
      std::clamp(tick_of(deadline) + 1, current_tick_ + 1, current_tick_ + std::int64_t{kSlots} - 1);
  link(slots_[static_cast<std::size_t>(tick) % kSlots], entry);
}

void TimingWheel::on_tick() {
  const base::Instant now = base::from_hrtime(uv_hrtime());
  const std::int64_t last = std::min(tick_of(now), current_tick_ + std::int64_t{kSlots} - 1);
  while (current_tick_ < last) {
    ++current_tick_;
    Head& head = slots_[static_cast<std::size_t>(current_tick_) % kSlots];
    // The due entries move to a list of their own: what a handler arms again must not be met in this round.
    Head due;
    due.prev_ = due.next_ = &due;
    while (head.next_ != &head) {
      WheelEntry& entry = *head.next_;
      entry.unlink();
      link(due, entry);
    }
    while (due.next_ != &due) {
      WheelEntry& entry = *due.next_;
      entry.unlink();
      if (entry.deadline_ <= now) {
        entry.on_deadline(now);
      } else {
        arm(entry, entry.deadline_);
      }
    }
    due.prev_ = due.next_ = nullptr;
  }
  current_tick_ = std::max(current_tick_, tick_of(now));
  const bool empty = std::all_of(slots_.begin(), slots_.end(), [](const Head& head) { return head.next_ == &head; });
  if (empty && running_) {
    running_ = false;
    uv_timer_stop(&timer_);
  }
}

}  // namespace pointsman::proxy
