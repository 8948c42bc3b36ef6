#pragma once
// What is known about roles, who waits for more, and who may ask for it: the verifier service without SQL and without a
// loop. Time is an argument. Control thread.
//
//   fresh (30 s; 5 s when there is nothing to find)  →  serves
//   expired                                          →  look-up; serves on, up to an hour, while no member answers or
//   the rate is capped fetched before `not_before` (a login failed)     →  look-up, at most one a second per role;
//   until then as above

#include <cstddef>
#include <cstdint>
#include <list>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/token_bucket.h"
#include "proxy/monitor/verifier_answer.h"

namespace pointsman::proxy {

struct VerifierQuery {
  std::string branch;
  std::string role;
  std::uint8_t source[16] = {};  ///< the client's address, IPv4-mapped
  /// Answers fetched before this instant do not count: set after a failed login, so that a rotated password works on
  /// the next attempt. Counts only for roles that exist: a name that does not is not worth a second look-up within its
  /// five seconds.
  base::Instant not_before{};
  std::uint32_t worker = 0;  ///< where the answer goes
  std::uint64_t token = 0;   ///< the asking worker's own reference
};

class VerifierCache {
 public:
  static constexpr std::size_t kMaxEntries = 20'000;
  static constexpr std::size_t kMaxSources = 65'536;
  static constexpr base::Duration kPositiveTtl = std::chrono::seconds(30);
  static constexpr base::Duration kNegativeTtl = std::chrono::seconds(5);
  static constexpr base::Duration kStaleLimit = std::chrono::hours(1);
  static constexpr base::Duration kStaleTtl = std::chrono::seconds(5);
  static constexpr base::Duration kForcedGap = std::chrono::seconds(1);
  static constexpr base::TokenRate kBranchRate{50, 200};
  static constexpr base::TokenRate kSourceRate{20, 60};  ///< per /24 or /64

  enum class Verdict : std::uint8_t {
    kHit,        ///< `answer` serves
    kThrottled,  ///< `answer` says so
    kWait,       ///< a look-up is under way: finish() will name this query
    kLookUp,     ///< the caller starts one and ends it with finish()
  };
  struct Asked {
    Verdict verdict;
    VerifierAnswer answer;
  };
  Asked ask(VerifierQuery query, base::Instant now);

  struct Finished {
    VerifierAnswer answer;               ///< the given one, or an older one that serves on
    std::vector<VerifierQuery> waiting;  ///< to be answered with it
    std::vector<VerifierQuery> again;    ///< asked too late for this look-up: give them to ask()
  };
  /// Ends the look-up that ask() ordered. `answer` needs no fetched_at; `expires_at` bounds it (a VALID UNTIL), the
  /// cache sets it no later than the TTL.
  Finished finish(const std::string& branch, const std::string& role, VerifierAnswer answer, base::Instant now);

  /// Forgets what it knows about these branches. Look-ups under way go on.
  void forget(const std::set<std::string>& branches);

  std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::string branch;
    std::string key;
    VerifierAnswer answer;
    base::Instant usable_until{};  // VALID UNTIL
    base::Instant forced_at{};
  };
  using Entries = std::list<Entry>;  // most recently used first
  struct Flight {
    base::Instant started{};
    std::vector<VerifierQuery> waiting;
  };
  struct BranchBuckets {
    base::TokenBucket known_roles;  // a flood of invented names leaves these their own share
    base::TokenBucket other_roles;
  };

  Entry* find(const std::string& key);
  void store(const std::string& branch, const std::string& key, VerifierAnswer answer, base::Instant usable_until);
  bool take_tokens(const VerifierQuery& query, bool known_role, base::Instant now);
  base::TokenBucket& source_bucket(const std::uint8_t (&source)[16], base::Instant now);

  Entries entries_;
  std::unordered_map<std::string_view, Entries::iterator> by_key_;  // keys live in the entries
  std::unordered_map<std::string, Flight> flights_;
  std::unordered_map<std::string, BranchBuckets> branch_buckets_;
  std::unordered_map<std::uint64_t, base::TokenBucket> source_buckets_;
  base::TokenBucket crowd_bucket_;  // shared by sources that find the table full
  base::Instant swept_at_{};
};

}  // namespace pointsman::proxy
