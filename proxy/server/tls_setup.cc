#include "proxy/server/tls_setup.h"

#include <openssl/rand.h>

#include <fstream>
#include <iterator>
#include <optional>

#include "base/check.h"
#include "protocol/scram.h"

namespace pointsman::proxy {

namespace {

protocol::BackendTlsMode engine_mode(routing::TlsMode mode) {
  switch (mode) {
    case routing::TlsMode::kDisable:
      return protocol::BackendTlsMode::kDisable;
    case routing::TlsMode::kRequire:
      return protocol::BackendTlsMode::kRequire;
    case routing::TlsMode::kVerifyCa:
      return protocol::BackendTlsMode::kVerifyCa;
    case routing::TlsMode::kVerifyFull:
      return protocol::BackendTlsMode::kVerifyFull;
  }
  return protocol::BackendTlsMode::kVerifyFull;
}

void add_client_context(const routing::BackendTlsConfig& settings, const std::string& branch, TlsContexts& contexts,
                        std::vector<std::string>& warnings) {
  if (settings.mode == routing::TlsMode::kDisable) return;
  const std::string key = settings.context_key();
  if (contexts.clients.contains(key)) return;
  auto made =
      protocol::ClientTlsContext::create({engine_mode(settings.mode), settings.ca, settings.certificate, settings.key});
  if (made.ok()) {
    contexts.clients.emplace(key, std::move(made.value()));
  } else {
    warnings.push_back("branch " + branch + ": backend_tls: " + made.error());
  }
}

void add_client_contexts(const routing::BranchConfig& branch, TlsContexts& contexts,
                         std::vector<std::string>& warnings) {
  add_client_context(branch.backend_tls, branch.name, contexts, warnings);
  if (branch.pgbouncer_tls) add_client_context(*branch.pgbouncer_tls, branch.name, contexts, warnings);
  for (const auto& pool : branch.pools) {
    if (pool.tls) add_client_context(*pool.tls, branch.name, contexts, warnings);
  }
}

/// The secret under which mock salts are made must outlive a restart and be the same for all routers behind one
/// address: it is derived from what they share already, the TLS key. Without TLS it is random.
std::string make_mock_secret(const routing::Config& config) {
  if (config.tls) {
    std::ifstream file(config.tls->key, std::ios::binary);
    std::string pem((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const auto secret = protocol::hmac_sha256("pointsman mock authentication", pem);
    base::wipe(pem.data(), pem.size());
    return {reinterpret_cast<const char*>(secret.data()), protocol::ScramKey::size()};
  }
  unsigned char random[32];
  POINTSMAN_CHECK(RAND_bytes(random, sizeof random) == 1);
  return {reinterpret_cast<const char*>(random), sizeof random};
}

/// What is wrong with the fleet's secrets; nothing: nothing.
std::optional<std::string> add_fleet(const routing::CancelConfig& config, TlsContexts& contexts) {
  if (config.secrets.empty()) return std::nullopt;
  auto keys = protocol::FleetKeys::parse(config.secrets.reveal());
  if (!keys.ok()) return config.secret_file + ": " + keys.error();
  contexts.fleet_keys = std::move(keys.value());
  if (!config.peers) return std::nullopt;
  auto server = protocol::ServerTlsContext::create_for_peers(contexts.fleet_keys);
  if (!server.ok()) return server.error();
  auto client = protocol::ClientTlsContext::create_for_peers(contexts.fleet_keys);
  if (!client.ok()) return client.error();
  contexts.peer_server = std::move(server.value());
  contexts.peer_client = std::move(client.value());
  return std::nullopt;
}

}  // namespace

base::Result<std::shared_ptr<const TlsContexts>> make_tls_contexts(const routing::Config& config,
                                                                   std::vector<std::string>& warnings) {
  auto contexts = std::make_shared<TlsContexts>();
  if (config.tls) {
    protocol::ServerTlsSettings settings;
    settings.certificate_file = config.tls->certificate;
    settings.key_file = config.tls->key;
    settings.min_version = config.tls->min_tls13 ? protocol::TlsVersion::k13 : protocol::TlsVersion::k12;
    auto server = protocol::ServerTlsContext::create(settings);
    if (!server.ok()) return base::Error{"/tls: " + server.error()};
    contexts->server = std::move(server.value());
  }
  if (const auto fault = add_fleet(config.cancel, *contexts)) return base::Error{"/cancel/secret_file: " + *fault};
  for (const auto& [name, branch] : config.branches) add_client_contexts(*branch, *contexts, warnings);
  contexts->mock_secret = make_mock_secret(config);
  return std::shared_ptr<const TlsContexts>(std::move(contexts));
}

std::shared_ptr<const TlsContexts> with_contexts_of(std::shared_ptr<const TlsContexts> present,
                                                    const routing::BranchConfig& branch,
                                                    std::vector<std::string>& warnings) {
  auto contexts = std::make_shared<TlsContexts>(*present);
  add_client_contexts(branch, *contexts, warnings);
  if (contexts->clients.size() == present->clients.size()) return present;
  return contexts;
}

}  // namespace pointsman::proxy
