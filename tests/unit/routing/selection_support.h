#pragma once
// A branch with a primary, replicas and pools, and the requests that are made of it.

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "routing/selection.h"

namespace pointsman::routing::test {

inline constexpr base::Instant kNow{std::chrono::seconds(1000)};

/// pg-0 the primary in zone a, pg-1 in zone a and pg-2 in zone b good replicas; PgBouncers beside all; pools app and
/// reads.
struct Branch {
  std::shared_ptr<BranchConfig> config = std::make_shared<BranchConfig>();
  BranchView view;

  explicit Branch(std::size_t members = 3) {
    config->name = "x";
    for (std::size_t i = 0; i < members; ++i) {
      const std::string host = "10.0.0." + std::to_string(10 + i);
      const std::string zone = i < 2 ? "a" : "b";
      config->members.push_back({"pg-" + std::to_string(i), host, 5432, 6432, zone});
      MemberView member;
      member.name = config->members.back().name;
      member.host = host;
      member.zone = zone;
      member.address = SocketAddress::from_numeric(host, 5432);
      member.pgbouncer_address = SocketAddress::from_numeric(host, 6432);
      member.role = i == 0 ? MemberRole::kPrimary : MemberRole::kReplica;
      member.state = MemberState::kOk;
      member.sampled_at = member.probed_at = kNow;
      member.position = 0x1000;
      if (i > 0) member.lag_seconds = 0.1;
      view.members.push_back(member);
    }
    add_pool("app", true, {{"10.0.1.1", "a"}});
    add_pool("reads", false, {{"10.0.1.2", "a"}, {"10.0.1.3", "b"}});
    view.config = config;
    view.active = view.settled = true;
    view.primary = 0;
  }
  void add_pool(const std::string& name, bool to_primary,
                const std::vector<std::pair<std::string, std::string>>& endpoints) {
    PoolConfig pool;
    pool.name = name;
    pool.to_primary = to_primary;
    PoolView seen{name, to_primary, {}};
    for (const auto& [host, zone] : endpoints) {
      pool.endpoints.push_back({host, 6432, zone});
      seen.endpoints.push_back({host, SocketAddress::from_numeric(host, 6432), zone});
    }
    config->pools.push_back(pool);
    view.pools.push_back(seen);
  }
  void all_lagging(double pg1, double pg2) {
    view.members[1].state = view.members[2].state = MemberState::kLagging;
    view.members[1].lag_seconds = pg1;
    view.members[2].lag_seconds = pg2;
  }
};

inline RouteRequest request(ListenerMode mode, TargetKind kind, std::string pool = {}) {
  RouteRequest made;
  made.mode = mode;
  made.target = {kind, std::move(pool)};
  made.now = made.asked_at = kNow;  // positions are fresh
  return made;
}
inline RouteRequest to_primary() {
  return request(ListenerMode::kDirect, TargetKind::kDefault);
}
inline RouteRequest to_replica() {
  return request(ListenerMode::kDirect, TargetKind::kReplica);
}
inline RouteRequest pooled() {
  return request(ListenerMode::kPooled, TargetKind::kDefault);
}
inline RouteRequest to_pool(const char* name) {
  return request(ListenerMode::kPooled, TargetKind::kPool, name);
}

inline Decision decided(const Branch& branch, const RouteRequest& request) {
  const RouteResult result = choose(branch.view, request);
  REQUIRE(std::holds_alternative<Decision>(result));
  return std::get<Decision>(result);
}
inline NotNow not_now(const Branch& branch, const RouteRequest& request, Reason reason) {
  const RouteResult result = choose(branch.view, request);
  REQUIRE(std::holds_alternative<NotNow>(result));
  const NotNow later = std::get<NotNow>(result);
  CHECK(to_word(later.refusal.reason) == to_word(reason));
  CHECK(later.refusal.sqlstate == "57P03");
  CHECK_FALSE(later.refusal.hint.empty());
  return later;
}
inline Refusal refused(const Branch& branch, const RouteRequest& request, Reason reason, std::string_view sqlstate) {
  const RouteResult result = choose(branch.view, request);
  REQUIRE(std::holds_alternative<Refusal>(result));
  const Refusal refusal = std::get<Refusal>(result);
  CHECK(to_word(refusal.reason) == to_word(reason));
  CHECK(refusal.sqlstate == sqlstate);
  return refusal;
}

}  // namespace pointsman::routing::test
