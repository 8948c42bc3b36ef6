#pragma once
// The power of two choices (Mitzenmacher 1996): of two candidates taken at random the less loaded one. Spreads nearly
// as well as asking all, and many routers that decide at one moment do not all run to the same idle member. Pure.

#include <cstdint>
#include <span>

namespace pointsman::routing {

/// Scores that differ by at most 20 % of the larger one are equal: counts of one worker are no finer measure than that.
bool is_tie(std::uint64_t a, std::uint64_t b);

/// The chosen one of `candidates`, which are indices into `sessions` (sessions in flight; missing entries count 0). One
/// random number decides which two are looked at and who wins a tie. Requires: candidates not empty, all different.
int two_choices(std::span<const int> candidates, std::span<const std::uint32_t> sessions, std::uint64_t random);

}  // namespace pointsman::routing
