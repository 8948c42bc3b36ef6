#pragma once
// The console's little language. Pure, bounded, no allocation by a length that is not there.
//
//   SHOW BRANCHES|MEMBERS|POOLS|SESSIONS|ROUTES|STATS [FOR branch]      SHOW CONFIG|VERSION|HELP
//   SHOW ROUTE FOR 'user' [ON 'listener']
//   HOLD branch [TIMEOUT '30s'] [FORCE]      RELEASE branch      KILL session      RELOAD
//
// Keywords know no case. A value is a bare word, 'a string' or "an identifier" (a doubled quote stands for itself).
// Comments are SQL's. Statements are separated by `;`.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"

namespace pointsman::proxy {

inline constexpr std::size_t kMaxQueryBytes = 8 * 1024;
inline constexpr std::size_t kMaxStatements = 64;  ///< in one Query

enum class StatementKind : std::uint8_t {
  kShowBranches,
  kShowMembers,
  kShowPools,
  kShowSessions,
  kShowRoutes,
  kShowRoute,
  kShowStats,
  kShowConfig,
  kShowVersion,
  kShowHelp,
  kHold,
  kRelease,
  kKill,
  kReload,
};

/// A session as SHOW SESSIONS and the log name it: "0-17".
struct SessionName {
  std::uint32_t worker = 0;
  std::uint64_t id = 0;
};

struct Statement {
  StatementKind kind = StatementKind::kShowHelp;
  std::string branch;    ///< of HOLD, RELEASE and FOR; empty: all
  std::string user;      ///< of SHOW ROUTE
  std::string listener;  ///< of SHOW ROUTE; empty: not said
  SessionName session;   ///< of KILL
  std::optional<base::Duration> timeout;
  bool force = false;

  /// Changes something: for users with the role `admin`.
  bool acts() const;
  /// The command tag, as psql prints it when there are no rows.
  std::string_view tag() const;
};

/// Why a text is no statement.
struct StatementFault {
  std::string_view sqlstate;  ///< 42601, 22023
  std::string message;
  std::string hint;
  std::size_t position = 0;  ///< of the character in the text, from 1; 0: none
};

/// All statements of a Query, or the first fault: like PostgreSQL nothing is executed when anything cannot be read.
/// Requires: at most kMaxQueryBytes.
std::variant<std::vector<Statement>, StatementFault> parse_statements(std::string_view text);

/// One line a statement: what SHOW HELP answers.
struct HelpLine {
  std::string_view statement;
  std::string_view what;
  bool acts = false;
};
const std::vector<HelpLine>& console_help();

}  // namespace pointsman::proxy
