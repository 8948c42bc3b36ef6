#pragma once
// What SHOW answers: rows made of the ControlView, as they are asked for. Control thread. Every text is escaped that a
// client or a name in the configuration could have brought.

#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "proxy/admin/control_view.h"
#include "proxy/console/result.h"

namespace pointsman::proxy {

/// `branch` empty: all; otherwise it must be one of the directory. What a table shows is as of this call, the counters
/// as of the moment when their branch is sent.
Table branches_table(const ControlView& control, std::string_view branch);
Table members_table(const ControlView& control, std::string_view branch, base::Instant now);
Table pools_table(const ControlView& control, std::string_view branch, base::Instant now);
Table routes_table(const ControlView& control, std::string_view branch);
Table stats_table(const ControlView& control, std::string_view branch);
/// The oldest first; only those of `branch` unless it is empty.
Table sessions_table(std::vector<SessionRow> sessions, std::string_view branch);
Table route_table(const ControlView::RouteAnswer& answer);
Table config_table(const ControlView& control);  ///< config_table.cc
Table version_table();
Table help_table();

/// As in the log and as KILL takes it: "0-17".
std::string session_name(const SessionRow& row);

}  // namespace pointsman::proxy
