#pragma once
// From counters to the text Prometheus reads. A Scrape is filled, printed and thrown away; nothing is kept between
// scrapes. Control thread. Knows no branch and no reason: the words for a block's indexes are handed in as plain data.

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/blocks.h"
#include "metrics/names.h"

namespace pointsman::metrics {

/// A histogram summed over workers.
struct HistogramSum {
  std::array<std::uint64_t, Histogram::kBuckets + 1> counts{};  ///< not cumulative; the last is +Inf
  double sum_seconds = 0;
  void add(const Histogram& histogram);
  bool any() const;
};

/// Words for the indexes that all blocks share. An index without a word is left out.
struct Vocabulary {
  std::vector<std::string> listeners;
  std::vector<std::string> routes;
  std::vector<std::string> reasons;
  /// [reason]: the route that a decision for this reason took; empty: the destination's.
  std::vector<std::string> reason_routes;
};

struct DestinationWords {
  std::string route;
  std::string member;
  bool exists = true;  ///< false: has a place in the tables only (a member without PgBouncer)
};
struct BranchWords {
  std::string branch;
  std::vector<DestinationWords> destinations;
};

class Scrape {
 public:
  explicit Scrape(std::size_t series_limit);
  ~Scrape();
  Scrape(const Scrape&) = delete;
  Scrape& operator=(const Scrape&) = delete;

  /// One series. Requires: as many label values as the metric has labels, no histogram. An empty value stands for a
  /// label that is not there.
  void add(Metric metric, std::initializer_list<std::string_view> label_values, double value);
  void add(Metric metric, std::initializer_list<std::string_view> label_values, const HistogramSum& histogram);
  /// A series of value 1 with labels of the operator's own beside the metric's one. Their names are made lawful; of two
  /// that become equal the first stays.
  void add_info(Metric metric, std::string_view label_value, const std::map<std::string, std::string>& labels);

  void add_workers(std::span<const WorkerBlock* const> workers, const Vocabulary& words);
  /// Counters that were never touched are left out, gauges are not.
  void add_branch(const BranchBlock& block, const Vocabulary& words, const BranchWords& branch);

  /// A histogram counts as all its lines.
  std::size_t series() const;
  std::size_t dropped() const;
  /// The page, in the text format 0.0.4, with the counter of dropped series: `dropped_before` and this scrape's.
  std::string text(std::uint64_t dropped_before);

 private:
  void add_touched(Metric metric, std::initializer_list<std::string_view> label_values, std::uint64_t value);
  void add_listener(std::span<const WorkerBlock* const> workers, const Vocabulary& words, std::size_t listener);
  void add_destination(const BranchBlock& block, const Vocabulary& words, const BranchWords& branch, std::size_t index);
  void add_branch_listener(const BranchBlock& block, const Vocabulary& words, const std::string& branch,
                           std::size_t listener);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Sum over a branch's slots of one number.
std::uint64_t sum_active(const BranchBlock& block, std::size_t destination);
std::uint64_t sum_holding(const BranchBlock& block);

/// A label name that Prometheus takes: other characters become `_`, a digit in front or a reserved `__` gets `label_`
/// before it.
std::string lawful_label_name(std::string_view name);

}  // namespace pointsman::metrics
