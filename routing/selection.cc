#include "routing/selection.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <utility>

#include "base/check.h"
#include "routing/balance.h"
#include "routing/refusals.h"

namespace pointsman::routing {
namespace {

/// A lag figure older than this many probe intervals no longer speaks for now: its age is added.
constexpr int kFreshIntervals = 3;

std::string seconds_text(double seconds) {
  char text[48];
  std::snprintf(text, sizeof text, seconds < 10 ? "%.2f s" : "%.1f s", seconds);
  return text;
}

Refusal temporary(Reason reason, std::string message, std::string detail) {
  return {.reason = reason,
          .sqlstate = "57P03",
          .message = std::move(message),
          .detail = std::move(detail),
          .hint = std::string(kRetryHint),
          .log_detail = {}};
}

std::uint32_t count_at(std::span<const std::uint32_t> counts, std::size_t index) {
  return index < counts.size() ? counts[index] : 0;
}

base::Instant instant_at(std::span<const base::Instant> instants, std::size_t index) {
  return index < instants.size() ? instants[index] : base::Instant{};
}

/// Those that are not doubted, when there are any.
template <typename Doubted>
std::vector<int> trusted_first(const std::vector<int>& candidates, Doubted doubted) {
  std::vector<int> trusted;
  std::copy_if(candidates.begin(), candidates.end(), std::back_inserter(trusted),
               [&](int index) { return !doubted(static_cast<std::size_t>(index)); });
  return trusted.empty() ? candidates : trusted;
}

/// Those of the router's own zone as long as they have room: the least loaded of them holds at most twice the sessions
/// of the least loaded one elsewhere, and a few. Otherwise all.
template <typename ZoneOf>
std::vector<int> own_zone_first(const std::vector<int>& candidates, std::span<const std::uint32_t> sessions,
                                std::string_view zone, ZoneOf zone_of) {
  if (zone.empty()) return candidates;
  constexpr std::uint64_t kFew = 10;
  std::vector<int> own;
  std::uint64_t least_own = UINT64_MAX;
  std::uint64_t least_elsewhere = UINT64_MAX;
  for (const int candidate : candidates) {
    const auto index = static_cast<std::size_t>(candidate);
    const std::uint64_t count = count_at(sessions, index);
    if (zone_of(index) == zone) {
      own.push_back(candidate);
      least_own = std::min(least_own, count);
    } else {
      least_elsewhere = std::min(least_elsewhere, count);
    }
  }
  if (own.empty()) return candidates;
  const bool room = least_elsewhere == UINT64_MAX || least_own <= 2 * least_elsewhere + kFew;
  return room ? own : candidates;
}

enum class Verdict : std::uint8_t {
  kEligible,
  kNotAReplica,
  kDown,
  kTried,
  kNoAddress,
  kBehindMinLsn,
  kUnknown,
  kLagging,
  kAboveSessionLimit,
};

/// What a candidate is passed over for, in the words of `explain`.
std::string_view to_words(Verdict verdict) {
  switch (verdict) {
    case Verdict::kEligible:
      return "eligible";
    case Verdict::kNotAReplica:
      return "no replica";
    case Verdict::kDown:
      return "down";
    case Verdict::kTried:
      return "tried in vain";
    case Verdict::kNoAddress:
      return "address not resolved";
    case Verdict::kBehindMinLsn:
      return "has not replayed min_lsn";
    case Verdict::kUnknown:
      return "lag not known";
    case Verdict::kLagging:
      return "too far behind";
    case Verdict::kAboveSessionLimit:
      return "above this session's max_lag";
  }
  POINTSMAN_CHECK(false);
  return {};
}

/// Everything one choice works on; lives for the call.
class Chooser {
 public:
  Chooser(const BranchView& branch, const RouteRequest& request, std::vector<std::string>* explain)
      : branch_(branch), config_(*branch.config), request_(request), explain_(explain) {}

  RouteResult primary();
  RouteResult replica();
  RouteResult local_pool();
  RouteResult pool(std::size_t index, Reason reason);

 private:
  bool tried(std::size_t index) const {
    return std::find(request_.excluded.begin(), request_.excluded.end(), static_cast<int>(index)) !=
           request_.excluded.end();
  }
  std::string branch_name() const { return in_quotes(config_.name); }
  std::optional<double> lag_now(const MemberView& member) const;
  Verdict judge(std::size_t index) const;
  std::optional<int> least_lagged(const std::vector<Verdict>& verdicts) const;
  RouteResult nobody(const std::vector<Verdict>& verdicts);
  bool stale_positions(const std::vector<Verdict>& verdicts) const;
  Refusal all_lagging(const std::vector<Verdict>& verdicts) const;
  Refusal min_lsn_not_reached(const std::vector<Verdict>& verdicts) const;
  RouteResult no_primary(std::string detail) const;
  RouteResult held() const;
  std::optional<RouteResult> unsettled(std::string_view what) const;
  int pick_member(const std::vector<int>& candidates) const;
  bool doubted(std::size_t member) const {
    const base::Instant failed_at = instant_at(request_.member_failed_at, member);
    return failed_at != base::Instant{} && failed_at > branch_.members[member].probed_at;
  }
  bool endpoint_doubted(std::size_t endpoint) const {
    const base::Instant failed_at = instant_at(request_.endpoint_failed_at, endpoint);
    return failed_at != base::Instant{} && request_.now - failed_at < kEndpointDoubt;
  }
  void explain_members(const std::vector<Verdict>& verdicts, int chosen) const;
  void say(std::string line) const {
    if (explain_ != nullptr) explain_->push_back(std::move(line));
  }
  Decision to_member(int index, Reason reason, RouteClass route) const {
    return {.reason = reason,
            .route = route,
            .member = index,
            .pool = -1,
            .endpoint = -1,
            .address = branch_.members[static_cast<std::size_t>(index)].address};
  }

  const BranchView& branch_;
  const BranchConfig& config_;
  const RouteRequest& request_;
  std::vector<std::string>* explain_;
};

std::optional<RouteResult> Chooser::unsettled(std::string_view what) const {
  if (branch_.active && branch_.settled) return std::nullopt;
  const bool replica = what == "replica";
  return NotNow{temporary(replica ? Reason::kNoReplica : Reason::kNoPrimary,
                          "no " + std::string(what) + " available for branch " + branch_name(),
                          "The members of the branch have not all been asked yet."),
                std::nullopt};
}

RouteResult Chooser::no_primary(std::string detail) const {
  // A probe login that is refused wherever a primary may stand is a fault that waiting does not mend.
  const auto& members = branch_.members;
  const auto refused = [](const MemberView& member) { return member.probe_refused; };
  const bool fault = std::all_of(members.begin(), members.end(), refused) ||
                     std::any_of(members.begin(), members.end(), [&](const MemberView& member) {
                       return refused(member) && member.role == MemberRole::kPrimary;
                     });
  if (fault) {
    const auto first = std::find_if(members.begin(), members.end(), refused);
    return backend_fault(config_.name, "the probe login is refused by " + first->name);
  }
  return NotNow{temporary(Reason::kNoPrimary, "no primary available for branch " + branch_name(), std::move(detail)),
                std::nullopt};
}

RouteResult Chooser::held() const {
  say("the branch is on hold: a planned switch is under way");
  return NotNow{temporary(Reason::kNoPrimary, "branch " + branch_name() + " is on hold for a planned switch",
                          "New connections to the primary wait until it is released."),
                std::nullopt};
}

RouteResult Chooser::primary() {
  if (auto wait = unsettled("primary")) return *std::move(wait);
  if (branch_.on_hold) return held();
  if (branch_.primary < 0) {
    for (const MemberView& member : branch_.members) {
      say(member.name + ": " + std::string(to_text(member.role)) + ", " + std::string(to_text(member.state)) +
          ": not the verified primary");
    }
    return no_primary("No member is the verified primary.");
  }
  const auto index = static_cast<std::size_t>(branch_.primary);
  const MemberView& member = branch_.members[index];
  if (tried(index)) {
    say(member.name + ": primary: tried in vain");
    return NotNow{
        temporary(Reason::kBackendUnreachable, "the primary of branch " + branch_name() + " could not be reached",
                  "The primary is " + member.name + "."),
        std::nullopt};
  }
  if (!member.address.known()) {
    say(member.name + ": primary: address not resolved");
    return no_primary("The address of " + member.name + " is not resolved.");
  }
  say(member.name + ": primary, " + std::string(to_text(member.state)) + ": chosen");
  return to_member(branch_.primary, Reason::kPrimary, RouteClass::kPrimary);
}

std::optional<double> Chooser::lag_now(const MemberView& member) const {
  if (!member.lag_seconds) return std::nullopt;
  const base::Duration age = request_.now - member.sampled_at;
  const bool fresh = age <= kFreshIntervals * config_.probe.interval;
  return *member.lag_seconds + (fresh ? 0.0 : base::to_seconds(age));
}

Verdict Chooser::judge(std::size_t index) const {
  const MemberView& member = branch_.members[index];
  if (member.role != MemberRole::kReplica) return Verdict::kNotAReplica;
  if (member.state == MemberState::kDown) return Verdict::kDown;
  if (tried(index)) return Verdict::kTried;
  if (!member.address.known()) return Verdict::kNoAddress;
  if (request_.options.min_lsn && (!member.position || *member.position < *request_.options.min_lsn)) {
    return Verdict::kBehindMinLsn;
  }
  if (member.state == MemberState::kUnknown) return Verdict::kUnknown;
  if (member.state == MemberState::kLagging) return Verdict::kLagging;
  if (request_.options.max_lag) {
    const auto lag = lag_now(member);
    if (!lag || *lag > base::to_seconds(*request_.options.max_lag)) return Verdict::kAboveSessionLimit;
  }
  return Verdict::kEligible;
}

int Chooser::pick_member(const std::vector<int>& candidates) const {
  const auto trusted = trusted_first(candidates, [&](std::size_t i) { return doubted(i); });
  const auto near = own_zone_first(trusted, request_.member_sessions, request_.zone,
                                   [&](std::size_t i) { return std::string_view(branch_.members[i].zone); });
  return two_choices(near, request_.member_sessions, request_.random);
}

RouteResult Chooser::replica() {
  if (auto wait = unsettled("replica")) return *std::move(wait);
  std::vector<Verdict> verdicts;
  std::vector<int> eligible;
  for (std::size_t i = 0; i < branch_.members.size(); ++i) {
    verdicts.push_back(judge(i));
    if (verdicts.back() == Verdict::kEligible) eligible.push_back(static_cast<int>(i));
  }
  if (eligible.empty()) return nobody(verdicts);
  const int chosen = pick_member(eligible);
  explain_members(verdicts, chosen);
  const Reason reason = request_.options.min_lsn ? Reason::kReplicaMinLsn
                        : eligible.size() == 1   ? Reason::kReplicaOnly
                                                 : Reason::kReplicaBest;
  return to_member(chosen, reason, RouteClass::kReplica);
}

/// The least lag up to the cap; a replica of which nothing is known only when there is no other.
std::optional<int> Chooser::least_lagged(const std::vector<Verdict>& verdicts) const {
  const double cap = base::to_seconds(config_.replicas.lag_hard_cap);
  std::optional<int> best;
  double best_lag = 0;
  std::vector<int> unknown;
  for (std::size_t i = 0; i < verdicts.size(); ++i) {
    const Verdict verdict = verdicts[i];
    if (verdict != Verdict::kUnknown && verdict != Verdict::kLagging && verdict != Verdict::kAboveSessionLimit)
      continue;
    const MemberView& member = branch_.members[i];
    const auto lag = lag_now(member);
    if (verdict == Verdict::kUnknown || !lag) {
      if (member.lag_at_least.value_or(0) <= cap) unknown.push_back(static_cast<int>(i));
    } else if (*lag <= cap && (!best || *lag < best_lag)) {
      best = static_cast<int>(i);
      best_lag = *lag;
    }
  }
  if (!best && !unknown.empty()) best = pick_member(unknown);
  return best;
}

/// A replica that is behind min_lsn has not answered since the session asked for it.
bool Chooser::stale_positions(const std::vector<Verdict>& verdicts) const {
  for (std::size_t i = 0; i < verdicts.size(); ++i) {
    if (verdicts[i] != Verdict::kBehindMinLsn) continue;
    if (request_.asked_at == base::Instant{} || branch_.members[i].probed_at < request_.asked_at) return true;
  }
  return false;
}

RouteResult Chooser::nobody(const std::vector<Verdict>& verdicts) {
  const SessionOptions& options = request_.options;
  const Fallback fallback = options.fallback                     ? *options.fallback
                            : options.min_lsn || options.max_lag ? Fallback::kError
                                                                 : config_.replicas.fallback;
  if (fallback == Fallback::kLeastLagged) {
    if (const auto chosen = least_lagged(verdicts)) {
      explain_members(verdicts, *chosen);
      return to_member(*chosen, Reason::kFallbackLeastLagged, RouteClass::kReplica);
    }
  }
  explain_members(verdicts, -1);
  if (fallback == Fallback::kPrimary) {
    RouteResult result = primary();
    if (auto* decision = std::get_if<Decision>(&result)) decision->reason = Reason::kFallbackPrimary;
    return result;
  }

  const auto has = [&](Verdict verdict) {
    return std::find(verdicts.begin(), verdicts.end(), verdict) != verdicts.end();
  };
  const bool behind = has(Verdict::kLagging) || has(Verdict::kAboveSessionLimit) || has(Verdict::kUnknown);
  if (behind || has(Verdict::kBehindMinLsn)) {
    Refusal refusal = behind ? all_lagging(verdicts) : min_lsn_not_reached(verdicts);
    const auto wait = options.wait.value_or(base::Duration::zero());
    if (wait > base::Duration::zero()) return NotNow{std::move(refusal), wait, true};
    // What the last probe saw is up to an interval old: a session that will not wait has them asked once more.
    if (options.min_lsn && stale_positions(verdicts)) return NotNow{std::move(refusal), config_.probe.timeout, true};
    return refusal;
  }
  if (has(Verdict::kTried)) {
    return NotNow{
        temporary(Reason::kBackendUnreachable, "no replica of branch " + branch_name() + " could be reached", {}),
        std::nullopt};
  }
  return NotNow{temporary(Reason::kNoReplica, "no replica available for branch " + branch_name(),
                          has(Verdict::kNoAddress) ? "Addresses are not resolved." : "No replica is up."),
                std::nullopt};
}

Refusal Chooser::all_lagging(const std::vector<Verdict>& verdicts) const {
  std::optional<double> best;
  for (std::size_t i = 0; i < verdicts.size(); ++i) {
    if (verdicts[i] != Verdict::kLagging && verdicts[i] != Verdict::kAboveSessionLimit) continue;
    const auto lag = lag_now(branch_.members[i]);
    if (lag && (!best || *lag < *best)) best = lag;
  }
  const base::Duration general = config_.replicas.max_lag;
  const base::Duration limit = std::min(request_.options.max_lag.value_or(general), general);
  return temporary(Reason::kAllLagging, "every replica of branch " + branch_name() + " is too far behind",
                   (best ? "The best one is " + seconds_text(*best) + " behind" : "How far is not known") +
                       "; the limit is " + format_duration(limit) + ".");
}

Refusal Chooser::min_lsn_not_reached(const std::vector<Verdict>& verdicts) const {
  Lsn best = 0;
  for (std::size_t i = 0; i < verdicts.size(); ++i) {
    if (verdicts[i] == Verdict::kBehindMinLsn) best = std::max(best, branch_.members[i].position.value_or(0));
  }
  Refusal refusal =
      temporary(Reason::kMinLsnNotReached,
                "no replica of branch " + branch_name() + " has replayed " + format_lsn(*request_.options.min_lsn),
                "The best one has replayed " + format_lsn(best) + ".");
  refusal.hint = "Give pointsman.wait to wait for it, or pointsman.fallback=primary.";
  return refusal;
}

void Chooser::explain_members(const std::vector<Verdict>& verdicts, int chosen) const {
  if (explain_ == nullptr) return;
  for (std::size_t i = 0; i < verdicts.size(); ++i) {
    const MemberView& member = branch_.members[i];
    std::string line =
        member.name + ": " + std::string(to_text(member.role)) + ", " + std::string(to_text(member.state));
    if (member.role == MemberRole::kReplica) {
      line += member.lag_seconds ? ", lag " + seconds_text(*member.lag_seconds) : std::string(", lag unknown");
      if (member.position) line += ", at " + format_lsn(*member.position);
    }
    if (!member.zone.empty()) line += ", zone " + member.zone;
    line += ", sessions " + std::to_string(count_at(request_.member_sessions, i)) + ": ";
    const bool passed_over = verdicts[i] == Verdict::kEligible && doubted(i);
    line += static_cast<int>(i) == chosen ? std::string_view("chosen")
            : passed_over                 ? std::string_view("could not be reached lately")
                                          : to_words(verdicts[i]);
    say(std::move(line));
  }
}

RouteResult Chooser::local_pool() {
  RouteResult result = primary();
  auto* decision = std::get_if<Decision>(&result);
  if (decision == nullptr) return result;
  const auto index = static_cast<std::size_t>(decision->member);
  const MemberView& member = branch_.members[index];
  if (config_.members[index].pgbouncer_port == 0) {
    return Refusal{.reason = Reason::kNoLocalPool,
                   .sqlstate = "0A000",
                   .message = "no PgBouncer stands beside the primary of branch " + branch_name(),
                   .detail = "The primary is " + member.name + ".",
                   .hint = "Use the direct port (usually 5432), or a pool of the branch.",
                   .log_detail = {}};
  }
  if (!member.pgbouncer_address.known()) {
    return NotNow{temporary(Reason::kNoLocalPool, "no PgBouncer available for branch " + branch_name(),
                            "The address of the PgBouncer beside " + member.name + " is not resolved."),
                  std::nullopt};
  }
  decision->reason = Reason::kLocalPool;
  decision->route = RouteClass::kLocalPool;
  decision->address = member.pgbouncer_address;
  return result;
}

RouteResult Chooser::pool(std::size_t index, Reason reason) {
  const PoolView& pool = branch_.pools[index];
  if (branch_.on_hold && pool.to_primary) return held();
  std::vector<int> candidates;
  bool any_tried = false;
  std::size_t draining = 0;
  for (std::size_t i = 0; i < pool.endpoints.size(); ++i) {
    if (config_.pools[index].endpoints[i].draining) {
      ++draining;
    } else if (tried(i)) {
      any_tried = true;
    } else if (pool.endpoints[i].address.known()) {
      candidates.push_back(static_cast<int>(i));
    }
  }
  const auto trusted = trusted_first(candidates, [&](std::size_t i) { return endpoint_doubted(i); });
  const auto near = own_zone_first(trusted, request_.endpoint_sessions, request_.zone,
                                   [&](std::size_t i) { return std::string_view(pool.endpoints[i].zone); });
  const int chosen = near.empty() ? -1 : two_choices(near, request_.endpoint_sessions, request_.random);
  for (std::size_t i = 0; explain_ != nullptr && i < pool.endpoints.size(); ++i) {
    const std::string_view words = static_cast<int>(i) == chosen                ? "chosen"
                                   : config_.pools[index].endpoints[i].draining ? "draining"
                                   : tried(i)                                   ? "tried in vain"
                                   : !pool.endpoints[i].address.known()         ? "address not resolved"
                                   : endpoint_doubted(i)                        ? "could not be reached lately"
                                                                                : "eligible";
    say(pool.name + "/" + pool.endpoints[i].host + ":" + std::to_string(config_.pools[index].endpoints[i].port) +
        ", sessions " + std::to_string(count_at(request_.endpoint_sessions, i)) + ": " + std::string(words));
  }
  if (chosen < 0) {
    return NotNow{
        temporary(Reason::kBackendUnreachable,
                  "no PgBouncer of pool " + in_quotes(pool.name) + " of branch " + branch_name() + " could be reached",
                  draining == pool.endpoints.size() ? "All its endpoints are draining."
                  : any_tried                       ? ""
                                                    : "Addresses are not resolved."),
        std::nullopt};
  }
  return Decision{.reason = reason,
                  .route = RouteClass::kPool,
                  .member = -1,
                  .pool = static_cast<int>(index),
                  .endpoint = chosen,
                  .address = pool.endpoints[static_cast<std::size_t>(chosen)].address};
}

}  // namespace

RouteResult choose(const BranchView& branch, const RouteRequest& request, std::vector<std::string>* explain) {
  POINTSMAN_CHECK(branch.config != nullptr);
  POINTSMAN_CHECK(branch.members.size() == branch.config->members.size());
  POINTSMAN_CHECK(branch.pools.size() == branch.config->pools.size());
  POINTSMAN_CHECK(branch.primary < static_cast<int>(branch.members.size()));
  Chooser chooser(branch, request, explain);
  if (request.mode == ListenerMode::kDirect) {
    POINTSMAN_CHECK(request.target.kind != TargetKind::kPool);
    return request.target.kind == TargetKind::kReplica ? chooser.replica() : chooser.primary();
  }
  const bool named = request.target.kind == TargetKind::kPool;
  POINTSMAN_CHECK(request.target.kind != TargetKind::kReplica);
  const std::string& wanted = named ? request.target.pool : branch.config->default_pool;
  if (wanted.empty()) return chooser.local_pool();
  std::size_t index = 0;
  if (branch.find_pool(wanted, &index) == nullptr) return unknown_pool_refusal(*branch.config, wanted);
  return chooser.pool(index, named ? Reason::kNamedPool : Reason::kDefaultPool);
}

}  // namespace pointsman::routing
