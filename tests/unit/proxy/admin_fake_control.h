#pragma once
// A fake ControlView: a router of two branches, one in use and one not, as plain data that a test changes.

#include <utility>

#include "metrics/blocks.h"
#include "proxy/admin/control_view.h"
#include "routing/reason.h"
#include "routing/selection.h"

namespace pointsman::proxy {

inline base::Instant fake_now() {
  return base::Instant(std::chrono::seconds(1000));
}

class FakeControl final : public ControlView {
 public:
  FakeControl() {
    auto orders = std::make_shared<routing::BranchConfig>();
    orders->name = "orders";
    orders->labels = {{"app", "shop"}};
    orders->members = {{.name = "pg-0", .host = "10.0.0.10", .port = 5432, .pgbouncer_port = 6432, .zone = ""},
                       {.name = "pg-1", .host = "10.0.0.11", .port = 5432, .pgbouncer_port = 0, .zone = ""},
                       {.name = "pg-2", .host = "10.0.0.12", .port = 5432, .pgbouncer_port = 0, .zone = ""}};
    orders->pools = {
        {.name = "app", .to_primary = true, .endpoints = {{.host = "10.0.0.21", .port = 6432, .zone = ""}}, .tls = {}},
        {.name = "reads",
         .to_primary = false,
         .endpoints = {{.host = "10.0.0.20", .port = 6432, .zone = ""}, {.host = "::1", .port = 7000, .zone = ""}},
         .tls = {}}};
    auto spare = std::make_shared<routing::BranchConfig>();
    spare->name = "spare";
    spare->members = {{.name = "pg-9", .host = "10.0.0.99", .port = 5432, .pgbouncer_port = 0, .zone = ""}};
    config = std::make_shared<routing::Config>();
    config->listeners.resize(2);
    config->listeners[0].name = "direct";
    config->listeners[1].name = "pooled";
    config->branches = {{"orders", orders}, {"spare", spare}};
    reset_directory();

    block = std::make_shared<metrics::BranchBlock>(metrics::Dimensions{.workers = 2,
                                                                       .listeners = 2,
                                                                       .routes = routing::kRouteClassCount,
                                                                       .reasons = routing::kReasonCount,
                                                                       .destinations = 9});
    in_use = std::make_shared<routing::BranchView>();
    in_use->config = orders;
    in_use->active = true;
    in_use->settled = true;
    in_use->primary = 0;
    in_use->timeline = 3;
    in_use->block = block;
    in_use->members.resize(3);
    for (std::size_t i = 0; i < 3; ++i) in_use->members[i].name = orders->members[i].name;
    in_use->members[0].role = routing::MemberRole::kPrimary;
    in_use->members[0].state = routing::MemberState::kOk;
    in_use->members[0].sampled_at = fake_now() - std::chrono::milliseconds(250);
    in_use->members[1].role = routing::MemberRole::kReplica;
    in_use->members[1].state = routing::MemberState::kOk;
    in_use->members[1].lag_seconds = 0.0213;
    in_use->members[1].lag_bytes = 4096;
    in_use->members[1].sampled_at = fake_now() - std::chrono::milliseconds(400);
    in_use->members[2].role = routing::MemberRole::kReplica;
    in_use->members[2].state = routing::MemberState::kDown;
    not_in_use = std::make_shared<routing::BranchView>();
    not_in_use->config = spare;
    not_in_use->members.resize(1);
    not_in_use->members[0].name = "pg-9";
  }

  void reset_directory() { directory_ = std::make_shared<routing::Directory>(config); }

  std::shared_ptr<const routing::Directory> directory() const override { return directory_; }
  std::vector<std::shared_ptr<const routing::BranchView>> views() const override { return {in_use, not_in_use}; }
  std::uint64_t probe_failures(std::string_view branch, std::size_t member) const override {
    return branch == "orders" && member == 2 ? 7 : 0;
  }
  std::optional<DiscoveryStatus> discovery(std::string_view branch) const override {
    return branch == "orders" ? discovery_status : std::nullopt;
  }
  const VerifierStats& verifier_stats() const override { return verifiers; }
  std::vector<const metrics::WorkerBlock*> worker_blocks() const override { return {&worker}; }
  bool listening() const override { return is_listening; }
  bool draining() const override { return is_draining; }
  ReloadStats reload_stats() const override { return reloads; }
  std::int64_t certificate_not_after() const override { return not_after; }
  std::uint32_t max_connections() const override { return 20'000; }
  std::uint64_t log_lines_dropped() const override { return 5; }
  std::int64_t started_unix_ms() const override { return 1'700'000'000'000; }
  const EventRing& events() const override { return ring; }
  const DecisionHistory& history() const override { return decisions; }
  std::optional<ConsoleStats> console_stats() const override { return consoles; }
  std::optional<PeerStats> peer_stats() const override { return peers; }
  void kill_session(std::uint32_t worker_index, std::uint64_t session, std::function<void(bool)> done) override {
    killed.push_back(std::to_string(worker_index) + "-" + std::to_string(session));
    done(session_is_there);
  }
  void collect_sessions(std::function<void(std::vector<SessionRow>)> done) override {
    waiting_sessions = std::move(done);
  }
  ReloadResult reload() override {
    ++reloads_asked;
    return reload_result;
  }
  void explain_route(std::string listener, std::string user, std::function<void(RouteAnswer)> done) override {
    asked_listener = std::move(listener);
    asked_user = std::move(user);
    done(route_answer);
  }
  void hold(const std::string& branch, HoldOptions options, SwitchDone done) override {
    switches_asked.push_back("hold " + branch + " " + std::to_string(options.lease / std::chrono::seconds(1)) + "s" +
                             (options.force ? " force" : ""));
    done(switch_answer);
  }
  void release(const std::string& branch, SwitchDone done) override {
    switches_asked.push_back("release " + branch);
    done(switch_answer);
  }
  void adopt_cluster(const std::string& branch, SwitchDone done) override {
    switches_asked.push_back("adopt " + branch);
    done(switch_answer);
  }

  void edit_branch(BranchEdit edit, BranchEditDone done) override {
    edits_asked.push_back(std::move(edit));
    done(edit_answer);
  }

  std::vector<BranchEdit> edits_asked;
  BranchEditAnswer edit_answer;
  std::shared_ptr<routing::Config> config;
  std::shared_ptr<routing::BranchView> in_use;
  std::shared_ptr<routing::BranchView> not_in_use;
  std::shared_ptr<metrics::BranchBlock> block;
  EventRing ring;
  DecisionHistory decisions;
  metrics::WorkerBlock worker{2, routing::kRouteClassCount, routing::kReasonCount};
  VerifierStats verifiers;
  std::optional<DiscoveryStatus> discovery_status;
  ReloadStats reloads;
  ReloadResult reload_result{.applied = true, .errors = {}};
  RouteAnswer route_answer;
  std::function<void(std::vector<SessionRow>)> waiting_sessions;
  std::string asked_listener;
  std::string asked_user;
  SwitchAnswer switch_answer;
  std::vector<std::string> switches_asked;
  std::optional<ConsoleStats> consoles;
  std::optional<PeerStats> peers;
  std::vector<std::string> killed;
  bool session_is_there = true;
  int reloads_asked = 0;
  std::int64_t not_after = 0;
  bool is_listening = true;
  bool is_draining = false;

 private:
  std::shared_ptr<const routing::Directory> directory_;
};

}  // namespace pointsman::proxy
