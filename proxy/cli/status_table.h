#pragma once
// `pointsman status` and `pointsman route` for people: the admin endpoint's JSON as text. Pure.

#include <string>
#include <string_view>

#include "base/result.h"

namespace pointsman::proxy {

/// The answer of /api/status as a table: a line a member and pool endpoint; branches that nobody uses take one line.
base::Result<std::string> status_table(std::string_view json);
/// The answer of /api/status, indented.
base::Result<std::string> pretty_json(std::string_view json);

struct RouteText {
  bool ok = false;  ///< the connection would be taken
  std::string text;
};
/// The answer of /api/route as lines.
base::Result<RouteText> route_text(std::string_view json);
/// The answer of /api/hold, /api/release or /api/adopt, whatever its status, as lines: what was done or why not, then
/// the transactions in the way, the PgBouncers and the warnings.
std::string switch_text(unsigned status, std::string_view json);
/// What an error answer says: its `error` text, or the status code in words.
std::string error_text(unsigned status, std::string_view body);

}  // namespace pointsman::proxy
