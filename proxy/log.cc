#include "proxy/log.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <ctime>
#include <memory>
#include <mutex>
#include <utility>

#include <spdlog/async.h>
#include <spdlog/async_logger.h>
#include <spdlog/formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

using routing::LogFormat;
using TimePoint = std::chrono::system_clock::time_point;

constexpr std::size_t kQueueLines = 1024;
constexpr auto kStopGrace = std::chrono::seconds(1);
constexpr int kPollMs = 100;

/// What a payload begins with: the format its record was made in, so that a reload mixes no line.
constexpr char kTextMark = '\x01';
constexpr char kJsonMark = '\x02';

struct Settings {
  std::atomic<LogFormat> format{LogFormat::kText};
  std::atomic<LogLevel> level{LogLevel::kInfo};
  std::atomic<bool> stopping{false};
  std::atomic<std::uint64_t> unwritten{0};  // lines the sink gave up
};
Settings settings;

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  POINTSMAN_CHECK(false);
  return {};
}

LogLevel from_spdlog(spdlog::level::level_enum level) {
  if (level <= spdlog::level::debug) return LogLevel::kDebug;
  if (level == spdlog::level::info) return LogLevel::kInfo;
  return level == spdlog::level::warn ? LogLevel::kWarning : LogLevel::kError;
}

std::string_view to_word(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warn";
    case LogLevel::kError:
      return "error";
  }
  POINTSMAN_CHECK(false);
  return {};
}

LogLevel parse_level(const std::string& text) {
  if (text == "debug") return LogLevel::kDebug;
  if (text == "warn" || text == "warning") return LogLevel::kWarning;
  return text == "error" ? LogLevel::kError : LogLevel::kInfo;
}

/// 2026-01-02T03:04:05.678Z
std::string format_time(TimePoint at) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(at);
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(at - whole).count();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(whole);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec, milliseconds);
}

/// Messages are ours; a control byte in one (a library's error text) must still not make a second line.
void append_message(std::string& out, std::string_view message) {
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
}

/// `message key=value …`
std::string text_tail(std::string_view message, const std::vector<LogField>& fields) {
  std::string tail;
  append_message(tail, message);
  for (const LogField& field : fields) {
    const std::string value = routing::escape_for_log(field.value, field.limit);
    const bool quote = value.empty() || value.find_first_of(" =") != std::string::npos;
    tail += ' ';
    tail += field.key;
    tail += quote ? "=\"" : "=";
    tail += value;
    if (quote) tail += '"';
  }
  return tail;
}

/// Cut at `limit` bytes, not inside a character.
std::string cut(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return std::string(text);
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
  return std::string(text.substr(0, limit)) + "…";
}

/// `"message":"…","key":"…"`: an object's inside, for the time and level to stand before it.
std::string json_tail(std::string_view message, const std::vector<LogField>& fields) {
  nlohmann::ordered_json object = {{"message", message}};
  for (const LogField& field : fields) object[std::string(field.key)] = cut(field.value, field.limit);
  const std::string text = object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return text.substr(1, text.size() - 2);
}

std::string whole_line(LogFormat format, TimePoint at, LogLevel level, std::string_view tail) {
  switch (format) {
    case LogFormat::kText:
      return fmt::format("{} {:<5} {}", format_time(at), to_word(level), tail);
    case LogFormat::kJson:
      return fmt::format(R"({{"time":"{}","level":"{}",{}}})", format_time(at), to_word(level), tail);
  }
  POINTSMAN_CHECK(false);
  return {};
}

class LineFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const std::string_view payload(message.payload.data(), message.payload.size());
    POINTSMAN_CHECK(!payload.empty());
    const LogFormat format = payload[0] == kTextMark ? LogFormat::kText : LogFormat::kJson;
    const auto at = std::chrono::time_point_cast<TimePoint::duration>(message.time);
    const std::string line = whole_line(format, at, from_spdlog(message.level), payload.substr(1)) + "\n";
    out.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<LineFormatter>(); }
};

/// Writes to stderr from the logging thread. spdlog's own sink waits for ever on a pipe that nobody reads, and with it
/// the process's end; this one waits with poll(), and gives up a second after stop_log().
class StderrSink final : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    base_sink<std::mutex>::formatter_->format(message, line);
    if (!write(line.data(), line.size())) settings.unwritten.fetch_add(1);
  }
  void flush_() override {}

 private:
  bool write(const char* data, std::size_t size) {
    while (size > 0) {
      if (!wait_writable()) return false;
      // poll() promises a pipe's room for this much and no more (pipe(7)).
      const std::size_t part = std::min<std::size_t>(size, PIPE_BUF);
      const ssize_t written = ::write(STDERR_FILENO, data, part);
      if (written < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (written < 0) return false;
      data += written;
      size -= static_cast<std::size_t>(written);
    }
    return true;
  }
  bool wait_writable() {
    for (;;) {
      const bool last_chance = settings.stopping.load() && stop_deadline_passed();
      pollfd descriptor{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
      const int ready = ::poll(&descriptor, 1, last_chance ? 0 : kPollMs);
      if (ready > 0) return true;  // an error shows in write()
      if (last_chance || (ready < 0 && errno != EINTR)) return false;
    }
  }
  bool stop_deadline_passed() {
    const auto now = std::chrono::steady_clock::now();
    if (give_up_at_ == std::chrono::steady_clock::time_point{}) give_up_at_ = now + kStopGrace;
    return now >= give_up_at_;
  }
  std::chrono::steady_clock::time_point give_up_at_{};
};

/// Changed by start_log and stop_log alone.
std::shared_ptr<spdlog::details::thread_pool> pool;

}  // namespace

void start_log(const std::string& level, LogFormat format) {
  settings.stopping.store(false);
  pool = std::make_shared<spdlog::details::thread_pool>(kQueueLines, 1U);
  auto sink = std::make_shared<StderrSink>();
  sink->set_formatter(std::make_unique<LineFormatter>());
  auto logger = std::make_shared<spdlog::async_logger>("pointsman", std::move(sink), pool,
                                                       spdlog::async_overflow_policy::overrun_oldest);
  spdlog::set_default_logger(std::move(logger));
  set_log(level, format);
}

void set_log(const std::string& level, LogFormat format) {
  settings.format.store(format);
  settings.level.store(parse_level(level));
  spdlog::set_level(to_spdlog(settings.level.load()));
}

void stop_log() {
  if (pool == nullptr) return;
  settings.stopping.store(true);
  settings.unwritten.fetch_add(pool->overrun_counter());
  spdlog::set_default_logger(nullptr);
  pool.reset();  // writes what is queued and joins the thread
}

std::uint64_t log_lines_dropped() {
  return settings.unwritten.load() + (pool == nullptr ? 0 : pool->overrun_counter());
}

bool log_enabled(LogLevel level) {
  return level >= settings.level.load(std::memory_order_relaxed);
}

void log_record(LogLevel level, std::string_view message, const std::vector<LogField>& fields) {
  if (!log_enabled(level)) return;
  auto* logger = spdlog::default_logger_raw();
  if (logger == nullptr) return;
  const bool json = settings.format.load(std::memory_order_relaxed) == LogFormat::kJson;
  std::string payload(1, json ? kJsonMark : kTextMark);
  payload += json ? json_tail(message, fields) : text_tail(message, fields);
  logger->log(to_spdlog(level), spdlog::string_view_t(payload.data(), payload.size()));
}

std::string format_log_line(LogFormat format, TimePoint at, LogLevel level, std::string_view message,
                            const std::vector<LogField>& fields) {
  switch (format) {
    case LogFormat::kText:
      return whole_line(format, at, level, text_tail(message, fields));
    case LogFormat::kJson:
      return whole_line(format, at, level, json_tail(message, fields));
  }
  POINTSMAN_CHECK(false);
  return {};
}

}  // namespace pointsman::proxy
