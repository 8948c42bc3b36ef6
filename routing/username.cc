#include "routing/username.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/check.h"

namespace pointsman::routing {
namespace {

constexpr std::size_t kMaxNameBytes = 63;
constexpr std::string_view kForms =
    "Use role.branch, role.branch|replica or role.branch|pool (the bar may be written %7C); the text after the last "
    "dot is the branch.";
/// Words that mean or may come to mean a target of their own.
constexpr std::array<std::string_view, 8> kReserved = {"primary", "replica", "local", "any",
                                                       "standby", "rw",      "ro",    "default"};

bool is_lower_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool is_name(std::string_view text, bool underscore) {
  if (text.empty() || text.size() > kMaxNameBytes || !is_lower_or_digit(text.front())) return false;
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return is_lower_or_digit(c) || c == '-' || (underscore && c == '_'); });
}

Refusal bad_user(std::string_view user, std::string_view what, std::string_view hint = kForms) {
  return {.reason = Reason::kBadUser,
          .sqlstate = "28000",
          .message = "invalid user name " + in_quotes(user) + ": " + std::string(what),
          .detail = {},
          .hint = std::string(hint),
          .log_detail = {}};
}

std::optional<std::string> fault_of_role(std::string_view role) {
  if (role.empty()) return "the role is empty";
  if (role.size() > kMaxRoleBytes) {
    return "the role has " + std::to_string(role.size()) + " bytes, at most " + std::to_string(kMaxRoleBytes) +
           " are possible";
  }
  if (role.find('\0') != std::string_view::npos) return "the role contains a zero byte";
  return std::nullopt;
}

/// A separator found in a user name: `|`, or `%7C` where no literal bar stands.
struct Separator {
  std::size_t at = std::string_view::npos;
  std::size_t size = 0;
  bool found() const { return at != std::string_view::npos; }
};

Separator find_encoded_bar(std::string_view text, std::size_t from = 0) {
  for (std::size_t at = text.find("%7", from); at != std::string_view::npos; at = text.find("%7", at + 1)) {
    if (at + 2 < text.size() && (text[at + 2] == 'C' || text[at + 2] == 'c')) return {at, 3};
  }
  return {};
}

std::variant<Target, std::string> parse_target(std::string_view text) {
  if (text == "primary") return Target{TargetKind::kPrimary, {}};
  if (text == "replica") return Target{TargetKind::kReplica, {}};
  if (text.empty()) return std::string("nothing stands behind the bar");
  if (std::find(kReserved.begin(), kReserved.end(), text) != kReserved.end()) {
    return "the target " + in_quotes(text) + " is a reserved word; primary, replica and pool names are possible";
  }
  if (!is_pool_name(text)) {
    return "the target " + in_quotes(text) +
           " is not primary, not replica and no pool name (1 to 63 of a-z 0-9 _ -, a letter or digit first)";
  }
  return Target{TargetKind::kPool, std::string(text)};
}

/// No target means the primary: on every listener the two go the same way.
bool same_target(const Target& a, const Target& b) {
  const auto kind = [](const Target& t) { return t.kind == TargetKind::kDefault ? TargetKind::kPrimary : t.kind; };
  return kind(a) == kind(b) && a.pool == b.pool;
}

std::variant<UserName, Refusal> parse_fixed(std::string_view user, const FixedRoute& fixed) {
  const std::string tail = "." + fixed.branch;
  std::string_view role = user;
  if (user.ends_with(tail)) {
    role.remove_suffix(tail.size());
  } else {
    // The last `.branch` with a separator right behind it; a role on a fixed listener may contain bars and dots of its
    // own.
    std::size_t at = std::string_view::npos;
    std::string_view written;
    for (std::size_t found = user.find(tail); found != std::string_view::npos; found = user.find(tail, found + 1)) {
      const std::string_view rest = user.substr(found + tail.size());
      const bool bar = rest.starts_with('|');
      if (!bar && !rest.starts_with("%7C") && !rest.starts_with("%7c")) continue;
      at = found;
      written = rest.substr(bar ? 1 : 3);
    }
    if (at != std::string_view::npos) {
      const auto target = parse_target(written);
      if (const auto* what = std::get_if<std::string>(&target)) return bad_user(user, *what);
      if (!same_target(std::get<Target>(target), fixed.target)) {
        const std::string_view here = to_text(fixed.target).empty() ? "primary" : to_text(fixed.target);
        return bad_user(user, "this listener leads to " + std::string(here) + " only",
                        "Leave the branch and the target out: the role alone is enough here.");
      }
      role = user.substr(0, at);
    }
  }
  if (const auto fault = fault_of_role(role)) {
    return bad_user(user, *fault, "On this listener the user name is the role alone.");
  }
  return UserName{std::string(role), fixed.branch, fixed.target};
}

struct Utf8Char {
  std::size_t size = 0;  ///< 0: no valid character starts here
  std::uint32_t code = 0;
};

Utf8Char decode_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return {1, lead};
  const std::size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return {};
  std::uint32_t code = lead & (0xFFu >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    code = (code << 6) | (byte(i) & 0x3Fu);
  }
  // RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
  constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[size] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return {};
  return {size, code};
}

/// Characters that change how a terminal or a log viewer shows the rest of the line.
bool is_treacherous(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7F && code <= 0x9F) || code == '"' || code == '\'' || code == '\\' ||
         (code >= 0x200E && code <= 0x200F) || (code >= 0x2028 && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069) || code == 0xFEFF;
}

}  // namespace

std::string branch_of_sni(std::string_view server_name, std::string_view domain) {
  std::string name(server_name);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  const auto dot = name.find('.');
  const std::string_view rest = dot == std::string::npos ? std::string_view{} : std::string_view(name).substr(dot + 1);
  if (!domain.empty() && rest != domain) return {};
  name.resize(std::min(dot, name.size()));
  return is_branch_name(name) ? name : std::string{};
}

Refusal no_branch_in_sni(std::string_view domain) {
  const std::string behind = domain.empty() ? "" : "." + std::string(domain);
  return {.reason = Reason::kBadUser,
          .sqlstate = "28000",
          .message = "the TLS server name does not name a branch",
          .detail =
              "Here the branch is the first part of the host name that a client connects to, as its TLS says it (SNI).",
          .hint = "Connect with TLS to BRANCH" + behind + " by name (sslmode=require or stronger, sslsni=1).",
          .log_detail = {}};
}

bool is_branch_name(std::string_view text) {
  return is_name(text, false);
}

bool is_pool_name(std::string_view text) {
  return is_name(text, true) && std::find(kReserved.begin(), kReserved.end(), text) == kReserved.end();
}

std::variant<UserName, Refusal> parse_user_name(std::string_view user, const FixedRoute& fixed) {
  if (!fixed.branch.empty()) return parse_fixed(user, fixed);

  Separator separator;
  if (const std::size_t bar = user.find('|'); bar != std::string_view::npos) {
    separator = {bar, 1};
    if (user.find('|', bar + 1) != std::string_view::npos) return bad_user(user, "more than one bar");
  } else {
    separator = find_encoded_bar(user);
    if (separator.found() && find_encoded_bar(user, separator.at + separator.size).found()) {
      return bad_user(user, "more than one bar (%7C)");
    }
  }

  UserName name;
  const std::string_view left = user.substr(0, separator.at);
  const std::size_t dot = left.rfind('.');
  if (dot == std::string_view::npos) return bad_user(user, "it must include the branch (role.branch)");
  if (const auto fault = fault_of_role(left.substr(0, dot))) return bad_user(user, *fault);
  const std::string_view branch = left.substr(dot + 1);
  if (branch.empty()) return bad_user(user, "nothing stands behind the last dot, where the branch is expected");
  if (!is_branch_name(branch)) {
    return bad_user(user, in_quotes(branch) + " is no branch name (1 to 63 of a-z 0-9 -, a letter or digit first)");
  }
  if (separator.found()) {
    auto target = parse_target(user.substr(separator.at + separator.size));
    if (const auto* what = std::get_if<std::string>(&target)) return bad_user(user, *what);
    name.target = std::move(std::get<Target>(target));
  }
  name.role = left.substr(0, dot);
  name.branch = branch;
  return name;
}

std::string format_user_name(const UserName& user) {
  std::string text = user.role + "." + user.branch;
  if (user.target.kind != TargetKind::kDefault) {
    text += '|';
    text += to_text(user.target);
  }
  return text;
}

std::string_view to_text(const Target& target) {
  switch (target.kind) {
    case TargetKind::kDefault:
      return "";
    case TargetKind::kPrimary:
      return "primary";
    case TargetKind::kReplica:
      return "replica";
    case TargetKind::kPool:
      return target.pool;
  }
  POINTSMAN_CHECK(false);
  return {};
}

Refusal unknown_branch_refusal(const UserName& user, bool fixed_by_listener) {
  Refusal refusal{.reason = Reason::kUnknownBranch,
                  .sqlstate = "28000",
                  .message = "branch " + in_quotes(user.branch) + " does not exist",
                  .detail = {},
                  .hint = "This listener leads to that branch alone: tell the operator.",
                  .log_detail = {}};
  if (!fixed_by_listener) {
    refusal.hint = "The text after the last dot of the user name is read as the branch: " +
                   in_quotes(user.role + "." + user.branch) + " is role " + in_quotes(user.role) + " on branch " +
                   in_quotes(user.branch) + ". Use role.branch.";
  }
  return refusal;
}

std::string escape_for_log(std::string_view text, std::size_t limit) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(std::min(text.size(), limit) + 4);
  while (!text.empty()) {
    const Utf8Char next = decode_utf8(text);
    const bool escape = next.size == 0 || is_treacherous(next.code);
    const std::size_t taken = std::max<std::size_t>(next.size, 1);
    if (out.size() + (escape ? taken * 4 : taken) > limit) return out + "…";
    for (const char c : text.substr(0, taken)) {
      if (!escape) {
        out += c;
        continue;
      }
      const auto value = static_cast<std::uint8_t>(c);
      out += "\\x";
      out += kHex[value >> 4];
      out += kHex[value & 0xF];
    }
    text.remove_prefix(taken);
  }
  return out;
}

std::string in_quotes(std::string_view text) {
  return "\"" + escape_for_log(text) + "\"";
}

}  // namespace pointsman::routing
