#include "routing/session_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "base/check.h"
#include "routing/username.h"

namespace pointsman::routing {
namespace {

constexpr std::size_t kMaxLsnDigits = 8;  // of each half: pg_lsn_in() in src/backend/utils/adt/pg_lsn.c
constexpr std::int64_t kLongestSeconds = std::int64_t{366} * 24 * 3600;

struct Unit {
  std::string_view suffix;
  std::int64_t milliseconds;
};
constexpr std::array<Unit, 4> kUnits = {{{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};

std::optional<std::uint32_t> parse_hex_half(std::string_view text) {
  if (text.empty() || text.size() > kMaxLsnDigits) return std::nullopt;
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// GUC names compare without case, in ASCII (guc_name_compare() in src/backend/utils/misc/guc.c).
bool same_name(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
}

std::optional<bool> parse_switch(std::string_view text) {
  for (const std::string_view word : {"on", "true", "yes", "1"}) {
    if (same_name(text, word)) return true;
  }
  for (const std::string_view word : {"off", "false", "no", "0"}) {
    if (same_name(text, word)) return false;
  }
  return std::nullopt;
}

Refusal bad_value(std::string_view name, std::string_view value, std::string_view allowed) {
  return {.reason = Reason::kBadOption,
          .sqlstate = "22023",
          .message =
              "invalid value for parameter \"pointsman." + std::string(name) + "\": \"" + escape_for_log(value) + "\"",
          .detail = {},
          .hint = "Allowed: " + std::string(allowed) + ".",
          .log_detail = {}};
}

Refusal unknown_option(std::string_view name) {
  return {.reason = Reason::kBadOption,
          .sqlstate = "22023",
          .message = "unrecognized parameter \"pointsman." + escape_for_log(name) + "\"",
          .detail = {},
          .hint =
              "Known are pointsman.min_lsn, pointsman.wait, pointsman.max_lag, pointsman.fallback and "
              "pointsman.explain.",
          .log_detail = {}};
}

}  // namespace

std::optional<Lsn> parse_lsn(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto high = parse_hex_half(text.substr(0, slash));
  const auto low = parse_hex_half(text.substr(slash + 1));
  if (!high || !low) return std::nullopt;
  return (Lsn{*high} << 32) | *low;
}

std::string format_lsn(Lsn lsn) {
  char text[2 * kMaxLsnDigits + 1];
  char* const last = text + sizeof text;
  char* end = std::to_chars(text, last, lsn >> 32, 16).ptr;
  *end++ = '/';
  end = std::to_chars(end, last, lsn & 0xFFFFFFFFu, 16).ptr;
  std::string out(text, end);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'a' && c <= 'f' ? static_cast<char>(c - 'a' + 'A') : c; });
  return out;
}

std::optional<base::Duration> parse_duration(std::string_view text) {
  std::int64_t number = 0;
  const char* const last = text.data() + text.size();
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;  // from_chars takes a minus sign
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc{}) return std::nullopt;
  const std::string_view suffix(end, static_cast<std::size_t>(last - end));
  if (suffix.empty() && number == 0) return base::Duration::zero();
  for (const Unit& unit : kUnits) {
    if (suffix != unit.suffix) continue;
    if (number > kLongestSeconds * 1000 / unit.milliseconds) return std::nullopt;
    return std::chrono::milliseconds(number * unit.milliseconds);
  }
  return std::nullopt;
}

std::string format_duration(base::Duration duration) {
  const std::int64_t total =
      std::max<std::int64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count(), 0);
  if (total == 0) return "0s";
  const auto unit = std::find_if(kUnits.rbegin(), kUnits.rend(),
                                 [&](const Unit& candidate) { return total % candidate.milliseconds == 0; });
  POINTSMAN_CHECK(unit != kUnits.rend());
  return std::to_string(total / unit->milliseconds) + std::string(unit->suffix);
}

std::optional<Fallback> parse_fallback(std::string_view text) {
  for (const Fallback fallback : {Fallback::kLeastLagged, Fallback::kPrimary, Fallback::kError}) {
    if (text == to_text(fallback)) return fallback;
  }
  return std::nullopt;
}

std::string_view to_text(Fallback fallback) {
  switch (fallback) {
    case Fallback::kLeastLagged:
      return "least_lagged";
    case Fallback::kPrimary:
      return "primary";
    case Fallback::kError:
      return "error";
  }
  POINTSMAN_CHECK(false);
  return {};
}

std::optional<Refusal> SessionOptions::set(std::string_view name, std::string_view value) {
  constexpr std::string_view kDurations = "digits and one of ms, s, m, h, such as 500ms or 2s, at most 366 days";
  if (same_name(name, "min_lsn")) {
    const auto lsn = parse_lsn(value);
    if (!lsn)
      return bad_value("min_lsn", value, "a WAL position such as 16/B374D848, as pg_current_wal_lsn() gives it");
    min_lsn = lsn;
  } else if (same_name(name, "wait")) {
    const auto duration = parse_duration(value);
    if (!duration) return bad_value("wait", value, kDurations);
    wait = duration;
  } else if (same_name(name, "max_lag")) {
    const auto duration = parse_duration(value);
    if (!duration) return bad_value("max_lag", value, kDurations);
    max_lag = duration;
  } else if (same_name(name, "fallback")) {
    const auto parsed = parse_fallback(value);
    if (!parsed) return bad_value("fallback", value, "least_lagged, primary, error");
    fallback = parsed;
  } else if (same_name(name, "explain")) {
    const auto on = parse_switch(value);
    if (!on) return bad_value("explain", value, "on, off");
    explain = *on;
  } else {
    return unknown_option(name);
  }
  return std::nullopt;
}

std::optional<Refusal> SessionOptions::check_pooled() const {
  const auto refuse = [](std::string_view name) -> Refusal {
    return {.reason = Reason::kBadOption,
            .sqlstate = "22023",
            .message = "parameter \"pointsman." + std::string(name) + "\" has no meaning on a pooled connection",
            .detail = {},
            .hint = "A pool chooses its servers by itself. Use the direct port (usually 5432) with |replica.",
            .log_detail = {}};
  };
  if (min_lsn) return refuse("min_lsn");
  if (wait) return refuse("wait");
  if (max_lag) return refuse("max_lag");
  return std::nullopt;
}

}  // namespace pointsman::routing
