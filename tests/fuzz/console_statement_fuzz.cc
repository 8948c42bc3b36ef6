// The console's language: whatever is read is bounded and lawful, whatever is refused says so in one line and points
// into the text; white space and comments behind it change nothing.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/check.h"
#include "proxy/console/statement.h"
#include "proxy/monitor/switch_answer.h"
#include "tests/fuzz/texts.h"

namespace {

using namespace pointsman;
using namespace pointsman::proxy;
using Parsed = std::variant<std::vector<Statement>, StatementFault>;

bool same(const Statement& a, const Statement& b) {
  return a.kind == b.kind && a.branch == b.branch && a.user == b.user && a.listener == b.listener &&
         a.session.worker == b.session.worker && a.session.id == b.session.id && a.timeout == b.timeout &&
         a.force == b.force;
}

void check_statement(const Statement& statement, std::string_view text) {
  POINTSMAN_CHECK(!statement.tag().empty());
  POINTSMAN_CHECK(statement.branch.size() + statement.user.size() + statement.listener.size() <= text.size());
  const bool names_branch = statement.kind == StatementKind::kHold || statement.kind == StatementKind::kRelease;
  POINTSMAN_CHECK(!names_branch || !statement.branch.empty());
  POINTSMAN_CHECK((statement.kind == StatementKind::kShowRoute) == !statement.user.empty());
  if (statement.timeout)
    POINTSMAN_CHECK(*statement.timeout >= std::chrono::seconds(1) && *statement.timeout <= kLongestLease);
}

void check_fault(const StatementFault& fault, std::string_view text) {
  POINTSMAN_CHECK(fault.sqlstate == "42601" || fault.sqlstate == "22023");
  POINTSMAN_CHECK(!fault.message.empty() && fault.message.size() <= 512);
  fuzz::check_one_line(fault.message);
  fuzz::check_one_line(fault.hint);
  POINTSMAN_CHECK(fault.position >= 1 && fault.position <= text.size() + 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), std::min(size, kMaxQueryBytes));
  const Parsed parsed = parse_statements(text);
  if (const auto* fault = std::get_if<StatementFault>(&parsed)) {
    check_fault(*fault, text);
    return 0;
  }
  const auto& statements = std::get<std::vector<Statement>>(parsed);
  POINTSMAN_CHECK(statements.size() <= kMaxStatements);
  for (const auto& statement : statements) check_statement(statement, text);
  const std::string longer = std::string(text) + "\n ; /* a /* comment */ */ -- and another";
  if (longer.size() > kMaxQueryBytes) return 0;
  const Parsed again = parse_statements(longer);
  const auto* read_again = std::get_if<std::vector<Statement>>(&again);
  POINTSMAN_CHECK(read_again != nullptr && read_again->size() == statements.size());
  for (std::size_t i = 0; i < statements.size(); ++i) POINTSMAN_CHECK(same(statements[i], (*read_again)[i]));
  return 0;
}
