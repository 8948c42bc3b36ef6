#pragma once
// The `pointsman.*` session options (contract section 2). Pure.

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "routing/refusal.h"

namespace pointsman::routing {

/// A position in the WAL. PostgreSQL prints it as two hexadecimal halves, `16/B374D848`.
using Lsn = std::uint64_t;
std::optional<Lsn> parse_lsn(std::string_view text);
std::string format_lsn(Lsn lsn);

/// "500ms", "10s", "1m", "2h"; digits and one unit, 0 allowed. nullopt otherwise or above 366 days.
std::optional<base::Duration> parse_duration(std::string_view text);
std::string format_duration(base::Duration duration);

enum class Fallback : std::uint8_t { kLeastLagged, kPrimary, kError };
std::optional<Fallback> parse_fallback(std::string_view text);
std::string_view to_text(Fallback fallback);

struct SessionOptions {
  std::optional<Lsn> min_lsn;
  std::optional<base::Duration> wait;
  std::optional<base::Duration> max_lag;
  std::optional<Fallback> fallback;
  bool explain = false;

  /// Sets one option by its name without the prefix. Unknown names and bad values: a 22023 refusal naming it.
  std::optional<Refusal> set(std::string_view name, std::string_view value);
  /// The first three have no meaning on pooled routes: 22023.
  std::optional<Refusal> check_pooled() const;
};

}  // namespace pointsman::routing
