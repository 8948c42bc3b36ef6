#pragma once
// Counters with one writer each. A worker adds with a plain load and store (no locked instruction); the scraper on the
// control thread reads whenever it likes. Knows numbers only: dimensions are given as sizes, their words belong to the
// registry's caller.

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace pointsman::metrics {

/// Requires: one writing thread. Any thread may read.
class Counter {
 public:
  void add(std::uint64_t amount = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  void subtract(std::uint64_t amount = 1) {
    value_.store(value_.load(std::memory_order_relaxed) - amount, std::memory_order_relaxed);
  }
  void set(std::uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// Buckets of 100 µs · 2^k, k = 0 … 19 (100 µs to 52 s), and +Inf. One writer.
class Histogram {
 public:
  static constexpr std::size_t kBuckets = 20;
  static constexpr double bound_seconds(std::size_t bucket) { return 1e-4 * static_cast<double>(1ULL << bucket); }

  void observe_ns(std::uint64_t nanoseconds) {
    const std::uint64_t units = nanoseconds / 100'000;  // of 100 µs
    const auto bucket = static_cast<std::size_t>(std::bit_width(units));
    counts_[bucket < kBuckets ? bucket : kBuckets].add();
    sum_ns_.add(nanoseconds);
  }
  /// Not cumulative; [kBuckets] is +Inf.
  std::uint64_t count(std::size_t bucket) const { return counts_[bucket].value(); }
  double sum_seconds() const { return static_cast<double>(sum_ns_.value()) * 1e-9; }

 private:
  std::array<Counter, kBuckets + 1> counts_;
  Counter sum_ns_;
};

enum class Direction : std::uint8_t { kFromClient, kToClient };
enum class LoginPhase : std::uint8_t { kTls, kStartup, kAuth, kHold, kConnect, kTotal };
inline constexpr std::size_t kLoginPhases = 6;
enum class Outcome : std::uint8_t { kOk, kRefused, kFailed };  ///< reached the relay; told no; ended without an answer
inline constexpr std::size_t kOutcomes = 3;
enum class CancelOutcome : std::uint8_t {
  kSent,        ///< the backend was told, and has hung up
  kUnknownKey,  ///< nobody knows the key
  kThrottled,   ///< too many, from the source's network or in all
  kFailed,      ///< the backend could not be told
  kSentByPeer,  ///< another router of the fleet told it
  kPeerFailed,  ///< not known here, and at least one other router did not answer
};
inline constexpr std::size_t kCancelOutcomes = 6;

/// How large the tables of a branch's block are.
struct Dimensions {
  std::size_t workers = 1;
  std::size_t listeners = 0;
  std::size_t routes = 0;
  std::size_t reasons = 0;
  std::size_t destinations = 0;  ///< members, then members' PgBouncers, then pool endpoints in order
  bool roundtrips = false;       ///< has round-trip histograms of its own; else the worker's take them
};

/// A branch's counters of one worker. All indexes are the caller's to bound.
struct BranchSlot {
  explicit BranchSlot(const Dimensions& d)
      : decisions(d.destinations * d.reasons),
        active(d.destinations),
        dial_failures(d.destinations),
        reached_ns(d.destinations),
        missed_ns(d.destinations),
        refusals(d.listeners * d.reasons),
        connections(d.listeners * d.routes * kOutcomes),
        bytes(d.routes * 2),
        auth_failures(d.reasons),
        roundtrip(d.roundtrips ? d.routes : 0) {}

  std::vector<Counter> decisions;      ///< [destination * reasons + reason]
  std::vector<Counter> active;         ///< gauge, [destination]
  std::vector<Counter> dial_failures;  ///< [destination]
  std::vector<Counter> reached_ns;   ///< [destination]: when a session last got there, on the monotonic clock; 0: never
  std::vector<Counter> missed_ns;    ///< [destination]: when one last failed to
  std::vector<Counter> refusals;     ///< [listener * reasons + reason]
  std::vector<Counter> connections;  ///< [(listener * routes + route) * kOutcomes + outcome]
  std::vector<Counter> bytes;        ///< [route * 2 + direction]
  std::vector<Counter> auth_failures;  ///< [reason]
  std::vector<Histogram> roundtrip;    ///< [route], or empty
  Counter holding;                     ///< gauge
  Histogram hold_seconds;
};

/// A branch's counters. Made by the control thread when a branch becomes active; sessions keep it alive.
class BranchBlock {
 public:
  explicit BranchBlock(const Dimensions& dimensions) : dimensions_(dimensions) {
    slots_.reserve(dimensions.workers);
    for (std::size_t i = 0; i < dimensions.workers; ++i) slots_.push_back(std::make_unique<BranchSlot>(dimensions));
  }
  const Dimensions& dimensions() const { return dimensions_; }
  BranchSlot& slot(std::size_t worker) { return *slots_[worker]; }
  const BranchSlot& slot(std::size_t worker) const { return *slots_[worker]; }

  /// A block of the same branch from before its destinations changed: the sessions that began there are counted there
  /// until they end. `places` says where each destination of this block stands in it.
  struct Former {
    std::weak_ptr<const BranchBlock> block;
    std::vector<std::size_t> places;
  };
  static constexpr std::size_t kNowhere = static_cast<std::size_t>(-1);
  /// Filled before the block is shared.
  std::vector<Former> formers;

  /// Sessions at a destination now, as counted by one worker, former blocks included. Any thread.
  std::uint64_t active(std::size_t worker, std::size_t destination) const {
    std::uint64_t sum = slots_[worker]->active[destination].value();
    for (const Former& former : formers) {
      const auto block = former.places[destination] == kNowhere ? nullptr : former.block.lock();
      if (block != nullptr) sum += block->slots_[worker]->active[former.places[destination]].value();
    }
    return sum;
  }
  /// Sessions admitted, former blocks included. Any thread.
  std::uint32_t admitted_in_all() const {
    std::uint32_t sum = admitted.load(std::memory_order_relaxed);
    for (const Former& former : formers) {
      if (const auto block = former.block.lock()) sum += block->admitted.load(std::memory_order_relaxed);
    }
    return sum;
  }

  /// Sessions of the branch on all workers, for the limit per branch: touched when a session is admitted and when it
  /// ends.
  std::atomic<std::uint32_t> admitted{0};

 private:
  Dimensions dimensions_;
  std::vector<std::unique_ptr<BranchSlot>> slots_;
};

/// A worker's counters that belong to no branch.
struct WorkerBlock {
  WorkerBlock(std::size_t listeners, std::size_t routes, std::size_t reasons)
      : listeners_(listeners),
        refusals(listeners * reasons),
        accepted(listeners),
        login(listeners * kLoginPhases),
        roundtrip(routes) {}

  std::size_t listeners_;
  std::vector<Counter> refusals;     ///< without a known branch: [listener * reasons + reason]
  std::vector<Counter> accepted;     ///< [listener]
  std::vector<Histogram> login;      ///< [listener * kLoginPhases + phase]
  std::vector<Histogram> roundtrip;  ///< [route], of branches without histograms of their own
  std::array<Counter, kCancelOutcomes> cancels;
  /// [0] TLS 1.2, [1] TLS 1.3, [2] failed
  std::array<Counter, 3> handshakes;
  Counter pre_login;      ///< gauge: connections that have not reached the relay
  Counter sessions;       ///< gauge: connections in all
  Counter accept_paused;  ///< times a listener paused for want of descriptors
};

}  // namespace pointsman::metrics
