#include "proxy/server/control.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "base/check.h"
#include "proxy/admin/version.h"
#include "proxy/log.h"
#include "proxy/server/cpu_count.h"
#include "proxy/server/tls_setup.h"

namespace pointsman::proxy {

namespace {

constexpr std::uint64_t kTickMs = 100;
/// The branches take turns: each has one in DecisionHistory::kBin.
constexpr std::size_t kHistoryTurns = 10;
constexpr std::uint64_t kHistoryMs =
    std::chrono::duration_cast<std::chrono::milliseconds>(DecisionHistory::kBin).count() / kHistoryTurns;
constexpr base::Duration kCollectTimeout = std::chrono::seconds(1);
/// Between the end of drain_timeout and the end of the process: last cancel requests, PgBouncers that are resumed.
constexpr base::Duration kShutdownMargin = std::chrono::seconds(30);

base::Instant now_instant() {
  return base::from_hrtime(uv_hrtime());
}

std::int64_t unix_ms() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
}

std::uint64_t milliseconds(base::Duration duration) {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

void print_errors(const std::vector<routing::ConfigError>& errors) {
  for (const auto& error : errors) std::fprintf(stderr, "%s\n", error.to_string().c_str());
}

}  // namespace

Control::Control(std::string config_file)
    : config_file_(std::move(config_file)),
      service_manager_(std::getenv("NOTIFY_SOCKET")),
      started_unix_ms_(unix_ms()),
      events_(unix_ms),
      watch_(this, [](void* self) { (void)static_cast<Control*>(self)->reload(); }) {}

Control::~Control() = default;

// ---- start ----------------------------------------------------------------------------------------------------------

int Control::run() {
  if (!read_first_config()) return 1;
  set_limits();
  std::vector<std::vector<int>> listening;
  if (!open_listeners(listening) || !open_state_dir()) return 1;
  start_log(config_->log_level, config_->log_format);
  open_handles();

  sql_ = std::make_unique<SqlContext>(loop_);
  sql_->tls = tls_->clients;
  monitor_ = std::make_unique<Monitor>(*sql_, *this, events_, worker_count_, config_->listeners.size(), state_.get());
  switches_ = std::make_unique<PlannedSwitches>(*sql_, *monitor_, events_, state_.get());
  if (state_ != nullptr) {
    for (const auto& complaint : state_->complaints())
      log_record(LogLevel::kWarning, "state_dir", {{"error", complaint, 1024}});
  }
  verifiers_ = std::make_unique<VerifierService>(*sql_, *monitor_, *this, events_);
  directory_ = std::make_shared<const routing::Directory>(config_);
  const auto views = monitor_->configure(directory_);
  for (std::uint32_t i = 0; i < worker_count_; ++i) {
    workers_.push_back(std::make_unique<Worker>(i, worker_count_, max_connections_, shared_, mailbox_,
                                                NewDirectory{directory_, views, tls_}));
  }
  std::vector<Worker*> all;
  for (auto& worker : workers_) all.push_back(worker.get());
  for (std::uint32_t i = 0; i < worker_count_; ++i) workers_[i]->set_up(listening[i], all);
  for (auto& worker : workers_) {
    threads_.emplace_back([raw = worker.get()] {
      pthread_setname_np(pthread_self(), ("worker-" + std::to_string(raw->index())).c_str());
      raw->run();
    });
  }
  workers_running_ = workers_.size();
  admin_ = std::make_unique<AdminServer>(loop_, *this);
  console_ = std::make_unique<ConsoleServer>(loop_, *this, *this);
  peers_ = std::make_unique<Peers>(loop_, workers_.size(), *this);
  const bool complete = open_admin() && open_console() && open_peers();
  if (complete) {
    announce();
    switches_->resume_left_behind();
  } else {
    stop_workers();  // and everything else goes down in order
  }
  loop_.run();
  stop_log();
  return complete ? 0 : 1;
}

void Control::announce() {
  listening_ = true;
  watch_.watch(watched_paths_, watched_print_);
  for (const auto& listener : config_->listeners) {
    log_record(LogLevel::kInfo, "listening",
               {{"listener", listener.name},
                {"address", listener.address},
                {"port", std::to_string(listener.port)},
                {"mode", listener.mode == routing::ListenerMode::kDirect ? "direct" : "pooled"}});
  }
  for (const auto& listener : config_->console.listeners) {
    log_record(LogLevel::kInfo, "listening",
               {{"listener", listener.name},
                {"address", listener.address},
                {"port", std::to_string(listener.port)},
                {"mode", "console"}});
  }
  if (const auto& peers = config_->cancel.peers) {
    log_record(LogLevel::kInfo, "listening",
               {{"listener", "cancel.peers"},
                {"address", peers->address},
                {"port", std::to_string(peers->listen_port)},
                {"mode", "peers"}});
  }
  log_record(LogLevel::kInfo, "ready",
             {{"version", std::string(version())},
              {"workers", std::to_string(worker_count_)},
              {"branches", std::to_string(config_->branches.size())},
              {"max_connections", std::to_string(max_connections_)},
              {"config", config_->file}});
  uv_timer_start(
      &history_timer_, [](uv_timer_t* timer) { static_cast<Control*>(timer->data)->write_history(); }, kHistoryMs,
      kHistoryMs);
  events_.keep(LogLevel::kInfo, EventKind::kRouter, "", "started, version " + std::string(version()));
  service_manager_.ready(serving());
}

/// For `systemctl status`.
std::string Control::serving() const {
  return "serving " + std::to_string(config_->branches.size()) + " branches on " +
         std::to_string(config_->listeners.size()) + " listeners";
}

bool Control::read_first_config() {
  auto loaded = routing::load_config(config_file_, nullptr);
  print_errors(loaded.errors);
  if (loaded.config == nullptr) return false;
  config_ = loaded.config;
  branch_base_ = loaded.base;
  watched_paths_ = std::move(loaded.watched_paths);
  watched_print_ = FileWatch::print_of(watched_paths_);
  reload_stats_.branches_rejected = loaded.rejected_branches.size();
  std::vector<std::string> warnings;
  auto contexts = make_tls_contexts(*config_, warnings);
  for (const auto& warning : warnings) std::fprintf(stderr, "%s: %s\n", config_file_.c_str(), warning.c_str());
  if (!contexts.ok()) {
    std::fprintf(stderr, "%s: %s\n", config_file_.c_str(), contexts.error().c_str());
    return false;
  }
  tls_ = std::move(contexts.value());
  reload_stats_.last_ok = true;
  ++(loaded.rejected_branches.empty() ? reload_stats_.succeeded : reload_stats_.partial);
  reload_stats_.last_success_unix = static_cast<std::int64_t>(std::time(nullptr));
  return true;
}

void Control::set_limits() {
  // Keys pass through this memory: no core dumps, no ptrace by other processes of the user (T28).
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
  std::signal(SIGPIPE, SIG_IGN);

  worker_count_ = config_->workers != 0 ? config_->workers : available_cpus();
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  getrlimit(RLIMIT_NOFILE, &files);
  max_connections_ = config_->limits.max_connections
                         ? *config_->limits.max_connections
                         : routing::default_max_connections(*config_, files.rlim_cur, worker_count_);
}

bool Control::open_listeners(std::vector<std::vector<int>>& per_worker) {
  const auto keepalive =
      static_cast<unsigned>(std::chrono::duration_cast<std::chrono::seconds>(config_->tcp_keepalive).count());
  const auto user_timeout = static_cast<unsigned>(milliseconds(config_->tcp_user_timeout));
  per_worker.resize(worker_count_);
  for (const auto& listener : config_->listeners) {
    // SO_REUSEPORT would let a second router of this user take half of the traffic in silence: first see that the port
    // is free.
    std::uint16_t port = listener.port;
    auto probe = open_listening_socket(listener.address, port, false, keepalive, user_timeout, &port);
    if (!probe.ok()) {
      std::fprintf(stderr, "listener %s: %s\n", listener.name.c_str(), probe.error().c_str());
      return false;
    }
    if (worker_count_ == 1) {
      per_worker[0].push_back(probe.value());
      continue;
    }
    ::close(probe.value());
    for (auto& sockets : per_worker) {
      auto opened = open_listening_socket(listener.address, port, true, keepalive, user_timeout, nullptr);
      if (!opened.ok()) {
        std::fprintf(stderr, "listener %s: %s\n", listener.name.c_str(), opened.error().c_str());
        return false;
      }
      sockets.push_back(opened.value());
    }
  }
  return true;
}

bool Control::open_state_dir() {
  if (config_->state_dir.empty()) return true;
  auto opened = StateDir::open(loop_.uv(), config_->state_dir);
  if (!opened.ok()) {
    std::fprintf(stderr, "%s: /state_dir: %s\n", config_file_.c_str(), opened.error().c_str());
    return false;
  }
  state_ = std::move(opened.value());
  return true;
}

bool Control::open_admin() {
  std::vector<AdminEndpointSettings> endpoints;
  if (config_->admin)
    endpoints.push_back({config_->admin->address, config_->admin->port, config_->admin->token, false});
  if (config_->metrics) endpoints.push_back({config_->metrics->address, config_->metrics->port, {}, true});
  for (const auto& endpoint : endpoints) {
    auto opened = admin_->listen(endpoint);
    if (!opened.ok()) {
      std::fprintf(stderr, "%s: %s\n", endpoint.metrics_only ? "metrics" : "admin", opened.error().c_str());
      return false;
    }
  }
  return true;
}

bool Control::open_console() {
  const auto keepalive = std::chrono::duration_cast<std::chrono::seconds>(config_->tcp_keepalive).count();
  for (const auto& listener : config_->console.listeners) {
    const auto opened = console_->listen(listener, static_cast<unsigned>(keepalive),
                                         static_cast<unsigned>(milliseconds(config_->tcp_user_timeout)));
    if (opened.ok()) continue;
    std::fprintf(stderr, "listener %s: %s\n", listener.name.c_str(), opened.error().c_str());
    return false;
  }
  return true;
}

bool Control::open_peers() {
  peers_->configure(*config_, *tls_);
  if (!config_->cancel.peers) return true;
  const auto opened = peers_->listen(*config_->cancel.peers);
  if (!opened.ok()) std::fprintf(stderr, "cancel.peers: %s\n", opened.error().c_str());
  return opened.ok();
}

void Control::open_handles() {
  mailbox_.open(loop_.uv(), this,
                [](void* self, ToControl&& message) { static_cast<Control*>(self)->handle(std::move(message)); });
  const int numbers[] = {SIGHUP, SIGTERM, SIGINT};
  for (std::size_t i = 0; i < std::size(numbers); ++i) {
    POINTSMAN_CHECK(uv_signal_init(loop_.uv(), &signals_[i]) == 0);
    signals_[i].data = this;
    uv_signal_start(
        &signals_[i], [](uv_signal_t* handle, int number) { static_cast<Control*>(handle->data)->on_signal(number); },
        numbers[i]);
  }
  POINTSMAN_CHECK(uv_timer_init(loop_.uv(), &tick_) == 0);
  POINTSMAN_CHECK(uv_timer_init(loop_.uv(), &drain_timer_) == 0);
  POINTSMAN_CHECK(uv_timer_init(loop_.uv(), &history_timer_) == 0);
  tick_.data = drain_timer_.data = history_timer_.data = this;
  watch_.open(loop_.uv());
}

// ---- publishing -----------------------------------------------------------------------------------------------------

void Control::publish(std::size_t branch_index, std::shared_ptr<const routing::BranchView> view) {
  for (auto& worker : workers_) worker->post(NewView{directory_.get(), branch_index, view});
  if (state_ != nullptr) state_->remember(*view);
  if (switches_ != nullptr) switches_->on_view(view->config->name);
}

void Control::deliver(const VerifierQuery& query, const VerifierAnswer& answer) {
  if (query.worker < workers_.size()) workers_[query.worker]->post(VerifierReady{query, answer});
}

void Control::handle(ToControl&& message) {
  struct Visitor {
    Control& control;
    void operator()(VerifierQuery& query) const { control.verifiers_->ask(std::move(query)); }
    void operator()(BranchWanted& wanted) const { control.monitor_->want(wanted.branch); }
    void operator()(DialFailed& failed) const {
      if (failed.member >= 0) control.monitor_->on_dial_failed(failed.branch, static_cast<std::size_t>(failed.member));
    }
    void operator()(FreshWanted& wanted) const { control.monitor_->want_fresh(wanted.branch, wanted.until); }
    void operator()(PeersWanted& wanted) const { control.peers_->ask(std::move(wanted)); }
    void operator()(CancelAnswer& answer) const { control.peers_->on_found(answer.origin_session, answer.outcome); }
    void operator()(SessionsCollected& collected) const {
      const auto found = control.collections_.find(collected.request);
      if (found == control.collections_.end()) return;
      auto& rows = found->second.rows;
      rows.insert(rows.end(), std::make_move_iterator(collected.rows.begin()),
                  std::make_move_iterator(collected.rows.end()));
      if (--found->second.answers_missing > 0) return;
      auto done = std::move(found->second.done);
      auto all = std::move(rows);
      control.collections_.erase(found);
      done(std::move(all));
    }
    void operator()(SessionKilled& killed) const {
      const auto found = control.kills_.find(killed.request);
      if (found == control.kills_.end()) return;
      const auto done = std::move(found->second.done);
      control.kills_.erase(found);
      done(killed.found);
    }
    void operator()(WorkerEmpty&) const {
      if (++control.workers_empty_ == control.workers_.size()) control.stop_workers();
    }
    void operator()(WorkerStopped&) const {
      if (--control.workers_running_ > 0) return;
      // PgBouncers that are being resumed: a few seconds at most.
      control.switches_->when_idle([self = &control] { self->shut_down(); });
    }
  };
  if (shut_down_) return;
  std::visit(Visitor{*this}, message);
}

void Control::search_for_peer(const protocol::CancelRequest& request, std::uint64_t number) {
  for (auto& worker : workers_) worker->post(CancelSearch{request, kPeerOrigin, number});
}

void Control::deliver_cancel_answer(const PeersWanted& wanted, metrics::CancelOutcome outcome) {
  workers_[wanted.origin_worker]->post(CancelAnswer{wanted.origin_session, outcome});
}

// ---- reload ---------------------------------------------------------------------------------------------------------

std::shared_ptr<const routing::Config> Control::keep_what_needs_a_restart(
    std::shared_ptr<const routing::Config> fresh) const {
  const auto same_sockets = [](const routing::Config& a, const routing::Config& b) {
    if (a.listeners.size() != b.listeners.size()) return false;
    for (std::size_t i = 0; i < a.listeners.size(); ++i) {
      const auto& x = a.listeners[i];
      const auto& y = b.listeners[i];
      if (x.name != y.name || x.address != y.address || x.port != y.port) return false;
    }
    return true;
  };
  const auto same_consoles = [](const routing::Config& a, const routing::Config& b) {
    const auto same = [](const auto& x, const auto& y) {
      return x.name == y.name && x.address == y.address && x.port == y.port && x.tls == y.tls;
    };
    const auto& x = a.console.listeners;
    const auto& y = b.console.listeners;
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), same);
  };
  const auto same_peers = [](const routing::Config& a, const routing::Config& b) {
    const auto& x = a.cancel.peers;
    const auto& y = b.cancel.peers;
    return x.has_value() == y.has_value() && (!x || (x->address == y->address && x->listen_port == y->listen_port));
  };
  const bool sockets = same_sockets(*config_, *fresh) && same_consoles(*config_, *fresh);
  const bool peers = same_peers(*config_, *fresh);
  if (sockets && peers && config_->state_dir == fresh->state_dir) return fresh;
  auto kept = std::make_shared<routing::Config>(*fresh);
  if (!sockets) {
    log_record(LogLevel::kWarning,
               "reload: listeners are opened at start only; the new ones take effect at the next restart", {});
    kept->listeners = config_->listeners;
    kept->console.listeners = config_->console.listeners;
  }
  if (!peers) {
    log_record(LogLevel::kWarning,
               "reload: the port for peers is opened at start only; cancel.peers takes effect at the next restart", {});
    kept->cancel.peers = config_->cancel.peers;
  }
  if (config_->state_dir != fresh->state_dir) {
    log_record(LogLevel::kWarning,
               "reload: state_dir is opened at start only; a new one takes effect at the next restart", {});
    kept->state_dir = config_->state_dir;
  }
  return kept;
}

ReloadResult Control::reload() {
  if (draining_) return read_again();  // the manager has been told that this is the end
  service_manager_.reloading();
  auto result = read_again();
  std::string status = serving();
  if (!result.errors.empty()) status += result.applied ? ", with errors: see the log" : ", reload failed: see the log";
  service_manager_.ready(status);
  return result;
}

ReloadResult Control::read_again() {
  ReloadResult result;
  const std::uint64_t print_before = FileWatch::print_of(watched_paths_);
  auto loaded = routing::load_config(config_file_, config_.get());
  for (const auto& error : loaded.errors) {
    result.errors.push_back(error.to_string());
    log_record(LogLevel::kError, "configuration error", {{"error", error.to_string(), 1024}});
  }
  const auto failed = [this, &result, print_before](const std::string& why) {
    ++reload_stats_.failed;
    reload_stats_.last_ok = false;
    log_record(LogLevel::kError, "reload failed, everything goes on as it was", {{"error", why, 1024}});
    events_.keep(LogLevel::kError, EventKind::kReload, "",
                 "reload failed, everything goes on as it was: " + routing::escape_for_log(why, 512));
    watched_print_ = print_before;
    watch_.watch(watched_paths_, watched_print_);
    return result;
  };
  if (loaded.config == nullptr) return failed(result.errors.empty() ? "unreadable" : result.errors.front());
  auto config = keep_what_needs_a_restart(loaded.config);
  std::vector<std::string> warnings;
  auto contexts = make_tls_contexts(*config, warnings);
  if (!contexts.ok()) {
    result.errors.push_back(config_file_ + ": " + contexts.error());
    return failed(result.errors.back());
  }
  for (const auto& warning : warnings) log_record(LogLevel::kError, "configuration error", {{"error", warning, 1024}});
  // A change while the files were being read is a change to come; only a list that is itself new has no earlier print.
  watched_print_ = loaded.watched_paths == watched_paths_ ? print_before : FileWatch::print_of(loaded.watched_paths);
  watched_paths_ = std::move(loaded.watched_paths);
  branch_base_ = std::move(loaded.base);
  adopt(std::move(config), std::move(contexts.value()));
  reload_stats_.branches_rejected = loaded.rejected_branches.size();
  ++(loaded.rejected_branches.empty() ? reload_stats_.succeeded : reload_stats_.partial);
  reload_stats_.last_success_unix = static_cast<std::int64_t>(std::time(nullptr));
  result.applied = true;
  log_record(LogLevel::kInfo, "configuration reloaded",
             {{"branches", std::to_string(config_->branches.size())},
              {"rejected", std::to_string(loaded.rejected_branches.size())}});
  tell_reload(loaded.rejected_branches);
  return result;
}

void Control::tell_reload(const std::vector<std::string>& rejected) {
  const bool whole = rejected.empty();
  std::string text = "configuration reloaded, " + std::to_string(config_->branches.size()) + " branches";
  if (!whole)
    text += "; " + std::to_string(rejected.size()) + " rejected: " + routing::escape_for_log(rejected.front(), 64);
  if (rejected.size() > 1) text += " and others";
  events_.keep(whole ? LogLevel::kInfo : LogLevel::kError, EventKind::kReload, "", text);
}

void Control::adopt(std::shared_ptr<const routing::Config> config, std::shared_ptr<const TlsContexts> tls) {
  config_ = std::move(config);
  tls_ = std::move(tls);
  sql_->tls = tls_->clients;
  set_log(config_->log_level, config_->log_format);
  directory_ = std::make_shared<const routing::Directory>(config_);
  const auto views = monitor_->configure(directory_);
  for (auto& worker : workers_) worker->post(NewDirectory{directory_, views, tls_});
  verifiers_->on_config_changed();
  peers_->configure(*config_, *tls_);
  history_.retain(*directory_);
  switches_->on_config_changed();
  watch_.watch(watched_paths_, watched_print_);
}

void Control::apply_branch(const std::string& name, const routing::BranchRead& read) {
  const auto former = config_->branches.find(name);
  const bool is_known = former != config_->branches.end();
  if (read.branch == nullptr && !is_known) return;
  if (read.branch != nullptr && is_known && former->second->fingerprint == read.branch->fingerprint) return;
  auto config = std::make_shared<routing::Config>(*config_);
  if (read.branch == nullptr) {
    config->branches.erase(name);
  } else {
    config->branches.insert_or_assign(name, read.branch);
  }
  for (const auto& path : read.watched_paths) {
    if (std::find(watched_paths_.begin(), watched_paths_.end(), path) == watched_paths_.end())
      watched_paths_.push_back(path);
  }
  std::vector<std::string> warnings;
  auto contexts = read.branch == nullptr ? tls_ : with_contexts_of(tls_, *read.branch, warnings);
  for (const auto& warning : warnings) log_record(LogLevel::kError, "configuration error", {{"error", warning, 1024}});
  log_record(LogLevel::kInfo, "branch changed by request",
             {{"branch", name},
              {"change", read.branch == nullptr ? "removed"
                         : is_known             ? "replaced"
                                                : "added"}});
  adopt(std::move(config), std::move(contexts));
}

// ---- questions of the admin endpoint --------------------------------------------------------------------------------

std::vector<const metrics::WorkerBlock*> Control::worker_blocks() const {
  std::vector<const metrics::WorkerBlock*> blocks;
  for (const auto& worker : workers_) blocks.push_back(&worker->block());
  return blocks;
}

std::int64_t Control::certificate_not_after() const {
  return tls_->server == nullptr ? 0 : tls_->server->not_after();
}
std::uint64_t Control::log_lines_dropped() const {
  return proxy::log_lines_dropped();
}

void Control::collect_sessions(std::function<void(std::vector<SessionRow>)> done) {
  const std::uint64_t request = next_collection_++;
  Collection collection;
  collection.answers_missing = workers_.size();
  collection.deadline = now_instant() + kCollectTimeout;
  collection.done = std::move(done);
  collections_.emplace(request, std::move(collection));
  for (auto& worker : workers_) worker->post(CollectSessions{request});
  start_ticking();
}

void Control::kill_session(std::uint32_t worker, std::uint64_t session, std::function<void(bool found)> done) {
  if (worker >= workers_.size()) return done(false);
  const std::uint64_t request = next_collection_++;
  kills_.emplace(request, PendingKill{now_instant() + kCollectTimeout, std::move(done)});
  workers_[worker]->post(KillSession{request, session});
  start_ticking();
}

std::optional<PeerStats> Control::peer_stats() const {
  if (!config_->cancel.peers) return std::nullopt;
  return peers_->stats();
}

std::optional<ConsoleStats> Control::console_stats() const {
  if (config_->console.listeners.empty()) return std::nullopt;
  return console_->stats();
}

void Control::start_ticking() {
  uv_timer_start(
      &tick_, [](uv_timer_t* timer) { static_cast<Control*>(timer->data)->on_tick(); }, kTickMs, kTickMs);
}

/// Workers that do not answer in time are asked no more: a session that is killed later is killed all the same.
void Control::finish_kills(base::Instant now) {
  for (auto it = kills_.begin(); it != kills_.end();) {
    if (it->second.deadline > now) {
      ++it;
      continue;
    }
    const auto done = std::move(it->second.done);
    it = kills_.erase(it);
    done(false);
  }
}

void Control::on_tick() {
  const auto now = now_instant();
  for (auto it = collections_.begin(); it != collections_.end();) {
    if (it->second.deadline > now) {
      ++it;
      continue;
    }
    auto done = std::move(it->second.done);
    auto rows = std::move(it->second.rows);
    it = collections_.erase(it);
    done(std::move(rows));
  }
  std::erase_if(pending_routes_,
                [this, now](const PendingRoute& route) { return try_explain(route, route.deadline <= now); });
  finish_kills(now);
  if (collections_.empty() && pending_routes_.empty() && kills_.empty()) uv_timer_stop(&tick_);
}

/// One share of the branches: 10,000 at once would be felt. And, once a round, what was refused before a branch was
/// known.
void Control::write_history() {
  const auto add = [this](std::string_view branch, const DecisionHistory::Counts& counts) {
    const auto turn = history_.add(branch, counts);
    if (!turn) return;
    events_.tell(turn->rising ? LogLevel::kWarning : LogLevel::kInfo, EventKind::kRefusals, branch,
                 turn->rising ? "refusals rise: " + std::to_string(turn->count) + " in 10 s, most of them " +
                                    std::string(to_word(turn->reason))
                              : "refusals are over");
  };
  if (history_turn_ == 0) add(DecisionHistory::kNoBranch, counts_of(worker_blocks()));
  const auto views = monitor_->views();
  for (std::size_t i = history_turn_; i < views.size(); i += kHistoryTurns) {
    if (views[i]->block == nullptr) {
      history_.forget(views[i]->config->name);
    } else {
      add(views[i]->config->name, counts_of(*views[i]));
    }
  }
  history_turn_ = (history_turn_ + 1) % kHistoryTurns;
}

// ---- the end --------------------------------------------------------------------------------------------------------

void Control::on_signal(int signal) {
  if (signal == SIGHUP) {
    (void)reload();
    return;
  }
  if (draining_) {
    log_record(LogLevel::kWarning, "second signal: stopping at once", {});
    stop_workers();
    return;
  }
  draining_ = true;  // /readyz says so from now on
  log_record(LogLevel::kInfo, "draining",
             {{"shutdown_delay_ms", std::to_string(milliseconds(config_->shutdown_delay))},
              {"drain_timeout_ms", std::to_string(milliseconds(config_->drain_timeout))}});
  service_manager_.stopping("draining", config_->shutdown_delay + config_->drain_timeout + kShutdownMargin);
  events_.keep(LogLevel::kWarning, EventKind::kRouter, "",
               "draining, sessions have " + routing::format_duration(config_->drain_timeout));
  switches_->drain();
  uv_timer_start(
      &drain_timer_, [](uv_timer_t* timer) { static_cast<Control*>(timer->data)->begin_drain(); },
      milliseconds(config_->shutdown_delay), 0);
}

void Control::begin_drain() {
  if (stopping_) return;
  if (drain_begun_) {
    log_record(LogLevel::kWarning, "drain_timeout is over: ending the sessions that are left", {});
    stop_workers();
    return;
  }
  drain_begun_ = true;
  for (auto& worker : workers_) worker->post(BeginDrain{config_->drain_pace});
  uv_timer_start(
      &drain_timer_, [](uv_timer_t* timer) { static_cast<Control*>(timer->data)->begin_drain(); },
      milliseconds(config_->drain_timeout), 0);
}

void Control::stop_workers() {
  if (stopping_) return;
  stopping_ = true;
  for (auto& worker : workers_) worker->post(StopNow{});
}

void Control::shut_down() {
  if (shut_down_) return;
  shut_down_ = true;
  listening_ = false;
  for (auto& thread : threads_) thread.join();
  for (auto& [request, collection] : collections_) collection.done(std::move(collection.rows));
  collections_.clear();
  pending_routes_.clear();
  kills_.clear();
  admin_->shut_down();
  branches_.shut_down();
  console_->shut_down();
  peers_->shut_down();
  switches_->shut_down();
  verifiers_->shut_down();
  monitor_->shut_down();
  watch_.close();
  for (auto& signal : signals_) uv_close(reinterpret_cast<uv_handle_t*>(&signal), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&tick_), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&drain_timer_), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&history_timer_), nullptr);
  mailbox_.close();
  log_record(LogLevel::kInfo, "stopped", {});
}

}  // namespace pointsman::proxy
