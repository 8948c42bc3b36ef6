#include "routing/userlist.h"

#include <cstddef>
#include <optional>
#include <utility>

#include "routing/username.h"

namespace pointsman::routing {
namespace {

constexpr std::size_t kMostSecretBytes = 2047;  // PgBouncer's MAX_PASSWORD - 1 (include/bouncer.h)
constexpr std::string_view kScramPrefix = "SCRAM-SHA-256$";

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

void skip_blanks(std::string_view& line) {
  while (!line.empty() && is_blank(line.front())) line.remove_prefix(1);
}

/// Takes one "…" off the front, doubled quotes read as one. nullopt: no quote at the start or none at the end.
std::optional<std::string> take_quoted(std::string_view& line) {
  if (line.empty() || line.front() != '"') return std::nullopt;
  std::string text;
  for (std::size_t i = 1; i < line.size(); ++i) {
    if (line[i] == '"') {
      if (i + 1 == line.size() || line[i + 1] != '"') {
        line.remove_prefix(i + 1);
        return text;
      }
      ++i;
    }
    text += line[i];
  }
  return std::nullopt;
}

/// What is kept of a secret (see Userlist).
std::string usable_part(std::string secret) {
  if (secret.starts_with(kScramPrefix)) return secret;
  return secret.starts_with("md5") && secret.size() == 35 ? "md5" : "";
}

}  // namespace

base::Result<Userlist> parse_userlist(std::string_view text) {
  Userlist roles;
  std::size_t number = 0;
  const auto fault = [&](std::string_view what) {
    return base::Error{"line " + std::to_string(number) + ": " + std::string(what)};
  };
  while (!text.empty()) {
    ++number;
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    skip_blanks(line);
    if (line.empty() || line.front() == ';') continue;

    auto role = take_quoted(line);
    if (!role) return fault("a role name in double quotes is expected");
    if (role->empty() || role->size() > kMaxRoleBytes) return fault("a role name has 1 to 63 bytes");
    if (role->find('\0') != std::string::npos) return fault("a zero byte in the role name");
    if (line.empty() || !is_blank(line.front())) return fault("white space is expected behind the role name");
    skip_blanks(line);
    auto secret = take_quoted(line);
    if (!secret) return fault("a secret in double quotes is expected behind the role name");
    if (secret->size() > kMostSecretBytes) return fault("the secret has more than 2047 bytes");
    // PgBouncer ignores what follows on the line (old files have more fields).
    if (!roles.emplace(*std::move(role), usable_part(*std::move(secret))).second)
      return fault("this role stands there twice");
  }
  return roles;
}

}  // namespace pointsman::routing
