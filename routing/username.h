#pragma once
// The grammar of the startup user (contract section 1). Pure; views point into the caller's text.
//
//   user := role "." branch [ sep target ]      sep := "|" | "%7C" | "%7c"

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>

#include "routing/refusal.h"

namespace pointsman::routing {

/// NAMEDATALEN - 1: PostgreSQL cuts longer names (src/backend/utils/adt/name.c), and would so read another role.
inline constexpr std::size_t kMaxRoleBytes = 63;

enum class TargetKind : std::uint8_t { kDefault, kPrimary, kReplica, kPool };

struct Target {
  TargetKind kind = TargetKind::kDefault;
  std::string pool;  ///< with kPool
};

struct UserName {
  std::string role;  ///< byte for byte as the backend will see it
  std::string branch;
  Target target;
};

/// What a listener fixes (contract section 1): empty branch means nothing is fixed.
struct FixedRoute {
  std::string branch;
  Target target;
};

/// Parses a startup user. Refusals are 28000 `bad_user`, naming what is wrong and the accepted forms. With a fixed
/// branch the whole name is the role, but an exact tail `.branch` or `.branch|target` is removed; a tail that names
/// another target of the same branch is refused.
std::variant<UserName, Refusal> parse_user_name(std::string_view user, const FixedRoute& fixed = {});

/// The branch that a TLS server name means: its first label, in small letters, with `domain` behind it (empty: anything
/// or nothing). Empty when the name means none.
std::string branch_of_sni(std::string_view server_name, std::string_view domain);
/// 28000: a listener takes the branch from the TLS server name, and the connection has none that fits.
Refusal no_branch_in_sni(std::string_view domain);

/// `[a-z0-9][a-z0-9-]{0,62}`
bool is_branch_name(std::string_view text);
/// `[a-z0-9][a-z0-9_-]{0,62}` and none of the reserved words.
bool is_pool_name(std::string_view text);
/// role.branch, role.branch|target.
std::string format_user_name(const UserName& user);
/// "primary", "replica", the pool's name, "" for the default. Valid while `target` lives.
std::string_view to_text(const Target& target);

/// 28000 for a branch that is not configured. The hint says how the name was read: `john.doe` is role `john` on branch
/// `doe`. With `fixed_by_listener` the branch came from the listener, and the hint sends to the operator.
Refusal unknown_branch_refusal(const UserName& user, bool fixed_by_listener = false);

/// Text of a peer made safe for a log line or an error message: control bytes, quotes, backslash, characters that steer
/// a terminal or the direction of text, and bytes that are no UTF-8 as \xNN. At most `limit` bytes, then "…" where
/// something was cut; no character and no escape is cut in two.
std::string escape_for_log(std::string_view text, std::size_t limit = 256);
/// The same between quotes.
std::string in_quotes(std::string_view text);

}  // namespace pointsman::routing
