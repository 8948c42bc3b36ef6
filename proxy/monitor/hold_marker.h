#pragma once
// Which PgBouncers a hold pauses, and the marker that tells a next start of this router that one died in between. Pure.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/monitor/pg_connection.h"
#include "routing/config.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

struct BouncerPlace {
  std::string name;  ///< "pg-0 (pgbouncer)", "app/10.0.0.21:6432"
  std::string pool;  ///< empty: it stands beside a member
  std::string host;  ///< as configured: the name that its certificate is checked for
  routing::SocketAddress address;
  friend bool operator==(const BouncerPlace&, const BouncerPlace&) = default;
};

/// The PgBouncer beside the present primary and every endpoint of pools that stand on the primary, each address once.
/// Requires: view.primary >= 0.
std::vector<BouncerPlace> bouncers_of_primary(const routing::BranchView& view);

/// The admin login's way to its console.
PgTarget console_target(const routing::BranchConfig& branch, const BouncerPlace& place);

/// A marker's text. Addresses are kept as they were resolved: what was paused is paused there.
std::string hold_marker_text(std::string_view branch, const std::vector<BouncerPlace>& places);
/// nullopt when it is no marker of that branch.
std::optional<std::vector<BouncerPlace>> parse_hold_marker(std::string_view text, std::string_view branch);

}  // namespace pointsman::proxy
