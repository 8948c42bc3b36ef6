#pragma once
// What the admin endpoint may see and ask of the running router. Implemented by server/control; everything is called on
// the control thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/blocks.h"
#include "proxy/admin/branch_edit.h"
#include "proxy/admin/decision_history.h"
#include "proxy/discovery/status.h"
#include "proxy/monitor/event_log.h"
#include "proxy/monitor/switch_answer.h"
#include "proxy/monitor/verifier_service.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

/// One live session as /api/sessions shows it: ties client address, branch, member and backend PID together, since the
/// backend sees only the router's address.
struct SessionRow {
  std::uint64_t id = 0;
  std::uint32_t worker = 0;
  std::string client;  ///< "192.0.2.1:5000", behind a PROXY header the true one
  std::string listener;
  std::string user;  ///< as typed, not escaped
  std::string branch;
  std::string target;       ///< "primary", "replica", pool name, ""
  std::string destination;  ///< "pg-1", "pg-0 (pgbouncer)", "reads/10.0.0.20:6432"
  std::string database;
  std::string application;
  std::string phase;   ///< "startup", "auth", "holding", "connecting", "relaying", "draining"
  std::string reason;  ///< decision's word, "" before one
  std::string tls;     ///< "TLSv1.3", "" in clear
  bool idle = false;   ///< no request under way (relaying only)
  std::uint32_t backend_pid = 0;
  double age_seconds = 0;
  std::uint64_t bytes_from_client = 0;
  std::uint64_t bytes_to_client = 0;
};

struct ReloadResult {
  bool applied = false;
  std::vector<std::string> errors;  ///< `file: /path: what`
};

struct ReloadStats {
  std::uint64_t succeeded = 0;  ///< whole configuration applied
  std::uint64_t partial = 0;    ///< applied, some branches kept their last good version
  std::uint64_t failed = 0;     ///< top level bad: nothing changed
  bool last_ok = true;          ///< the last reading was applied, be it without some branches
  std::int64_t last_success_unix = 0;
  std::size_t branches_rejected = 0;
};

/// The admin console's counters since the start.
struct PeerStats {
  std::size_t known = 0;                   ///< other routers by the name's last answer
  std::array<std::uint64_t, 4> answers{};  ///< to what they asked, by PeerVerdict (proxy/fleet/peer_wire.h)
};
struct ConsoleStats {
  std::uint64_t connections = 0;  ///< now, logged in or not
  std::uint64_t ok = 0;           ///< statements, by outcome
  std::uint64_t error = 0;
  std::uint64_t denied = 0;  ///< for want of the role
};

class ControlView {
 public:
  virtual ~ControlView() = default;
  virtual std::shared_ptr<const routing::Directory> directory() const = 0;
  /// All branches' views; [i] belongs to directory()->name(i). A view may be null until its branch is configured.
  virtual std::vector<std::shared_ptr<const routing::BranchView>> views() const = 0;
  /// Probes of a member that failed; 0 when never probed.
  virtual std::uint64_t probe_failures(std::string_view branch, std::size_t member) const = 0;
  /// How the branch's members are found; nothing when they are listed in the configuration.
  virtual std::optional<DiscoveryStatus> discovery(std::string_view branch) const = 0;
  virtual const VerifierStats& verifier_stats() const = 0;
  virtual std::vector<const metrics::WorkerBlock*> worker_blocks() const = 0;
  virtual bool listening() const = 0;
  virtual bool draining() const = 0;
  virtual ReloadStats reload_stats() const = 0;
  /// notAfter of the serving certificate, seconds since 1970; 0: none.
  virtual std::int64_t certificate_not_after() const = 0;
  virtual std::uint32_t max_connections() const = 0;
  virtual std::uint64_t log_lines_dropped() const = 0;
  /// Tells one process's life from the next.
  virtual std::int64_t started_unix_ms() const = 0;
  virtual const EventRing& events() const = 0;
  virtual const DecisionHistory& history() const = 0;
  /// Nothing: no console is configured.
  virtual std::optional<ConsoleStats> console_stats() const = 0;
  /// Nothing: no peers are configured.
  virtual std::optional<PeerStats> peer_stats() const = 0;

  /// Asks every worker for its sessions; `done` is called on the control thread, once, within a second (with what
  /// arrived by then).
  virtual void collect_sessions(std::function<void(std::vector<SessionRow>)> done) = 0;
  /// Ends a session of a worker at once (Session::kill); `done` is called on the control thread, once, within a second,
  /// with whether there was one.
  virtual void kill_session(std::uint32_t worker, std::uint64_t session, std::function<void(bool found)> done) = 0;
  virtual ReloadResult reload() = 0;
  /// Where a connection would go now. Makes the branch active; when its view is not settled yet `done` waits for it, at
  /// most 3 s.
  struct RouteAnswer {
    bool ok = false;
    std::string text_decision;  ///< destination name, or the refusal's message
    std::string reason;
    std::string sqlstate, detail, hint;  ///< of a refusal
    std::string role, branch, target, address;
    std::vector<std::string> candidates;  ///< a line each
  };
  /// `listener` is one of the configuration's, or empty: the first on which the target is lawful.
  virtual void explain_route(std::string listener, std::string user, std::function<void(RouteAnswer)> done) = 0;

  /// A planned switch (proxy/monitor/planned_hold.h). `done` comes when it is done, which may take minutes.
  virtual void hold(const std::string& branch, HoldOptions options, SwitchDone done) = 0;
  virtual void release(const std::string& branch, SwitchDone done) = 0;
  /// The cluster of the branch has another system identifier now, and a person says that this is right.
  virtual void adopt_cluster(const std::string& branch, SwitchDone done) = 0;
  /// Reads, writes or removes a branch of branches_dir (server/branch_store.h); `done` comes when it is in force.
  virtual void edit_branch(BranchEdit edit, BranchEditDone done) = 0;
};

}  // namespace pointsman::proxy
