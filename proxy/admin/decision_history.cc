#include "proxy/admin/decision_history.h"

#include <algorithm>
#include <limits>

namespace pointsman::proxy {
namespace {

bool is_refusal(std::size_t reason) {
  return reason >= routing::kFirstRefusal;
}

/// Counters lie at [row * reasons + reason].
void add_rows(DecisionHistory::Counts& counts, const std::vector<metrics::Counter>& counters, std::size_t reasons) {
  if (reasons == 0) return;
  for (std::size_t row = 0; row + reasons <= counters.size(); row += reasons) {
    for (std::size_t i = 0; i < std::min(reasons, counts.size()); ++i) counts[i] += counters[row + i].value();
  }
}

}  // namespace

DecisionHistory::Series& DecisionHistory::series_of(Branch& branch, routing::Reason reason) {
  const auto place =
      std::lower_bound(branch.series.begin(), branch.series.end(), reason,
                       [](const Series& series, routing::Reason wanted) { return series.reason < wanted; });
  if (place != branch.series.end() && place->reason == reason) return *place;
  return *branch.series.insert(place, Series{.reason = reason, .bins = {}});
}

std::optional<DecisionHistory::Turn> DecisionHistory::add(std::string_view name, const Counts& counts) {
  auto found = branches_.find(name);
  if (found == branches_.end()) found = branches_.emplace(std::string(name), Branch{}).first;
  Branch& branch = found->second;
  Counts added{};
  for (std::size_t i = 0; i < counts.size(); ++i)
    added[i] = counts[i] >= branch.last[i] ? counts[i] - branch.last[i] : counts[i];
  branch.last = counts;
  const auto turn = judge(branch, added);
  for (Series& series : branch.series) series.bins[branch.next] = 0;
  for (std::size_t i = 0; i < added.size(); ++i) {
    if (added[i] == 0) continue;
    series_of(branch, static_cast<routing::Reason>(i)).bins[branch.next] =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(added[i], std::numeric_limits<std::uint32_t>::max()));
  }
  branch.next = (branch.next + 1) % kBins;
  branch.filled = std::min(branch.filled + 1, kBins);
  return turn;
}

/// Before the bin is written: what stands there is the past.
std::optional<DecisionHistory::Turn> DecisionHistory::judge(Branch& branch, const Counts& added) {
  Turn turn;
  std::uint64_t most = 0;
  for (std::size_t i = 0; i < added.size(); ++i) {
    if (!is_refusal(i)) continue;
    turn.count += added[i];
    if (added[i] > most) {
      most = added[i];
      turn.reason = static_cast<routing::Reason>(i);
    }
  }
  std::uint64_t before = 0;
  for (const Series& series : branch.series) {
    if (!is_refusal(static_cast<std::size_t>(series.reason))) continue;
    for (const std::uint32_t bin : series.bins) before += bin;
  }
  const bool many = turn.count >= kManyRefusals && turn.count * branch.filled >= kRise * before;
  if (!branch.rising && many) {
    branch.rising = turn.rising = true;
    return turn;
  }
  if (branch.rising && turn.count < kManyRefusals / 4) {
    branch.rising = false;
    return turn;
  }
  return std::nullopt;
}

void DecisionHistory::forget(std::string_view branch) {
  if (const auto found = branches_.find(branch); found != branches_.end()) branches_.erase(found);
}

void DecisionHistory::retain(const routing::Directory& directory) {
  std::erase_if(branches_,
                [&](const auto& entry) { return entry.first != kNoBranch && directory.find(entry.first) < 0; });
}

std::vector<std::pair<routing::Reason, std::vector<std::uint32_t>>> DecisionHistory::bins_of(
    std::string_view name) const {
  std::vector<std::pair<routing::Reason, std::vector<std::uint32_t>>> out;
  const auto found = branches_.find(name);
  if (found == branches_.end()) return out;
  const Branch& branch = found->second;
  const std::size_t first = branch.filled < kBins ? 0 : branch.next;
  for (const Series& series : branch.series) {
    if (std::all_of(series.bins.begin(), series.bins.end(), [](std::uint32_t bin) { return bin == 0; })) continue;
    std::vector<std::uint32_t> bins;
    bins.reserve(branch.filled);
    for (std::size_t i = 0; i < branch.filled; ++i) bins.push_back(series.bins[(first + i) % kBins]);
    out.emplace_back(series.reason, std::move(bins));
  }
  return out;
}

DecisionHistory::Counts counts_of(const routing::BranchView& view) {
  DecisionHistory::Counts counts{};
  if (view.block == nullptr) return counts;
  const metrics::Dimensions& size = view.block->dimensions();
  for (std::size_t worker = 0; worker < size.workers; ++worker) {
    add_rows(counts, view.block->slot(worker).decisions, size.reasons);
    add_rows(counts, view.block->slot(worker).refusals, size.reasons);
  }
  return counts;
}

DecisionHistory::Counts counts_of(const std::vector<const metrics::WorkerBlock*>& workers) {
  DecisionHistory::Counts counts{};
  for (const metrics::WorkerBlock* block : workers) add_rows(counts, block->refusals, routing::kReasonCount);
  return counts;
}

}  // namespace pointsman::proxy
