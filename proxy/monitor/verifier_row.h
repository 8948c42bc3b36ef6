#pragma once
// The statements that read a role's verifier, and how their rows are judged. Pure.

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "proxy/monitor/verifier_answer.h"

namespace pointsman::proxy {

/// rolname, verifier, may it log in, seconds until VALID UNTIL (NULL: no limit).
inline constexpr std::size_t kVerifierColumns = 4;
using VerifierRow = std::array<std::optional<std::string_view>, kVerifierColumns>;

/// pointsman.get_verifier (deploy/sql/02_auth_role.sql).
std::string function_statement();
/// pg_authid, for a superuser's login.
std::string authid_statement();
/// The operator's own query with $1: its first two columns are the role's name and the verifier, as PgBouncer's
/// auth_query has them; further columns named `valid_until` and `can_login` are heeded.
std::string custom_statement(std::string_view query);
/// Whether a superuser may safely call the function: it runs with its owner's rights, not with ours, and only a
/// superuser can have put it there.
extern const char* const kFunctionIsSafeStatement;

/// No row is kNoRole; so is a row about somebody else.
VerifierAnswer judge_verifier_row(const std::optional<VerifierRow>& row, std::string_view role, base::Instant now);
/// An entry of a userlist file; nullptr: there is none.
VerifierAnswer judge_userlist_entry(const std::string* text, base::Instant now);

}  // namespace pointsman::proxy
