#pragma once
// How a planned switch (hold, release) or an adoption is asked for and what became of it. Plain data, for the admin
// endpoint.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace pointsman::proxy {

struct HoldOptions {
  base::Duration lease = std::chrono::seconds(30);
  bool force = false;  ///< long transactions do not stand in the way
};
inline constexpr base::Duration kLongestLease = std::chrono::minutes(5);

struct SwitchAnswer {
  enum class Outcome : std::uint8_t {
    kDone,
    kUnknownBranch,
    kNotOnHold,  ///< nothing to release
    kRefused,    ///< the branch is not in a state for it; nothing was changed
    kFailed,     ///< it was tried; everything runs on as before, or goes on being held where the message says so
  };
  /// One that stands in the way.
  struct Transaction {
    std::int64_t pid = 0;
    std::string user;
    std::string state;
    double age_seconds = 0;
  };
  struct Bouncer {
    std::string name;   ///< "pg-0 (pgbouncer)", "app/10.0.0.21:6432"
    std::string state;  ///< "paused", "running", "perhaps paused"
    std::string error;  ///< empty: none
  };

  Outcome outcome = Outcome::kDone;
  std::string message;  ///< one line for a person, escaped
  std::vector<std::string> warnings;
  std::vector<Transaction> transactions;
  std::vector<Bouncer> pgbouncers;
  std::string primary;  ///< empty: none
  std::string system_identifier;
  std::optional<double> held_seconds;
  std::optional<double> ends_in_seconds;  ///< of a hold: until it ends by itself
};
/// Called once, on the control loop, maybe before the call that asked returns.
using SwitchDone = std::function<void(SwitchAnswer)>;

}  // namespace pointsman::proxy
