#pragma once
// The control thread: reads the configuration, starts and stops the workers, watches branches (monitor/), finds
// verifiers, serves the admin endpoint, reloads and drains. It publishes immutable state to the workers and touches no
// connection.

#include <uv.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "proxy/admin/admin_server.h"
#include "proxy/admin/control_view.h"
#include "proxy/cli/commands.h"
#include "proxy/console/console_server.h"
#include "proxy/fleet/peers.h"
#include "proxy/io/mailbox.h"
#include "proxy/monitor/event_log.h"
#include "proxy/monitor/monitor.h"
#include "proxy/monitor/planned_switches.h"
#include "proxy/monitor/sql_context.h"
#include "proxy/monitor/state_dir.h"
#include "proxy/monitor/verifier_service.h"
#include "proxy/server/branch_store.h"
#include "proxy/server/file_watch.h"
#include "proxy/server/messages.h"
#include "proxy/server/sd_notify.h"
#include "proxy/server/worker.h"

namespace pointsman::proxy {

class Control final : public ControlView,
                      public ConsoleHost,
                      public ViewSink,
                      public VerifierSink,
                      private BranchStore::Owner,
                      public Peers::Host {
 public:
  explicit Control(std::string config_file);
  ~Control() override;
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  /// The whole life of `pointsman serve`; the process's exit status.
  int run();

  // ControlView
  std::shared_ptr<const routing::Directory> directory() const override { return directory_; }
  std::vector<std::shared_ptr<const routing::BranchView>> views() const override { return monitor_->views(); }
  std::uint64_t probe_failures(std::string_view branch, std::size_t member) const override {
    return monitor_->probe_failures(branch, member);
  }
  std::optional<DiscoveryStatus> discovery(std::string_view branch) const override {
    return monitor_->discovery(branch);
  }
  const VerifierStats& verifier_stats() const override { return verifiers_->stats(); }
  std::vector<const metrics::WorkerBlock*> worker_blocks() const override;
  bool listening() const override { return listening_; }
  bool draining() const override { return draining_; }
  ReloadStats reload_stats() const override { return reload_stats_; }
  std::int64_t certificate_not_after() const override;
  std::uint32_t max_connections() const override { return max_connections_; }
  std::uint64_t log_lines_dropped() const override;
  std::int64_t started_unix_ms() const override { return started_unix_ms_; }
  const EventRing& events() const override { return events_.ring(); }
  const DecisionHistory& history() const override { return history_; }
  std::optional<ConsoleStats> console_stats() const override;
  std::optional<PeerStats> peer_stats() const override;
  void kill_session(std::uint32_t worker, std::uint64_t session, std::function<void(bool found)> done) override;
  void collect_sessions(std::function<void(std::vector<SessionRow>)> done) override;
  ReloadResult reload() override;
  void explain_route(std::string listener, std::string user, std::function<void(RouteAnswer)> done) override;
  void hold(const std::string& branch, HoldOptions options, SwitchDone done) override {
    switches_->hold(branch, options, std::move(done));
  }
  void release(const std::string& branch, SwitchDone done) override { switches_->release(branch, std::move(done)); }
  void adopt_cluster(const std::string& branch, SwitchDone done) override { switches_->adopt(branch, std::move(done)); }
  void edit_branch(BranchEdit edit, BranchEditDone done) override { branches_.edit(std::move(edit), std::move(done)); }

  // ConsoleHost
  std::shared_ptr<const protocol::ServerTlsContext> server_tls() const override { return tls_->server; }
  std::string_view mock_secret() const override { return tls_->mock_secret; }

  // ViewSink, VerifierSink
  void publish(std::size_t branch_index, std::shared_ptr<const routing::BranchView> view) override;
  void deliver(const VerifierQuery& query, const VerifierAnswer& answer) override;

 private:
  struct Collection {
    std::vector<SessionRow> rows;
    std::size_t answers_missing = 0;
    base::Instant deadline{};
    std::function<void(std::vector<SessionRow>)> done;
  };
  struct PendingKill {
    base::Instant deadline{};
    std::function<void(bool found)> done;
  };
  struct PendingRoute {
    std::string listener;
    std::string user;
    base::Instant deadline{};
    std::function<void(RouteAnswer)> done;
  };

  const routing::BranchBase& branch_base() const override { return *branch_base_; }
  void apply_branch(const std::string& name, const routing::BranchRead& read) override;

  void search_for_peer(const protocol::CancelRequest& request, std::uint64_t number) override;
  void deliver_cancel_answer(const PeersWanted& wanted, metrics::CancelOutcome outcome) override;

  bool read_first_config();
  bool open_listeners(std::vector<std::vector<int>>& per_worker);
  void set_limits();
  bool open_admin();
  bool open_console();
  bool open_peers();
  bool open_state_dir();
  void announce();
  void open_handles();
  void handle(ToControl&& message);
  void on_signal(int signal);
  void on_tick();
  void start_ticking();
  void finish_kills(base::Instant now);
  void begin_drain();
  void write_history();
  void stop_workers();
  void shut_down();
  void adopt(std::shared_ptr<const routing::Config> config, std::shared_ptr<const TlsContexts> tls);
  std::shared_ptr<const routing::Config> keep_what_needs_a_restart(std::shared_ptr<const routing::Config> fresh) const;
  void tell_reload(const std::vector<std::string>& rejected);
  bool try_explain(const PendingRoute& route, bool last);
  ReloadResult read_again();
  std::string serving() const;

  std::string config_file_;
  ServiceManager service_manager_;
  std::shared_ptr<const routing::Config> config_;
  std::shared_ptr<const routing::Directory> directory_;
  std::shared_ptr<const TlsContexts> tls_;
  std::shared_ptr<const routing::BranchBase> branch_base_;
  std::vector<std::string> watched_paths_;
  std::uint64_t watched_print_ = 0;
  ReloadStats reload_stats_;
  std::int64_t started_unix_ms_ = 0;
  EventLog events_;  // outlives who tells it
  DecisionHistory history_;
  std::size_t history_turn_ = 0;
  std::uint32_t max_connections_ = 0;
  std::uint32_t worker_count_ = 1;

  EventLoop loop_;
  uv_signal_t signals_[3]{};
  uv_timer_t tick_{};
  uv_timer_t drain_timer_{};
  uv_timer_t history_timer_{};
  Mailbox<ToControl> mailbox_;
  FileWatch watch_;
  BranchStore branches_{loop_.uv(), *this};
  std::unique_ptr<SqlContext> sql_;  // outlives its users and the loop's run
  std::unique_ptr<StateDir> state_;  // null: none
  std::unique_ptr<Monitor> monitor_;
  std::unique_ptr<PlannedSwitches> switches_;
  std::unique_ptr<VerifierService> verifiers_;
  std::unique_ptr<AdminServer> admin_;
  std::unique_ptr<ConsoleServer> console_;
  std::unique_ptr<Peers> peers_;

  SharedCounts shared_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
  std::size_t workers_running_ = 0;
  std::size_t workers_empty_ = 0;

  std::uint64_t next_collection_ = 1;
  std::map<std::uint64_t, Collection> collections_;
  std::map<std::uint64_t, PendingKill> kills_;
  std::vector<PendingRoute> pending_routes_;

  bool listening_ = false;
  bool draining_ = false;
  bool drain_begun_ = false;
  bool stopping_ = false;
  bool shut_down_ = false;
};

}  // namespace pointsman::proxy
