#pragma once
// Asks the primary, over a probe login, for transactions that a planned switch would have to wait for or cut. Loop
// thread only.

#include <optional>
#include <string>
#include <vector>

#include "proxy/monitor/pg_connection.h"
#include "proxy/monitor/switch_answer.h"

namespace pointsman::proxy {

inline constexpr std::size_t kMaxTransactionsShown = 50;
/// Reads the answer; nullopt when it is not what was asked for. User names are escaped. Pure.
std::optional<std::vector<SwitchAnswer::Transaction>> parse_transactions(const PgRows& rows);

class LongTransactions final : private PgConnection::Owner {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    /// At most kMaxTransactionsShown, the oldest first. May destroy this.
    virtual void on_transactions(std::vector<SwitchAnswer::Transaction> found) = 0;
    virtual void on_transactions_failed(const std::string& why) = 0;
  };

  LongTransactions(SqlContext& sql, const HandleCount& count, Owner& owner)
      : connection_(sql, count, *this), owner_(owner) {}
  /// Once.
  void ask(const PgTarget& primary, base::Duration older_than, base::Instant deadline);

 private:
  void on_pg_connected() override;
  void on_pg_rows(const PgRows& rows) override;
  void on_pg_failure(const PgFailure& failure) override;

  PgConnection connection_;
  Owner& owner_;
  base::Duration older_than_{};
  base::Instant deadline_{};
};

}  // namespace pointsman::proxy
