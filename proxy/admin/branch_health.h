#pragma once
// What is wrong with a branch, as the status page and its list tell it: judged from the view and the counters alone.
// Control thread.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/discovery/status.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

/// In the order in which branches are listed.
enum class Health : std::uint8_t {
  kError,    ///< some logins cannot be served, or a person is needed
  kWarning,  ///< all are served, but something is not as it should be
  kOk,
  kIdle,  ///< nobody uses it: nothing is known
};
inline constexpr std::size_t kHealthCount = 4;
std::string_view to_text(Health health);

struct Problem {
  Health health = Health::kWarning;
  std::string text;  ///< "no primary", "pg-1 is 42.0 s behind"
};

/// `discovery`: how the members are found; nothing where they are listed. `holding`: holding_of(view), which whoever
/// looks at 10,000 branches wants to ask for once.
Health health_of(const routing::BranchView& view, const std::optional<DiscoveryStatus>& discovery,
                 std::uint64_t holding);
/// Worst first; empty for kOk and kIdle.
std::vector<Problem> problems_of(const routing::BranchView& view, const std::optional<DiscoveryStatus>& discovery);

/// The largest lag of its replicas, a lower bound counting as one; nullopt: none is known, or it is not watched.
std::optional<double> worst_lag(const routing::BranchView& view);
/// Sessions to all destinations.
std::uint64_t sessions_of(const routing::BranchView& view);
/// Logins that wait for a destination.
std::uint64_t holding_of(const routing::BranchView& view);

}  // namespace pointsman::proxy
