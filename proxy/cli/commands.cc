#include "proxy/cli/commands.h"

#include <unistd.h>
#include <csignal>
#include <ctime>

#include <algorithm>
#include <fstream>
#include <iostream>

#include <CLI/CLI.hpp>

#include "base/secret.h"
#include "proxy/admin/http_message.h"
#include "proxy/admin/version.h"
#include "proxy/cli/certificate_check.h"
#include "proxy/cli/http_client.h"
#include "proxy/cli/status_table.h"
#include "routing/config.h"
#include "routing/config_schema.h"

namespace pointsman::proxy {
namespace {

constexpr int kSuccess = 0;
constexpr int kFailure = 1;
constexpr int kUsage = 2;
constexpr base::Duration kAnswerDeadline = std::chrono::seconds(10);
/// A hold waits for PAUSE, up to failover.hold_timeout; the router has bounds of its own.
constexpr base::Duration kSwitchDeadline = std::chrono::minutes(13);
constexpr std::size_t kMaxTokenBytes = 4096;
constexpr std::string_view kDefaultAdmin = "http://127.0.0.1:9432";
/// Home, clear to the end of the screen (ECMA-48).
constexpr std::string_view kClearScreen = "\x1b[H\x1b[2J";

struct Options {
  std::string config_file;
  std::string admin_url = std::string(kDefaultAdmin);
  std::string listener;
  std::string user;
  std::string branch;
  std::string token_file;
  std::string lease = "30s";
  bool force = false;
  bool watch = false;
  bool json = false;
  bool of_branch = false;
};

int fail(const std::string& what) {
  std::cerr << "pointsman: " << what << "\n";
  return kFailure;
}

/// Nothing wrong with it, but most servers will refuse that probe.
void remark_on_probes(const routing::Config& config) {
  std::size_t count = 0;
  std::string first;
  for (const auto& [name, branch] : config.branches) {
    if (!branch->probe.password.empty() || !branch->backend_tls.certificate.empty()) continue;
    if (count++ == 0) first = name;
  }
  if (count == 0) return;
  std::cerr << "note: " << count << (count == 1 ? " branch" : " branches") << " (" << first
            << (count == 1 ? ")" : ", ...)")
            << " without probe.password_file and without a client certificate in backend_tls: the probe and auth roles "
               "log in with SCRAM-SHA-256 or a client certificate, else only where pg_hba.conf trusts them\n";
}

int run_check(const Options& options) {
  const routing::LoadedConfig loaded = routing::load_config(options.config_file, nullptr);
  std::vector<routing::ConfigError> errors = loaded.errors;
  if (loaded.config != nullptr) {
    const auto more = check_certificates(loaded);
    errors.insert(errors.end(), more.begin(), more.end());
  }
  for (const auto& error : errors) std::cerr << error.to_string() << "\n";
  if (!errors.empty() || loaded.config == nullptr) return kFailure;
  remark_on_probes(*loaded.config);
  const std::size_t branches = loaded.config->branches.size();
  std::cout << options.config_file << ": ok, " << branches << (branches == 1 ? " branch\n" : " branches\n");
  return kSuccess;
}

int run_schema(const Options& options) {
  std::cout << (options.of_branch ? routing::branch_schema() : routing::config_schema());
  return std::cout.flush() ? kSuccess : fail("cannot write the schema");
}

/// An answer of status 200, or what went wrong in words.
base::Result<std::string> ask(const Options& options, const std::string& path_and_query) {
  const auto url = parse_admin_url(options.admin_url);
  if (!url.ok()) return base::Error{url.error()};
  auto answer = http_get(url.value(), path_and_query, kAnswerDeadline);
  if (!answer.ok()) return base::Error{answer.error()};
  if (answer.value().status != 200) return base::Error{error_text(answer.value().status, answer.value().body)};
  return std::move(answer.value().body);
}

int run_route(const Options& options) {
  std::string query = "/api/route?user=" + percent_encode(options.user);
  if (!options.listener.empty()) query += "&listener=" + percent_encode(options.listener);
  const auto body = ask(options, query);
  if (!body.ok()) return fail(body.error());
  const auto route = route_text(body.value());
  if (!route.ok()) return fail(route.error());
  std::cout << route.value().text;
  return route.value().ok ? kSuccess : kFailure;
}

base::Result<std::string> status_text(const Options& options) {
  const auto body = ask(options, "/api/status");
  if (!body.ok()) return base::Error{body.error()};
  return options.json ? pretty_json(body.value()) : status_table(body.value());
}

volatile std::sig_atomic_t interrupted = 0;

/// Draws once a second until Ctrl-C. A router that goes away is said, not the end: it may come back.
int watch_status(const Options& options) {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  while (interrupted == 0) {
    const auto text = status_text(options);
    if (interrupted != 0) break;
    std::cout << (terminal ? kClearScreen : "") << (text.ok() ? text.value() : "pointsman: " + text.error() + "\n")
              << (terminal ? "" : "\n") << std::flush;
    if (!std::cout) return kFailure;  // the reader of a pipe is gone
    const timespec second{.tv_sec = 1, .tv_nsec = 0};
    nanosleep(&second, nullptr);
  }
  return kSuccess;
}

int run_status(const Options& options) {
  if (options.watch) return watch_status(options);
  const auto text = status_text(options);
  if (!text.ok()) return fail(text.error());
  std::cout << text.value();
  return kSuccess;
}

/// The one line of a token file.
base::Result<base::SecretString> read_token(const std::string& path) {
  if (path.empty()) return base::SecretString();
  std::ifstream file(path, std::ios::binary);
  std::string token(kMaxTokenBytes + 1, '\0');
  file.read(token.data(), static_cast<std::streamsize>(token.size()));
  const auto size = static_cast<std::size_t>(file.gcount());
  token.resize(size);
  while (token.ends_with('\n') || token.ends_with('\r')) token.pop_back();
  const bool good = !token.empty() && size <= kMaxTokenBytes &&
                    std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c <= '~'; });
  base::SecretString secret(token);
  base::wipe(token.data(), token.size());
  if (good) return secret;
  return base::Error{"cannot use " + path + ": it must hold the token in one line, and be readable"};
}

/// Asks for a step of a planned switch and says what became of it.
int run_switch(const Options& options, const std::string& path_and_query) {
  const auto url = parse_admin_url(options.admin_url);
  if (!url.ok()) return fail(url.error());
  const auto token = read_token(options.token_file);
  if (!token.ok()) return fail(token.error());
  const auto answer = http_post(url.value(), path_and_query, token.value().reveal(), kSwitchDeadline);
  if (!answer.ok()) return fail(answer.error());
  const std::string text = switch_text(answer.value().status, answer.value().body);
  if (answer.value().status == 200) {
    std::cout << text;
    return kSuccess;
  }
  std::cerr << "pointsman: " << text;
  return kFailure;
}

int run_hold(const Options& options) {
  return run_switch(options, "/api/hold?branch=" + percent_encode(options.branch) + "&timeout=" +
                                 percent_encode(options.lease) + "&force=" + (options.force ? "true" : "false"));
}

void add_switch_options(CLI::App& command, Options& options) {
  command.add_option("--token-file", options.token_file, "the token of admin.token_file, if the router has one")
      ->type_name("FILE");
  command.add_option("BRANCH", options.branch, "the branch")->required();
}

void add_admin_option(CLI::App& command, Options& options) {
  command.add_option("--admin", options.admin_url, "the router's admin endpoint")
      ->type_name("URL")
      ->capture_default_str();
}

}  // namespace

int run_command_line(int argc, char** argv, const std::function<int(const ServeOptions&)>& serve) {
  Options options;
  CLI::App app("Pointsman, a connection router for PostgreSQL: the user name says where a connection goes.",
               "pointsman");
  app.set_version_flag("--version", "pointsman " + std::string(version()));
  app.require_subcommand(1);

  CLI::App* serve_command =
      app.add_subcommand("serve", "run the router; SIGHUP or a changed file reloads, SIGTERM drains");
  serve_command->add_option("--config", options.config_file, "the configuration")->type_name("FILE")->required();
  CLI::App* check_command =
      app.add_subcommand("check", "validate a configuration with its certificates, and say every error");
  check_command->add_option("--config", options.config_file, "the configuration")->type_name("FILE")->required();
  CLI::App* schema_command = app.add_subcommand("schema", "print the configuration's JSON Schema, for editors");
  schema_command->add_flag("--branch", options.of_branch, "that of a branch's file in branches_dir");
  CLI::App* route_command = app.add_subcommand("route", "say where a connection with this user would go now, and why");
  add_admin_option(*route_command, options);
  route_command
      ->add_option("--listener", options.listener,
                   "the listener it comes in by; default: the first one where the target is lawful")
      ->type_name("NAME");
  route_command->add_option("USER", options.user, "as in the startup packet: role.branch or role.branch|target")
      ->required();
  CLI::App* status_command = app.add_subcommand("status", "show branches, members, lag and sessions");
  add_admin_option(*status_command, options);
  status_command->add_flag("--watch", options.watch, "draw again every second until Ctrl-C");
  status_command->add_flag("--json", options.json, "as JSON");

  CLI::App* hold_command = app.add_subcommand(
      "hold", "before a planned switchover: pause the branch's PgBouncers, hold new sessions to its primary");
  add_admin_option(*hold_command, options);
  add_switch_options(*hold_command, options);
  hold_command
      ->add_option("--timeout", options.lease, "when the hold ends by itself, at most 5m; counted from PAUSE on")
      ->type_name("DURATION")
      ->capture_default_str();
  hold_command->add_flag("--force", options.force, "even if there are transactions that have been running for long");
  CLI::App* release_command = app.add_subcommand(
      "release", "after it: wait for the verified primary, then let the PgBouncers and held sessions go on");
  add_admin_option(*release_command, options);
  add_switch_options(*release_command, options);
  CLI::App* adopt_command = app.add_subcommand(
      "adopt", "accept that the branch is another cluster now (another system identifier, as after pg_upgrade)");
  add_admin_option(*adopt_command, options);
  add_switch_options(*adopt_command, options);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // CLI11 prints help and version by way of an exception; its own exit codes are no part of our contract.
    return app.exit(error) == 0 ? kSuccess : kUsage;
  }
  if (serve_command->parsed()) return serve({.config_file = options.config_file});
  if (check_command->parsed()) return run_check(options);
  if (schema_command->parsed()) return run_schema(options);
  if (route_command->parsed()) return run_route(options);
  if (hold_command->parsed()) return run_hold(options);
  if (release_command->parsed()) return run_switch(options, "/api/release?branch=" + percent_encode(options.branch));
  if (adopt_command->parsed()) return run_switch(options, "/api/adopt?branch=" + percent_encode(options.branch));
  return run_status(options);
}

}  // namespace pointsman::proxy
