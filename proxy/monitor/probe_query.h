#pragma once
// What a member is asked, and how its answer is read. Valid for primaries and replicas of PostgreSQL 13 to 18, for a
// role that is a member of pg_monitor. Pure.

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "proxy/monitor/pg_failure.h"
#include "routing/topology.h"

namespace pointsman::proxy {

inline constexpr std::size_t kProbeColumns = 9;
extern const char* const kProbeQuery;

/// Settings of every connection of ours, as a startup packet's `options`: nothing the database or the role has set may
/// change what a statement means, no statement outlives its asker, nothing can be written.
std::string safe_session_options(base::Duration statement_timeout);

using ProbeRow = std::array<std::optional<std::string_view>, kProbeColumns>;
struct ProbeAnswer {
  routing::ProbeSample sample;
  bool receiver_hidden = false;  ///< there is a WAL receiver and the role may not see it: pg_monitor is missing
};
/// nullopt when a column does not hold what the query asks for.
std::optional<ProbeAnswer> parse_probe_row(const ProbeRow& row);

/// What a failed connection or statement says about the member.
routing::ProbeFailure classify_probe_failure(const PgFailure& failure, bool connected);

}  // namespace pointsman::proxy
