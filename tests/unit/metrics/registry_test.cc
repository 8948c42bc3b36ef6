#include "metrics/registry.h"

#include <doctest/doctest.h>

#include <set>

using namespace std::string_view_literals;
using pointsman::metrics::BranchBlock;
using pointsman::metrics::BranchWords;
using pointsman::metrics::Dimensions;
using pointsman::metrics::HistogramSum;
using pointsman::metrics::kMetrics;
using pointsman::metrics::lawful_label_name;
using pointsman::metrics::Metric;
using pointsman::metrics::MetricType;
using pointsman::metrics::Scrape;
using pointsman::metrics::Vocabulary;
using pointsman::metrics::WorkerBlock;

namespace {

bool has_line(const std::string& text, std::string_view line) {
  return ("\n" + text).find("\n" + std::string(line) + "\n") != std::string::npos;
}

Vocabulary words() {
  return {.listeners = {"direct", "pooled"},
          .routes = {"primary", "replica"},
          .reasons = {"won", "held", "lost"},
          .reason_routes = {"primary", "", ""}};
}

}  // namespace

TEST_CASE("every metric has a unique name, our prefix or process_, a help text, and a counter ends in _total") {
  std::set<std::string_view> names;
  for (const auto& spec : kMetrics) {
    CAPTURE(spec.name);
    CHECK(names.insert(spec.name).second);
    CHECK((spec.name.starts_with("pointsman_") || spec.name.starts_with("process_")));
    CHECK(spec.help.ends_with('.'));
    CHECK(spec.name.ends_with("_total") == (spec.type == MetricType::kCounter));
    for (const auto label : spec.labels) CHECK((label.empty() || lawful_label_name(label) == label));
  }
}

TEST_CASE("a scrape prints help, type, labels in the specification's order and the value") {
  Scrape scrape(100);
  scrape.add(Metric::kReplicaLagSeconds, {"orders", "pg-1"}, 0.25);
  scrape.add(Metric::kBuildInfo, {"a\"b\\c\nd"}, 1);
  const std::string text = scrape.text(0);
  CHECK(has_line(text, "# TYPE pointsman_replica_lag_seconds gauge"));
  CHECK(text.find("# HELP pointsman_replica_lag_seconds How long") != std::string::npos);
  CHECK(has_line(text, R"(pointsman_replica_lag_seconds{branch="orders",member="pg-1"} 0.25)"));
  CHECK(has_line(text, R"(pointsman_build_info{version="a\"b\\c\nd"} 1)"));
  CHECK(has_line(text, "pointsman_metrics_series_dropped_total 0"));
  CHECK(text.find("pointsman_member_up") == std::string::npos);
}

TEST_CASE("a label without a value is left out") {
  Scrape scrape(100);
  scrape.add(Metric::kRoutingRefusalsTotal, {"direct", "", "bad_user"}, 3);
  CHECK(has_line(scrape.text(0), R"(pointsman_routing_refusals_total{listener="direct",reason="bad_user"} 3)"));
}

TEST_CASE("large counters keep all their digits") {
  Scrape scrape(100);
  scrape.add(Metric::kProcessResidentMemoryBytes, {}, 123456789012.0);
  CHECK(has_line(scrape.text(0), "process_resident_memory_bytes 123456789012"));
}

TEST_CASE("a histogram is cumulative, ends at +Inf and adds up over workers") {
  Dimensions size{.workers = 2, .listeners = 0, .routes = 0, .reasons = 0, .destinations = 0};
  BranchBlock block(size);
  block.slot(0).hold_seconds.observe_ns(50'000);           // the first bucket, to 100 µs
  block.slot(1).hold_seconds.observe_ns(150'000);          // the second, to 200 µs
  block.slot(1).hold_seconds.observe_ns(100'000'000'000);  // beyond the last
  Scrape scrape(100);
  scrape.add_branch(block, {}, {.branch = "orders", .destinations = {}});
  const std::string text = scrape.text(0);
  CHECK(has_line(text, R"(pointsman_hold_seconds_bucket{branch="orders",le="0.0001"} 1)"));
  CHECK(has_line(text, R"(pointsman_hold_seconds_bucket{branch="orders",le="0.0002"} 2)"));
  CHECK(has_line(text, R"(pointsman_hold_seconds_bucket{branch="orders",le="52.4288"} 2)"));
  CHECK(has_line(text, R"(pointsman_hold_seconds_bucket{branch="orders",le="+Inf"} 3)"));
  CHECK(has_line(text, R"(pointsman_hold_seconds_count{branch="orders"} 3)"));
  CHECK(has_line(text, R"(pointsman_hold_seconds_sum{branch="orders"} 100.0002)"));
}

TEST_CASE("a branch's counters are summed over workers and named by the caller's words") {
  BranchBlock block({.workers = 2, .listeners = 2, .routes = 2, .reasons = 3, .destinations = 2});
  block.slot(0).active[0].set(4);
  block.slot(1).active[0].set(3);
  block.slot(0).decisions[0 * 3 + 0].add(5);              // destination 0, reason "won": the reason says primary
  block.slot(1).decisions[0 * 3 + 1].add(2);              // destination 0, reason "held": the destination says replica
  block.slot(0).refusals[1 * 3 + 2].add();                // listener pooled, reason lost
  block.slot(1).connections[(0 * 2 + 1) * 3 + 0].add(9);  // listener direct, route replica, ok
  block.slot(0).connections[(1 * 2 + 0) * 3 + 2].add(8);  // listener pooled, route primary, failed
  block.slot(0).bytes[1 * 2 + 1].add(1000);
  block.slot(1).auth_failures[2].add(6);
  block.slot(0).holding.set(1);
  block.slot(1).holding.set(1);
  const BranchWords branch{.branch = "orders",
                           .destinations = {{.route = "replica", .member = "pg-1"},
                                            {.route = "local_pool", .member = "pg-1", .exists = false}}};
  Scrape scrape(1000);
  scrape.add_branch(block, words(), branch);
  const std::string text = scrape.text(0);
  CHECK(has_line(text, R"(pointsman_connections_active{branch="orders",route="replica",member="pg-1"} 7)"));
  CHECK(text.find("local_pool") == std::string::npos);
  CHECK(has_line(text,
                 R"(pointsman_routing_decisions_total{branch="orders",route="primary",member="pg-1",reason="won"} 5)"));
  CHECK(has_line(
      text, R"(pointsman_routing_decisions_total{branch="orders",route="replica",member="pg-1",reason="held"} 2)"));
  CHECK(has_line(text, R"(pointsman_routing_refusals_total{listener="pooled",branch="orders",reason="lost"} 1)"));
  CHECK(has_line(text,
                 R"(pointsman_connections_total{listener="direct",branch="orders",route="replica",outcome="ok"} 9)"));
  CHECK(has_line(
      text, R"(pointsman_connections_total{listener="pooled",branch="orders",route="primary",outcome="failed"} 8)"));
  CHECK(has_line(text, R"(pointsman_bytes_total{branch="orders",route="replica",direction="to_client"} 1000)"));
  CHECK(has_line(text, R"(pointsman_auth_failures_total{branch="orders",reason="lost"} 6)"));
  CHECK(has_line(text, R"(pointsman_held_connections{branch="orders"} 2)"));
}

TEST_CASE("counters never touched and a histogram without observations are absent") {
  BranchBlock block({.workers = 1, .listeners = 2, .routes = 2, .reasons = 3, .destinations = 1});
  Scrape scrape(1000);
  scrape.add_branch(block, words(), {.branch = "orders", .destinations = {{.route = "primary", .member = "pg-0"}}});
  CHECK(scrape.series() == 2);
  const std::string text = scrape.text(0);
  CHECK(has_line(text, R"(pointsman_connections_active{branch="orders",route="primary",member="pg-0"} 0)"));
  CHECK(has_line(text, R"(pointsman_held_connections{branch="orders"} 0)"));
}

TEST_CASE("a destination that is configured no more but has sessions is still counted") {
  BranchBlock block({.workers = 1, .listeners = 0, .routes = 0, .reasons = 0, .destinations = 1});
  block.slot(0).active[0].set(2);
  Scrape scrape(1000);
  scrape.add_branch(block, {},
                    {.branch = "orders", .destinations = {{.route = "local_pool", .member = "pg-0", .exists = false}}});
  CHECK(
      has_line(scrape.text(0), R"(pointsman_connections_active{branch="orders",route="local_pool",member="pg-0"} 2)"));
}

TEST_CASE("workers are summed; more or fewer words than listeners are no matter") {
  WorkerBlock first(2, 2, 3);
  WorkerBlock second(2, 2, 3);
  first.accepted[1].add(10);
  second.accepted[1].add(5);
  second.refusals[1 * 3 + 2].add(4);
  first.login[1 * 6 + 0].observe_ns(1'000'000);
  first.roundtrip[1].observe_ns(350'000);
  second.roundtrip[1].observe_ns(60'000'000'000);
  first.cancels[1].add(7);
  first.handshakes[0].add(1);
  second.handshakes[1].add(2);
  second.handshakes[2].add(3);
  first.sessions.set(11);
  second.sessions.set(22);
  first.pre_login.set(1);
  second.accept_paused.add(9);
  const std::array<const WorkerBlock*, 2> workers = {&first, &second};
  Scrape scrape(1000);
  scrape.add_workers(workers, words());
  const std::string text = scrape.text(0);
  CHECK(has_line(text, R"(pointsman_connections_accepted_total{listener="pooled"} 15)"));
  CHECK(has_line(text, R"(pointsman_routing_refusals_total{listener="pooled",reason="lost"} 4)"));
  CHECK(has_line(text, R"(pointsman_login_seconds_count{listener="pooled",phase="tls"} 1)"));
  CHECK(has_line(text, R"(pointsman_login_seconds_count{listener="direct",phase="total"} 0)"));
  CHECK(has_line(text, R"(pointsman_roundtrip_seconds_bucket{route="replica",le="0.0004"} 1)"));
  CHECK(has_line(text, R"(pointsman_roundtrip_seconds_count{route="replica"} 2)"));
  CHECK(text.find(R"(pointsman_roundtrip_seconds_count{route="primary"})") == std::string::npos);
  CHECK(has_line(text, R"(pointsman_cancel_requests_total{outcome="unknown_key"} 7)"));
  CHECK(has_line(text, R"(pointsman_tls_handshakes_total{version="TLSv1.2",resumed="false"} 1)"));
  CHECK(has_line(text, R"(pointsman_tls_handshakes_total{version="TLSv1.3",resumed="false"} 2)"));
  CHECK(has_line(text, "pointsman_tls_handshake_failures_total 3"));
  CHECK(has_line(text, "pointsman_connections_open 33"));
  CHECK(has_line(text, "pointsman_connections_pre_login 1"));
  CHECK(has_line(text, "pointsman_accept_pauses_total 9"));

  Vocabulary one = words();
  one.listeners = {"direct"};
  Scrape fewer(1000);
  fewer.add_workers(workers, one);
  CHECK(fewer.text(0).find("pooled") == std::string::npos);
  one.listeners = {"direct", "pooled", "added"};
  Scrape more(1000);
  more.add_workers(workers, one);
  CHECK(more.text(0).find("added") == std::string::npos);
}

TEST_CASE("a full page drops whole series and counts them over all scrapes") {
  Scrape scrape(2);
  scrape.add(Metric::kMemberUp, {"a", "pg-0"}, 1);
  scrape.add(Metric::kMemberUp, {"a", "pg-1"}, 1);
  CHECK(scrape.dropped() == 0);
  scrape.add(Metric::kMemberUp, {"a", "pg-2"}, 1);
  CHECK(scrape.series() == 2);
  CHECK(scrape.dropped() == 1);
  const std::string text = scrape.text(41);
  CHECK(text.find("pg-2") == std::string::npos);
  CHECK(has_line(text, "pointsman_metrics_series_dropped_total 42"));
}

TEST_CASE("a histogram counts as all its lines: it fits at the limit and not below") {
  HistogramSum sum;
  constexpr std::size_t kLines = 23;
  Scrape fits(kLines);
  fits.add(Metric::kHoldSeconds, {"a"}, sum);
  CHECK(fits.dropped() == 0);
  const std::string text = fits.text(0);
  std::size_t lines = 0;
  for (std::size_t at = text.find("\npointsman_hold_seconds"); at != std::string::npos;
       at = text.find("\npointsman_hold_seconds", at + 1))
    ++lines;
  CHECK(lines == kLines);
  Scrape full(kLines - 1);
  full.add(Metric::kHoldSeconds, {"a"}, sum);
  CHECK(full.dropped() == kLines);
  CHECK(full.series() == 0);
}

TEST_CASE("labels of the operator's own are made lawful and never stand twice") {
  CHECK(lawful_label_name("app") == "app");
  CHECK(lawful_label_name("app.kubernetes.io/name") == "app_kubernetes_io_name");
  CHECK(lawful_label_name("2nd") == "label_2nd");
  CHECK(lawful_label_name("__name__") == "label___name__");
  CHECK(lawful_label_name("") == "label_");
  CHECK(lawful_label_name("größe") == "gr____e");

  Scrape scrape(10);
  scrape.add_info(Metric::kBranchInfo, "orders",
                  {{"branch", "forged"}, {"a-b", "1"}, {"a.b", "2"}, {"team", "x"}, {"none", ""}});
  CHECK(has_line(scrape.text(0), R"(pointsman_branch_info{branch="orders",a_b="1",team="x"} 1)"));
}

TEST_CASE("sessions that began before the destinations changed are counted where they are now") {
  const Dimensions two{.workers = 2, .listeners = 1, .routes = 1, .reasons = 1, .destinations = 2};
  auto former = std::make_shared<BranchBlock>(two);
  former->slot(0).active[0].set(3);
  former->slot(1).active[1].set(5);
  former->slot(1).holding.set(2);
  former->admitted = 8;
  const Dimensions three{.workers = 2, .listeners = 1, .routes = 1, .reasons = 1, .destinations = 3};
  BranchBlock block(three);
  block.formers.push_back({former, {1, BranchBlock::kNowhere, 0}});
  block.slot(0).active[0].set(10);
  block.admitted = 10;
  CHECK(pointsman::metrics::sum_active(block, 0) == 15);
  CHECK(pointsman::metrics::sum_active(block, 1) == 0);
  CHECK(pointsman::metrics::sum_active(block, 2) == 3);
  CHECK(block.active(0, 0) == 10);
  CHECK(block.active(1, 0) == 5);
  CHECK(block.active(0, 2) == 3);
  CHECK(pointsman::metrics::sum_holding(block) == 2);
  CHECK(block.admitted_in_all() == 18);
  former.reset();  // the last session has gone
  CHECK(pointsman::metrics::sum_active(block, 0) == 10);
  CHECK(pointsman::metrics::sum_active(block, 2) == 0);
  CHECK(block.admitted_in_all() == 10);
}
