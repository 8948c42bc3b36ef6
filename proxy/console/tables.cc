#include "proxy/console/tables.h"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "proxy/admin/destinations.h"
#include "proxy/admin/version.h"
#include "proxy/console/statement.h"
#include "routing/reason.h"
#include "routing/selection.h"

namespace pointsman::proxy {
namespace {

using routing::BranchView;
using routing::MemberView;
using routing::RouteClass;

constexpr std::size_t kSessionsAtOnce = 100;
using ViewPointer = std::shared_ptr<const BranchView>;

std::int64_t number(std::uint64_t value) {
  return static_cast<std::int64_t>(value);
}
Cell text_or_null(std::string text) {
  return text.empty() ? Cell() : Cell(std::move(text));
}
std::string escaped(std::string_view text) {
  return routing::escape_for_log(text, kMaxCellBytes - 4);
}

/// One block of rows a branch.
Table by_branch(std::vector<Column> columns, const ControlView& control, std::string_view branch,
                std::function<std::vector<Row>(const BranchView&)> rows) {
  auto views = control.views();
  const auto directory = control.directory();
  if (!branch.empty()) {
    const int found = directory->find(branch);
    const auto index = static_cast<std::size_t>(std::max(found, 0));
    views = found < 0 || index >= views.size() ? std::vector<ViewPointer>{} : std::vector<ViewPointer>{views[index]};
  }
  return {.columns = std::move(columns),
          .more = [views = std::move(views), rows = std::move(rows),
                   next = std::size_t{0}]() mutable -> std::optional<std::vector<Row>> {
            while (next < views.size()) {
              const ViewPointer view = std::exchange(views[next++], nullptr);
              if (view == nullptr) continue;
              if (auto found = rows(*view); !found.empty()) return found;
            }
            return std::nullopt;
          }};
}

Table of_rows(std::vector<Column> columns, std::vector<Row> rows) {
  return {.columns = std::move(columns),
          .more = [rows = std::move(rows), given = false]() mutable -> std::optional<std::vector<Row>> {
            if (std::exchange(given, true)) return std::nullopt;
            return std::move(rows);
          }};
}

std::uint64_t sessions_of(const BranchView& view) {
  const auto& branch = *view.config;
  std::size_t destinations = 2 * branch.members.size();
  for (const auto& pool : branch.pools) destinations += pool.endpoints.size();
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < destinations; ++i) sum += active_sessions(view, i);
  return sum;
}

// ---- counters -------------------------------------------------------------------------------------------------------

/// Over all workers.
template <typename Cells>
std::uint64_t sum(const metrics::BranchBlock& block, Cells cells, std::size_t index) {
  std::uint64_t total = 0;
  for (std::size_t worker = 0; worker < block.dimensions().workers; ++worker)
    total += (block.slot(worker).*cells)[index].value();
  return total;
}

/// The route of decisions for `reason` that led to `destination`.
std::string route_word(const metrics::DestinationWords& destination, std::size_t reason) {
  const auto route = route_of_reason(static_cast<routing::Reason>(reason));
  return route ? std::string(to_text(*route)) : destination.route;
}

std::vector<Row> routes_rows(const BranchView& view) {
  std::vector<Row> rows;
  if (view.block == nullptr) return rows;
  const auto& block = *view.block;
  const auto& size = block.dimensions();
  const auto words = destination_words(view);
  const auto add = [&](Cell route, Cell destination, std::size_t reason, std::uint64_t count) {
    if (count == 0) return;
    rows.push_back({view.config->name, std::move(route), std::move(destination),
                    std::string(to_word(static_cast<routing::Reason>(reason))), number(count)});
  };
  for (std::size_t i = 0; i < std::min(words.destinations.size(), size.destinations); ++i) {
    for (std::size_t reason = 0; reason < size.reasons; ++reason) {
      add(route_word(words.destinations[i], reason), escaped(words.destinations[i].member), reason,
          sum(block, &metrics::BranchSlot::decisions, i * size.reasons + reason));
    }
  }
  for (std::size_t reason = 0; reason < size.reasons; ++reason) {
    std::uint64_t refused = 0;
    for (std::size_t listener = 0; listener < size.listeners; ++listener)
      refused += sum(block, &metrics::BranchSlot::refusals, listener * size.reasons + reason);
    add({}, {}, reason, refused);
  }
  return rows;
}

struct RouteStats {
  std::uint64_t active = 0;
  std::uint64_t decisions = 0;
  std::array<std::uint64_t, metrics::kOutcomes> outcomes{};
  std::uint64_t from_clients = 0;
  std::uint64_t to_clients = 0;
  bool touched() const {
    return active + decisions + from_clients + to_clients + outcomes[0] + outcomes[1] + outcomes[2] != 0;
  }
};

/// Sessions and decisions, which are counted by destination.
void add_destinations(const BranchView& view, std::array<RouteStats, routing::kRouteClassCount>& stats) {
  const auto& block = *view.block;
  const auto& size = block.dimensions();
  const auto words = destination_words(view);
  const auto index_of = [](std::string_view route) {
    std::size_t i = 0;
    while (i + 1 < routing::kRouteClassCount && to_text(static_cast<RouteClass>(i)) != route) ++i;
    return i;
  };
  for (std::size_t i = 0; i < std::min(words.destinations.size(), size.destinations); ++i) {
    stats[index_of(words.destinations[i].route)].active += active_sessions(view, i);
    for (std::size_t reason = 0; reason < size.reasons; ++reason) {
      stats[index_of(route_word(words.destinations[i], reason))].decisions +=
          sum(block, &metrics::BranchSlot::decisions, i * size.reasons + reason);
    }
  }
}

std::vector<Row> stats_rows(const BranchView& view) {
  std::vector<Row> rows;
  if (view.block == nullptr) return rows;
  const auto& block = *view.block;
  const auto& size = block.dimensions();
  std::array<RouteStats, routing::kRouteClassCount> stats;
  add_destinations(view, stats);
  for (std::size_t route = 0; route < std::min(size.routes, stats.size()); ++route) {
    for (std::size_t listener = 0; listener < size.listeners; ++listener) {
      for (std::size_t outcome = 0; outcome < metrics::kOutcomes; ++outcome) {
        stats[route].outcomes[outcome] += sum(block, &metrics::BranchSlot::connections,
                                              (listener * size.routes + route) * metrics::kOutcomes + outcome);
      }
    }
    stats[route].from_clients = sum(block, &metrics::BranchSlot::bytes, route * 2);
    stats[route].to_clients = sum(block, &metrics::BranchSlot::bytes, route * 2 + 1);
    const RouteStats& one = stats[route];
    if (!one.touched()) continue;
    rows.push_back({view.config->name, std::string(to_text(static_cast<RouteClass>(route))), number(one.active),
                    number(one.outcomes[0]), number(one.outcomes[1]), number(one.outcomes[2]), number(one.decisions),
                    number(one.from_clients), number(one.to_clients)});
  }
  return rows;
}

// ---- members, pools -------------------------------------------------------------------------------------------------

Row member_row(const BranchView& view, std::size_t index, std::uint64_t probe_failures, base::Instant now) {
  // Of a branch that is not watched nothing is known, whatever was true when it was.
  const MemberView known = view.active ? view.members[index] : MemberView{};
  const auto& member = view.config->members[index];
  const bool sampled = known.sampled_at != base::Instant{};
  return {view.config->name,
          member.name,
          escaped(member.host),
          number(member.port),
          text_or_null(member.zone),
          std::string(to_text(known.role)),
          std::string(to_text(known.state)),
          known.lag_seconds ? Cell(*known.lag_seconds) : Cell(),
          known.lag_bytes ? Cell(number(*known.lag_bytes)) : Cell(),
          sampled ? Cell(base::to_seconds(now - known.sampled_at)) : Cell(),
          known.timeline != 0 ? Cell(number(known.timeline)) : Cell(),
          number(active_sessions(view, member_destination(index)) +
                 active_sessions(view, pgbouncer_destination(*view.config, index))),
          number(probe_failures)};
}

std::vector<Row> pool_rows(const BranchView& view, base::Instant now) {
  std::vector<Row> rows;
  const auto& branch = *view.config;
  const bool known = view.active && view.members.size() == branch.members.size();
  for (std::size_t i = 0; i < branch.members.size(); ++i) {
    if (branch.members[i].pgbouncer_port == 0) continue;
    const routing::PoolEndpointConfig beside{
        .host = branch.members[i].host, .port = branch.members[i].pgbouncer_port, .zone = {}};
    const auto sessions = active_sessions(view, pgbouncer_destination(branch, i));
    rows.push_back({branch.name, Cell(), known ? std::string(to_text(view.members[i].role)) : "unknown",
                    branch.members[i].name, escaped(endpoint_name(beside)), sessions > 0 ? "ok" : "unknown", false,
                    number(sessions)});
  }
  for (std::size_t pool = 0; pool < branch.pools.size(); ++pool) {
    for (std::size_t i = 0; i < branch.pools[pool].endpoints.size(); ++i) {
      const auto& endpoint = branch.pools[pool].endpoints[i];
      rows.push_back({branch.name, branch.pools[pool].name, branch.pools[pool].to_primary ? "primary" : "replica",
                      Cell(), escaped(endpoint_name(endpoint)),
                      std::string(to_text(endpoint_state(view, pool, i, now))), endpoint.draining,
                      number(active_sessions(view, endpoint_destination(branch, pool, i)))});
    }
  }
  return rows;
}

Row session_row(const SessionRow& row) {
  return {session_name(row),
          row.phase,
          row.client,
          row.listener,
          escaped(row.user),
          text_or_null(row.branch),
          text_or_null(row.target),
          text_or_null(escaped(row.destination)),
          text_or_null(row.reason),
          text_or_null(escaped(row.database)),
          text_or_null(escaped(row.application)),
          text_or_null(row.tls),
          row.idle,
          row.backend_pid != 0 ? Cell(number(row.backend_pid)) : Cell(),
          row.age_seconds,
          number(row.bytes_from_client),
          number(row.bytes_to_client)};
}

}  // namespace

std::string session_name(const SessionRow& row) {
  return std::to_string(row.worker) + "-" + std::to_string(row.id);
}

Table branches_table(const ControlView& control, std::string_view branch) {
  return by_branch({{"branch"},
                    {"active", ColumnType::kBool},
                    {"primary"},
                    {"timeline", ColumnType::kInt8},
                    {"members", ColumnType::kInt8},
                    {"pools", ColumnType::kInt8},
                    {"sessions", ColumnType::kInt8},
                    {"holding", ColumnType::kInt8},
                    {"on_hold", ColumnType::kBool},
                    {"failovers", ColumnType::kInt8}},
                   control, branch, [](const BranchView& view) {
                     const bool known = view.active && view.primary >= 0;
                     const auto primary = static_cast<std::size_t>(std::max(view.primary, 0));
                     return std::vector<Row>{{view.config->name, view.active,
                                              known ? Cell(view.config->members[primary].name) : Cell(),
                                              view.timeline != 0 ? Cell(number(view.timeline)) : Cell(),
                                              number(view.config->members.size()), number(view.config->pools.size()),
                                              number(sessions_of(view)),
                                              number(view.block == nullptr ? 0 : metrics::sum_holding(*view.block)),
                                              view.on_hold, number(view.failovers)}};
                   });
}

Table members_table(const ControlView& control, std::string_view branch, base::Instant now) {
  return by_branch({{"branch"},
                    {"member"},
                    {"host"},
                    {"port", ColumnType::kInt8},
                    {"zone"},
                    {"role"},
                    {"state"},
                    {"lag_seconds", ColumnType::kFloat8},
                    {"lag_bytes", ColumnType::kInt8},
                    {"sample_age", ColumnType::kFloat8},
                    {"timeline", ColumnType::kInt8},
                    {"sessions", ColumnType::kInt8},
                    {"probe_failures", ColumnType::kInt8}},
                   control, branch, [&control, now](const BranchView& view) {
                     std::vector<Row> rows;
                     for (std::size_t i = 0; i < std::min(view.members.size(), view.config->members.size()); ++i)
                       rows.push_back(member_row(view, i, control.probe_failures(view.config->name, i), now));
                     return rows;
                   });
}

Table pools_table(const ControlView& control, std::string_view branch, base::Instant now) {
  return by_branch({{"branch"},
                    {"pool"},
                    {"target"},
                    {"member"},
                    {"address"},
                    {"state"},
                    {"draining", ColumnType::kBool},
                    {"sessions", ColumnType::kInt8}},
                   control, branch, [now](const BranchView& view) { return pool_rows(view, now); });
}

Table routes_table(const ControlView& control, std::string_view branch) {
  return by_branch({{"branch"}, {"route"}, {"destination"}, {"reason"}, {"count", ColumnType::kInt8}}, control, branch,
                   routes_rows);
}

Table stats_table(const ControlView& control, std::string_view branch) {
  return by_branch({{"branch"},
                    {"route"},
                    {"active", ColumnType::kInt8},
                    {"ended", ColumnType::kInt8},
                    {"refused", ColumnType::kInt8},
                    {"failed", ColumnType::kInt8},
                    {"decisions", ColumnType::kInt8},
                    {"bytes_from_client", ColumnType::kInt8},
                    {"bytes_to_client", ColumnType::kInt8}},
                   control, branch, stats_rows);
}

Table sessions_table(std::vector<SessionRow> sessions, std::string_view branch) {
  if (!branch.empty()) std::erase_if(sessions, [branch](const SessionRow& row) { return row.branch != branch; });
  std::sort(sessions.begin(), sessions.end(), [](const SessionRow& a, const SessionRow& b) {
    return std::tie(b.age_seconds, a.worker, a.id) < std::tie(a.age_seconds, b.worker, b.id);
  });
  return {.columns = {{"id"},
                      {"phase"},
                      {"client"},
                      {"listener"},
                      {"user"},
                      {"branch"},
                      {"target"},
                      {"destination"},
                      {"reason"},
                      {"database"},
                      {"application"},
                      {"tls"},
                      {"idle", ColumnType::kBool},
                      {"backend_pid", ColumnType::kInt8},
                      {"age_seconds", ColumnType::kFloat8},
                      {"bytes_from_client", ColumnType::kInt8},
                      {"bytes_to_client", ColumnType::kInt8}},
          .more = [sessions = std::move(sessions), next = std::size_t{0}]() mutable -> std::optional<std::vector<Row>> {
            if (next == sessions.size()) return std::nullopt;
            std::vector<Row> rows;
            for (; next < sessions.size() && rows.size() < kSessionsAtOnce; ++next)
              rows.push_back(session_row(std::exchange(sessions[next], {})));
            return rows;
          }};
}

Table route_table(const ControlView::RouteAnswer& answer) {
  std::vector<Row> rows;
  const auto add = [&rows](const char* what, const std::string& value) {
    if (!value.empty()) rows.push_back({std::string(what), value});
  };
  add("ok", answer.ok ? "yes" : "no");
  add("role", escaped(answer.role));
  add("branch", answer.branch);
  add("target", answer.target);
  add(answer.ok ? "destination" : "message", answer.text_decision);
  add("address", answer.address);
  add("reason", answer.reason);
  add("sqlstate", answer.sqlstate);
  add("detail", answer.detail);
  add("hint", answer.hint);
  for (const std::string& candidate : answer.candidates) add("candidate", candidate);
  return of_rows({{"what"}, {"value"}}, std::move(rows));
}

Table version_table() {
  return of_rows({{"version"}}, {{"Pointsman " + std::string(version())}});
}

Table help_table() {
  std::vector<Row> rows;
  for (const HelpLine& line : console_help())
    rows.push_back({std::string(line.statement), std::string(line.acts ? "admin" : "read"), std::string(line.what)});
  return of_rows({{"statement"}, {"role"}, {"what"}}, std::move(rows));
}

}  // namespace pointsman::proxy
