// What PgBouncer's console and the primary say, read. How they are talked to is tested end to end.

#include "proxy/monitor/console.h"

#include <doctest/doctest.h>

#include "proxy/monitor/long_transactions.h"

using namespace pointsman;
using proxy::PgFailure;
using proxy::PgRows;

namespace {

PgRows table(std::initializer_list<const char*> columns,
             std::initializer_list<std::initializer_list<const char*>> rows) {
  PgRows out;
  for (const auto* name : columns) out.add_column(name);
  for (const auto& row : rows) {
    for (const auto* cell : row) cell == nullptr ? out.add_null() : out.add_cell(cell);
    out.end_row();
  }
  return out;
}

}  // namespace

TEST_CASE("server logins under way are summed over the pools, wherever the column stands") {
  CHECK(proxy::server_logins(table({"database", "sv_login", "maxwait"}, {{"a", "2", "0"}, {"b", "1", "9"}})) == 3);
  CHECK(proxy::server_logins(table({"sv_login"}, {{"0"}, {nullptr}, {"x"}})) == 0);
  CHECK(proxy::server_logins(table({"database"}, {{"a"}})) == 0);
}

TEST_CASE("only the console's own word means that there is nothing to resume") {
  CHECK(proxy::says_not_paused({PgFailure::Kind::kServer, "08P01", "pooler is not paused/suspended"}));
  CHECK_FALSE(proxy::says_not_paused({PgFailure::Kind::kServer, "08P01", "admin access needed"}));
  CHECK_FALSE(proxy::says_not_paused({PgFailure::Kind::kNetwork, {}, "not paused"}));
}

TEST_CASE("transactions are read with what there is of them, foreign text escaped") {
  const auto found = proxy::parse_transactions(table(
      {"pid", "usename", "state", "age"},
      {{"17", "app", "idle in transaction", "61.5"}, {"18", nullptr, nullptr, "5e1"}, {"19", "a\nb", "active", "50"}}));
  REQUIRE(found);
  REQUIRE(found->size() == 3);
  CHECK((*found)[0].pid == 17);
  CHECK((*found)[0].age_seconds == 61.5);
  CHECK((*found)[0].state == "idle in transaction");
  CHECK((*found)[1].user.empty());
  CHECK((*found)[2].user.find('\n') == std::string::npos);
  CHECK(proxy::parse_transactions(table({"pid", "usename", "state", "age"}, {}))->empty());
  CHECK_FALSE(proxy::parse_transactions(table({"pid", "usename", "state"}, {})));
  CHECK_FALSE(proxy::parse_transactions(table({"pid", "usename", "state", "age"}, {{"x", "a", "b", "1"}})));
  CHECK_FALSE(proxy::parse_transactions(table({"pid", "usename", "state", "age"}, {{"1", "a", "b", nullptr}})));
}
