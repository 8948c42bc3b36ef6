// User names: what is accepted is found back in the input, what is refused says so in one bounded line. The first byte
// chooses the listener.

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "base/check.h"
#include "routing/username.h"
#include "tests/fuzz/texts.h"

namespace {

using namespace pointsman;
using namespace pointsman::routing;

void check_accepted(const UserName& user, std::string_view input) {
  POINTSMAN_CHECK(!user.role.empty() && user.role.size() <= 63);
  POINTSMAN_CHECK(user.role.find('\0') == std::string::npos);
  POINTSMAN_CHECK(is_branch_name(user.branch));
  POINTSMAN_CHECK((user.target.kind == TargetKind::kPool) == !user.target.pool.empty());
  POINTSMAN_CHECK(user.target.pool.empty() || is_pool_name(user.target.pool));
  POINTSMAN_CHECK(input.starts_with(user.role));
  fuzz::check_refusal(unknown_branch_refusal(user));
}

bool same(const UserName& a, const UserName& b) {
  return a.role == b.role && a.branch == b.branch && a.target.kind == b.target.kind && a.target.pool == b.target.pool;
}

void check_free(std::string_view input) {
  const auto parsed = parse_user_name(input);
  if (const auto* refusal = std::get_if<Refusal>(&parsed)) return fuzz::check_refusal(*refusal);
  const auto& user = std::get<UserName>(parsed);
  check_accepted(user, input);
  POINTSMAN_CHECK(input.starts_with(user.role + "." + user.branch));
  const auto again = parse_user_name(format_user_name(user));
  POINTSMAN_CHECK(same(std::get<UserName>(again), user));
}

void check_fixed(std::string_view input, const FixedRoute& fixed) {
  const auto parsed = parse_user_name(input, fixed);
  if (const auto* refusal = std::get_if<Refusal>(&parsed)) return fuzz::check_refusal(*refusal);
  const auto& user = std::get<UserName>(parsed);
  check_accepted(user, input);
  POINTSMAN_CHECK(user.branch == fixed.branch && to_text(user.target) == to_text(fixed.target));
  // Only the tail is ever taken away, and it names this branch.
  const std::string_view tail = input.substr(user.role.size());
  POINTSMAN_CHECK(tail.empty() || tail.starts_with("." + fixed.branch));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0:
      check_fixed(input, {"x", {}});
      break;
    case 1:
      check_fixed(input, {"x", {TargetKind::kPrimary, {}}});
      break;
    case 2:
      check_fixed(input, {"x", {TargetKind::kReplica, {}}});
      break;
    case 3:
      check_fixed(input, {"x", {TargetKind::kPool, "reads"}});
      break;
    default:
      check_free(input);
      break;
  }
  for (const std::size_t limit : {std::size_t{0}, std::size_t{7}, std::size_t{256}}) {
    const std::string escaped = escape_for_log(input, limit);
    fuzz::check_one_line(escaped);
    POINTSMAN_CHECK(escaped.size() <= limit + std::string_view("…").size());
  }
  return 0;
}
