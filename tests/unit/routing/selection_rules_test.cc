// What configuration alone decides about a target, and what a destination is called and how it is reached.

#include <doctest/doctest.h>

#include <string>

#include "tests/unit/routing/selection_support.h"

namespace pointsman::routing {
namespace {

using test::Branch;
using test::decided;
using test::pooled;
using test::request;
using test::to_pool;
using test::to_primary;
using test::to_replica;

Refusal refused_statically(const Branch& branch, const RouteRequest& request, Reason reason,
                           std::string_view sqlstate) {
  const auto refusal = check_static(*branch.config, request);
  REQUIRE(refusal);
  CHECK(to_word(refusal->reason) == to_word(reason));
  CHECK(refusal->sqlstate == sqlstate);
  CHECK_FALSE(refusal->hint.empty());
  CHECK(refusal->detail.empty());
  return *refusal;
}

TEST_CASE("lawful targets pass the static check") {
  const Branch branch;
  for (const RouteRequest& lawful :
       {to_primary(), to_replica(), pooled(), to_pool("app"), to_pool("reads"),
        request(ListenerMode::kDirect, TargetKind::kPrimary), request(ListenerMode::kPooled, TargetKind::kPrimary)}) {
    CHECK_FALSE(check_static(*branch.config, lawful));
  }
}

TEST_CASE("a pool on the direct port is refused with the port to use") {
  const Branch branch;
  const Refusal refusal =
      refused_statically(branch, request(ListenerMode::kDirect, TargetKind::kPool, "app"), Reason::kWrongPort, "28000");
  CHECK(refusal.hint.find("6432") != std::string::npos);
  refused_statically(branch, request(ListenerMode::kDirect, TargetKind::kPool, "nope"), Reason::kUnknownPool, "28000");
}

TEST_CASE("replica on the pooled port is refused with the port to use") {
  const Refusal refusal =
      refused_statically(Branch(), request(ListenerMode::kPooled, TargetKind::kReplica), Reason::kWrongPort, "28000");
  CHECK(refusal.hint.find("5432") != std::string::npos);
}

TEST_CASE("an unknown pool is refused by name") {
  const Refusal refusal = refused_statically(Branch(), to_pool("nope"), Reason::kUnknownPool, "28000");
  CHECK(refusal.message == "branch \"x\" has no pool \"nope\"");
}

TEST_CASE("a branch of one member has no replica to offer") {
  refused_statically(Branch(1), to_replica(), Reason::kNoReplica, "0A000");
  CHECK_FALSE(check_static(*Branch(2).config, to_replica()));
}

TEST_CASE("without PgBouncer and default pool a plain pooled login is refused") {
  Branch branch;
  for (MemberConfig& member : branch.config->members) member.pgbouncer_port = 0;
  refused_statically(branch, pooled(), Reason::kNoLocalPool, "0A000");
  CHECK_FALSE(check_static(*branch.config, to_pool("app")));
  branch.config->default_pool = "app";
  CHECK_FALSE(check_static(*branch.config, pooled()));
}

TEST_CASE("replication passes on direct routes and is refused on pools") {
  const Branch branch;
  for (RouteRequest direct : {to_primary(), to_replica()}) {
    direct.replication = true;
    CHECK_FALSE(check_static(*branch.config, direct));
  }
  for (RouteRequest pool : {pooled(), to_pool("app")}) {
    pool.replication = true;
    refused_statically(branch, pool, Reason::kWrongPort, "0A000");
  }
}

TEST_CASE("session options about replicas are refused on pools") {
  RouteRequest with = pooled();
  with.options.min_lsn = 1;
  refused_statically(Branch(), with, Reason::kBadOption, "22023");
}

// --- what follows from a decision ---

TEST_CASE("each leg has its own TLS settings") {
  Branch branch;
  branch.config->backend_tls.ca = "backend";
  const Decision direct = decided(branch, to_primary());
  const Decision local = decided(branch, pooled());
  const Decision pool = decided(branch, to_pool("reads"));
  for (const Decision& decision : {direct, local, pool}) CHECK(tls_for(*branch.config, decision).ca == "backend");
  branch.config->pgbouncer_tls.emplace().ca = "bouncer";
  CHECK(tls_for(*branch.config, direct).ca == "backend");
  CHECK(tls_for(*branch.config, local).ca == "bouncer");
  CHECK(tls_for(*branch.config, pool).ca == "bouncer");
  branch.config->pools[1].tls.emplace().ca = "own";
  CHECK(tls_for(*branch.config, pool).ca == "own");
  CHECK(tls_for(*branch.config, decided(branch, to_pool("app"))).ca == "bouncer");
}

TEST_CASE("the name to verify is the configured one, else the host") {
  Branch branch;
  CHECK(server_name_for(branch.view, decided(branch, to_primary())) == "10.0.0.10");
  const Decision pool = decided(branch, to_pool("app"));
  CHECK(server_name_for(branch.view, pool) == "10.0.1.1");
  branch.config->backend_tls.server_name = "cluster-rw";
  CHECK(server_name_for(branch.view, pool) == "cluster-rw");
}

TEST_CASE("destinations are named for logs") {
  const Branch branch;
  CHECK(destination_name(branch.view, decided(branch, to_primary())) == "pg-0");
  CHECK(destination_name(branch.view, decided(branch, pooled())) == "pg-0 (pgbouncer)");
  CHECK(destination_name(branch.view, decided(branch, to_pool("app"))) == "app/10.0.1.1:6432");
}

TEST_CASE("a destination is found again by route and address, and nothing else is") {
  const test::Branch branch;
  const auto at = [&branch](RouteClass route, const char* host, std::uint16_t port) {
    return destination_at(branch.view, route, SocketAddress::from_numeric(host, port));
  };
  const auto replica = at(RouteClass::kReplica, "10.0.0.12", 5432);
  REQUIRE(replica);
  CHECK(replica->member == 2);
  CHECK(destination_name(branch.view, *replica) == "pg-2");
  const auto beside = at(RouteClass::kLocalPool, "10.0.0.10", 6432);
  REQUIRE(beside);
  CHECK(destination_name(branch.view, *beside) == "pg-0 (pgbouncer)");
  const auto pool = at(RouteClass::kPool, "10.0.1.3", 6432);
  REQUIRE(pool);
  CHECK(destination_name(branch.view, *pool) == "reads/10.0.1.3:6432");
  CHECK(server_name_for(branch.view, *pool) == "10.0.1.3");
  CHECK_FALSE(at(RouteClass::kPrimary, "10.0.0.10", 6432));  // the PgBouncer's port on a direct route
  CHECK_FALSE(at(RouteClass::kLocalPool, "10.0.0.10", 5432));
  CHECK_FALSE(at(RouteClass::kPrimary, "10.0.0.99", 5432));
  CHECK_FALSE(at(RouteClass::kPool, "10.0.1.9", 6432));
  CHECK_FALSE(destination_at(branch.view, RouteClass::kPrimary, {}));
}

}  // namespace
}  // namespace pointsman::routing
