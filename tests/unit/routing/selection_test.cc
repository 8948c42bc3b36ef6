#include "routing/selection.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/unit/routing/selection_support.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using test::Branch;
using test::decided;
using test::kNow;
using test::not_now;
using test::pooled;
using test::refused;
using test::request;
using test::to_pool;
using test::to_primary;
using test::to_replica;

// --- the primary ---

TEST_CASE("no target and primary go to the verified primary") {
  const Branch branch;
  for (const RouteRequest& plain : {to_primary(), request(ListenerMode::kDirect, TargetKind::kPrimary)}) {
    const Decision decision = decided(branch, plain);
    CHECK(decision.member == 0);
    CHECK(decision.reason == Reason::kPrimary);
    CHECK(decision.route == RouteClass::kPrimary);
    CHECK(decision.address.to_string() == "10.0.0.10:5432");
  }
}

TEST_CASE("no verified primary: not now, and never a replica") {
  Branch branch;
  branch.view.primary = -1;
  branch.view.members[0].state = MemberState::kDown;
  not_now(branch, to_primary(), Reason::kNoPrimary);
}

TEST_CASE("a primary whose address is unknown or that was tried in vain: not now") {
  Branch branch;
  const int tried[] = {0};
  RouteRequest again = to_primary();
  again.excluded = tried;
  not_now(branch, again, Reason::kBackendUnreachable);
  branch.view.members[0].address = {};
  not_now(branch, to_primary(), Reason::kNoPrimary);
}

TEST_CASE("a view that is not active or not settled gives no verdict") {
  for (const bool active : {false, true}) {
    Branch branch;
    branch.view.active = active;
    branch.view.settled = false;
    not_now(branch, to_primary(), Reason::kNoPrimary);
    not_now(branch, to_replica(), Reason::kNoReplica);
    not_now(branch, pooled(), Reason::kNoPrimary);
    CHECK(decided(branch, to_pool("app")).route == RouteClass::kPool);  // a dedicated pool needs no verdict
  }
}

TEST_CASE("a probe login refused by every member is the operator's fault, told to the log") {
  Branch branch;
  branch.view.primary = -1;
  for (MemberView& member : branch.view.members) {
    member.role = MemberRole::kUnknown;
    member.state = MemberState::kUnknown;
    member.probe_refused = true;
  }
  const Refusal refusal = refused(branch, to_primary(), Reason::kBackendFault, "58000");
  CHECK(refusal.log_detail.find("pg-0") != std::string::npos);
  CHECK(refusal.message.find("pg-0") == std::string::npos);
  branch.view.members[2].probe_refused = false;
  not_now(branch, to_primary(), Reason::kNoPrimary);
}

// --- replicas ---

TEST_CASE("a replica among several is the best, a single one the only") {
  Branch branch;
  const Decision best = decided(branch, to_replica());
  CHECK(best.reason == Reason::kReplicaBest);
  CHECK(best.route == RouteClass::kReplica);
  CHECK(best.member >= 1);
  branch.view.members[1].state = MemberState::kDown;
  const Decision only = decided(branch, to_replica());
  CHECK(only.reason == Reason::kReplicaOnly);
  CHECK(only.member == 2);
  CHECK(only.address.to_string() == "10.0.0.12:5432");
}

TEST_CASE("lagging, unknown, down, unresolved and tried replicas are passed over") {
  for (const MemberState state : {MemberState::kLagging, MemberState::kUnknown, MemberState::kDown}) {
    Branch branch;
    branch.view.members[1].state = state;
    CHECK(decided(branch, to_replica()).member == 2);
  }
  Branch unresolved;
  unresolved.view.members[2].address = {};
  CHECK(decided(unresolved, to_replica()).member == 1);
  const int tried[] = {1};
  RouteRequest again = to_replica();
  again.excluded = tried;
  CHECK(decided(Branch(), again).member == 2);
  Branch no_role;
  no_role.view.members[1].role = MemberRole::kUnknown;
  CHECK(decided(no_role, to_replica()).member == 2);
}

TEST_CASE("the primary is never a replica's stand-in unless asked for") {
  Branch branch;
  branch.view.members[1].state = branch.view.members[2].state = MemberState::kDown;
  not_now(branch, to_replica(), Reason::kNoReplica);
  RouteRequest asks = to_replica();
  asks.options.fallback = Fallback::kPrimary;
  const Decision decision = decided(branch, asks);
  CHECK(decision.member == 0);
  CHECK(decision.reason == Reason::kFallbackPrimary);
  branch.view.primary = -1;
  not_now(branch, asks, Reason::kNoPrimary);
}

TEST_CASE("all replicas tried in vain: not now") {
  const int tried[] = {2, 1};
  RouteRequest again = to_replica();
  again.excluded = tried;
  not_now(Branch(), again, Reason::kBackendUnreachable);
}

TEST_CASE("the own zone comes first where it has an eligible replica") {
  Branch branch;
  branch.view.members[1].lag_seconds = 5;  // still ok
  const std::uint32_t sessions[] = {0, 10, 0};
  for (std::uint64_t random = 0; random < 50; ++random) {
    RouteRequest near = to_replica();
    near.random = random;
    near.zone = "a";
    near.member_sessions = sessions;
    CHECK(decided(branch, near).member == 1);
    near.zone = "b";
    CHECK(decided(branch, near).member == 2);
    near.zone = "c";
    CHECK(decided(branch, near).member == 2);  // nobody there: all, and the emptier one
  }
  branch.view.members[1].state = MemberState::kLagging;
  RouteRequest near = to_replica();
  near.zone = "a";
  CHECK(decided(branch, near).member == 2);
}

TEST_CASE("fewer sessions win, equal ones share") {
  const Branch branch;
  std::mt19937_64 random(1);
  const std::uint32_t uneven[] = {0, 9, 3};
  int first = 0;
  for (int i = 0; i < 2000; ++i) {
    RouteRequest plain = to_replica();
    plain.random = random();
    if (decided(branch, plain).member == 1) ++first;
    plain.member_sessions = uneven;
    REQUIRE(decided(branch, plain).member == 2);
  }
  CHECK(first > 900);
  CHECK(first < 1100);
}

TEST_CASE("a session's max_lag takes the replicas at or under it") {
  Branch branch;
  branch.view.members[1].lag_seconds = 2.0;
  branch.view.members[2].lag_seconds = 2.001;
  RouteRequest tight = to_replica();
  tight.options.max_lag = 2s;
  CHECK(decided(branch, tight).member == 1);
  tight.options.max_lag = 1999ms;
  const Refusal refusal = refused(branch, tight, Reason::kAllLagging, "57P03");
  CHECK(refusal.detail == "The best one is 2.00 s behind; the limit is 1999ms.");
}

TEST_CASE("a lag figure that has grown old no longer satisfies max_lag") {
  Branch branch;
  branch.config->probe.interval = 1s;
  RouteRequest tight = to_replica();
  tight.options.max_lag = 2s;
  branch.view.members[1].sampled_at = branch.view.members[2].sampled_at = kNow - 3s;
  CHECK(decided(branch, tight).route == RouteClass::kReplica);
  branch.view.members[1].sampled_at = branch.view.members[2].sampled_at = kNow - 3s - 1ms;
  refused(branch, tight, Reason::kAllLagging, "57P03");
  CHECK(decided(branch, to_replica()).reason == Reason::kReplicaBest);  // without a limit of its own the state decides
}

TEST_CASE("a replica without a lag figure does not satisfy max_lag") {
  Branch branch;
  branch.view.members[1].lag_seconds.reset();
  branch.view.members[2].state = MemberState::kDown;
  RouteRequest tight = to_replica();
  tight.options.max_lag = 2h;
  refused(branch, tight, Reason::kAllLagging, "57P03");
}

TEST_CASE("min_lsn is a hard filter at the position itself") {
  Branch branch;
  branch.view.members[1].position = 0x0FFF;
  branch.view.members[2].position = 0x1000;
  RouteRequest after = to_replica();
  after.options.min_lsn = 0x1000;
  const Decision decision = decided(branch, after);
  CHECK(decision.member == 2);
  CHECK(decision.reason == Reason::kReplicaMinLsn);
  after.options.min_lsn = 0x1001;
  const Refusal refusal = refused(branch, after, Reason::kMinLsnNotReached, "57P03");
  CHECK(refusal.detail == "The best one has replayed 0/1000.");
  CHECK(refusal.hint.find("pointsman.wait") != std::string::npos);
  branch.view.members[2].position.reset();
  after.options.min_lsn = 0x1000;
  refused(branch, after, Reason::kMinLsnNotReached, "57P03");
}

TEST_CASE("no fallback but the primary weakens min_lsn") {
  Branch branch;
  branch.all_lagging(20, 30);
  branch.view.members[1].position = branch.view.members[2].position = 0x0FFF;
  RouteRequest after = to_replica();
  after.options.min_lsn = 0x1000;
  after.options.fallback = Fallback::kLeastLagged;
  refused(branch, after, Reason::kMinLsnNotReached, "57P03");
  branch.view.members[2].position = 0x1000;
  CHECK(decided(branch, after).member == 2);  // the laggard that has it
  branch.view.members[2].position = 0x0FFF;
  after.options.fallback = Fallback::kPrimary;
  CHECK(decided(branch, after).reason == Reason::kFallbackPrimary);
}

TEST_CASE("with wait a session is told not now and how long it would wait") {
  RouteRequest after = to_replica();
  after.options.min_lsn = 0x9999;
  after.options.wait = 2s;
  const NotNow later = not_now(Branch(), after, Reason::kMinLsnNotReached);
  CHECK(later.wait == 2s);
  after.options.wait = 0s;
  refused(Branch(), after, Reason::kMinLsnNotReached, "57P03");
  Branch down;
  down.view.members[1].state = down.view.members[2].state = MemberState::kDown;
  CHECK_FALSE(not_now(down, to_replica(), Reason::kNoReplica).wait);
}

TEST_CASE("least_lagged takes the least lag up to the hard cap") {
  Branch branch;
  branch.all_lagging(30, 20);
  const Decision decision = decided(branch, to_replica());
  CHECK(decision.member == 2);
  CHECK(decision.reason == Reason::kFallbackLeastLagged);
  branch.all_lagging(60.0, 61);
  CHECK(decided(branch, to_replica()).member == 1);
  branch.all_lagging(60.001, 61);
  const Refusal refusal = refused(branch, to_replica(), Reason::kAllLagging, "57P03");
  CHECK(refusal.detail == "The best one is 60.0 s behind; the limit is 10s.");
}

TEST_CASE("unknown is last under least_lagged and never eligible under error") {
  Branch branch;
  branch.view.members[1].state = MemberState::kUnknown;
  branch.all_lagging(0, 59);
  branch.view.members[1].state = MemberState::kUnknown;
  CHECK(decided(branch, to_replica()).member == 2);
  branch.view.members[2].lag_seconds = 61;
  const Decision last = decided(branch, to_replica());
  CHECK(last.member == 1);
  CHECK(last.reason == Reason::kFallbackLeastLagged);
  RouteRequest strict = to_replica();
  strict.options.fallback = Fallback::kError;
  refused(branch, strict, Reason::kAllLagging, "57P03");
}

TEST_CASE("a replica known to be further behind than the hard cap is not taken as unknown") {
  Branch branch;
  branch.view.members[2].state = MemberState::kDown;
  branch.view.members[1].state = MemberState::kLagging;
  branch.view.members[1].lag_seconds.reset();
  branch.view.members[1].lag_at_least = 60.0;
  CHECK(decided(branch, to_replica()).member == 1);
  branch.view.members[1].lag_at_least = 60.1;
  refused(branch, to_replica(), Reason::kAllLagging, "57P03");
}

TEST_CASE("a session that gives min_lsn or max_lag gets error unless it says otherwise") {
  Branch branch;
  branch.all_lagging(20, 30);
  RouteRequest tight = to_replica();
  tight.options.max_lag = 5s;
  refused(branch, tight, Reason::kAllLagging, "57P03");
  tight.options.fallback = Fallback::kLeastLagged;
  CHECK(decided(branch, tight).member == 1);
  RouteRequest after = to_replica();
  after.options.min_lsn = 1;
  refused(branch, after, Reason::kAllLagging, "57P03");
}

TEST_CASE("the branch's own fallback policy holds where the session says nothing") {
  Branch branch;
  branch.all_lagging(20, 30);
  branch.config->replicas.fallback = Fallback::kError;
  refused(branch, to_replica(), Reason::kAllLagging, "57P03");
  branch.config->replicas.fallback = Fallback::kPrimary;
  CHECK(decided(branch, to_replica()).reason == Reason::kFallbackPrimary);
}

// --- pools ---

TEST_CASE("a plain pooled login goes to the PgBouncer beside the primary") {
  Branch branch;
  const Decision decision = decided(branch, pooled());
  CHECK(decision.reason == Reason::kLocalPool);
  CHECK(decision.route == RouteClass::kLocalPool);
  CHECK(decision.member == 0);
  CHECK(decision.address.to_string() == "10.0.0.10:6432");
  branch.view.primary = 1;
  branch.view.members[1].role = MemberRole::kPrimary;
  CHECK(decided(branch, pooled()).address.to_string() == "10.0.0.11:6432");
  branch.config->members[1].pgbouncer_port = 0;
  refused(branch, pooled(), Reason::kNoLocalPool, "0A000");
  branch.view.primary = -1;
  not_now(branch, pooled(), Reason::kNoPrimary);
}

TEST_CASE("with a default pool a plain pooled login goes there, also without a primary") {
  Branch branch;
  branch.config->default_pool = "app";
  branch.view.primary = -1;
  for (const RouteRequest& plain : {pooled(), request(ListenerMode::kPooled, TargetKind::kPrimary)}) {
    const Decision decision = decided(branch, plain);
    CHECK(decision.reason == Reason::kDefaultPool);
    CHECK(decision.route == RouteClass::kPool);
    CHECK(decision.member == -1);
    CHECK(decision.pool == 0);
    CHECK(decision.address.to_string() == "10.0.1.1:6432");
  }
}

TEST_CASE("a named pool is reached at one of its endpoints") {
  const Branch branch;
  const std::uint32_t sessions[] = {12, 2};
  RouteRequest plain = to_pool("reads");
  plain.endpoint_sessions = sessions;
  const Decision decision = decided(branch, plain);
  CHECK(decision.reason == Reason::kNamedPool);
  CHECK(decision.pool == 1);
  CHECK(decision.endpoint == 1);
  plain.zone = "a";
  CHECK(decided(branch, plain).endpoint == 0);
  const int tried[] = {0};
  plain.excluded = tried;
  CHECK(decided(branch, plain).endpoint == 1);
}

TEST_CASE("a pool none of whose endpoints can be reached: not now") {
  Branch branch;
  const int tried[] = {0, 1};
  RouteRequest again = to_pool("reads");
  again.excluded = tried;
  not_now(branch, again, Reason::kBackendUnreachable);
  branch.view.pools[0].endpoints[0].address = {};
  not_now(branch, to_pool("app"), Reason::kBackendUnreachable);
}

TEST_CASE("explain says a line per candidate, with the verdict on each") {
  Branch branch(4);
  branch.view.members[1].state = MemberState::kLagging;
  branch.view.members[3].state = MemberState::kDown;
  std::vector<std::string> lines;
  CHECK(std::get<Decision>(choose(branch.view, to_replica(), &lines)).member == 2);
  REQUIRE(lines.size() == 4);
  CHECK(lines[0] == "pg-0: primary, ok, zone a, sessions 0: no replica");
  CHECK(lines[1] == "pg-1: replica, lagging, lag 0.10 s, at 0/1000, zone a, sessions 0: too far behind");
  CHECK(lines[2] == "pg-2: replica, ok, lag 0.10 s, at 0/1000, zone b, sessions 0: chosen");
  CHECK(lines[3].ends_with("down"));
  lines.clear();
  choose(branch.view, to_pool("reads"), &lines);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].starts_with("reads/10.0.1.2:6432"));
  lines.clear();
  branch.view.primary = -1;
  choose(branch.view, to_primary(), &lines);
  CHECK(lines.size() == 4);
}

TEST_CASE("the same view, counts and random number give the same decision") {
  const Branch branch;
  for (std::uint64_t random = 0; random < 64; ++random) {
    RouteRequest plain = to_replica();
    plain.random = random;
    CHECK(decided(branch, plain).member == decided(branch, plain).member);
  }
}

TEST_CASE("the own zone comes first while it has room") {
  const Branch branch;
  RouteRequest plain = to_replica();
  plain.zone = "a";
  std::uint32_t sessions[] = {0, 30, 10};
  plain.member_sessions = sessions;
  for (plain.random = 0; plain.random < 64; ++plain.random) CHECK(decided(branch, plain).member == 1);
  sessions[1] = 31;  // more than twice the other's, and ten
  for (plain.random = 0; plain.random < 64; ++plain.random) CHECK(decided(branch, plain).member == 2);
}

TEST_CASE("a failed dial is remembered until a probe has answered since: others are preferred") {
  Branch branch;
  RouteRequest plain = to_replica();
  const base::Instant failed[] = {{}, kNow - std::chrono::seconds(1), {}};
  plain.member_failed_at = failed;
  branch.view.members[1].probed_at = kNow - std::chrono::seconds(2);
  for (plain.random = 0; plain.random < 64; ++plain.random) CHECK(decided(branch, plain).member == 2);
  SUBCASE("nobody else: it is tried all the same") {
    branch.view.members[2].state = MemberState::kDown;
    CHECK(decided(branch, plain).member == 1);
  }
  SUBCASE("a probe has answered since") {
    branch.view.members[1].probed_at = kNow;
    int first = 0;
    for (plain.random = 0; plain.random < 64; ++plain.random) first += decided(branch, plain).member == 1 ? 1 : 0;
    CHECK(first > 0);
  }
}

TEST_CASE("an endpoint that could not be reached is passed over for a while") {
  const Branch branch;
  RouteRequest plain = to_pool("reads");
  const base::Instant failed[] = {kNow - std::chrono::seconds(1), {}};
  plain.endpoint_failed_at = failed;
  for (plain.random = 0; plain.random < 64; ++plain.random) CHECK(decided(branch, plain).endpoint == 1);
  plain.now = kNow + kEndpointDoubt;
  int first = 0;
  for (plain.random = 0; plain.random < 64; ++plain.random) first += decided(branch, plain).endpoint == 0 ? 1 : 0;
  CHECK(first > 0);
}

TEST_CASE("a draining endpoint takes no new sessions") {
  Branch branch;
  branch.config->pools[1].endpoints[0].draining = true;
  RouteRequest plain = to_pool("reads");
  for (plain.random = 0; plain.random < 64; ++plain.random) CHECK(decided(branch, plain).endpoint == 1);
  branch.config->pools[1].endpoints[1].draining = true;
  CHECK(not_now(branch, plain, Reason::kBackendUnreachable).refusal.detail == "All its endpoints are draining.");
}

TEST_CASE("min_lsn without a wait: what a probe saw before the session asked does not decide") {
  Branch branch;
  RouteRequest plain = to_replica();
  plain.options.min_lsn = 0x2000;
  plain.asked_at = {};
  branch.view.members[1].probed_at = branch.view.members[2].probed_at = kNow - std::chrono::milliseconds(900);
  auto later = not_now(branch, plain, Reason::kMinLsnNotReached);
  CHECK(later.ask_afresh);
  CHECK(later.wait == branch.config->probe.timeout);
  plain.asked_at = kNow - std::chrono::milliseconds(100);
  branch.view.members[1].probed_at = kNow;
  CHECK(not_now(branch, plain, Reason::kMinLsnNotReached).ask_afresh);  // the other one has not answered yet
  branch.view.members[2].probed_at = kNow;
  (void)refused(branch, plain, Reason::kMinLsnNotReached, "57P03");
  branch.view.members[2].position = 0x2000;
  CHECK(decided(branch, plain).member == 2);
}

TEST_CASE("a branch on hold keeps new sessions from the primary, its PgBouncer and its pools, not from replicas") {
  Branch branch;
  branch.view.on_hold = true;
  (void)not_now(branch, to_primary(), Reason::kNoPrimary);
  (void)not_now(branch, pooled(), Reason::kNoPrimary);
  (void)not_now(branch, to_pool("app"), Reason::kNoPrimary);
  (void)decided(branch, to_replica());
  (void)decided(branch, to_pool("reads"));
}

// ---- simulations ----------------------------------------------------------------------------------------------------

/// Routers that each know only their own sessions, as workers do.
struct Fleet {
  Branch branch;
  std::vector<std::vector<std::uint32_t>> known;  // per router and member
  std::mt19937_64 random{7};

  Fleet(std::size_t members, std::size_t routers)
      : branch(members), known(routers, std::vector<std::uint32_t>(members)) {}
  int arrive(std::size_t router) {
    RouteRequest plain = to_replica();
    plain.random = random();
    plain.member_sessions = known[router];
    const int member = decided(branch, plain).member;
    ++known[router][static_cast<std::size_t>(member)];
    return member;
  }
  std::vector<std::uint32_t> totals() const {
    std::vector<std::uint32_t> sum(known.front().size());
    for (const auto& router : known) {
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += router[i];
    }
    return sum;
  }
};

TEST_CASE(
    "30,000 sessions over six replicas, in eight routers that know only their own: each replica within 5 percent") {
  Fleet fleet(7, 8);
  std::vector<std::pair<std::size_t, int>> open;
  for (int i = 0; i < 30'000; ++i) {
    const auto router = static_cast<std::size_t>(fleet.random() % 8);
    open.emplace_back(router, fleet.arrive(router));
    if (open.size() > 6'000) {  // somebody leaves
      std::swap(open[fleet.random() % open.size()], open.back());
      --fleet.known[open.back().first][static_cast<std::size_t>(open.back().second)];
      open.pop_back();
    }
  }
  const auto totals = fleet.totals();
  CHECK(totals[0] == 0);
  for (std::size_t i = 1; i < totals.size(); ++i) {
    CHECK(totals[i] > 950);
    CHECK(totals[i] < 1'050);
  }
}

TEST_CASE("a fresh replica is filled, not stormed: of the next sessions it gets at most what two choices give") {
  Fleet fleet(5, 8);
  fleet.branch.view.members[4].state = MemberState::kDown;
  for (int i = 0; i < 3'000; ++i) (void)fleet.arrive(fleet.random() % 8);
  fleet.branch.view.members[4].state = MemberState::kOk;
  int fresh = 0;
  for (int i = 0; i < 400; ++i) fresh += fleet.arrive(fleet.random() % 8) == 4 ? 1 : 0;
  // One of four is among two random ones in half of the cases, and wins each of them while it is the emptiest.
  CHECK(fresh > 160);
  CHECK(fresh < 240);
}

}  // namespace
}  // namespace pointsman::routing
