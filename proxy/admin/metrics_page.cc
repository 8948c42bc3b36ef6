#include "proxy/admin/metrics_page.h"

#include <optional>

#include "metrics/registry.h"
#include "proxy/admin/destinations.h"
#include "proxy/admin/version.h"
#include "routing/reason.h"
#include "routing/selection.h"

namespace pointsman::proxy {
namespace {

using metrics::Metric;
using metrics::Scrape;
using routing::BranchView;
using routing::MemberRole;
using routing::MemberState;
using routing::MemberView;
using routing::Reason;
using routing::RouteClass;

metrics::Vocabulary vocabulary(const routing::Config& config) {
  metrics::Vocabulary words;
  for (const auto& listener : config.listeners) words.listeners.push_back(listener.name);
  for (std::size_t i = 0; i < routing::kRouteClassCount; ++i)
    words.routes.emplace_back(to_text(static_cast<RouteClass>(i)));
  for (std::size_t i = 0; i < routing::kReasonCount; ++i) {
    const auto route = route_of_reason(static_cast<Reason>(i));
    words.reasons.emplace_back(to_word(static_cast<Reason>(i)));
    words.reason_routes.emplace_back(route ? to_text(*route) : "");
  }
  return words;
}

void add_process(Scrape& scrape, const ProcessStats& process) {
  if (process.cpu_seconds) scrape.add(Metric::kProcessCpuSecondsTotal, {}, *process.cpu_seconds);
  if (process.resident_bytes)
    scrape.add(Metric::kProcessResidentMemoryBytes, {}, static_cast<double>(*process.resident_bytes));
  if (process.virtual_bytes)
    scrape.add(Metric::kProcessVirtualMemoryBytes, {}, static_cast<double>(*process.virtual_bytes));
  if (process.open_fds) scrape.add(Metric::kProcessOpenFds, {}, static_cast<double>(*process.open_fds));
  if (process.max_fds) scrape.add(Metric::kProcessMaxFds, {}, static_cast<double>(*process.max_fds));
  if (process.start_time_seconds) scrape.add(Metric::kProcessStartTimeSeconds, {}, *process.start_time_seconds);
}

void add_router(Scrape& scrape, const ControlView& control, const routing::Config& config) {
  scrape.add(Metric::kBuildInfo, {version()}, 1);
  scrape.add(Metric::kLimit, {"max_connections"}, control.max_connections());
  scrape.add(Metric::kLimit, {"max_connections_per_branch"}, config.limits.max_connections_per_branch);
  scrape.add(Metric::kLimit, {"max_held_per_branch"}, config.limits.max_held_per_branch);
  scrape.add(Metric::kLogLinesDroppedTotal, {}, static_cast<double>(control.log_lines_dropped()));

  const ReloadStats reloads = control.reload_stats();
  scrape.add(Metric::kConfigReloadsTotal, {"ok"}, static_cast<double>(reloads.succeeded));
  scrape.add(Metric::kConfigReloadsTotal, {"partial"}, static_cast<double>(reloads.partial));
  scrape.add(Metric::kConfigReloadsTotal, {"failed"}, static_cast<double>(reloads.failed));
  scrape.add(Metric::kConfigBranchesRejected, {}, static_cast<double>(reloads.branches_rejected));
  scrape.add(Metric::kConfigLastReloadSuccessful, {}, reloads.last_ok ? 1 : 0);
  if (reloads.last_success_unix != 0) {
    scrape.add(Metric::kConfigLastSuccessTimestampSeconds, {}, static_cast<double>(reloads.last_success_unix));
  }
  if (const auto expiry = control.certificate_not_after(); expiry != 0) {
    scrape.add(Metric::kCertificateExpiryTimestampSeconds, {}, static_cast<double>(expiry));
  }
  const VerifierStats& verifiers = control.verifier_stats();
  const auto lookup = [&](std::string_view outcome, std::uint64_t count) {
    scrape.add(Metric::kVerifierLookupsTotal, {outcome}, static_cast<double>(count));
  };
  lookup("hit", verifiers.hits);
  lookup("found", verifiers.found);
  lookup("no_role", verifiers.no_role);
  lookup("unusable", verifiers.unusable);
  lookup("unavailable", verifiers.unavailable);
  lookup("fault", verifiers.fault);
  lookup("throttled", verifiers.throttled);
}

void add_console(Scrape& scrape, const ControlView& control) {
  const auto consoles = control.console_stats();
  if (!consoles) return;
  scrape.add(Metric::kConsoleConnections, {}, static_cast<double>(consoles->connections));
  scrape.add(Metric::kConsoleStatementsTotal, {"ok"}, static_cast<double>(consoles->ok));
  scrape.add(Metric::kConsoleStatementsTotal, {"error"}, static_cast<double>(consoles->error));
  scrape.add(Metric::kConsoleStatementsTotal, {"denied"}, static_cast<double>(consoles->denied));
}

void add_peers(Scrape& scrape, const ControlView& control) {
  const auto peers = control.peer_stats();
  if (!peers) return;
  constexpr std::string_view kWords[] = {"unknown_key", "sent", "failed", "throttled"};
  scrape.add(Metric::kPeers, {}, static_cast<double>(peers->known));
  for (std::size_t i = 0; i < std::size(kWords); ++i)
    scrape.add(Metric::kPeerAnswersTotal, {kWords[i]}, static_cast<double>(peers->answers[i]));
}

bool sampled(const MemberView& member) {
  return member.sampled_at != base::Instant{};
}

std::optional<bool> is_up(const MemberView& member) {
  switch (member.state) {
    case MemberState::kOk:
    case MemberState::kLagging:
      return true;
    case MemberState::kDown:
      return false;
    case MemberState::kUnknown:  // answers probes, but its lag is not known; or nothing is known at all
      return sampled(member) ? std::optional(true) : std::nullopt;
  }
  return std::nullopt;
}

void add_member(Scrape& scrape, const BranchView& view, std::size_t index, base::Instant now) {
  const std::string& branch = view.config->name;
  const MemberView& member = view.members[index];
  const auto gauge = [&](Metric metric, double value) { scrape.add(metric, {branch, member.name}, value); };

  if (const auto up = is_up(member)) gauge(Metric::kMemberUp, *up ? 1 : 0);
  if (!member.rejected.empty()) scrape.add(Metric::kMemberRejected, {branch, member.name, member.rejected}, 1);
  if (member.role == MemberRole::kUnknown) return;
  const bool is_primary = view.primary == static_cast<int>(index);
  gauge(Metric::kMemberIsPrimary, is_primary ? 1 : 0);
  const bool takes_reads = member.role == MemberRole::kReplica && member.state == MemberState::kOk;
  const bool takes_writes = is_primary && member.state != MemberState::kDown;
  gauge(Metric::kMemberEligible, takes_reads || takes_writes ? 1 : 0);
  if (member.role != MemberRole::kReplica) return;
  if (member.lag_seconds) gauge(Metric::kReplicaLagSeconds, *member.lag_seconds);
  if (member.lag_bytes) gauge(Metric::kReplicaLagBytes, static_cast<double>(*member.lag_bytes));
  gauge(Metric::kReplicaLagLimitSeconds, base::to_seconds(view.config->replicas.max_lag));
  if (sampled(member)) gauge(Metric::kLagSampleAgeSeconds, base::to_seconds(now - member.sampled_at));
}

void add_branch(Scrape& scrape, const ControlView& control, const BranchView& view, const metrics::Vocabulary& words,
                base::Instant now) {
  const routing::BranchConfig& branch = *view.config;
  scrape.add_info(Metric::kBranchInfo, branch.name, branch.labels);
  for (std::size_t i = 0; i < view.members.size(); ++i) {
    if (view.active) add_member(scrape, view, i, now);
    const std::uint64_t failures = control.probe_failures(branch.name, i);
    if (view.active || failures != 0)
      scrape.add(Metric::kProbeFailuresTotal, {branch.name, view.members[i].name}, static_cast<double>(failures));
  }
  if (const auto discovery = control.discovery(branch.name)) {
    if (discovery->up) scrape.add(Metric::kDiscoveryUp, {branch.name}, *discovery->up ? 1 : 0);
    if (view.active || discovery->failures != 0)
      scrape.add(Metric::kDiscoveryFailuresTotal, {branch.name}, static_cast<double>(discovery->failures));
  }
  if (view.active || view.failovers != 0)
    scrape.add(Metric::kFailoversTotal, {branch.name}, static_cast<double>(view.failovers));
  if (view.active) scrape.add(Metric::kBranchOnHold, {branch.name}, view.on_hold ? 1 : 0);
  if (view.block == nullptr) return;
  scrape.add_branch(*view.block, words, destination_words(view));
  for (std::size_t pool = 0; pool < branch.pools.size(); ++pool) {
    for (std::size_t endpoint = 0; endpoint < branch.pools[pool].endpoints.size(); ++endpoint) {
      const std::string name = endpoint_name(branch.pools[pool].endpoints[endpoint]);
      const auto sessions = active_sessions(view, endpoint_destination(branch, pool, endpoint));
      scrape.add(Metric::kPoolEndpointConnections, {branch.name, branch.pools[pool].name, name},
                 static_cast<double>(sessions));
      if (const auto state = endpoint_state(view, pool, endpoint, now); state != MemberState::kUnknown) {
        scrape.add(Metric::kPoolEndpointUp, {branch.name, branch.pools[pool].name, name},
                   state == MemberState::kOk ? 1 : 0);
      }
    }
  }
}

}  // namespace

std::string MetricsPage::render(base::Instant now, const ProcessStats& process) {
  Scrape scrape(series_limit_);
  const auto directory = control_.directory();
  const routing::Config& config = directory->config();
  const metrics::Vocabulary words = vocabulary(config);
  // What belongs to no branch comes first: a page that is full still has it.
  add_process(scrape, process);
  add_router(scrape, control_, config);
  add_console(scrape, control_);
  add_peers(scrape, control_);
  scrape.add_workers(control_.worker_blocks(), words);
  if (config.metrics_detail != routing::MetricsDetail::kNone) {
    for (const auto& view : control_.views()) {
      const bool wanted = config.metrics_detail == routing::MetricsDetail::kAll ||
                          (view != nullptr && (view->active || view->block != nullptr));
      if (view != nullptr && wanted) add_branch(scrape, control_, *view, words, now);
    }
  }
  const std::size_t dropped = scrape.dropped();
  std::string text = scrape.text(dropped_total_);
  dropped_total_ += dropped;
  return text;
}

}  // namespace pointsman::proxy
