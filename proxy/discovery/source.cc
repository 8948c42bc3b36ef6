#include "proxy/discovery/source.h"

#include <algorithm>
#include <variant>

#include "proxy/discovery/dns_source.h"
#include "proxy/discovery/kubernetes_source.h"
#include "proxy/discovery/patroni_source.h"

namespace pointsman::proxy {

void DiscoveryContext::on_resolved(const std::string& host) {
  const auto now_running = running;  // an answer may make a branch ask for other names, never start or stop a source
  for (DiscoverySource* source : now_running) source->on_looked_up(host);
}

DiscoverySource::DiscoverySource(DiscoveryContext& context) : context_(context) {
  context_.running.push_back(this);
}

DiscoverySource::~DiscoverySource() {
  std::erase(context_.running, this);
}

std::unique_ptr<DiscoverySource> make_discovery_source(DiscoveryContext& context, DiscoverySource::Owner& owner,
                                                       const routing::DiscoverConfig& config) {
  struct Visitor {
    DiscoveryContext& context;
    DiscoverySource::Owner& owner;
    std::unique_ptr<DiscoverySource> operator()(const routing::DnsDiscovery& dns) const {
      return std::make_unique<DnsSource>(context, owner, dns);
    }
    std::unique_ptr<DiscoverySource> operator()(const routing::PatroniDiscovery& patroni) const {
      return std::make_unique<PatroniSource>(context, owner, patroni);
    }
    std::unique_ptr<DiscoverySource> operator()(const routing::KubernetesDiscovery& kubernetes) const {
      return std::make_unique<KubernetesSource>(context, owner, kubernetes);
    }
  };
  return std::visit(Visitor{context, owner}, config.source);
}

}  // namespace pointsman::proxy
