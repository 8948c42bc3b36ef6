#pragma once
// Finds the SCRAM verifier of a role: one cache for all workers, on the control thread. Single flight per (branch,
// role), negative answers cached, rate-capped per branch and per source, so that invented roles and cold branches
// cannot be used to load a cluster. When no member answers, the last known verifier serves.

#include <cstdint>
#include <memory>

#include "proxy/monitor/verifier_answer.h"
#include "proxy/monitor/verifier_cache.h"

namespace pointsman::proxy {

/// Where answers go: implemented by the control server, which posts to the worker's mailbox.
class VerifierSink {
 public:
  virtual ~VerifierSink() = default;
  virtual void deliver(const VerifierQuery& query, const VerifierAnswer& answer) = 0;
};

/// Hits and throttled count queries; the others count look-ups by what they found, an older verifier serving on or not.
struct VerifierStats {
  std::uint64_t hits = 0, found = 0, no_role = 0, unusable = 0, unavailable = 0, fault = 0, throttled = 0;
};

class EventSink;
class MonitorAccess;
struct SqlContext;

class VerifierService {
 public:
  /// `sql` is the control loop's, and outlives this; `monitor` lends the branch's configuration and its members'
  /// addresses, and must outlive this (this is its listener), as `events` must.
  VerifierService(SqlContext& sql, MonitorAccess& monitor, VerifierSink& sink, EventSink& events);
  ~VerifierService();
  VerifierService(const VerifierService&) = delete;
  VerifierService& operator=(const VerifierService&) = delete;

  /// Always answers through the sink, at once (from inside this call) or later, within the branch's probe timeout times
  /// its members, and two more timeouts when no address is known yet.
  void ask(VerifierQuery query);
  /// After Monitor::configure(): entries of branches whose configuration changed or went away are dropped.
  void on_config_changed();
  /// Answers everything outstanding with kUnavailable and closes connections; idle() tells when they are closed.
  void shut_down();
  bool idle() const;
  const VerifierStats& stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pointsman::proxy
