#pragma once
// A branch's discovery as the admin endpoint shows it.

#include <cstdint>
#include <optional>
#include <string>

namespace pointsman::proxy {

struct DiscoveryStatus {
  std::string source;      ///< "dns", "kubernetes", "patroni"
  std::optional<bool> up;  ///< the last question was answered; nothing: not asked since the branch came into use
  std::optional<double> age_seconds;  ///< since the last answer
  std::string error;                  ///< why the last question was not; empty: none
  std::uint64_t failures = 0;         ///< since the start
};

}  // namespace pointsman::proxy
