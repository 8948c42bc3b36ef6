#include "proxy/monitor/long_transactions.h"

#include <charconv>
#include <utility>

#include "routing/username.h"

namespace pointsman::proxy {
namespace {

// Clients only: WAL senders and workers belong to the server itself. Never the query's text. Prepared transactions are
// not there: they live through a promotion.
constexpr std::string_view kQuery =
    "SELECT pid, usename, state, age FROM (SELECT pid, usename, state,"
    " EXTRACT(epoch FROM pg_catalog.clock_timestamp() - xact_start)::double precision AS age"
    " FROM pg_catalog.pg_stat_activity"
    " WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()) AS t"
    " WHERE age > $1::double precision ORDER BY age DESC LIMIT 50";
static_assert(kMaxTransactionsShown == 50);

template <typename Number>
bool read_number(std::string_view text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::optional<std::vector<SwitchAnswer::Transaction>> parse_transactions(const PgRows& rows) {
  if (rows.columns() != 4) return std::nullopt;
  std::vector<SwitchAnswer::Transaction> found;
  for (int row = 0; row < rows.rows(); ++row) {
    SwitchAnswer::Transaction transaction;
    const auto pid = rows.value(row, 0);
    const auto age = rows.value(row, 3);
    if (!pid || !age || !read_number(*pid, transaction.pid) || !read_number(*age, transaction.age_seconds))
      return std::nullopt;
    transaction.user = routing::escape_for_log(rows.value(row, 1).value_or(""), 64);
    transaction.state = routing::escape_for_log(rows.value(row, 2).value_or(""), 64);
    found.push_back(std::move(transaction));
  }
  return found;
}

void LongTransactions::ask(const PgTarget& primary, base::Duration older_than, base::Instant deadline) {
  older_than_ = older_than;
  deadline_ = deadline;
  connection_.connect(primary, deadline);
}

void LongTransactions::on_pg_connected() {
  const std::string seconds[] = {std::to_string(base::to_seconds(older_than_))};
  connection_.query(kQuery, seconds, deadline_);
}

void LongTransactions::on_pg_rows(const PgRows& rows) {
  auto found = parse_transactions(rows);
  connection_.close();
  if (found) return owner_.on_transactions(std::move(*found));
  owner_.on_transactions_failed("the answer is not what was asked for");
}

void LongTransactions::on_pg_failure(const PgFailure& failure) {
  const PgFailure copy = failure;
  connection_.close();
  owner_.on_transactions_failed(copy.text);
}

}  // namespace pointsman::proxy
