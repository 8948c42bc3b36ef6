#pragma once
// PgBouncer's userlist file (its documentation, "Authentication file format"): `"role" "secret"` a line, `""` for a
// quote inside, `;` starts a comment line. Pure.

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pointsman::routing {

/// Role name to verifier. A secret that is no SCRAM verifier cannot serve and is not kept: "md5" stands for a hash of
/// that kind, "" for a password in clear or none.
using Userlist = std::map<std::string, std::string>;

/// The error names the line and never quotes what stands there.
base::Result<Userlist> parse_userlist(std::string_view text);

}  // namespace pointsman::routing
