#include "metrics/registry.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <prometheus/client_metric.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include "base/check.h"

namespace pointsman::metrics {
namespace {

constexpr std::array<std::string_view, kLoginPhases> kPhaseWords = {"tls",  "startup", "auth",
                                                                    "hold", "connect", "total"};
constexpr std::array<std::string_view, kOutcomes> kOutcomeWords = {"ok", "refused", "failed"};
constexpr std::array<std::string_view, kCancelOutcomes> kCancelWords = {"sent",   "unknown_key",  "throttled",
                                                                        "failed", "sent_by_peer", "peer_failed"};
constexpr std::array<std::string_view, 2> kDirectionWords = {"from_client", "to_client"};
/// The lines of a histogram: its buckets, +Inf, _sum and _count.
constexpr std::size_t kHistogramSeries = Histogram::kBuckets + 3;

prometheus::MetricType to_prometheus(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return prometheus::MetricType::Counter;
    case MetricType::kGauge:
      return prometheus::MetricType::Gauge;
    case MetricType::kHistogram:
      return prometheus::MetricType::Histogram;
  }
  POINTSMAN_CHECK(false);
  return {};
}

void append_escaped(std::string& out, std::string_view value) {
  for (const char c : value) out += c == '\0' ? ' ' : c;  // TextSerializer escapes the rest
}

using Workers = std::span<const WorkerBlock* const>;

/// One cell of a table, summed over all workers.
std::uint64_t sum(const BranchBlock& block, std::vector<Counter> BranchSlot::*table, std::size_t cell) {
  std::uint64_t total = 0;
  for (std::size_t worker = 0; worker < block.dimensions().workers; ++worker) {
    total += (block.slot(worker).*table)[cell].value();
  }
  return total;
}
template <typename Table>
std::uint64_t sum(Workers workers, Table WorkerBlock::*table, std::size_t cell) {
  std::uint64_t total = 0;
  for (const WorkerBlock* worker : workers) total += (worker->*table)[cell].value();
  return total;
}
std::uint64_t sum(Workers workers, Counter WorkerBlock::*counter) {
  std::uint64_t total = 0;
  for (const WorkerBlock* worker : workers) total += (worker->*counter).value();
  return total;
}

std::string_view route_of(const Vocabulary& words, const DestinationWords& destination, std::size_t reason) {
  const bool fixed = reason < words.reason_routes.size() && !words.reason_routes[reason].empty();
  return fixed ? words.reason_routes[reason] : destination.route;
}

}  // namespace

bool HistogramSum::any() const {
  return std::any_of(counts.begin(), counts.end(), [](std::uint64_t count) { return count != 0; });
}

void HistogramSum::add(const Histogram& histogram) {
  for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += histogram.count(i);
  sum_seconds += histogram.sum_seconds();
}

struct Scrape::Impl {
  explicit Impl(std::size_t limit) : series_limit(limit), families(kMetricCount) {
    for (const MetricSpec& spec : kMetrics) {
      auto& family = families[static_cast<std::size_t>(spec.metric)];
      family.name = spec.name;
      family.help = spec.help;
      family.type = to_prometheus(spec.type);
    }
  }

  /// Null when the page is full.
  prometheus::ClientMetric* append(Metric metric, std::size_t lines) {
    if (series + lines > series_limit) {
      dropped += lines;
      return nullptr;
    }
    series += lines;
    return &families[static_cast<std::size_t>(metric)].metric.emplace_back();
  }
  prometheus::ClientMetric* append(Metric metric, std::initializer_list<std::string_view> label_values,
                                   std::size_t lines) {
    const MetricSpec& spec = spec_of(metric);
    POINTSMAN_CHECK(label_values.size() == spec.label_count());
    auto* added = append(metric, lines);
    if (added == nullptr) return nullptr;
    added->label.reserve(label_values.size());
    std::size_t index = 0;
    for (const std::string_view value : label_values) {
      const std::string_view name = spec.labels[index++];
      if (value.empty()) continue;
      append_escaped(added->label.emplace_back(prometheus::ClientMetric::Label{std::string(name), {}}).value, value);
    }
    return added;
  }

  std::size_t series_limit;
  std::size_t series = 0;
  std::size_t dropped = 0;
  std::vector<prometheus::MetricFamily> families;
};

Scrape::Scrape(std::size_t series_limit) : impl_(std::make_unique<Impl>(series_limit)) {}
Scrape::~Scrape() = default;

void Scrape::add(Metric metric, std::initializer_list<std::string_view> label_values, double value) {
  POINTSMAN_CHECK(spec_of(metric).type != MetricType::kHistogram);
  auto* added = impl_->append(metric, label_values, 1);
  if (added == nullptr) return;
  if (spec_of(metric).type == MetricType::kCounter) {
    added->counter.value = value;
  } else {
    added->gauge.value = value;
  }
}

void Scrape::add(Metric metric, std::initializer_list<std::string_view> label_values, const HistogramSum& histogram) {
  POINTSMAN_CHECK(spec_of(metric).type == MetricType::kHistogram);
  auto* added = impl_->append(metric, label_values, kHistogramSeries);
  if (added == nullptr) return;
  std::uint64_t cumulative = 0;
  added->histogram.bucket.reserve(histogram.counts.size());
  for (std::size_t i = 0; i < histogram.counts.size(); ++i) {
    cumulative += histogram.counts[i];
    const double bound =
        i < Histogram::kBuckets ? Histogram::bound_seconds(i) : std::numeric_limits<double>::infinity();
    added->histogram.bucket.push_back({cumulative, bound});
  }
  added->histogram.sample_count = cumulative;
  added->histogram.sample_sum = histogram.sum_seconds;
}

void Scrape::add_info(Metric metric, std::string_view label_value, const std::map<std::string, std::string>& labels) {
  auto* added = impl_->append(metric, {label_value}, 1);
  if (added == nullptr) return;
  added->gauge.value = 1;
  for (const auto& [name, value] : labels) {
    const std::string lawful = lawful_label_name(name);
    const bool taken =
        std::any_of(added->label.begin(), added->label.end(), [&](const auto& label) { return label.name == lawful; });
    if (taken || value.empty()) continue;
    append_escaped(added->label.emplace_back(prometheus::ClientMetric::Label{lawful, {}}).value, value);
  }
}

void Scrape::add_touched(Metric metric, std::initializer_list<std::string_view> label_values, std::uint64_t value) {
  if (value != 0) add(metric, label_values, static_cast<double>(value));
}

void Scrape::add_workers(std::span<const WorkerBlock* const> workers, const Vocabulary& words) {
  if (workers.empty()) return;
  std::size_t listeners = words.listeners.size();
  for (const WorkerBlock* worker : workers) listeners = std::min(listeners, worker->listeners_);
  for (std::size_t listener = 0; listener < listeners; ++listener) add_listener(workers, words, listener);

  for (std::size_t route = 0; route < std::min(workers.front()->roundtrip.size(), words.routes.size()); ++route) {
    HistogramSum times;
    for (const WorkerBlock* worker : workers) times.add(worker->roundtrip[route]);
    if (times.any()) add(Metric::kRoundtripSeconds, {"", words.routes[route]}, times);
  }
  const auto total = [&](Metric metric, std::initializer_list<std::string_view> labels, std::uint64_t value) {
    add(metric, labels, static_cast<double>(value));
  };
  for (std::size_t outcome = 0; outcome < kCancelOutcomes; ++outcome) {
    total(Metric::kCancelRequestsTotal, {kCancelWords[outcome]}, sum(workers, &WorkerBlock::cancels, outcome));
  }
  total(Metric::kTlsHandshakesTotal, {"TLSv1.2", "false"}, sum(workers, &WorkerBlock::handshakes, 0));
  total(Metric::kTlsHandshakesTotal, {"TLSv1.3", "false"}, sum(workers, &WorkerBlock::handshakes, 1));
  total(Metric::kTlsHandshakeFailuresTotal, {}, sum(workers, &WorkerBlock::handshakes, 2));
  total(Metric::kConnectionsPreLogin, {}, sum(workers, &WorkerBlock::pre_login));
  total(Metric::kConnectionsOpen, {}, sum(workers, &WorkerBlock::sessions));
  total(Metric::kAcceptPausesTotal, {}, sum(workers, &WorkerBlock::accept_paused));
}

void Scrape::add_listener(std::span<const WorkerBlock* const> workers, const Vocabulary& words, std::size_t listener) {
  const std::string& name = words.listeners[listener];
  const auto accepted = sum(workers, &WorkerBlock::accepted, listener);
  add(Metric::kConnectionsAcceptedTotal, {name}, static_cast<double>(accepted));
  for (std::size_t phase = 0; phase < kLoginPhases; ++phase) {
    HistogramSum times;
    for (const WorkerBlock* worker : workers) times.add(worker->login[listener * kLoginPhases + phase]);
    add(Metric::kLoginSeconds, {name, kPhaseWords[phase]}, times);
  }
  const std::size_t reasons = workers.front()->refusals.size() / workers.front()->listeners_;
  for (std::size_t reason = 0; reason < std::min(reasons, words.reasons.size()); ++reason) {
    add_touched(Metric::kRoutingRefusalsTotal, {name, "", words.reasons[reason]},
                sum(workers, &WorkerBlock::refusals, listener * reasons + reason));
  }
}

void Scrape::add_branch(const BranchBlock& block, const Vocabulary& words, const BranchWords& branch) {
  const Dimensions& size = block.dimensions();
  for (std::size_t d = 0; d < std::min(size.destinations, branch.destinations.size()); ++d) {
    add_destination(block, words, branch, d);
  }
  for (std::size_t listener = 0; listener < std::min(size.listeners, words.listeners.size()); ++listener) {
    add_branch_listener(block, words, branch.branch, listener);
  }
  for (std::size_t route = 0; route < std::min(size.routes, words.routes.size()); ++route) {
    for (std::size_t direction = 0; direction < kDirectionWords.size(); ++direction) {
      add_touched(Metric::kBytesTotal, {branch.branch, words.routes[route], kDirectionWords[direction]},
                  sum(block, &BranchSlot::bytes, route * kDirectionWords.size() + direction));
    }
  }
  for (std::size_t reason = 0; reason < std::min(size.reasons, words.reasons.size()); ++reason) {
    add_touched(Metric::kAuthFailuresTotal, {branch.branch, words.reasons[reason]},
                sum(block, &BranchSlot::auth_failures, reason));
  }
  add(Metric::kHeldConnections, {branch.branch}, static_cast<double>(sum_holding(block)));
  HistogramSum held;
  for (std::size_t worker = 0; worker < size.workers; ++worker) held.add(block.slot(worker).hold_seconds);
  // Few branches ever hold a login, and a histogram is 23 series.
  if (held.any()) add(Metric::kHoldSeconds, {branch.branch}, held);
  for (std::size_t route = 0; size.roundtrips && route < std::min(size.routes, words.routes.size()); ++route) {
    HistogramSum times;
    for (std::size_t worker = 0; worker < size.workers; ++worker) times.add(block.slot(worker).roundtrip[route]);
    if (times.any()) add(Metric::kRoundtripSeconds, {branch.branch, words.routes[route]}, times);
  }
}

void Scrape::add_destination(const BranchBlock& block, const Vocabulary& words, const BranchWords& branch,
                             std::size_t index) {
  const DestinationWords& destination = branch.destinations[index];
  const auto active = sum_active(block, index);
  if (destination.exists || active != 0) {
    add(Metric::kConnectionsActive, {branch.branch, destination.route, destination.member},
        static_cast<double>(active));
  }
  add_touched(Metric::kDialFailuresTotal, {branch.branch, destination.route, destination.member},
              sum(block, &BranchSlot::dial_failures, index));
  const std::size_t reasons = block.dimensions().reasons;
  for (std::size_t reason = 0; reason < std::min(reasons, words.reasons.size()); ++reason) {
    add_touched(Metric::kRoutingDecisionsTotal,
                {branch.branch, route_of(words, destination, reason), destination.member, words.reasons[reason]},
                sum(block, &BranchSlot::decisions, index * reasons + reason));
  }
}

void Scrape::add_branch_listener(const BranchBlock& block, const Vocabulary& words, const std::string& branch,
                                 std::size_t listener) {
  const Dimensions& size = block.dimensions();
  const std::string& name = words.listeners[listener];
  for (std::size_t route = 0; route < std::min(size.routes, words.routes.size()); ++route) {
    for (std::size_t outcome = 0; outcome < kOutcomes; ++outcome) {
      add_touched(Metric::kConnectionsTotal, {name, branch, words.routes[route], kOutcomeWords[outcome]},
                  sum(block, &BranchSlot::connections, (listener * size.routes + route) * kOutcomes + outcome));
    }
  }
  for (std::size_t reason = 0; reason < std::min(size.reasons, words.reasons.size()); ++reason) {
    add_touched(Metric::kRoutingRefusalsTotal, {name, branch, words.reasons[reason]},
                sum(block, &BranchSlot::refusals, listener * size.reasons + reason));
  }
}

std::size_t Scrape::series() const {
  return impl_->series;
}
std::size_t Scrape::dropped() const {
  return impl_->dropped;
}

std::string Scrape::text(std::uint64_t dropped_before) {
  auto& counter = impl_->families[static_cast<std::size_t>(Metric::kMetricsSeriesDroppedTotal)];
  counter.metric.resize(1);
  counter.metric.front().counter.value = static_cast<double>(dropped_before + impl_->dropped);
  std::vector<prometheus::MetricFamily> filled;
  for (auto& family : impl_->families) {
    if (!family.metric.empty()) filled.push_back(std::move(family));
  }
  std::string text = prometheus::TextSerializer().Serialize(filled);
  *impl_ = Impl(impl_->series_limit);
  return text;
}

std::uint64_t sum_active(const BranchBlock& block, std::size_t destination) {
  std::uint64_t total = 0;
  for (std::size_t worker = 0; worker < block.dimensions().workers; ++worker)
    total += block.active(worker, destination);
  return total;
}

std::uint64_t sum_holding(const BranchBlock& block) {
  std::uint64_t total = 0;
  for (std::size_t worker = 0; worker < block.dimensions().workers; ++worker) {
    total += block.slot(worker).holding.value();
    for (const BranchBlock::Former& former : block.formers) {
      if (const auto earlier = former.block.lock()) total += earlier->slot(worker).holding.value();
    }
  }
  return total;
}

std::string lawful_label_name(std::string_view name) {
  std::string lawful;
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    lawful += letter ? c : '_';
  }
  if (lawful.empty() || (lawful[0] >= '0' && lawful[0] <= '9') || lawful.starts_with("__")) lawful.insert(0, "label_");
  return lawful;
}

}  // namespace pointsman::metrics
