#pragma once
// The process's log: spdlog, asynchronous, to stderr; log.cc alone includes it, for it is long to compile. Never blocks
// a loop: when stderr is stuck the oldest lines are dropped and counted (T27). One line a record: log_record() escapes
// the values of fields itself, so they are given raw; whoever puts foreign text into a message escapes it with
// routing::escape_for_log. Never a secret, never query text.
//
// text: 2026-01-02T03:04:05.678Z info  message key=value key="value with spaces"
// json: {"time":"2026-01-02T03:04:05.678Z","level":"info","message":"message","key":"value"}

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "routing/config.h"

namespace pointsman::proxy {

/// Sets spdlog's default logger. Call once, before any thread is started; level and format can be set again at reload.
/// `level`: "debug", "info", "warn" (or "warning"), "error"; anything else is "info".
void start_log(const std::string& level, routing::LogFormat format);
void set_log(const std::string& level, routing::LogFormat format);
/// Writes what is queued and stops the logging thread. Waits at most a second for an stderr that takes nothing.
void stop_log();
std::uint64_t log_lines_dropped();

/// A structured record: `message key=value …` as text, or an object with `message` and the fields as JSON. Any thread.
struct LogField {
  std::string_view key;
  std::string value;        ///< raw; escaped here
  std::size_t limit = 256;  ///< bytes that are printed; more only for texts of our own
};
enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarning, kError };
void log_record(LogLevel level, std::string_view message, const std::vector<LogField>& fields);
bool log_enabled(LogLevel level);

/// A whole line without its end, as log_record() prints it. Pure.
std::string format_log_line(routing::LogFormat format, std::chrono::system_clock::time_point at, LogLevel level,
                            std::string_view message, const std::vector<LogField>& fields);

}  // namespace pointsman::proxy
