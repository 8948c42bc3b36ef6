#include "proxy/monitor/verifier_row.h"

#include <charconv>
#include <cmath>
#include <utility>

#include "proxy/monitor/verifier_cache.h"

namespace pointsman::proxy {
namespace {

using Kind = VerifierAnswer::Kind;

constexpr std::size_t kMaxVerifierText = 4'096;      // a salt of 1 KiB in base64 and the rest
constexpr double kFarAway = 10.0 * 365 * 24 * 3600;  // seconds; no cache lives that long

VerifierAnswer unusable(std::string why) {
  VerifierAnswer answer;
  answer.kind = Kind::kUnusable;
  answer.log_detail = std::move(why);
  return answer;
}

/// The columns of `inner`, by position for the first two and by name for the rest; the clock is the server's own.
std::string statement(std::string_view inner) {
  std::string out =
      "SELECT p.rolname, p.verifier, p.can_login,"
      " CASE WHEN pg_catalog.isfinite(p.valid_until)"
      " THEN pg_catalog.date_part('epoch', p.valid_until OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp())"
      " WHEN p.valid_until OPERATOR(pg_catalog.<) pg_catalog.clock_timestamp() THEN -1 END"
      " FROM (SELECT q.rolname, q.verifier,"
      " CAST(pg_catalog.to_jsonb(q) OPERATOR(pg_catalog.->>) 'can_login' AS pg_catalog.bool) AS can_login,"
      " CAST(pg_catalog.to_jsonb(q) OPERATOR(pg_catalog.->>) 'valid_until' AS pg_catalog.timestamptz) AS valid_until"
      " FROM (";
  out += inner;
  out += "\n) AS q(rolname, verifier)) AS p LIMIT 2";
  return out;
}

/// What is in rolpassword or a userlist when it is no SCRAM verifier.
VerifierAnswer judge_text(std::string_view text, std::string_view remedy) {
  if (text.size() > kMaxVerifierText) return unusable("its verifier is too long to be one");
  if (auto verifier = protocol::parse_scram_verifier(text)) {
    VerifierAnswer answer;
    answer.kind = Kind::kFound;
    answer.verifier = std::make_shared<const protocol::ScramVerifier>(std::move(*verifier));
    return answer;
  }
  if (text.empty()) return unusable("it has no password; " + std::string(remedy));
  if (text.starts_with("md5")) return unusable("its password is stored as md5; " + std::string(remedy));
  return unusable("what is stored is no SCRAM-SHA-256 verifier; " + std::string(remedy));
}

}  // namespace

const char* const kFunctionIsSafeStatement =
    "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_proc AS f"
    " JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) f.pronamespace"
    " JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) n.nspowner"
    " WHERE n.nspname OPERATOR(pg_catalog.=) 'pointsman' AND f.proname OPERATOR(pg_catalog.=) 'get_verifier'"
    " AND pg_catalog.oidvectortypes(f.proargtypes) OPERATOR(pg_catalog.=) 'text'"
    " AND f.prosecdef AND o.rolsuper)";

std::string function_statement() {
  return statement("SELECT * FROM pointsman.get_verifier(CAST($1 AS pg_catalog.text))");
}

std::string authid_statement() {
  // Compared as text: a cast to "name" would cut a longer name to another role's.
  return statement(
      "SELECT CAST(a.rolname AS pg_catalog.text), a.rolpassword, a.rolcanlogin AS can_login, a.rolvaliduntil AS "
      "valid_until"
      " FROM pg_catalog.pg_authid AS a WHERE a.rolname OPERATOR(pg_catalog.=) CAST($1 AS pg_catalog.text)");
}

std::string custom_statement(std::string_view query) {
  while (!query.empty() && (query.back() == ';' || query.back() == ' ' || query.back() == '\n' || query.back() == '\t'))
    query.remove_suffix(1);
  return statement(query);
}

VerifierAnswer judge_verifier_row(const std::optional<VerifierRow>& row, std::string_view role, base::Instant now) {
  if (!row || (*row)[0] != role) {
    VerifierAnswer answer;
    answer.kind = Kind::kNoRole;
    answer.log_detail =
        "the look-up knows no such login role (a NOLOGIN role, or a superuser or REPLICATION role that is not in "
        "pointsman.allowed_privileged_roles, counts as none)";
    return answer;
  }
  const auto& [name, text, can_login, seconds_left] = *row;
  if (can_login == "f") return unusable("it is NOLOGIN; ALTER ROLE … LOGIN if it shall log in");
  base::Instant valid_until{};
  if (seconds_left) {
    double seconds = 0;
    const auto [end, error] =
        std::from_chars(seconds_left->data(), seconds_left->data() + seconds_left->size(), seconds);
    if (error != std::errc() || end != seconds_left->data() + seconds_left->size() || !std::isfinite(seconds)) {
      return unusable("its VALID UNTIL cannot be read");
    }
    if (seconds <= 0) return unusable("its VALID UNTIL has passed; ALTER ROLE … VALID UNTIL, with a new password");
    if (seconds < kFarAway)
      valid_until = now + std::chrono::duration_cast<base::Duration>(std::chrono::duration<double>(seconds));
  }
  auto answer = judge_text(text.value_or(std::string_view()),
                           "set password_encryption = 'scram-sha-256' and set its password again");
  if (answer.kind == Kind::kFound) answer.expires_at = valid_until;
  return answer;
}

VerifierAnswer judge_userlist_entry(const std::string* text, base::Instant now) {
  if (text == nullptr) {
    VerifierAnswer answer;
    answer.kind = Kind::kNoRole;
    answer.log_detail = "the userlist has no such role";
    answer.fetched_at = now;
    answer.expires_at = now + VerifierCache::kNegativeTtl;
    return answer;
  }
  auto answer = judge_text(*text, "put the role's SCRAM-SHA-256 verifier (pg_authid.rolpassword) into the userlist");
  answer.fetched_at = now;
  answer.expires_at = now + (answer.kind == Kind::kFound ? VerifierCache::kPositiveTtl : VerifierCache::kNegativeTtl);
  return answer;
}

}  // namespace pointsman::proxy
