#pragma once
// Watches the branches in use: resolves their hosts, probes each member by SQL on the control loop, and publishes
// immutable views. Control thread only. An unused branch costs nothing: no connection, no look-up, no timer.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/discovery/status.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

class EventSink;
class StateDir;
struct SqlContext;

/// Where views go: implemented by the control server, which posts them to every worker's mailbox.
class ViewSink {
 public:
  virtual ~ViewSink() = default;
  virtual void publish(std::size_t branch_index, std::shared_ptr<const routing::BranchView> view) = 0;
};

/// Told on the control thread, from inside the monitor, that a branch has a new view: look at it later, or use
/// MonitorAccess::view() only.
class ViewListener {
 public:
  virtual ~ViewListener() = default;
  virtual void on_view(std::string_view branch) = 0;
};

/// What the verifier service may see.
class MonitorAccess {
 public:
  virtual ~MonitorAccess() = default;
  /// At most one; null takes it away.
  virtual void set_listener(ViewListener* listener) = 0;
  /// Null when there is no such branch.
  virtual std::shared_ptr<const routing::BranchView> view(std::string_view branch) const = 0;
  /// Makes the branch active (its hosts get resolved) and keeps it so for `idle_after`.
  virtual void want(std::string_view branch) = 0;
};

class Monitor final : public MonitorAccess {
 public:
  /// On the loop of `sql`, which must outlive this, as `events` must. `workers` sizes the branches' metric blocks;
  /// `listeners` likewise. `state`: what a former process knew of the branches; null: nothing.
  Monitor(SqlContext& sql, ViewSink& sink, EventSink& events, std::size_t workers, std::size_t listeners,
          const StateDir* state = nullptr);
  ~Monitor() override;
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  /// A new configuration: branches that stay keep their state and connections. Builds the initial views (inactive ones
  /// for branches not in use). Calls neither sink nor listener for what it returns: [i] belongs to directory.name(i),
  /// and so do the indexes of later publications.
  std::vector<std::shared_ptr<const routing::BranchView>> configure(
      std::shared_ptr<const routing::Directory> directory);

  void set_listener(ViewListener* listener) override;
  std::shared_ptr<const routing::BranchView> view(std::string_view branch) const override;
  /// A login for the branch came: probe it now and for `probe.idle_after` from now. Cheap when the branch is active
  /// already. May publish at once.
  void want(std::string_view branch) override;
  /// A worker could not dial a member: probe it at once (bounded: at most every 200 ms per member).
  void on_dial_failed(std::string_view branch, std::size_t member);
  /// A session waits for a replica to replay what it has seen: probe at once, and often until then (a minute at most).
  void want_fresh(std::string_view branch, base::Instant until);

  /// A planned switch begins or ends: new sessions to the primary wait. Keeps the branch in use meanwhile.
  void set_on_hold(std::string_view branch, bool on_hold);
  /// Takes on the system identifier that members of the branch have instead of the known one; nullopt: none has, or the
  /// branch is not in use.
  std::optional<std::string> adopt(std::string_view branch);

  /// All branches' views in the directory's order (for status).
  std::vector<std::shared_ptr<const routing::BranchView>> views() const;

  /// probe_failures_total of a member; 0 when never probed.
  std::uint64_t probe_failures(std::string_view branch, std::size_t member) const;
  /// Nothing for a branch whose members are listed.
  std::optional<DiscoveryStatus> discovery(std::string_view branch) const;

  /// Stops probing and closes everything; publishes nothing more. Views stay readable.
  void shut_down();
  bool idle() const;  ///< after shut_down(): every handle is closed and no look-up is in the air

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pointsman::proxy
