#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "routing/config_reader.h"

namespace pointsman::routing {
namespace {

constexpr TextForm kHostAndPort{.title = "host:port", .pattern = "^.+:0*[1-9][0-9]*$", .most = 260};

/// "host:port"; nothing for anything else. A numeric address is allowed: a fleet of two on one machine.
std::optional<std::pair<std::string, std::uint16_t>> split_host_port(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  auto host = text.substr(0, colon);
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (!bracketed && host.find(':') != std::string_view::npos) return std::nullopt;
  const auto digits = text.substr(colon + 1);
  std::uint32_t port = 0;
  if (digits.empty() || digits.size() > 5) return std::nullopt;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return std::nullopt;
    port = port * 10 + static_cast<std::uint32_t>(digit - '0');
  }
  if (host.size() > 253 || !is_host(host) || port == 0 || port > 65535) return std::nullopt;
  return std::pair(std::string(host), static_cast<std::uint16_t>(port));
}

void check_port(const Config& config, ObjectReader& reader, const PeersConfig& peers) {
  const auto complain = [&](const std::string& other) {
    reader.error(reader.has("port") ? "port" : "dns", other + " has port " + std::to_string(peers.listen_port) +
                                                          " too; peers have a port of their own, whatever the address");
  };
  for (const auto& listener : config.listeners) {
    if (listener.port == peers.listen_port) complain("listener " + listener.name);
  }
  for (const auto& console : config.console.listeners) {
    if (console.port == peers.listen_port) complain("listener " + console.name);
  }
  if (config.admin && config.admin->port == peers.listen_port) complain("the admin endpoint");
  if (config.metrics && config.metrics->port == peers.listen_port) complain("the metrics endpoint");
}

void read_peers(const Json& value, const JsonPath& path, const ErrorSink& sink, Config& config) {
  ObjectReader reader(value, path, sink);
  PeersConfig& peers = config.cancel.peers.emplace();
  reader.require("dns", "the name and port of the routers, such as \"pointsman-peers:7532\"");
  std::string text;
  if (reader.read_text({"dns", "Name and port of all routers of the fleet, such as a headless service."}, text,
                       kHostAndPort)) {
    if (auto parts = split_host_port(text)) {
      peers.host = std::move(parts->first);
      peers.port = peers.listen_port = parts->second;
    } else {
      reader.error("dns", "\"" + escape_for_log(text) + "\" is no name and port; \"pointsman-peers:7532\" is");
    }
  }
  read_listening_address(reader, peers.address);
  reader.read_number({"port", "Where this router listens. Without it the port of dns."}, peers.listen_port, 1, 65535);
  if (peers.listen_port != 0) check_port(config, reader, peers);
  reader.finish();
}

}  // namespace

void read_cancel(ObjectReader& root, const std::string& folder, ConfigFiles& files, Config& config) {
  const Json* value =
      root.find_object({"cancel", "For a fleet: a cancel request is served by whichever router it lands on."});
  if (value == nullptr) return;
  const JsonPath path = root.path_of("cancel");
  ObjectReader reader(*value, path, root.sink());
  reader.require("secret_file", "a file with a secret that all routers of the fleet share");
  std::string secret_file;
  if (reader.read_text({"secret_file", "Holds a secret that all routers of the fleet share."}, secret_file, kFile)) {
    config.cancel.secret_file = absolute_path(secret_file, folder);
    const auto& secret = files.secret(config.cancel.secret_file);
    if (secret.ok()) {
      config.cancel.secrets = secret.value().text;
    } else {
      reader.error("secret_file", secret.error());
    }
  }
  if (const Json* peers =
          reader.find_object({"peers", "The other routers, which are asked for keys that this one does not know."}))
    read_peers(*peers, reader.path_of("peers"), reader.sink(), config);
  reader.finish();
}

}  // namespace pointsman::routing
