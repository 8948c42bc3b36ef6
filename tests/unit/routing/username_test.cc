#include "routing/username.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pointsman::routing {
namespace {

UserName accepted(std::string_view user, const FixedRoute& fixed = {}) {
  const auto parsed = parse_user_name(user, fixed);
  INFO("user ", std::string(user));
  if (const auto* refusal = std::get_if<Refusal>(&parsed)) INFO("refused: ", refusal->message);
  REQUIRE(std::holds_alternative<UserName>(parsed));
  return std::get<UserName>(parsed);
}

Refusal refused(std::string_view user, const FixedRoute& fixed = {}) {
  const auto parsed = parse_user_name(user, fixed);
  INFO("user ", std::string(user));
  REQUIRE(std::holds_alternative<Refusal>(parsed));
  const Refusal refusal = std::get<Refusal>(parsed);
  CHECK(refusal.reason == Reason::kBadUser);
  CHECK(refusal.sqlstate == "28000");
  CHECK(refusal.message.find('\n') == std::string::npos);
  CHECK_FALSE(refusal.hint.empty());
  return refusal;
}

bool says(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("role and branch are split at the last dot left of the bar") {
  const UserName plain = accepted("app.x7k2");
  CHECK(plain.role == "app");
  CHECK(plain.branch == "x7k2");
  CHECK(plain.target.kind == TargetKind::kDefault);

  const UserName dotted = accepted("a.b.x7k2|replica");
  CHECK(dotted.role == "a.b");
  CHECK(dotted.branch == "x7k2");
  CHECK(dotted.target.kind == TargetKind::kReplica);

  CHECK(accepted("...x").role == "..");
}

TEST_CASE("the target is primary, replica or a pool name") {
  CHECK(accepted("app.x|primary").target.kind == TargetKind::kPrimary);
  CHECK(accepted("app.x|replica").target.kind == TargetKind::kReplica);
  const UserName pool = accepted("app.x|read-bouncer_2");
  CHECK(pool.target.kind == TargetKind::kPool);
  CHECK(pool.target.pool == "read-bouncer_2");
}

TEST_CASE("a bar may be written %7C or %7c where no literal bar stands") {
  CHECK(accepted("app.x%7Creplica").target.kind == TargetKind::kReplica);
  CHECK(accepted("app.x%7creads").target.pool == "reads");
  CHECK(accepted("a%7Cb.x|replica").role == "a%7Cb");
  CHECK(accepted("a%7Db.x").role == "a%7Db");
  CHECK(accepted("a%7.x").role == "a%7");
  CHECK(says(refused("app.x|a%7Cb").message, "a%7Cb"));
}

TEST_CASE("more than one bar is refused") {
  CHECK(says(refused("app.x|replica|replica").message, "more than one bar"));
  CHECK(says(refused("app.x%7Creplica%7cprimary").message, "more than one bar"));
  CHECK(says(refused("a|b.x|replica").message, "more than one bar"));
}

TEST_CASE("each missing part is named") {
  CHECK(says(refused("app").message, "must include the branch"));
  CHECK(says(refused("app|replica").message, "must include the branch"));
  CHECK(says(refused("").message, "must include the branch"));
  CHECK(says(refused(".x").message, "role is empty"));
  CHECK(says(refused("app.").message, "nothing stands behind the last dot"));
  CHECK(says(refused("app.|replica").message, "nothing stands behind the last dot"));
  CHECK(says(refused("app.x|").message, "nothing stands behind the bar"));
  CHECK(says(refused("app.x%7C").message, "nothing stands behind the bar"));
}

TEST_CASE("the hint quotes every accepted form") {
  const std::string hint = refused("app").hint;
  for (const char* form : {"role.branch", "role.branch|replica", "role.branch|pool", "%7C"}) CHECK(says(hint, form));
}

TEST_CASE("a role has 1 to 63 bytes, and is refused before PostgreSQL could cut it") {
  CHECK(accepted(std::string(1, 'r') + ".x").role.size() == 1);
  CHECK(accepted(std::string(62, 'r') + ".x").role.size() == 62);
  CHECK(accepted(std::string(63, 'r') + ".x").role.size() == 63);
  CHECK(says(refused(std::string(64, 'r') + ".x").message, "64 bytes, at most 63"));
  // 21 characters of three bytes are 63 bytes, 22 are 66.
  std::string wide;
  for (int i = 0; i < 21; ++i) wide += "€";
  CHECK(accepted(wide + ".x").role == wide);
  CHECK(says(refused(wide + "€.x").message, "66 bytes"));
}

TEST_CASE("a branch has 1 to 63 of a-z 0-9 and hyphen, no hyphen first") {
  CHECK(accepted("r." + std::string(62, 'b')).branch.size() == 62);
  CHECK(accepted("r." + std::string(63, 'b')).branch.size() == 63);
  refused("r." + std::string(64, 'b'));
  CHECK(is_branch_name("0"));
  CHECK(is_branch_name("a-"));
  for (const char* bad : {"", "-a", "A", "a_b", "a.b", "a b", "ä", "a|", "a%"}) CHECK_FALSE(is_branch_name(bad));
}

TEST_CASE("a pool name may hold underscores but is no reserved word") {
  CHECK(is_pool_name("a_b-c"));
  CHECK(is_pool_name(std::string(63, 'p')));
  CHECK_FALSE(is_pool_name(std::string(64, 'p')));
  CHECK_FALSE(is_pool_name("_a"));
  CHECK_FALSE(is_pool_name("Reads"));
  for (const char* word : {"primary", "replica", "local", "any", "standby", "rw", "ro", "default"})
    CHECK_FALSE(is_pool_name(word));
  for (const char* word : {"local", "any", "standby", "rw", "ro", "default"}) {
    CHECK(says(refused(std::string("app.x|") + word).message, "reserved word"));
  }
  CHECK(says(refused("app.x|Replica").message, "\"Replica\""));
  CHECK(says(refused("app.x|" + std::string(64, 'p')).message, "1 to 63"));
}

TEST_CASE("a role is compared byte for byte: nothing is folded, trimmed or decoded") {
  for (const std::string role :
       {"App", " app", "app ", "a\"b", "a'b", "a\\b", "100%", "a%20b", "\xff\xfe", "a\tb", "ａpp", "a@b"}) {
    CHECK(accepted(role + ".x").role == role);
  }
  refused("app.x ");
  refused("app.X");
  refused(std::string("a\0b.x", 5));
}

TEST_CASE("text of the client comes back escaped") {
  const Refusal refusal = refused("evil\r\nFATAL\x1b[31m\"'\\");
  CHECK(says(refusal.message, "evil\\x0d\\x0aFATAL\\x1b[31m\\x22\\x27\\x5c"));
  CHECK(refused(std::string(9000, 'a')).message.size() < 400);
}

TEST_CASE("a listener that fixes the branch takes the whole name as the role") {
  const FixedRoute fixed{"x7k2", {}};
  CHECK(accepted("app", fixed).role == "app");
  CHECK(accepted("app", fixed).branch == "x7k2");
  CHECK(accepted("john.doe", fixed).role == "john.doe");
  CHECK(accepted("a|b", fixed).role == "a|b");
  CHECK(accepted("app.other|replica", fixed).role == "app.other|replica");
  CHECK(accepted("app.x7k2x", fixed).role == "app.x7k2x");
  CHECK(accepted("x7k2", fixed).role == "x7k2");
  refused("", fixed);
  refused(std::string(64, 'r'), fixed);
  CHECK(accepted(std::string(63, 'r'), fixed).role.size() == 63);
}

TEST_CASE("an exact tail of the fixed branch and target is removed") {
  const FixedRoute primary{"x7k2", {TargetKind::kPrimary, {}}};
  CHECK(accepted("a.b.x7k2", primary).role == "a.b");
  CHECK(accepted("a.b.x7k2|primary", primary).role == "a.b");
  CHECK(accepted("a.b.x7k2%7Cprimary", primary).role == "a.b");
  CHECK(accepted(std::string(63, 'r') + ".x7k2", primary).role.size() == 63);
  refused(".x7k2", primary);
  const FixedRoute pool{"x7k2", {TargetKind::kPool, "reads"}};
  const UserName user = accepted("app.x7k2|reads", pool);
  CHECK(user.role == "app");
  CHECK(user.target.kind == TargetKind::kPool);
  CHECK(user.target.pool == "reads");
  CHECK(accepted("app.x7k2", pool).target.pool == "reads");
}

TEST_CASE("a tail that names another target of the fixed branch is refused") {
  const FixedRoute unsaid{"x7k2", {}};
  CHECK(accepted("app.x7k2|primary", unsaid).role == "app");
  CHECK(says(refused("app.x7k2|replica", unsaid).message, "leads to primary only"));
  const FixedRoute replica{"x7k2", {TargetKind::kReplica, {}}};
  CHECK(accepted("app.x7k2|replica", replica).role == "app");
  CHECK(says(refused("app.x7k2|primary", replica).message, "leads to replica only"));
  CHECK(says(refused("app.x7k2%7creads", replica).message, "leads to replica only"));
  refused("app.x7k2|", replica);
  refused("app.x7k2|no such", replica);
  CHECK(says(refused("app.x7k2|writes", {"x7k2", {TargetKind::kPool, "reads"}}).message, "leads to reads only"));
}

TEST_CASE("what was parsed, formatted again, parses to the same") {
  for (const std::string user : {"app.x", "a.b.c|replica", "a%7Cb.x|reads", "app.x|primary", "\xff.x"}) {
    CHECK(format_user_name(accepted(user)) == user);
  }
  CHECK(format_user_name(accepted("app.x%7Creads")) == "app.x|reads");
}

TEST_CASE("an unknown branch is explained by how the name was read") {
  const Refusal refusal = unknown_branch_refusal(accepted("john.doe"));
  CHECK(refusal.reason == Reason::kUnknownBranch);
  CHECK(refusal.sqlstate == "28000");
  CHECK(refusal.message == "branch \"doe\" does not exist");
  CHECK(says(refusal.hint, "after the last dot"));
  CHECK(says(refusal.hint, "\"john.doe\" is role \"john\" on branch \"doe\""));
  CHECK_FALSE(says(unknown_branch_refusal(accepted("john", {"doe", {}}), true).hint, "last dot"));
}

TEST_CASE("escaping leaves readable text alone and makes the rest visible") {
  CHECK(escape_for_log("") == "");
  CHECK(escape_for_log("plain text ~ ä € 𝄞") == "plain text ~ ä € 𝄞");
  CHECK(escape_for_log(std::string("\0\x01\x1f\x7f", 4)) == "\\x00\\x01\\x1f\\x7f");
  CHECK(escape_for_log("a\"b'c\\d") == "a\\x22b\\x27c\\x5cd");
  CHECK(escape_for_log("\xc2\x85") == "\\xc2\\x85");  // NEL, a C1 control
  CHECK(escape_for_log("\xe2\x80\xae"
                       "abc") ==
        "\\xe2\\x80\\xae"
        "abc");  // right-to-left override
  CHECK(escape_for_log("\xff") == "\\xff");
  CHECK(escape_for_log("\xc0\x80") == "\\xc0\\x80");           // overlong
  CHECK(escape_for_log("\xed\xa0\x80") == "\\xed\\xa0\\x80");  // surrogate
  CHECK(escape_for_log("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");
  CHECK(escape_for_log("\xe2\x82") == "\\xe2\\x82");  // cut short
}

TEST_CASE("escaping stops at its limit without cutting a character or an escape") {
  CHECK(escape_for_log("abcd", 4) == "abcd");
  CHECK(escape_for_log("abcde", 4) == "abcd…");
  CHECK(escape_for_log("abc", 4) == "abc");
  CHECK(escape_for_log("ab€", 4) == "ab…");
  CHECK(escape_for_log("ab€", 5) == "ab€");
  CHECK(escape_for_log("a\n", 4) == "a…");
  CHECK(escape_for_log("a\n", 5) == "a\\x0a");
}

TEST_CASE("the branch of a TLS server name is its first label, under the domain where one is given") {
  CHECK(branch_of_sni("x7k2.pg.example.com", "pg.example.com") == "x7k2");
  CHECK(branch_of_sni("X7K2.PG.example.COM", "pg.example.com") == "x7k2");
  CHECK(branch_of_sni("x7k2.other.example.com", "pg.example.com").empty());
  CHECK(branch_of_sni("a.x7k2.pg.example.com", "pg.example.com").empty());
  CHECK(branch_of_sni("pg.example.com", "pg.example.com").empty());
  CHECK(branch_of_sni("x7k2", "") == "x7k2");
  CHECK(branch_of_sni("x7k2.anything", "") == "x7k2");
  CHECK(branch_of_sni("", "").empty());
  CHECK(branch_of_sni("_x.pg.example.com", "pg.example.com").empty());
  CHECK(branch_of_sni(std::string(64, 'a') + ".pg.example.com", "pg.example.com").empty());
}

}  // namespace
}  // namespace pointsman::routing
