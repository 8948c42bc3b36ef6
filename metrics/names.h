#pragma once
// Every metric by name, type, labels and help text (contract section 8). A metric that is not listed here cannot be printed.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pointsman::metrics {

enum class Metric : std::uint8_t {
  kConnectionsActive,
  kConnectionsTotal,
  kRoutingDecisionsTotal,
  kRoutingRefusalsTotal,
  kReplicaLagSeconds,
  kReplicaLagBytes,
  kReplicaLagLimitSeconds,
  kLagSampleAgeSeconds,
  kMemberUp,
  kMemberIsPrimary,
  kMemberEligible,
  kProbeFailuresTotal,
  kPoolEndpointUp,
  kPoolEndpointConnections,
  kHeldConnections,
  kHoldSeconds,
  kLoginSeconds,
  kBytesTotal,
  kCancelRequestsTotal,
  kAuthFailuresTotal,
  kVerifierLookupsTotal,
  kTlsHandshakesTotal,
  kTlsHandshakeFailuresTotal,
  kConnectionsAcceptedTotal,
  kConnectionsOpen,
  kConnectionsPreLogin,
  kAcceptPausesTotal,
  kConfigReloadsTotal,
  kConfigLastSuccessTimestampSeconds,
  kConfigBranchesRejected,
  kCertificateExpiryTimestampSeconds,
  kBranchInfo,
  kBuildInfo,
  kLimit,
  kLogLinesDroppedTotal,
  kMetricsSeriesDroppedTotal,
  kProcessCpuSecondsTotal,
  kProcessResidentMemoryBytes,
  kProcessVirtualMemoryBytes,
  kProcessOpenFds,
  kProcessMaxFds,
  kProcessStartTimeSeconds,
};
inline constexpr std::size_t kMetricCount = static_cast<std::size_t>(Metric::kProcessStartTimeSeconds) + 1;

enum class MetricType : std::uint8_t { kCounter, kGauge, kHistogram };

struct MetricSpec {
  static constexpr std::size_t kMaxLabels = 4;

  Metric metric;
  MetricType type;
  std::string_view name;                                ///< with its prefix
  std::array<std::string_view, kMaxLabels> labels;      ///< unused ones are empty and last
  std::string_view help;

  constexpr std::size_t label_count() const {
    std::size_t count = 0;
    while (count < kMaxLabels && !labels[count].empty()) ++count;
    return count;
  }
};

inline constexpr std::array<MetricSpec, kMetricCount> kMetrics = {{
    {Metric::kConnectionsActive, MetricType::kGauge, "pointsman_connections_active", {"branch", "route", "member"},
     "Sessions connected to a backend now. On pool routes, member is pool/endpoint."},
    {Metric::kConnectionsTotal, MetricType::kCounter, "pointsman_connections_total", {"listener", "branch", "route", "outcome"},
     "Connections that named a known branch, by how their login ended: ok, refused (told no), failed (no answer)."},
    {Metric::kRoutingDecisionsTotal, MetricType::kCounter, "pointsman_routing_decisions_total", {"branch", "route", "member", "reason"},
     "Connections sent to a member or pool endpoint, by the reason it was chosen."},
    {Metric::kRoutingRefusalsTotal, MetricType::kCounter, "pointsman_routing_refusals_total", {"listener", "branch", "reason"},
     "Connections refused, by reason. Without a branch label: refused before a known branch was named."},
    {Metric::kReplicaLagSeconds, MetricType::kGauge, "pointsman_replica_lag_seconds", {"branch", "member"},
     "How long ago the primary was where the replica is now; 0 when it has replayed the newest sample."},
    {Metric::kReplicaLagBytes, MetricType::kGauge, "pointsman_replica_lag_bytes", {"branch", "member"},
     "Write-ahead log that the replica has not replayed yet."},
    {Metric::kReplicaLagLimitSeconds, MetricType::kGauge, "pointsman_replica_lag_limit_seconds", {"branch", "member"},
     "Configured lag above which the replica gets no new sessions."},
    {Metric::kLagSampleAgeSeconds, MetricType::kGauge, "pointsman_lag_sample_age_seconds", {"branch", "member"},
     "Time since the replica answered a probe."},
    {Metric::kMemberUp, MetricType::kGauge, "pointsman_member_up", {"branch", "member"},
     "1 when the member answers probes, 0 when it is down, absent while unknown."},
    {Metric::kMemberIsPrimary, MetricType::kGauge, "pointsman_member_is_primary", {"branch", "member"},
     "1 for the verified primary, absent while the member's role is unknown."},
    {Metric::kMemberEligible, MetricType::kGauge, "pointsman_member_eligible", {"branch", "member"},
     "1 when the member gets new sessions in its present role, absent while the role is unknown."},
    {Metric::kProbeFailuresTotal, MetricType::kCounter, "pointsman_probe_failures_total", {"branch", "member"},
     "Probes of the member that failed."},
    {Metric::kPoolEndpointUp, MetricType::kGauge, "pointsman_pool_endpoint_up", {"branch", "pool", "endpoint"},
     "1 when sessions are connected through the endpoint, absent when nothing is known of it."},
    {Metric::kPoolEndpointConnections, MetricType::kGauge, "pointsman_pool_endpoint_connections", {"branch", "pool", "endpoint"},
     "Sessions of this router connected to the pool endpoint now."},
    {Metric::kHeldConnections, MetricType::kGauge, "pointsman_held_connections", {"branch"},
     "Logins held now until the branch has a place for them."},
    {Metric::kHoldSeconds, MetricType::kHistogram, "pointsman_hold_seconds", {"branch"},
     "How long held logins were held."},
    {Metric::kLoginSeconds, MetricType::kHistogram, "pointsman_login_seconds", {"listener", "phase"},
     "Time from accept to the end of login, by phase."},
    {Metric::kBytesTotal, MetricType::kCounter, "pointsman_bytes_total", {"branch", "route", "direction"},
     "Bytes relayed, as the backend's protocol has them (TLS not counted)."},
    {Metric::kCancelRequestsTotal, MetricType::kCounter, "pointsman_cancel_requests_total", {"outcome"},
     "CancelRequests received, by outcome."},
    {Metric::kAuthFailuresTotal, MetricType::kCounter, "pointsman_auth_failures_total", {"branch", "reason"},
     "Logins that did not prove themselves, by reason."},
    {Metric::kVerifierLookupsTotal, MetricType::kCounter, "pointsman_verifier_lookups_total", {"outcome"},
     "Look-ups of a role's SCRAM verifier, by outcome; hit is an answer from the cache."},
    {Metric::kTlsHandshakesTotal, MetricType::kCounter, "pointsman_tls_handshakes_total", {"version", "resumed"},
     "Completed TLS handshakes with clients."},
    {Metric::kTlsHandshakeFailuresTotal, MetricType::kCounter, "pointsman_tls_handshake_failures_total", {},
     "TLS handshakes with clients that failed."},
    {Metric::kConnectionsAcceptedTotal, MetricType::kCounter, "pointsman_connections_accepted_total", {"listener"},
     "Connections accepted, cancel requests and probes of load balancers included."},
    {Metric::kConnectionsOpen, MetricType::kGauge, "pointsman_connections_open", {},
     "Client connections open now, logged in or not."},
    {Metric::kConnectionsPreLogin, MetricType::kGauge, "pointsman_connections_pre_login", {},
     "Client connections open now that have not finished their login."},
    {Metric::kAcceptPausesTotal, MetricType::kCounter, "pointsman_accept_pauses_total", {},
     "Times a listener paused because no file descriptor was left."},
    {Metric::kConfigReloadsTotal, MetricType::kCounter, "pointsman_config_reloads_total", {"outcome"},
     "Readings of the configuration after the start: ok, partial (bad branches kept their last good version), failed (nothing changed)."},
    {Metric::kConfigLastSuccessTimestampSeconds, MetricType::kGauge, "pointsman_config_last_success_timestamp_seconds", {},
     "When the running configuration was read."},
    {Metric::kConfigBranchesRejected, MetricType::kGauge, "pointsman_config_branches_rejected", {},
     "Branches that the last reading of the configuration rejected."},
    {Metric::kCertificateExpiryTimestampSeconds, MetricType::kGauge, "pointsman_certificate_expiry_timestamp_seconds", {},
     "When the certificate served to clients expires."},
    {Metric::kBranchInfo, MetricType::kGauge, "pointsman_branch_info", {"branch"},
     "Always 1; carries the labels configured for the branch."},
    {Metric::kBuildInfo, MetricType::kGauge, "pointsman_build_info", {"version"}, "Always 1; carries the version."},
    {Metric::kLimit, MetricType::kGauge, "pointsman_limit", {"name"}, "Limits in force, by their name in the configuration."},
    {Metric::kLogLinesDroppedTotal, MetricType::kCounter, "pointsman_log_lines_dropped_total", {},
     "Log lines dropped because stderr did not take them."},
    {Metric::kMetricsSeriesDroppedTotal, MetricType::kCounter, "pointsman_metrics_series_dropped_total", {},
     "Series left out of this page because it was full, summed over all scrapes."},
    {Metric::kProcessCpuSecondsTotal, MetricType::kCounter, "process_cpu_seconds_total", {},
     "Total user and system CPU time spent in seconds."},
    {Metric::kProcessResidentMemoryBytes, MetricType::kGauge, "process_resident_memory_bytes", {}, "Resident memory size in bytes."},
    {Metric::kProcessVirtualMemoryBytes, MetricType::kGauge, "process_virtual_memory_bytes", {}, "Virtual memory size in bytes."},
    {Metric::kProcessOpenFds, MetricType::kGauge, "process_open_fds", {}, "Number of open file descriptors."},
    {Metric::kProcessMaxFds, MetricType::kGauge, "process_max_fds", {}, "Maximum number of open file descriptors."},
    {Metric::kProcessStartTimeSeconds, MetricType::kGauge, "process_start_time_seconds", {},
     "Start time of the process since unix epoch in seconds."},
}};

constexpr const MetricSpec& spec_of(Metric metric) { return kMetrics[static_cast<std::size_t>(metric)]; }

/// The table stands in the enumeration's order.
constexpr bool metrics_in_order() {
  for (std::size_t i = 0; i < kMetricCount; ++i) {
    if (static_cast<std::size_t>(kMetrics[i].metric) != i) return false;
  }
  return true;
}
static_assert(metrics_in_order());

}  // namespace pointsman::metrics
