#pragma once
// The JSON answers of the admin endpoint (contract section 7). Keys stand in a fixed order; text that is no UTF-8 is
// repaired with U+FFFD.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "proxy/admin/control_view.h"

namespace pointsman::proxy {

/// /api/status: every configured branch, or the one named, and that with all that is known of it; nullopt when there
/// is none of that name.
std::optional<std::string> status_json(const ControlView& control, std::optional<std::string_view> branch,
                                       base::Instant now);
/// /api/sessions: {"sessions": […]}, oldest first.
std::string sessions_json(std::vector<SessionRow> sessions);
/// /api/route: {"ok": true, "destination": …} or {"ok": false, "message": …, "sqlstate": …}.
std::string route_json(const ControlView::RouteAnswer& answer);
/// /api/hold, /api/release, /api/adopt: {"done": true, "message": …} or {"done": false, "error": …}, with what is known
/// of PgBouncers and transactions.
std::string switch_json(const SwitchAnswer& answer);
/// /api/branches: {"branches": ["…"]}.
std::string branch_names_json(const routing::Directory& directory);
/// What became of a change: {"done": "created"} or {"error": …, "errors": ["/path: what"]}.
std::string edit_json(const BranchEditAnswer& answer);
/// /api/reload: {"applied": …, "errors": […]}.
std::string reload_json(const ReloadResult& result);

}  // namespace pointsman::proxy
