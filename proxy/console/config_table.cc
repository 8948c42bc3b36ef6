// SHOW CONFIG: the settings outside of branches as they are in force. Never a secret: of passwords, tokens, keys and
// verifiers it says at most that they are set.
#include <utility>

#include "proxy/console/tables.h"
#include "routing/config.h"
#include "routing/session_options.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

using routing::Config;
using routing::ListenerTls;

/// Whether a changed value takes effect with a reload, or with the next start.
enum class Takes : std::uint8_t { kReload, kRestart };

class Settings {
 public:
  void add(std::string key, std::string value, const char* standard, Takes takes) {
    rows_.push_back({std::move(key), value.empty() ? Cell() : Cell(routing::escape_for_log(value, kMaxCellBytes - 4)),
                     standard == nullptr ? Cell() : Cell(std::string(standard)), takes == Takes::kReload});
  }
  void add(std::string key, std::uint64_t value, const char* standard, Takes takes) {
    add(std::move(key), std::to_string(value), standard, takes);
  }
  void add(std::string key, base::Duration value, const char* standard, Takes takes) {
    add(std::move(key), routing::format_duration(value), standard, takes);
  }
  std::vector<Row> take() { return std::move(rows_); }

 private:
  std::vector<Row> rows_;
};

std::string to_word(ListenerTls tls) {
  switch (tls) {
    case ListenerTls::kRequired:
      return "required";
    case ListenerTls::kOptional:
      return "optional";
    case ListenerTls::kOff:
      return "off";
  }
  return {};
}
std::string to_word(bool yes) {
  return yes ? "true" : "false";
}
std::string to_word(routing::MetricsDetail detail) {
  switch (detail) {
    case routing::MetricsDetail::kActive:
      return "active";
    case routing::MetricsDetail::kAll:
      return "all";
    case routing::MetricsDetail::kNone:
      return "none";
  }
  return {};
}

void add_listeners(Settings& settings, const Config& config) {
  for (const auto& listener : config.listeners) {
    const std::string prefix = "listeners." + listener.name + ".";
    settings.add(prefix + "address", listener.address, "0.0.0.0", Takes::kRestart);
    settings.add(prefix + "port", listener.port, nullptr, Takes::kRestart);
    settings.add(prefix + "mode", listener.mode == routing::ListenerMode::kDirect ? "direct" : "pooled", "direct",
                 Takes::kReload);
    settings.add(prefix + "tls", to_word(listener.tls), "required", Takes::kReload);
    if (!listener.fixed.branch.empty()) settings.add(prefix + "branch", listener.fixed.branch, nullptr, Takes::kReload);
    if (listener.branch_from_sni)
      settings.add(prefix + "branch_from_sni", listener.sni_domain.empty() ? "true" : listener.sni_domain, "false",
                   Takes::kReload);
    if (!listener.fixed.branch.empty() || listener.branch_from_sni)
      settings.add(prefix + "target", std::string(routing::to_text(listener.fixed.target)), "primary", Takes::kReload);
    if (listener.proxy_protocol) settings.add(prefix + "proxy_protocol", "required", "off", Takes::kReload);
  }
  for (const auto& listener : config.console.listeners) {
    const std::string prefix = "listeners." + listener.name + ".";
    settings.add(prefix + "address", listener.address, "127.0.0.1", Takes::kRestart);
    settings.add(prefix + "port", listener.port, "7531", Takes::kRestart);
    settings.add(prefix + "mode", "console", "direct", Takes::kRestart);
    settings.add(prefix + "tls", to_word(listener.tls), "required", Takes::kRestart);
  }
}

void add_endpoints(Settings& settings, const Config& config) {
  if (config.admin) {
    settings.add("admin.address", config.admin->address, "127.0.0.1", Takes::kRestart);
    settings.add("admin.port", config.admin->port, "9432", Takes::kRestart);
    settings.add("admin.token_file", config.admin->token.empty() ? "" : "(set)", nullptr, Takes::kRestart);
  }
  if (config.metrics) {
    settings.add("metrics.address", config.metrics->address, "0.0.0.0", Takes::kRestart);
    settings.add("metrics.port", config.metrics->port, "9433", Takes::kRestart);
    settings.add("metrics.detail", to_word(config.metrics_detail), "active", Takes::kReload);
  }
  settings.add("console.max_connections", config.console.max_connections, "32", Takes::kReload);
  settings.add("console.idle_timeout", config.console.idle_timeout, "1h", Takes::kReload);
  for (const auto& [name, user] : config.console.users) {
    settings.add("console.users." + name, user.role == routing::ConsoleRole::kAdmin ? "admin" : "read", nullptr,
                 Takes::kReload);
  }
}

}  // namespace

Table config_table(const ControlView& control) {
  const auto directory = control.directory();
  const Config& config = directory->config();
  Settings settings;
  settings.add("config_file", config.file, nullptr, Takes::kRestart);
  add_listeners(settings, config);
  if (config.tls) {
    settings.add("tls.certificate", config.tls->certificate, nullptr, Takes::kReload);
    settings.add("tls.key", config.tls->key, nullptr, Takes::kReload);
    settings.add("tls.min_version", config.tls->min_tls13 ? "1.3" : "1.2", "1.2", Takes::kReload);
  }
  add_endpoints(settings, config);
  settings.add("workers", control.worker_blocks().size(), nullptr, Takes::kRestart);
  settings.add("zone", config.zone, nullptr, Takes::kReload);
  settings.add("log.level", config.log_level, "info", Takes::kReload);
  settings.add("log.format", config.log_format == routing::LogFormat::kText ? "text" : "json", "text", Takes::kReload);
  settings.add("tcp.keepalive", config.tcp_keepalive, "30s", Takes::kRestart);  // listeners have it from the start
  settings.add("tcp.user_timeout", config.tcp_user_timeout, "30s", Takes::kRestart);
  settings.add("limits.startup_timeout", config.limits.startup_timeout, "15s", Takes::kReload);
  settings.add("limits.max_connections", control.max_connections(), nullptr, Takes::kRestart);
  settings.add("limits.max_connections_per_branch", config.limits.max_connections_per_branch, "5000", Takes::kReload);
  settings.add("limits.max_held_per_branch", config.limits.max_held_per_branch, "200", Takes::kReload);
  settings.add("hide_unknown_branches", to_word(config.hide_unknown_branches), "false", Takes::kReload);
  settings.add("state_dir", config.state_dir, nullptr, Takes::kRestart);
  settings.add("shutdown_delay", config.shutdown_delay, "0s", Takes::kReload);
  settings.add("drain_timeout", config.drain_timeout, "30s", Takes::kReload);
  return {.columns = {{"key"}, {"value"}, {"default"}, {"reload", ColumnType::kBool}},
          .more = [rows = settings.take(), given = false]() mutable -> std::optional<std::vector<Row>> {
            if (std::exchange(given, true)) return std::nullopt;
            return std::move(rows);
          }};
}

}  // namespace pointsman::proxy
