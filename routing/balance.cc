#include "routing/balance.h"

#include <algorithm>

#include "base/check.h"

namespace pointsman::routing {
namespace {

/// One after another independent numbers out of the session's one random number (splitmix64, Steele, Lea and Flood
/// 2014).
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    state_ += 0x9E3779B97F4A7C15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  /// 0 … below - 1. Requires: below > 0. The bias of the remainder is below 2^-50 for any configuration.
  std::size_t below(std::size_t below) { return static_cast<std::size_t>(next() % below); }

 private:
  std::uint64_t state_;
};

std::uint32_t sessions_of(std::span<const std::uint32_t> sessions, int index) {
  const auto at = static_cast<std::size_t>(index);
  return at < sessions.size() ? sessions[at] : 0;
}

}  // namespace

bool is_tie(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t high = std::max(a, b);
  return (high - std::min(a, b)) * 5 <= high;
}

int two_choices(std::span<const int> candidates, std::span<const std::uint32_t> sessions, std::uint64_t random) {
  POINTSMAN_CHECK(!candidates.empty());
  if (candidates.size() == 1) return candidates.front();
  Dice dice(random);
  const std::size_t i = dice.below(candidates.size());
  std::size_t j = dice.below(candidates.size() - 1);
  if (j >= i) ++j;
  const std::uint32_t a = sessions_of(sessions, candidates[i]);
  const std::uint32_t b = sessions_of(sessions, candidates[j]);
  if (is_tie(a, b)) return candidates[i];  // i is as random as a third throw would be
  return a < b ? candidates[i] : candidates[j];
}

}  // namespace pointsman::routing
