#include "proxy/monitor/verifier_cache.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace pointsman::proxy {
namespace {

using Kind = VerifierAnswer::Kind;

/// Neither part can hold a zero byte.
std::string key_of(const std::string& branch, const std::string& role) {
  std::string key;
  key.reserve(branch.size() + 1 + role.size());
  key.append(branch).push_back('\0');
  key.append(role);
  return key;
}

bool exists(const VerifierAnswer& answer) {
  return answer.kind == Kind::kFound || answer.kind == Kind::kUnusable;
}

/// An IPv4 /24 or an IPv6 /64 as a number. No IPv6 network in use begins like the IPv4 ones are written here (::/8 is
/// reserved).
std::uint64_t network_of(const std::uint8_t (&ip)[16]) {
  static constexpr std::uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  const bool v4 = std::equal(std::begin(kMapped), std::end(kMapped), ip);
  std::uint64_t network = 0;
  for (int i = v4 ? 10 : 0; i < (v4 ? 15 : 8); ++i) network = network << 8 | ip[i];
  return network;
}

constexpr base::Duration kSweepGap = std::chrono::seconds(1);

}  // namespace

VerifierCache::Asked VerifierCache::ask(VerifierQuery query, base::Instant now) {
  auto key = key_of(query.branch, query.role);
  if (const auto flight = flights_.find(key); flight != flights_.end()) {
    flight->second.waiting.push_back(std::move(query));
    return {Verdict::kWait, {}};
  }
  Entry* entry = find(key);
  const bool known_role = entry != nullptr && exists(entry->answer);
  const bool fresh = entry != nullptr && now < entry->answer.expires_at;
  if (fresh) {
    const bool outdated = known_role && query.not_before > entry->answer.fetched_at;
    if (!outdated || now - entry->forced_at < kForcedGap) return {Verdict::kHit, entry->answer};
    entry->forced_at = now;
  }
  if (!take_tokens(query, known_role, now)) {
    const bool usable = known_role && entry->answer.kind == Kind::kFound && now < entry->usable_until &&
                        now - entry->answer.fetched_at < kStaleLimit;
    if (fresh || usable) return {Verdict::kHit, entry->answer};
    VerifierAnswer throttled;
    throttled.kind = Kind::kThrottled;
    throttled.log_detail = "too many look-ups of verifiers for this branch or from this network";
    return {Verdict::kThrottled, std::move(throttled)};
  }
  Flight& flight = flights_[std::move(key)];
  flight.started = now;
  flight.waiting.push_back(std::move(query));
  return {Verdict::kLookUp, {}};
}

VerifierCache::Finished VerifierCache::finish(const std::string& branch, const std::string& role, VerifierAnswer answer,
                                              base::Instant now) {
  const auto key = key_of(branch, role);
  const auto found = flights_.find(key);
  POINTSMAN_CHECK(found != flights_.end());
  Flight flight = std::move(found->second);
  flights_.erase(found);

  // Whatever the server said, it may have said it right at the start.
  answer.fetched_at = flight.started;
  Finished out;
  if (answer.kind == Kind::kUnavailable || answer.kind == Kind::kFault || answer.kind == Kind::kThrottled) {
    Entry* entry = find(key);
    if (entry != nullptr && entry->answer.kind == Kind::kFound && now < entry->usable_until &&
        now - entry->answer.fetched_at < kStaleLimit) {
      // Asked again after a while, not by every login: each of them would wait for the members that do not answer.
      entry->answer.expires_at = std::min(now + kStaleTtl, entry->usable_until);
      entry->answer.log_detail = "last known verifier: " + answer.log_detail;
      out.answer = entry->answer;
    } else {
      answer.expires_at = now;
      out.answer = std::move(answer);
    }
    out.waiting = std::move(flight.waiting);
    return out;
  }
  const auto usable_until = answer.expires_at == base::Instant{} ? base::Instant::max() : answer.expires_at;
  answer.expires_at = std::min(now + (answer.kind == Kind::kFound ? kPositiveTtl : kNegativeTtl), usable_until);
  store(branch, key, answer, usable_until);
  for (auto& query : flight.waiting) {
    const bool too_late = exists(answer) && query.not_before > flight.started;
    (too_late ? out.again : out.waiting).push_back(std::move(query));
  }
  out.answer = std::move(answer);
  return out;
}

void VerifierCache::forget(const std::set<std::string>& branches) {
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    if (branches.contains(entry->branch)) {
      by_key_.erase(entry->key);
      entry = entries_.erase(entry);
    } else {
      ++entry;
    }
  }
  for (const auto& branch : branches) branch_buckets_.erase(branch);
}

VerifierCache::Entry* VerifierCache::find(const std::string& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return &entries_.front();
}

void VerifierCache::store(const std::string& branch, const std::string& key, VerifierAnswer answer,
                          base::Instant usable_until) {
  Entry* entry = find(key);
  if (entry == nullptr) {
    if (entries_.size() >= kMaxEntries) {
      by_key_.erase(entries_.back().key);
      entries_.pop_back();
    }
    entries_.push_front(Entry{branch, key, {}, {}, {}});
    entry = &entries_.front();
    by_key_.emplace(entry->key, entries_.begin());
  }
  entry->answer = std::move(answer);
  entry->usable_until = usable_until;
}

bool VerifierCache::take_tokens(const VerifierQuery& query, bool known_role, base::Instant now) {
  if (!source_bucket(query.source, now).take(kSourceRate, now)) return false;
  BranchBuckets& branch = branch_buckets_[query.branch];
  return (known_role ? branch.known_roles : branch.other_roles).take(kBranchRate, now);
}

base::TokenBucket& VerifierCache::source_bucket(const std::uint8_t (&source)[16], base::Instant now) {
  const auto network = network_of(source);
  if (const auto found = source_buckets_.find(network); found != source_buckets_.end()) return found->second;
  if (source_buckets_.size() >= kMaxSources && now - swept_at_ >= kSweepGap) {
    swept_at_ = now;
    std::erase_if(source_buckets_, [now](const auto& entry) { return entry.second.full(now); });
  }
  if (source_buckets_.size() >= kMaxSources) return crowd_bucket_;
  return source_buckets_[network];
}

}  // namespace pointsman::proxy
