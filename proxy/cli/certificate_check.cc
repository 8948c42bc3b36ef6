#include "proxy/cli/certificate_check.h"

#include <unistd.h>

#include <set>
#include <string>

#include "base/check.h"
#include "protocol/tls_context.h"

namespace pointsman::proxy {
namespace {

using routing::BackendTlsConfig;
using routing::BranchConfig;
using routing::ConfigError;
using routing::LoadedConfig;
using routing::TlsMode;

protocol::BackendTlsMode to_protocol(TlsMode mode) {
  switch (mode) {
    case TlsMode::kDisable:
      return protocol::BackendTlsMode::kDisable;
    case TlsMode::kRequire:
      return protocol::BackendTlsMode::kRequire;
    case TlsMode::kVerifyCa:
      return protocol::BackendTlsMode::kVerifyCa;
    case TlsMode::kVerifyFull:
      return protocol::BackendTlsMode::kVerifyFull;
  }
  POINTSMAN_CHECK(false);
  return {};
}

struct Place {
  std::string file;
  std::string path;  // of the branch inside it
};

/// A branch stands in its own file in branches_dir, else in the main file.
Place place_of(const LoadedConfig& loaded, const std::string& branch) {
  for (const std::string& folder : loaded.watched_paths) {
    const std::string file = folder + "/" + branch + ".json";
    if (::access(file.c_str(), F_OK) == 0) return {.file = file, .path = ""};
  }
  return {.file = loaded.config->file, .path = "/branches/" + branch};
}

class Checker {
 public:
  explicit Checker(const LoadedConfig& loaded) : loaded_(loaded) {}

  void check(const BranchConfig& branch, const std::string& key, const BackendTlsConfig& tls) {
    if (tls.mode == TlsMode::kDisable || !seen_.insert(tls.context_key()).second) return;
    const auto context = protocol::ClientTlsContext::create(
        {.mode = to_protocol(tls.mode), .ca_file = tls.ca, .certificate_file = tls.certificate, .key_file = tls.key});
    if (context.ok()) return;
    const Place place = place_of(loaded_, branch.name);
    errors.push_back({.file = place.file, .path = place.path + key, .what = context.error()});
  }

  std::vector<ConfigError> errors;

 private:
  const LoadedConfig& loaded_;
  std::set<std::string> seen_;
};

}  // namespace

std::vector<ConfigError> check_certificates(const LoadedConfig& loaded) {
  const routing::Config& config = *loaded.config;
  Checker checker(loaded);
  if (config.tls) {
    const auto context = protocol::ServerTlsContext::create(
        {.certificate_file = config.tls->certificate,
         .key_file = config.tls->key,
         .min_version = config.tls->min_tls13 ? protocol::TlsVersion::k13 : protocol::TlsVersion::k12});
    if (!context.ok()) checker.errors.push_back({.file = config.file, .path = "/tls", .what = context.error()});
  }
  if (const auto& cancel = config.cancel; !cancel.secrets.empty()) {
    const auto keys = protocol::FleetKeys::parse(cancel.secrets.reveal());
    if (!keys.ok()) {
      checker.errors.push_back(
          {.file = config.file, .path = "/cancel/secret_file", .what = cancel.secret_file + ": " + keys.error()});
    }
  }
  for (const auto& [name, branch] : config.branches) {
    checker.check(*branch, "/backend_tls", branch->backend_tls);
    if (branch->pgbouncer_tls) checker.check(*branch, "/pgbouncer_tls", *branch->pgbouncer_tls);
    for (const auto& pool : branch->pools) {
      if (pool.tls) checker.check(*branch, "/pools/" + pool.name + "/backend_tls", *pool.tls);
    }
  }
  return std::move(checker.errors);
}

}  // namespace pointsman::proxy
