// The TLS towards backends: reading, and the combinations that are refused.

#include <algorithm>
#include <array>

#include "base/check.h"
#include "routing/config_reader.h"

namespace pointsman::routing {
namespace {

using namespace std::string_view_literals;

constexpr std::array<std::pair<std::string_view, TlsMode>, 4> kModes = {{{"disable"sv, TlsMode::kDisable},
                                                                         {"require"sv, TlsMode::kRequire},
                                                                         {"verify-ca"sv, TlsMode::kVerifyCa},
                                                                         {"verify-full"sv, TlsMode::kVerifyFull}}};

std::string_view to_text(TlsMode mode) {
  const auto found =
      std::find_if(kModes.begin(), kModes.end(), [&](const auto& entry) { return entry.second == mode; });
  POINTSMAN_CHECK(found != kModes.end());
  return found->first;
}

/// Settings together with the addresses they lead to.
struct Leg {
  const BackendTlsConfig* tls = nullptr;
  bool insecure = false;
  JsonPath path;
  std::vector<std::string> hosts;
};

void check_strength(const Leg& leg, const ErrorSink& sink) {
  if (leg.tls->mode == TlsMode::kVerifyFull || leg.insecure) return;
  const auto far = std::find_if_not(leg.hosts.begin(), leg.hosts.end(), is_loopback);
  if (far == leg.hosts.end()) return;
  sink.add(JsonPath(leg.path, "mode"), "\"" + std::string(to_text(leg.tls->mode)) +
                                           "\" does not prove that the one who answers is " + *far +
                                           "; \"verify-full\" is allowed, or \"insecure_backend\": true beside it");
}

}  // namespace

BackendTlsRead read_backend_tls(const Json& value, const JsonPath& path, const ErrorSink& sink, ConfigFiles& files) {
  BackendTlsRead read;
  ObjectReader reader(value, path, sink);
  reader.read_choice<TlsMode>(
      {"mode",
       "As libpq's sslmode. Weaker than verify-full is an error, unless all is loopback or insecure_backend is true."},
      read.tls.mode, kModes);
  reader.read_text({"ca", "PEM. Without it the system's store."}, read.tls.ca, kFile);
  reader.read_text(
      {"server_name", "The name in the backend's certificate, and the SNI sent to it. Without it the member's host."},
      read.tls.server_name, kHost.form);
  reader.read_text({"certificate", "A client certificate, PEM."}, read.tls.certificate, kFile);
  reader.read_text({"key", "Its private key, PEM."}, read.tls.key, kFile);
  reader.read_bool({"insecure_backend", "Allows a mode weaker than verify-full here."}, read.insecure);
  if (read.tls.certificate.empty() != read.tls.key.empty()) {
    reader.error(read.tls.key.empty() ? "key" : "certificate", "is missing; a client certificate needs both files");
  }
  if (!read.tls.server_name.empty() && !is_host(read.tls.server_name)) {
    reader.error("server_name", "is no host name");
  }
  if (read.tls.mode != TlsMode::kDisable) {
    const auto report = [&](std::string_view key, const std::string& file, const std::optional<std::string>& fault) {
      if (!file.empty() && fault) reader.error(key, *fault);
    };
    if (!read.tls.ca.empty()) report("ca", read.tls.ca, files.certificate_fault(read.tls.ca));
    if (!read.tls.certificate.empty())
      report("certificate", read.tls.certificate, files.certificate_fault(read.tls.certificate));
    if (!read.tls.key.empty()) report("key", read.tls.key, files.key_fault(read.tls.key));
  }
  reader.finish();
  return read;
}

void check_backend_tls(const BranchConfig& branch, const InsecureFlags& insecure, const JsonPath& path,
                       const ErrorSink& sink) {
  const JsonPath pools_path(path, "pools");
  std::vector<JsonPath> pool_paths;
  pool_paths.reserve(branch.pools.size());  // legs point to them
  std::vector<Leg> legs;
  legs.push_back({&branch.backend_tls, insecure.backend, JsonPath(path, "backend_tls"), {}});
  legs.push_back({branch.pgbouncer_tls ? &*branch.pgbouncer_tls : &branch.backend_tls,
                  branch.pgbouncer_tls ? insecure.pgbouncer : insecure.backend,
                  JsonPath(path, branch.pgbouncer_tls ? "pgbouncer_tls" : "backend_tls"),
                  {}});
  for (const MemberConfig& member : branch.members) {
    legs[0].hosts.push_back(member.host);
    // Without settings of their own the PgBouncers beside the members are the same hosts under the same rule.
    if (member.pgbouncer_port != 0 && branch.pgbouncer_tls) legs[1].hosts.push_back(member.host);
  }
  if (branch.discover) {
    legs[0].hosts.push_back("a discovered member");  // wherever that is
    if (branch.pgbouncer_tls) legs[1].hosts.push_back("a discovered member");
  }
  for (std::size_t i = 0; i < branch.pools.size(); ++i) {
    const PoolConfig& pool = branch.pools[i];
    std::vector<std::string> hosts;
    for (const PoolEndpointConfig& endpoint : pool.endpoints) hosts.push_back(endpoint.host);
    if (pool.tls) {
      pool_paths.emplace_back(pools_path, pool.name);
      legs.push_back({&*pool.tls, insecure.pools[i], JsonPath(pool_paths.back(), "backend_tls"), std::move(hosts)});
    } else if (!insecure.pools[i]) {
      legs[1].hosts.insert(legs[1].hosts.end(), hosts.begin(), hosts.end());
    }
  }
  const auto fault = std::find_if(legs.begin(), legs.end(), [](const Leg& leg) {
    return leg.tls->mode != TlsMode::kDisable && !leg.hosts.empty();
  });
  for (const Leg& leg : legs) check_strength(leg, sink);
  if (branch.auth.method != AuthMethod::kPassthrough || fault == legs.end()) return;
  // libpq over TLS says that it could have bound the channel; a server that has TLS itself takes the missing PLUS for
  // an attack and refuses (CheckSASLAuth, src/backend/libpq/auth-scram.c). The text is signed, no relay can mend it.
  const JsonPath auth_path(path, "auth");
  sink.add(JsonPath(auth_path, "method"), "\"passthrough\" cannot work while " + fault->path.to_string() +
                                              " has TLS on; \"scram\" is allowed, or \"mode\": \"disable\" there");
}

}  // namespace pointsman::routing
