#include "proxy/admin/metrics_page.h"

#include <doctest/doctest.h>

#include "proxy/admin/destinations.h"
#include "tests/unit/proxy/admin_fake_control.h"

using namespace pointsman;
using proxy::FakeControl;
using proxy::MetricsPage;
using proxy::ProcessStats;

namespace {

bool has_line(const std::string& text, std::string_view line) {
  return ("\n" + text).find("\n" + std::string(line) + "\n") != std::string::npos;
}
bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

std::string render(const FakeControl& control) {
  return MetricsPage(control).render(proxy::fake_now(), {});
}

}  // namespace

TEST_CASE("members are told with role, state and lag; what is unknown is absent") {
  FakeControl control;
  const std::string text = render(control);
  CHECK(has_line(text, R"(pointsman_member_up{branch="orders",member="pg-0"} 1)"));
  CHECK(has_line(text, R"(pointsman_member_up{branch="orders",member="pg-2"} 0)"));
  CHECK(has_line(text, R"(pointsman_member_is_primary{branch="orders",member="pg-0"} 1)"));
  CHECK(has_line(text, R"(pointsman_member_is_primary{branch="orders",member="pg-1"} 0)"));
  CHECK(has_line(text, R"(pointsman_member_eligible{branch="orders",member="pg-0"} 1)"));
  CHECK(has_line(text, R"(pointsman_member_eligible{branch="orders",member="pg-1"} 1)"));
  CHECK(has_line(text, R"(pointsman_member_eligible{branch="orders",member="pg-2"} 0)"));
  CHECK(has_line(text, R"(pointsman_replica_lag_seconds{branch="orders",member="pg-1"} 0.0213)"));
  CHECK(has_line(text, R"(pointsman_replica_lag_bytes{branch="orders",member="pg-1"} 4096)"));
  CHECK(has_line(text, R"(pointsman_replica_lag_limit_seconds{branch="orders",member="pg-1"} 10)"));
  CHECK(has_line(text, R"(pointsman_lag_sample_age_seconds{branch="orders",member="pg-1"} 0.4)"));
  CHECK_FALSE(has(text, R"(pointsman_replica_lag_seconds{branch="orders",member="pg-2"})"));
  CHECK_FALSE(has(text, R"(pointsman_lag_sample_age_seconds{branch="orders",member="pg-2"})"));
  CHECK_FALSE(has(text, R"(pointsman_replica_lag_limit_seconds{branch="orders",member="pg-0"})"));
  CHECK(has_line(text, R"(pointsman_probe_failures_total{branch="orders",member="pg-2"} 7)"));
  CHECK(has_line(text, R"(pointsman_branch_info{branch="orders",app="shop"} 1)"));
}

TEST_CASE("a member whose role is unknown is neither primary nor eligible, it is absent") {
  FakeControl control;
  control.in_use->members[1] = routing::MemberView{};
  control.in_use->members[1].name = "pg-1";
  const std::string text = render(control);
  CHECK_FALSE(has(text, R"(pointsman_connections_active{branch="orders",route="primary",member="pg-1"})"));
  for (const auto* name : {"up", "is_primary", "eligible"})
    CHECK_FALSE(has(text, "pointsman_member_" + std::string(name) + R"({branch="orders",member="pg-1"})"));
}

TEST_CASE("a member that answers, of unknown lag, is up and not eligible") {
  FakeControl control;
  control.in_use->members[1].state = routing::MemberState::kUnknown;
  const std::string text = render(control);
  CHECK(has_line(text, R"(pointsman_member_up{branch="orders",member="pg-1"} 1)"));
  CHECK(has_line(text, R"(pointsman_member_eligible{branch="orders",member="pg-1"} 0)"));
}

TEST_CASE("a second writer that lost is not the primary and gets nothing") {
  FakeControl control;
  control.in_use->members[1].role = routing::MemberRole::kPrimary;
  const std::string text = render(control);
  CHECK(has_line(text, R"(pointsman_member_is_primary{branch="orders",member="pg-1"} 0)"));
  CHECK(has_line(text, R"(pointsman_member_eligible{branch="orders",member="pg-1"} 0)"));
}

TEST_CASE("sessions are told by destination, decisions by the route their reason took") {
  FakeControl control;
  auto& slot = control.block->slot(1);
  const auto& branch = *control.in_use->config;
  slot.active[0].set(1);
  slot.active[1].set(2);
  slot.active[proxy::pgbouncer_destination(branch, 0)].set(3);
  slot.active[proxy::endpoint_destination(branch, 0, 0)].set(4);
  slot.active[proxy::endpoint_destination(branch, 1, 1)].set(5);
  const auto decided = [&](std::size_t destination, routing::Reason reason) {
    slot.decisions[destination * routing::kReasonCount + static_cast<std::size_t>(reason)].add();
  };
  decided(0, routing::Reason::kFallbackPrimary);
  decided(0, routing::Reason::kReplicaOnly);  // it was a replica then
  decided(1, routing::Reason::kHeld);
  decided(proxy::endpoint_destination(branch, 1, 0), routing::Reason::kNamedPool);
  const std::string text = render(control);
  CHECK(has_line(text, R"(pointsman_connections_active{branch="orders",route="primary",member="pg-0"} 1)"));
  CHECK(has_line(text, R"(pointsman_connections_active{branch="orders",route="replica",member="pg-1"} 2)"));
  CHECK(has_line(text, R"(pointsman_connections_active{branch="orders",route="local_pool",member="pg-0"} 3)"));
  CHECK_FALSE(has(text, R"(route="local_pool",member="pg-1")"));
  CHECK(has_line(text, R"(pointsman_connections_active{branch="orders",route="pool",member="app/10.0.0.21:6432"} 4)"));
  CHECK(has_line(text, R"(pointsman_connections_active{branch="orders",route="pool",member="reads/[::1]:7000"} 5)"));
  CHECK(
      has_line(text, R"(pointsman_pool_endpoint_connections{branch="orders",pool="app",endpoint="10.0.0.21:6432"} 4)"));
  CHECK(has_line(text, R"(pointsman_pool_endpoint_up{branch="orders",pool="app",endpoint="10.0.0.21:6432"} 1)"));
  CHECK_FALSE(has(text, R"(pointsman_pool_endpoint_up{branch="orders",pool="reads",endpoint="10.0.0.20:6432"})"));
  CHECK(has_line(
      text,
      R"(pointsman_routing_decisions_total{branch="orders",route="primary",member="pg-0",reason="fallback_primary"} 1)"));
  CHECK(has_line(
      text,
      R"(pointsman_routing_decisions_total{branch="orders",route="replica",member="pg-0",reason="replica_only"} 1)"));
  CHECK(has_line(
      text, R"(pointsman_routing_decisions_total{branch="orders",route="replica",member="pg-1",reason="held"} 1)"));
  CHECK(has_line(
      text,
      R"(pointsman_routing_decisions_total{branch="orders",route="pool",member="reads/10.0.0.20:6432",reason="named_pool"} 1)"));
}

TEST_CASE("detail says which branches have series of their own") {
  FakeControl control;
  CHECK_FALSE(has(render(control), "spare"));
  control.config->metrics_detail = routing::MetricsDetail::kAll;
  const std::string all = render(control);
  CHECK(has_line(all, R"(pointsman_branch_info{branch="spare"} 1)"));
  CHECK_FALSE(has(all, R"(pointsman_member_up{branch="spare")"));
  control.config->metrics_detail = routing::MetricsDetail::kNone;
  const std::string none = render(control);
  CHECK_FALSE(has(none, "branch="));
  CHECK(has(none, "pointsman_build_info"));
  CHECK(has(none, "pointsman_login_seconds_count"));
}

TEST_CASE("configuration, certificate and limits; times that never were are absent") {
  FakeControl control;
  std::string text = render(control);
  CHECK_FALSE(has(text, "config_last_success_timestamp_seconds"));
  CHECK_FALSE(has(text, "certificate_expiry_timestamp_seconds"));
  control.reloads = {
      .succeeded = 3, .partial = 2, .failed = 1, .last_success_unix = 1'700'000'000, .branches_rejected = 4};
  control.not_after = 1'900'000'000;
  control.verifiers.hits = 8;
  control.verifiers.no_role = 9;
  text = render(control);
  CHECK(has_line(text, R"(pointsman_config_reloads_total{outcome="ok"} 3)"));
  CHECK(has_line(text, R"(pointsman_config_reloads_total{outcome="partial"} 2)"));
  CHECK(has_line(text, R"(pointsman_config_reloads_total{outcome="failed"} 1)"));
  CHECK(has_line(text, "pointsman_config_last_success_timestamp_seconds 1700000000"));
  CHECK(has_line(text, "pointsman_config_branches_rejected 4"));
  CHECK(has_line(text, "pointsman_certificate_expiry_timestamp_seconds 1900000000"));
  CHECK(has_line(text, R"(pointsman_verifier_lookups_total{outcome="hit"} 8)"));
  CHECK(has_line(text, R"(pointsman_verifier_lookups_total{outcome="no_role"} 9)"));
  CHECK(has_line(text, R"(pointsman_limit{name="max_connections"} 20000)"));
  CHECK(has_line(text, "pointsman_log_lines_dropped_total 5"));
}

TEST_CASE("process numbers have no prefix and are absent when they could not be read") {
  FakeControl control;
  CHECK_FALSE(has(render(control), "process_"));
  ProcessStats stats;
  stats.cpu_seconds = 1.5;
  stats.open_fds = 12;
  const std::string text = MetricsPage(control).render(proxy::fake_now(), stats);
  CHECK(has_line(text, "process_cpu_seconds_total 1.5"));
  CHECK(has_line(text, "process_open_fds 12"));
  CHECK_FALSE(has(text, "process_max_fds"));
}

TEST_CASE("a full page keeps what belongs to no branch and sums what it dropped") {
  FakeControl control;
  control.config->metrics_detail = routing::MetricsDetail::kNone;
  const std::string global = render(control);
  std::size_t lines = 0;
  for (std::size_t at = 0; at < global.size(); at = global.find('\n', at) + 1) lines += global[at] == '#' ? 0U : 1U;

  control.config->metrics_detail = routing::MetricsDetail::kActive;
  MetricsPage page(
      control, lines - 1 + 4);  // all that has no branch (the counter of dropped series is not counted) and four more
  const std::string first = page.render(proxy::fake_now(), {});
  CHECK(has(first, "pointsman_build_info"));
  CHECK(has(first, R"(pointsman_branch_info{branch="orders",app="shop"} 1)"));
  CHECK_FALSE(has(first, "pointsman_pool_endpoint_connections"));
  const auto dropped = [](const std::string& text) {
    const std::string name = "\npointsman_metrics_series_dropped_total ";
    return std::stoul(text.substr(text.find(name) + name.size()));
  };
  CHECK(dropped(first) > 0);
  CHECK(dropped(page.render(proxy::fake_now(), {})) == 2 * dropped(first));
}

TEST_CASE("a source of members is up, down, or absent while nothing is known of it") {
  FakeControl control;
  CHECK_FALSE(has(render(control), "pointsman_discovery_up{"));
  control.discovery_status = {
      .source = "dns", .up = std::nullopt, .age_seconds = std::nullopt, .error = {}, .failures = 0};
  CHECK_FALSE(has(render(control), "pointsman_discovery_up{"));
  CHECK(has_line(render(control), R"(pointsman_discovery_failures_total{branch="orders"} 0)"));
  control.discovery_status->up = true;
  CHECK(has_line(render(control), R"(pointsman_discovery_up{branch="orders"} 1)"));
  control.discovery_status->up = false;
  control.discovery_status->failures = 3;
  CHECK(has_line(render(control), R"(pointsman_discovery_up{branch="orders"} 0)"));
  CHECK(has_line(render(control), R"(pointsman_discovery_failures_total{branch="orders"} 3)"));
}
