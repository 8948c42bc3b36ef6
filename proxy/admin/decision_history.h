#pragma once
// How often each reason occurred over the last minutes, branch by branch: what the status page draws, and how refusals
// that rise are noticed. The metrics have counters only, and who opens a page after the trouble needs what was before.
// Control thread; time is the caller's rhythm.
//
// Memory: kBins numbers for each reason that ever occurred in a branch that is in use, 144 bytes each.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "metrics/blocks.h"
#include "routing/reason.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

class DecisionHistory {
 public:
  static constexpr std::size_t kBins = 36;
  static constexpr base::Duration kBin = std::chrono::seconds(10);
  /// Refusals rise: that many in one bin, and so many times the mean of the bins before.
  static constexpr std::uint64_t kManyRefusals = 20;
  static constexpr std::uint64_t kRise = 3;
  /// Stands for what was refused before a branch was known.
  static constexpr std::string_view kNoBranch = "";

  using Counts = std::array<std::uint64_t, routing::kReasonCount>;
  struct Series {
    routing::Reason reason{};
    std::array<std::uint32_t, kBins> bins{};  ///< a ring, see bins_of()
  };
  /// What is new about a branch's refusals.
  struct Turn {
    bool rising = false;       ///< false: over
    std::uint64_t count = 0;   ///< in the last bin
    routing::Reason reason{};  ///< the most frequent one
  };

  /// Closes a bin of the branch with the counts so far, 0 before the first. Call once in kBin; counts that went back
  /// began anew.
  std::optional<Turn> add(std::string_view branch, const Counts& counts);
  /// A branch that is not in use any more.
  void forget(std::string_view branch);
  /// After a reload: the branches that are gone.
  void retain(const routing::Directory& directory);

  /// The bins of every reason that occurred in them, oldest first, in the order of reasons. As many bins as were
  /// closed, at most kBins.
  std::vector<std::pair<routing::Reason, std::vector<std::uint32_t>>> bins_of(std::string_view branch) const;

 private:
  struct Branch {
    Counts last{};
    std::vector<Series> series;  // in the order of reasons
    std::size_t next = 0;        // the bin to be written
    std::size_t filled = 0;
    bool rising = false;
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  static Series& series_of(Branch& branch, routing::Reason reason);
  static std::optional<Turn> judge(Branch& branch, const Counts& added);

  std::unordered_map<std::string, Branch, Hash, std::equal_to<>> branches_;
};

/// Decisions and refusals of a branch since its block was made, by reason. All zero without a block.
DecisionHistory::Counts counts_of(const routing::BranchView& view);
/// Refusals without a known branch, of all workers.
DecisionHistory::Counts counts_of(const std::vector<const metrics::WorkerBlock*>& workers);

}  // namespace pointsman::proxy
