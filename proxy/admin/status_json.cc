#include "proxy/admin/status_json.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include <nlohmann/json.hpp>

#include "proxy/admin/branch_health.h"
#include "proxy/admin/destinations.h"
#include "proxy/admin/json_text.h"
#include "proxy/admin/version.h"
#include "routing/reason.h"

namespace pointsman::proxy {
namespace {

using Json = nlohmann::ordered_json;
using routing::BranchView;
using routing::MemberRole;
using routing::MemberState;
using routing::MemberView;

/// Seconds are told to the millisecond.
double rounded(double seconds) {
  return std::round(seconds * 1000) / 1000;
}

Json member_json(const BranchView& view, std::size_t index, base::Instant now) {
  // Of a branch that is not watched nothing is known, whatever was true when it was.
  const MemberView known = view.active ? view.members[index] : MemberView{};
  const auto& branch = *view.config;
  const bool sampled = known.sampled_at != base::Instant{};
  return {{"name", branch.members[index].name},
          {"role", to_text(known.role)},
          {"state", to_text(known.state)},
          {"lag_seconds", known.lag_seconds ? Json(rounded(*known.lag_seconds)) : Json()},
          {"lag_bytes", known.lag_bytes ? Json(*known.lag_bytes) : Json()},
          {"sample_age_seconds", sampled ? Json(rounded(base::to_seconds(now - known.sampled_at))) : Json()},
          // Sessions that end at this node, directly or through the PgBouncer beside it.
          {"sessions", active_sessions(view, member_destination(index)) +
                           active_sessions(view, pgbouncer_destination(branch, index))}};
}

Json pool_json(const BranchView& view, std::size_t index, base::Instant now) {
  const routing::PoolConfig& pool = view.config->pools[index];
  Json endpoints = Json::array();
  for (std::size_t i = 0; i < pool.endpoints.size(); ++i) {
    endpoints.push_back({{"address", endpoint_name(pool.endpoints[i])},
                         {"state", to_text(endpoint_state(view, index, i, now))},
                         {"sessions", active_sessions(view, endpoint_destination(*view.config, index, i))}});
  }
  return {
      {"name", pool.name}, {"target", pool.to_primary ? "primary" : "replica"}, {"endpoints", std::move(endpoints)}};
}

Json discovery_json(const DiscoveryStatus& discovery) {
  return {{"source", discovery.source},
          {"state", discovery.up ? (*discovery.up ? "ok" : "stale") : "unknown"},
          {"age_seconds", discovery.age_seconds ? Json(rounded(*discovery.age_seconds)) : Json()},
          {"error", discovery.error.empty() ? Json() : Json(discovery.error)}};
}

Json branch_json(const BranchView& view, const std::optional<DiscoveryStatus>& discovery, base::Instant now) {
  const bool primary_known = view.active && view.primary >= 0;
  Json members = Json::array();
  for (std::size_t i = 0; i < view.members.size(); ++i) members.push_back(member_json(view, i, now));
  Json pools = Json::array();
  for (std::size_t i = 0; i < view.config->pools.size(); ++i) pools.push_back(pool_json(view, i, now));
  Json json = {
      {"active", view.active},
      {"primary", primary_known ? Json(view.config->members[static_cast<std::size_t>(view.primary)].name) : Json()},
      {"timeline", view.timeline != 0 ? Json(view.timeline) : Json()},
      {"on_hold", view.on_hold},
      {"holding", view.block == nullptr ? 0 : metrics::sum_holding(*view.block)},
      {"members", std::move(members)},
      {"pools", std::move(pools)}};
  if (discovery) json["discovery"] = discovery_json(*discovery);
  return json;
}

/// {"primary": 12, "held": 1}: the reasons from `first` up to `end` that ever occurred.
Json counts_json(const DecisionHistory::Counts& counts, std::size_t first, std::size_t end) {
  Json json = Json::object();
  for (std::size_t i = first; i < end; ++i) {
    if (counts[i] != 0) json[std::string(to_word(static_cast<routing::Reason>(i)))] = counts[i];
  }
  return json;
}

Json history_json(const DecisionHistory& history, const std::string& branch) {
  Json reasons = Json::object();
  for (const auto& [reason, bins] : history.bins_of(branch)) reasons[std::string(to_word(reason))] = bins;
  return {{"bin_seconds", base::to_seconds(DecisionHistory::kBin)},
          {"bins", DecisionHistory::kBins},
          {"reasons", std::move(reasons)}};
}

/// What only who asks for one branch is told: too much for 10,000 of them.
void add_detail(Json& json, const ControlView& control, const BranchView& view,
                const std::optional<DiscoveryStatus>& discovery) {
  const routing::BranchConfig& branch = *view.config;
  json["settled"] = view.settled;
  json["health"] = to_text(health_of(view, discovery, holding_of(view)));
  json["problems"] = Json::array();
  for (const Problem& problem : problems_of(view, discovery))
    json["problems"].push_back({{"health", to_text(problem.health)}, {"text", problem.text}});
  json["labels"] = branch.labels;
  json["lag_limit_seconds"] = base::to_seconds(branch.replicas.max_lag);
  json["lag_limit_bytes"] = branch.replicas.max_lag_bytes ? Json(*branch.replicas.max_lag_bytes) : Json();
  json["hold_timeout_seconds"] = base::to_seconds(branch.failover.hold_timeout);
  json["failovers"] = view.failovers;
  json["system_identifier"] = view.system_identifier.empty() ? Json() : Json(view.system_identifier);
  const auto counts = counts_of(view);
  json["decisions"] = counts_json(counts, 0, routing::kFirstRefusal);
  json["refusals"] = counts_json(counts, routing::kFirstRefusal, routing::kReasonCount);
  json["history"] = history_json(control.history(), branch.name);
  for (std::size_t i = 0; i < view.members.size(); ++i) {
    const MemberView known = view.active ? view.members[i] : MemberView{};
    Json& member = json["members"][i];
    member["address"] = endpoint_name({.host = branch.members[i].host, .port = branch.members[i].port, .zone = ""});
    member["zone"] = branch.members[i].zone.empty() ? Json() : Json(branch.members[i].zone);
    member["timeline"] = known.timeline != 0 ? Json(known.timeline) : Json();
    member["lag_at_least_seconds"] = known.lag_at_least ? Json(rounded(*known.lag_at_least)) : Json();
    member["probe_failures"] = control.probe_failures(branch.name, i);
    member["pgbouncer_port"] = branch.members[i].pgbouncer_port != 0 ? Json(branch.members[i].pgbouncer_port) : Json();
    member["pgbouncer_sessions"] = active_sessions(view, pgbouncer_destination(branch, i));
  }
}

Json session_json(const SessionRow& row) {
  return {{"id", row.id},
          {"worker", row.worker},
          {"client", row.client},
          {"listener", row.listener},
          {"user", row.user},
          {"branch", row.branch},
          {"target", row.target},
          {"destination", row.destination},
          {"database", row.database},
          {"application", row.application},
          {"phase", row.phase},
          {"reason", row.reason},
          {"tls", row.tls},
          {"idle", row.idle},
          {"backend_pid", row.backend_pid != 0 ? Json(row.backend_pid) : Json()},
          {"age_seconds", rounded(row.age_seconds)},
          {"bytes_from_client", row.bytes_from_client},
          {"bytes_to_client", row.bytes_to_client}};
}

}  // namespace

std::optional<std::string> status_json(const ControlView& control, std::optional<std::string_view> branch,
                                       base::Instant now) {
  const auto directory = control.directory();
  const int wanted = branch ? directory->find(*branch) : -1;
  if (branch && wanted < 0) return std::nullopt;
  const auto views = control.views();
  // The outer object is put together here: an ordered object of 10,000 keys would be searched through for each of them.
  std::string text =
      R"({"version":)" + json_text(version()) + R"(,"draining":)" + json_text(control.draining()) + R"(,"branches":{)";
  bool first = true;
  for (std::size_t i = 0; i < std::min(views.size(), directory->size()); ++i) {
    if (views[i] == nullptr || (branch && static_cast<int>(i) != wanted)) continue;
    if (!first) text += ',';
    first = false;
    const auto discovery = control.discovery(directory->name(i));
    Json json = branch_json(*views[i], discovery, now);
    if (branch) add_detail(json, control, *views[i], discovery);
    text += json_text(directory->name(i)) + ':' + json_text(json);
  }
  return text + "}}\n";
}

std::string sessions_json(std::vector<SessionRow> sessions) {
  std::sort(sessions.begin(), sessions.end(), [](const SessionRow& a, const SessionRow& b) {
    return std::tie(b.age_seconds, a.worker, a.id) < std::tie(a.age_seconds, b.worker, b.id);
  });
  Json rows = Json::array();
  for (const SessionRow& row : sessions) rows.push_back(session_json(row));
  return json_line({{"sessions", std::move(rows)}});
}

std::string route_json(const ControlView::RouteAnswer& answer) {
  Json json = {{"ok", answer.ok},
               {"role", answer.role},
               {"branch", answer.branch},
               {"target", answer.target},
               {"reason", answer.reason}};
  if (answer.ok) {
    json["destination"] = answer.text_decision;
    json["address"] = answer.address;
  } else {
    json["message"] = answer.text_decision;
    json["sqlstate"] = answer.sqlstate;
    json["detail"] = answer.detail;
    json["hint"] = answer.hint;
  }
  json["candidates"] = answer.candidates;
  return json_line(json);
}

std::string switch_json(const SwitchAnswer& answer) {
  const bool done = answer.outcome == SwitchAnswer::Outcome::kDone;
  Json transactions = Json::array();
  for (const auto& transaction : answer.transactions) {
    transactions.push_back({{"pid", transaction.pid},
                            {"user", transaction.user},
                            {"state", transaction.state},
                            {"age_seconds", rounded(transaction.age_seconds)}});
  }
  Json pgbouncers = Json::array();
  for (const auto& bouncer : answer.pgbouncers) {
    pgbouncers.push_back({{"name", bouncer.name}, {"state", bouncer.state}});
    if (!bouncer.error.empty()) pgbouncers.back()["error"] = bouncer.error;
  }
  Json json = {{"done", done}, {done ? "message" : "error", answer.message}};
  if (!answer.primary.empty()) json["primary"] = answer.primary;
  if (!answer.system_identifier.empty()) json["system_identifier"] = answer.system_identifier;
  if (answer.held_seconds) json["held_seconds"] = rounded(*answer.held_seconds);
  if (answer.ends_in_seconds) json["ends_in_seconds"] = rounded(*answer.ends_in_seconds);
  if (!transactions.empty()) json["transactions"] = std::move(transactions);
  if (!pgbouncers.empty()) json["pgbouncers"] = std::move(pgbouncers);
  if (!answer.warnings.empty()) json["warnings"] = answer.warnings;
  return json_line(json);
}

std::string branch_names_json(const routing::Directory& directory) {
  Json names = Json::array();
  for (std::size_t i = 0; i < directory.size(); ++i) names.push_back(directory.name(i));
  return json_line({{"branches", std::move(names)}});
}

std::string edit_json(const BranchEditAnswer& answer) {
  using Outcome = BranchEditAnswer::Outcome;
  const bool done = answer.outcome == Outcome::kCreated || answer.outcome == Outcome::kReplaced ||
                    answer.outcome == Outcome::kRemoved;
  Json json = {{done ? "done" : "error", answer.text}};
  if (!answer.errors.empty()) json["errors"] = answer.errors;
  return json_line(json);
}

std::string reload_json(const ReloadResult& result) {
  return json_line({{"applied", result.applied}, {"errors", result.errors}});
}

}  // namespace pointsman::proxy
