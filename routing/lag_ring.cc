#include <algorithm>
#include <cstddef>
#include <iterator>

#include "routing/topology.h"

namespace pointsman::routing {

void LagRing::add(Lsn primary_lsn, base::Instant at) {
  // A server that crashed may come back a little behind what it once said: those entries were never made.
  while (!entries_.empty() && entries_.back().lsn > primary_lsn) entries_.pop_back();
  if (!entries_.empty() && entries_.back().lsn == primary_lsn) {
    entries_.back().at = at;
    return;
  }
  entries_.push_back({primary_lsn, at});
  if (entries_.size() <= kMaxEntries) return;
  // Full: the entry goes whose absence makes the smallest error for its age, so that entries end up spaced in
  // proportion to their age.
  std::size_t least = 1;
  double least_error = 0;
  for (std::size_t i = 1; i + 1 < entries_.size(); ++i) {
    const double gap = base::to_seconds(entries_[i + 1].at - entries_[i - 1].at);
    const double error = gap / std::max(base::to_seconds(at - entries_[i].at), 1e-9);
    if (i == 1 || error < least_error) {
      least = i;
      least_error = error;
    }
  }
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(least));
}

std::optional<double> LagRing::lag_seconds(Lsn replayed, base::Instant now) const {
  if (entries_.empty() || replayed < entries_.front().lsn) return std::nullopt;
  if (replayed >= entries_.back().lsn) return 0.0;
  const auto after = std::upper_bound(entries_.begin(), entries_.end(), replayed,
                                      [](Lsn lsn, const Entry& entry) { return lsn < entry.lsn; });
  return std::max(base::to_seconds(now - std::prev(after)->at), 0.0);
}

std::optional<double> LagRing::at_least(Lsn replayed, base::Instant now) const {
  if (entries_.empty() || replayed >= entries_.front().lsn) return std::nullopt;
  return std::max(base::to_seconds(now - entries_.front().at), 0.0);
}

std::optional<Lsn> LagRing::newest() const {
  if (entries_.empty()) return std::nullopt;
  return entries_.back().lsn;
}

std::optional<base::Instant> LagRing::newest_at() const {
  if (entries_.empty()) return std::nullopt;
  return entries_.back().at;
}

}  // namespace pointsman::routing
