#include "proxy/admin/overview_json.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <nlohmann/json.hpp>

#include "proxy/admin/branch_health.h"
#include "proxy/admin/json_text.h"
#include "proxy/admin/version.h"

namespace pointsman::proxy {
namespace {

using Json = nlohmann::ordered_json;
using routing::BranchView;

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

std::string lowered(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), lower);
  return out;
}

bool may_match(Health health, const OverviewQuery& query) {
  if (query.only_active && health == Health::kIdle) return false;
  return !query.only_problems || health <= Health::kWarning;
}

bool matches(std::string_view text, const OverviewQuery& query) {
  return std::all_of(query.terms.begin(), query.terms.end(),
                     [&](const std::string& term) { return text.find(term) != std::string_view::npos; });
}

/// All branches, looked at once: counts, and who matches by health.
struct Scan {
  std::array<std::size_t, kHealthCount> counts{};
  std::array<std::vector<const BranchView*>, kHealthCount> matching;
  std::size_t on_hold = 0;
  std::uint64_t holding = 0;
};

/// The source of members is asked for only where there is one: the answer holds texts.
std::optional<DiscoveryStatus> discovery_of(const ControlView& control, const BranchView& view) {
  return view.config->discover && view.active ? control.discovery(view.config->name) : std::nullopt;
}

Scan look_at(const std::vector<std::shared_ptr<const BranchView>>& views, const ControlView& control,
             const OverviewQuery& query, SearchIndex& index) {
  Scan scan;
  for (std::size_t i = 0; i < views.size(); ++i) {
    const auto& view = views[i];
    if (view == nullptr) continue;
    const std::uint64_t holding = holding_of(*view);
    const Health health = health_of(*view, discovery_of(control, *view), holding);
    const auto place = static_cast<std::size_t>(health);
    ++scan.counts[place];
    if (view->on_hold) ++scan.on_hold;
    scan.holding += holding;
    if (!may_match(health, query)) continue;
    if (query.terms.empty() || matches(index.text_of(i, *view), query)) scan.matching[place].push_back(view.get());
  }
  return scan;
}

/// Lag is told to a tenth of a second: a bar against a limit shows no more, and what has not changed is not sent again.
Json coarse(std::optional<double> seconds) {
  return seconds ? Json(std::round(*seconds * 10) / 10) : Json();
}

Json row_json(const ControlView& control, const BranchView& view, Health health) {
  const auto problems = problems_of(view, discovery_of(control, view));
  const bool primary_known = view.active && view.primary >= 0;
  return {{"name", view.config->name},
          {"health", to_text(health)},
          {"primary", primary_known ? Json(view.config->members[static_cast<std::size_t>(view.primary)].name) : Json()},
          {"lag_seconds", coarse(worst_lag(view))},
          {"lag_limit_seconds", base::to_seconds(view.config->replicas.max_lag)},
          {"sessions", sessions_of(view)},
          {"holding", holding_of(view)},
          {"problem", problems.empty() ? Json() : Json(problems.front().text)},
          {"problems", problems.size()}};
}

Json rows_json(const ControlView& control, const Scan& scan, const OverviewQuery& query) {
  Json rows = Json::array();
  std::size_t skip = query.offset;
  for (std::size_t health = 0; health < kHealthCount; ++health) {
    for (const BranchView* view : scan.matching[health]) {
      if (rows.size() >= query.limit) return rows;
      if (skip > 0) {
        --skip;
      } else {
        rows.push_back(row_json(control, *view, static_cast<Health>(health)));
      }
    }
  }
  return rows;
}

Json listeners_json(const routing::Config& config) {
  Json listeners = Json::array();
  for (const auto& listener : config.listeners) {
    listeners.push_back({{"name", listener.name},
                         {"port", listener.port},
                         {"mode", listener.mode == routing::ListenerMode::kDirect ? "direct" : "pooled"}});
  }
  return listeners;
}

std::uint64_t sessions_in_all(const ControlView& control) {
  std::uint64_t sum = 0;
  for (const metrics::WorkerBlock* block : control.worker_blocks()) sum += block->sessions.value();
  return sum;
}

std::string_view to_text(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "?";
}

}  // namespace

base::Result<OverviewQuery> OverviewQuery::parse(std::string_view search) {
  if (search.size() > kSearchBytes)
    return base::Error{"search is longer than " + std::to_string(kSearchBytes) + " bytes"};
  OverviewQuery query;
  query.search = std::string(search);
  while (!search.empty()) {
    const std::size_t end = std::min(search.find_first_of(" \t\r\n"), search.size());
    std::string term = lowered(search.substr(0, end));
    search.remove_prefix(std::min(end + 1, search.size()));
    if (term.empty()) continue;
    if (term == "is:problem") {
      query.only_problems = true;
    } else if (term == "is:active") {
      query.only_active = true;
    } else if (query.terms.size() == kTerms) {
      return base::Error{"search has more than " + std::to_string(kTerms) + " words"};
    } else {
      query.terms.push_back(std::move(term));
    }
  }
  return query;
}

std::string_view SearchIndex::text_of(std::size_t index, const routing::BranchView& view) {
  Entry& entry = entries_[index];
  if (entry.config == view.config) return entry.text;
  entry.config = view.config;
  entry.text = lowered(view.config->name);
  // A line each: no word matches across two of them.
  for (const auto& [key, value] : view.config->labels) entry.text += '\n' + lowered(key) + '=' + lowered(value);
  for (const auto& member : view.config->members) entry.text += '\n' + lowered(member.host);
  entry.text.shrink_to_fit();
  return entry.text;
}

std::string overview_json(const ControlView& control, const OverviewQuery& query, SearchIndex& index) {
  const auto directory = control.directory();
  const auto views = control.views();
  index.resize(views.size());
  const Scan scan = look_at(views, control, query, index);
  const auto count = [&](Health health) { return scan.counts[static_cast<std::size_t>(health)]; };
  const ReloadStats reloads = control.reload_stats();
  std::size_t matching = 0;
  for (const auto& found : scan.matching) matching += found.size();
  return json_line({{"version", version()},
                    {"started_unix_ms", control.started_unix_ms()},
                    {"listening", control.listening()},
                    {"draining", control.draining()},
                    {"listeners", listeners_json(directory->config())},
                    {"branches",
                     {{"configured", directory->size()},
                      {"active", directory->size() - count(Health::kIdle)},
                      {"error", count(Health::kError)},
                      {"warning", count(Health::kWarning)},
                      {"on_hold", scan.on_hold}}},
                    {"sessions", sessions_in_all(control)},
                    {"holding", scan.holding},
                    {"max_connections", control.max_connections()},
                    {"certificate_not_after", control.certificate_not_after()},
                    {"config",
                     {{"last_success_unix", reloads.last_success_unix},
                      {"failed_reloads", reloads.failed},
                      {"rejected_branches", reloads.branches_rejected}}},
                    {"last_event", control.events().last_id()},
                    {"search", query.search},
                    {"matching", matching},
                    {"offset", query.offset},
                    {"rows", rows_json(control, scan, query)}});
}

std::string events_json(const ControlView& control, const EventsQuery& query) {
  const auto& events = control.events().events();
  Json rows = Json::array();
  for (auto event = events.rbegin(); event != events.rend() && event->id > query.after; ++event) {
    if (!query.branch.empty() && event->branch != query.branch) continue;
    if (rows.size() >= query.limit) break;
    rows.push_back({{"id", event->id},
                    {"time_unix_ms", event->unix_ms},
                    {"level", to_text(event->level)},
                    {"kind", to_text(event->kind)},
                    {"branch", event->branch.empty() ? Json() : Json(event->branch)},
                    {"text", event->text}});
  }
  std::reverse(rows.begin(), rows.end());
  return json_line({{"started_unix_ms", control.started_unix_ms()},
                    {"last_id", control.events().last_id()},
                    {"events", std::move(rows)}});
}

}  // namespace pointsman::proxy
