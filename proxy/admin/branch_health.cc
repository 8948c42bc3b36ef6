#include "proxy/admin/branch_health.h"

#include <algorithm>
#include <cstdio>

#include "metrics/registry.h"
#include "proxy/admin/destinations.h"

namespace pointsman::proxy {
namespace {

using routing::BranchView;
using routing::MemberRole;
using routing::MemberState;
using routing::MemberView;

enum class Kind : std::uint8_t {
  kNoMembers,
  kNoPrimary,
  kProbeRefused,
  kDown,
  kLagging,
  kUnknown,
  kOnHold,
  kHolding,
  kDiscovery,
};

std::optional<Kind> trouble_of(const MemberView& member) {
  if (member.probe_refused) return Kind::kProbeRefused;
  switch (member.state) {
    case MemberState::kOk:
      return std::nullopt;
    case MemberState::kLagging:
      return Kind::kLagging;
    case MemberState::kUnknown:
      return Kind::kUnknown;
    case MemberState::kDown:
      return Kind::kDown;
  }
  return std::nullopt;
}

/// Calls found(health, kind, member): the one list of what is wrong, errors first. Allocates nothing.
template <typename Found>
void each_problem(const BranchView& view, const std::optional<DiscoveryStatus>& discovery, std::uint64_t holding,
                  Found found) {
  if (!view.active) return;
  const bool stale = discovery && discovery->up == false;
  if (stale && view.members.empty()) found(Health::kError, Kind::kNoMembers, 0);
  if (view.settled && view.primary < 0) found(Health::kError, Kind::kNoPrimary, 0);
  for (std::size_t i = 0; i < view.members.size(); ++i) {
    if (view.members[i].probe_refused) found(Health::kError, Kind::kProbeRefused, i);
  }
  if (view.on_hold) found(Health::kWarning, Kind::kOnHold, 0);
  if (holding > 0) found(Health::kWarning, Kind::kHolding, 0);
  for (std::size_t i = 0; i < view.members.size() && view.settled; ++i) {
    const auto trouble = trouble_of(view.members[i]);
    if (trouble && *trouble != Kind::kProbeRefused) found(Health::kWarning, *trouble, i);
  }
  if (stale && !view.members.empty()) found(Health::kWarning, Kind::kDiscovery, 0);
}

std::string seconds_text(double seconds) {
  char text[48];
  std::snprintf(text, sizeof text, "%.1f s", seconds);
  return text;
}

std::string words_for(const BranchView& view, Kind kind, std::size_t index) {
  const auto name = [&] { return view.members[index].name; };
  switch (kind) {
    case Kind::kNoMembers:
      return "discovery has named no member";
    case Kind::kNoPrimary:
      return "no primary";
    case Kind::kProbeRefused:
      return name() + " refuses the probe login";
    case Kind::kDown:
      return name() + " is down";
    case Kind::kLagging: {
      const MemberView& member = view.members[index];
      if (member.lag_seconds) return name() + " is " + seconds_text(*member.lag_seconds) + " behind";
      if (member.lag_at_least) return name() + " is more than " + seconds_text(*member.lag_at_least) + " behind";
      return name() + " lags";
    }
    case Kind::kUnknown:
      return name() + (view.members[index].role == MemberRole::kReplica ? ": lag unknown" : ": not used");
    case Kind::kOnHold:
      return "on hold for a planned switch";
    case Kind::kHolding: {
      const auto holding = holding_of(view);
      return std::to_string(holding) + (holding == 1 ? " login waits" : " logins wait");
    }
    case Kind::kDiscovery:
      return "discovery does not answer";
  }
  return {};
}

}  // namespace

std::string_view to_text(Health health) {
  switch (health) {
    case Health::kError:
      return "error";
    case Health::kWarning:
      return "warning";
    case Health::kOk:
      return "ok";
    case Health::kIdle:
      return "idle";
  }
  return "?";
}

Health health_of(const BranchView& view, const std::optional<DiscoveryStatus>& discovery, std::uint64_t holding) {
  if (!view.active) return Health::kIdle;
  Health worst = Health::kOk;
  each_problem(view, discovery, holding, [&](Health health, Kind, std::size_t) { worst = std::min(worst, health); });
  return worst;
}

std::vector<Problem> problems_of(const BranchView& view, const std::optional<DiscoveryStatus>& discovery) {
  std::vector<Problem> problems;
  each_problem(view, discovery, holding_of(view), [&](Health health, Kind kind, std::size_t index) {
    problems.push_back({health, words_for(view, kind, index)});
  });
  return problems;
}

std::optional<double> worst_lag(const BranchView& view) {
  std::optional<double> worst;
  if (!view.active) return worst;
  for (const MemberView& member : view.members) {
    if (member.role != MemberRole::kReplica) continue;
    const auto lag = member.lag_seconds ? member.lag_seconds : member.lag_at_least;
    if (lag) worst = std::max(worst.value_or(0), *lag);
  }
  return worst;
}

std::uint64_t sessions_of(const BranchView& view) {
  if (view.block == nullptr) return 0;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < view.block->dimensions().destinations; ++i) sum += active_sessions(view, i);
  return sum;
}

std::uint64_t holding_of(const BranchView& view) {
  return view.block == nullptr ? 0 : metrics::sum_holding(*view.block);
}

}  // namespace pointsman::proxy
