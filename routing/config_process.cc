// The top level of the configuration: listeners, TLS, admin, limits. An error here makes the whole configuration bad.

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include "routing/config_reader.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using namespace std::string_view_literals;

constexpr std::size_t kMaxListeners = 256;
constexpr std::uint64_t kMostConnections = 1'000'000;
constexpr std::uint64_t kMostWorkers = 256;

/// "console" stands for what a bad value is told; entries of that mode are read elsewhere.
constexpr std::array<std::pair<std::string_view, ListenerMode>, 3> kModes = {
    {{"direct"sv, ListenerMode::kDirect}, {"pooled"sv, ListenerMode::kPooled}, {"console"sv, ListenerMode::kDirect}}};
constexpr std::array<std::pair<std::string_view, ListenerTls>, 3> kListenerTls = {
    {{"required"sv, ListenerTls::kRequired}, {"optional"sv, ListenerTls::kOptional}, {"off"sv, ListenerTls::kOff}}};
constexpr std::array<std::pair<std::string_view, bool>, 2> kProxyProtocol = {{{"off"sv, false}, {"required"sv, true}}};
constexpr std::array<std::pair<std::string_view, bool>, 2> kTlsVersions = {{{"1.2"sv, false}, {"1.3"sv, true}}};
constexpr std::array<std::pair<std::string_view, MetricsDetail>, 3> kDetails = {
    {{"active"sv, MetricsDetail::kActive}, {"all"sv, MetricsDetail::kAll}, {"none"sv, MetricsDetail::kNone}}};
constexpr std::array<std::pair<std::string_view, LogFormat>, 2> kFormats = {
    {{"text"sv, LogFormat::kText}, {"json"sv, LogFormat::kJson}}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kLevels = {{{"trace"sv, "trace"sv},
                                                                                   {"debug"sv, "debug"sv},
                                                                                   {"info"sv, "info"sv},
                                                                                   {"warn"sv, "warn"sv},
                                                                                   {"error"sv, "error"sv}}};

constexpr TextForm kDomain{.title = "domain", .pattern = "^[a-z0-9-]([a-z0-9.-]*[a-z0-9-])?$", .most = 253};
constexpr TextRule kBranchName{
    .form = {.title = "name of a branch", .pattern = "^[a-z0-9][a-z0-9-]{0,62}$"},
    .holds = [](const std::string& text) { return is_branch_name(text); },
    .complaint = "is no branch name; 1 to 63 of a-z 0-9 - with a letter or digit first are allowed"};
constexpr TextRule kNumericAddress{
    .form = {.title = "numeric address", .pattern = "^[0-9A-Fa-f:.]+$"},
    .holds = is_numeric_address,
    .complaint = "is not allowed; a numeric address such as \"0.0.0.0\", \"127.0.0.1\" or \"::\" is",
    .quotes_value = true};

class ListenerReader {
 public:
  ListenerReader(const Json& value, const JsonPath& path, const ErrorSink& sink) : reader_(value, path, sink) {}

  ListenerConfig read(bool tls_is_configured) {
    reader_.require("name", "a name");
    reader_.read_text({"name", "As in logs and metrics."}, out_.name, kLabel);
    read_listening_address(reader_, out_.address);
    reader_.require("port", "a port");
    reader_.read_number({"port", "5432 or 6432 is what users expect."}, out_.port, 1, 65535);
    reader_.read_choice<ListenerMode>(
        {"mode", "direct leads to PostgreSQL, pooled to PgBouncers, console to the admin console."}, out_.mode, kModes);
    const bool said = reader_.read_choice<ListenerTls>(
        {"tls", "optional lets plaintext clients in, off offers no TLS."}, out_.tls, kListenerTls);
    if (out_.tls != ListenerTls::kOff && !tls_is_configured) {
      reader_.error("tls", std::string(said ? "" : "\"required\" (the default) ") +
                               "needs the top-level \"tls\" with certificate and key; \"off\" is allowed without");
    }
    read_branch_from_sni();
    read_fixed_route();
    read_proxy_protocol();
    reader_.finish();
    return std::move(out_);
  }

 private:
  /// true, or the domain under which the branches' names stand.
  void read_branch_from_sni() {
    const Json* value = reader_.find({"branch_from_sni",
                                      "The branch is the first label of the TLS server name; true takes any name, a "
                                      "domain must stand behind the label."},
                                     {.kind = Shape::Kind::kTruth});
    reader_.allow_also("branch_from_sni", {.kind = Shape::Kind::kText, .text = kDomain});
    if (value == nullptr) return;
    if (const auto* domain = value->get_ptr<const std::string*>()) {
      if (!is_domain(*domain)) {
        return reader_.error("branch_from_sni",
                             "\"" + escape_for_log(*domain) +
                                 "\" is not allowed; true, false or a domain such as \"pg.example.com\" is");
      }
      out_.sni_domain = *domain;
      out_.branch_from_sni = true;
    } else if (value->is_boolean()) {
      out_.branch_from_sni = value->get<bool>();
    } else {
      return reader_.error("branch_from_sni", "true, false or a domain such as \"pg.example.com\" is allowed");
    }
    if (out_.branch_from_sni && out_.tls == ListenerTls::kOff)
      reader_.error("branch_from_sni", "needs TLS, and \"tls\" is \"off\"");
    if (out_.branch_from_sni && reader_.has("branch"))
      reader_.error("branch_from_sni", "stands beside \"branch\"; one of them is allowed");
  }

  static bool is_domain(std::string_view text) {
    return !text.empty() && text.size() <= 253 && text.front() != '.' && text.back() != '.' &&
           std::all_of(text.begin(), text.end(),
                       [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.'; });
  }

  void read_fixed_route() {
    reader_.read_text({"branch", "Fixes the branch: the whole user name is then the role."}, out_.fixed.branch,
                      kBranchName);
    std::string target;
    constexpr TextForm kTarget{.title = "\"primary\", \"replica\" or the name of a pool", .pattern = kPoolName.pattern};
    if (!reader_.read_text({"target", "Fixes the target, too: with branch or branch_from_sni."}, target, kTarget))
      return;
    if (out_.fixed.branch.empty() && !out_.branch_from_sni)
      return reader_.error("target", "needs \"branch\" or \"branch_from_sni\" beside it");
    if (target == "primary") {
      out_.fixed.target = {TargetKind::kPrimary, {}};
    } else if (target == "replica") {
      out_.fixed.target = {TargetKind::kReplica, {}};
      if (out_.mode == ListenerMode::kPooled)
        reader_.error("target", "\"replica\" is not allowed on a pooled listener; \"primary\" or a pool is");
    } else if (is_pool_name(target)) {
      out_.fixed.target = {TargetKind::kPool, target};
      if (out_.mode == ListenerMode::kDirect)
        reader_.error("target", "a pool is not allowed on a direct listener; \"primary\" or \"replica\" is");
    } else {
      reader_.error("target", "\"" + escape_for_log(target) +
                                  "\" is not allowed; \"primary\", \"replica\" or the name of a pool is");
    }
  }

  void read_proxy_protocol() {
    reader_.read_choice<bool>({"proxy_protocol", "required: every connection begins with a PROXY header, v1 or v2."},
                              out_.proxy_protocol, kProxyProtocol);
    const auto* trusted = read_ranges(
        reader_, {"trusted_proxies", "With proxy_protocol: from where a header is accepted."}, 0, out_.trusted_proxies);
    if (!reader_.has("trusted_proxies") && out_.proxy_protocol)
      reader_.error("trusted_proxies",
                    "is missing; \"proxy_protocol\": \"required\" needs the proxies' address ranges");
    if (trusted == nullptr) return;
    if (!out_.proxy_protocol && !trusted->empty())
      reader_.error("trusted_proxies", "has no meaning without \"proxy_protocol\": \"required\"");
    if (out_.proxy_protocol && trusted->empty()) reader_.error("trusted_proxies", "is empty; nobody could connect");
  }

  ObjectReader reader_;
  ListenerConfig out_;
};

void read_listeners(ObjectReader& root, Config& config) {
  root.require("listeners", "an array with at least one listener");
  const auto* array =
      root.read_array({"listeners", "Where clients connect; one for clients at least."}, 1, kMaxListeners);
  if (array == nullptr) return;
  const JsonPath path = root.path_of("listeners");
  const auto is_for_clients = [](const Json& entry) { return !is_console_listener(entry); };
  if (std::none_of(array->begin(), array->end(), is_for_clients))
    root.error("listeners", "is empty; at least one listener for clients is needed");
  std::vector<std::string> names;
  const auto take_name = [&](const JsonPath& here, const std::string& name) {
    if (!name.empty() && std::find(names.begin(), names.end(), name) != names.end())
      root.sink().add(JsonPath(here, "name"), "another listener has this name");
    names.push_back(name);
  };
  for (std::size_t i = 0; i < array->size(); ++i) {
    const JsonPath here(path, i);
    if (is_console_listener((*array)[i])) {
      config.console.listeners.push_back(read_console_listener((*array)[i], here, root.sink(), config.tls.has_value()));
      config.console.listeners.back().position = i;
      take_name(here, config.console.listeners.back().name);
      continue;
    }
    ListenerConfig listener = ListenerReader((*array)[i], here, root.sink()).read(config.tls.has_value());
    listener.position = i;
    take_name(here, listener.name);
    for (const ListenerConfig& other : config.listeners) {
      if (listener.port != 0 && other.port == listener.port && other.address == listener.address) {
        root.sink().add(JsonPath(here, "port"), "listener " + other.name + " has the same address and port");
      }
    }
    config.listeners.push_back(std::move(listener));
  }
}

void read_tls(ObjectReader& root, const std::string& folder, ConfigFiles& files, Config& config) {
  const Json* value = root.find_object({"tls", "What clients see; required when a listener speaks TLS."});
  if (value == nullptr) return;
  const JsonPath path = root.path_of("tls");
  ObjectReader reader(*value, path, root.sink());
  TlsConfig& tls = config.tls.emplace();
  reader.require("certificate", "a PEM file");
  if (reader.read_text({"certificate", "PEM: the server's certificate first, then its chain."}, tls.certificate,
                       kFile)) {
    tls.certificate = absolute_path(tls.certificate, folder);
    if (const auto& fault = files.certificate_fault(tls.certificate)) reader.error("certificate", *fault);
  }
  reader.require("key", "a PEM file");
  if (reader.read_text({"key", "Its private key, PEM."}, tls.key, kFile)) {
    tls.key = absolute_path(tls.key, folder);
    if (const auto& fault = files.key_fault(tls.key)) reader.error("key", *fault);
  }
  reader.read_choice<bool>({"min_version", "Of TLS."}, tls.min_tls13, kTlsVersions);
  reader.finish();
}

void read_admin(ObjectReader& root, const std::string& folder, ConfigFiles& files, Config& config) {
  const Json* value =
      root.find_object({"admin", "The admin endpoint (HTTP): status page, API, metrics. Without it there is none."});
  if (value == nullptr) return;
  const JsonPath path = root.path_of("admin");
  ObjectReader reader(*value, path, root.sink());
  AdminConfig& admin = config.admin.emplace();
  read_listening_address(reader, admin.address);
  reader.read_number({"port", "Where it listens."}, admin.port, 1, 65535);
  std::string token_file;
  if (reader.read_text(
          {"token_file",
           "Holds what writes must send as `Authorization: Bearer …`. Without it they are taken from loopback only."},
          token_file, kFile)) {
    const auto& token = files.secret(absolute_path(token_file, folder));
    if (token.ok()) {
      admin.token = token.value().text;
    } else {
      reader.error("token_file", token.error());
    }
  }
  reader.finish();
}

void read_metrics(ObjectReader& root, Config& config) {
  const Json* value = root.find_object(
      {"metrics", "A second endpoint, for /metrics, /healthz and /readyz alone. Without it there is none."});
  if (value == nullptr) return;
  const JsonPath path = root.path_of("metrics");
  ObjectReader reader(*value, path, root.sink());
  MetricsConfig& metrics = config.metrics.emplace();
  read_listening_address(reader, metrics.address);
  reader.read_number({"port", "Where it listens."}, metrics.port, 1, 65535);
  reader.read_choice<MetricsDetail>({"detail", "Which branches have series of their own: those in use, all, or none."},
                                    config.metrics_detail, kDetails);
  reader.finish();
  if (config.admin && config.admin->port == metrics.port && config.admin->address == metrics.address) {
    reader.error("port", "the admin endpoint has the same address and port");
  }
}

void read_log(ObjectReader& root, Config& config) {
  const Json* value = root.find_object({"log", "To stderr."});
  if (value == nullptr) return;
  const JsonPath path = root.path_of("log");
  ObjectReader reader(*value, path, root.sink());
  std::string_view level = config.log_level;
  reader.read_choice<std::string_view>({"level", "From where on lines are written."}, level, kLevels);
  config.log_level = std::string(level);
  reader.read_choice<LogFormat>({"format", "json: one object a line."}, config.log_format, kFormats);
  reader.finish();
}

void read_tcp(ObjectReader& root, Config& config) {
  const Json* value = root.find_object({"tcp", "Of both legs of a connection."});
  if (value == nullptr) return;
  const JsonPath path = root.path_of("tcp");
  ObjectReader reader(*value, path, root.sink());
  reader.read_duration({"keepalive", "How long a connection is silent before it is probed."}, config.tcp_keepalive, 1s,
                       2h);
  reader.read_duration(
      {"user_timeout", "How long data that was sent may stay unacknowledged before the connection is given up."},
      config.tcp_user_timeout, 1s, 2h);
  reader.finish();
}

std::string folder_above(const std::string& path) {
  const std::size_t slash = path.find_last_of('/', path.size() - 2);
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

/// Only looks: the folder is made by who is to write in it, not by whoever checks a configuration.
std::optional<std::string> state_dir_fault(const std::string& path) {
  struct stat status = {};
  const auto system_error = [] { return std::generic_category().message(errno); };
  if (::stat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) return path + " cannot be used: " + system_error();
    const std::string above = folder_above(path);
    if (::access(above.c_str(), W_OK | X_OK) == 0) return std::nullopt;
    return path + " is not there and cannot be made in " + above + ": " + system_error();
  }
  if (!S_ISDIR(status.st_mode)) return path + " is no folder";
  // Who writes there decides which timeline counts and which PgBouncers are resumed.
  if (status.st_uid != 0 && status.st_uid != ::geteuid())
    return path + " belongs to another user; ours or root's is allowed";
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return path + " may be written by others; 0700, or 0755 at most, is allowed";
  if (::access(path.c_str(), R_OK | W_OK | X_OK) != 0) return path + " cannot be written: " + system_error();
  return std::nullopt;
}

void read_state_dir(ObjectReader& root, const std::string& folder, Config& config) {
  if (!root.read_text(
          {"state_dir",
           "For what must outlive a restart: identities of clusters, holds. Without it nothing is written."},
          config.state_dir, {.title = "path of a folder"}))
    return;
  config.state_dir = absolute_path(config.state_dir, folder);
  if (const auto fault = state_dir_fault(config.state_dir)) root.error("state_dir", *fault);
}

void read_limits(ObjectReader& root, Config& config) {
  const Json* value = root.find_object({"limits", "Of logins and connections."});
  if (value == nullptr) return;
  const JsonPath path = root.path_of("limits");
  ObjectReader reader(*value, path, root.sink());
  LimitsConfig& limits = config.limits;
  reader.read_duration({"startup_timeout", "From accepting a connection to the end of its login; no byte moves it."},
                       limits.startup_timeout, 100ms, 10min);
  std::uint32_t connections = 0;
  if (reader.read_number(
          {"max_connections",
           "Without it what the descriptor limit allows, at most 20000; a value that cannot be had is an error."},
          connections, 1, kMostConnections))
    limits.max_connections = connections;
  reader.read_number({"max_connections_per_branch", "Beyond it 53300."}, limits.max_connections_per_branch, 1,
                     kMostConnections);
  reader.read_number({"max_held_per_branch", "Logins that wait for a primary or replica."}, limits.max_held_per_branch,
                     0, kMostConnections);
  reader.finish();
}

}  // namespace

void read_listening_address(ObjectReader& reader, std::string& address) {
  reader.read_text({"address", "Where it listens; \"::\" for IPv6."}, address, kNumericAddress);
}

void read_schema_mark(ObjectReader& reader) {
  std::string ignored;
  reader.read_text({"$schema", "Where an editor finds this schema; ignored."}, ignored, {.title = "URL or path"});
}

void read_process(ObjectReader& root, const std::string& folder, ConfigFiles& files, Config& config) {
  read_schema_mark(root);
  read_tls(root, folder, files, config);
  read_listeners(root, config);
  read_admin(root, folder, files, config);
  read_metrics(root, config);
  read_console(root, folder, files, config);
  check_console_ports(config, root.path_of("listeners"), root.sink());
  root.read_number({"workers", "Threads that serve connections. Without it as many as the cgroup allows."},
                   config.workers, 1, kMostWorkers);
  root.read_text({"zone", "Where this router stands: replicas and pool endpoints of the same zone are preferred."},
                 config.zone, kLabel);
  read_log(root, config);
  read_tcp(root, config);
  read_limits(root, config);
  root.read_bool({"hide_unknown_branches", "Answer an unknown branch like a wrong password, in text and in time."},
                 config.hide_unknown_branches);
  read_state_dir(root, folder, config);
  read_cancel(root, folder, files, config);
  root.read_duration({"shutdown_delay", "On SIGTERM: how long /readyz says no before the listeners close."},
                     config.shutdown_delay, 0s, 1h);
  root.read_duration({"drain_timeout", "On SIGTERM: how long sessions may go on."}, config.drain_timeout, 0s, 24h);
  root.read_duration(
      {"drain_pace", "Over how long sessions are told to go, evenly; at most drain_timeout. 0: all at once."},
      config.drain_pace, 0s, 24h);
  if (config.drain_pace > config.drain_timeout)
    root.error("drain_pace", "is longer than drain_timeout, at which all sessions end; shorter or as long is allowed");
}

}  // namespace pointsman::routing
