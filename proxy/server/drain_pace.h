#pragma once
// Who is to go next while a router drains slowly (`drain_pace`): a set of sessions, spread evenly over a time, so that
// they do not come back elsewhere all at once. Pure: the time is an argument.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace pointsman::proxy {

class DrainPace {
 public:
  DrainPace() = default;
  /// `sessions`: all that are to go, in their order, between `began` and `began + pace`. A pace of 0: all at once.
  DrainPace(std::vector<std::uint64_t> sessions, base::Instant began, base::Duration pace)
      : sessions_(std::move(sessions)), began_(began), pace_(pace) {}

  /// Those whose time has come since the last call. The first goes at the very beginning; at the end none is left.
  std::vector<std::uint64_t> due(base::Instant now) {
    const std::size_t until = told_by(now);
    std::vector<std::uint64_t> due;
    for (; told_ < until; ++told_) due.push_back(sessions_[told_]);
    return due;
  }
  bool over() const { return told_ == sessions_.size(); }

 private:
  std::size_t told_by(base::Instant now) const {
    if (pace_ <= base::Duration::zero() || now >= began_ + pace_) return sessions_.size();
    if (now < began_) return told_;
    // In floating point: nanoseconds of a day times sessions do not fit into 64 bits.
    const double part = base::to_seconds(now - began_) / base::to_seconds(pace_);
    const auto count = 1 + static_cast<std::size_t>(part * static_cast<double>(sessions_.size()));
    return std::clamp(count, told_, sessions_.size());
  }

  std::vector<std::uint64_t> sessions_;
  std::size_t told_ = 0;
  base::Instant began_{};
  base::Duration pace_{};
};

}  // namespace pointsman::proxy
