#include "proxy/discovery/dns_source.h"

#include <algorithm>
#include <utility>

namespace pointsman::proxy {

DnsSource::DnsSource(DiscoveryContext& context, Owner& owner, routing::DnsDiscovery config)
    : DiscoverySource(context),
      owner_(owner),
      config_(std::move(config)),
      timer_(context.http.loop->uv(), context.http.handles, this,
             [](void* self) { static_cast<DnsSource*>(self)->ask(); }) {
  timer_.start(loop_clock());
}

void DnsSource::ask() {
  const auto now = loop_clock();
  asked_ = now;
  timer_.start(now + config_.interval);
  // Another branch may have asked for the same name a moment ago: then that answer will do.
  context_.resolver->refresh(config_.name, std::min(config_.interval / 2, kAskGap), now);
  if (!context_.resolver->in_flight(config_.name)) take();
}

void DnsSource::ask_soon() {
  const auto now = loop_clock();
  if (asked_ + config_.interval > now + kAskGap) timer_.start(std::max(now, asked_ + kAskGap));
}

void DnsSource::on_looked_up(const std::string& host) {
  if (host == config_.name) take();
}

void DnsSource::take() {
  const std::string where = "DNS name " + config_.name + ": ";
  if (const auto error = context_.resolver->error_of(config_.name); !error.empty())
    return owner_.on_discovery_failed(where + std::string(error));
  const auto found = routing::discovered_from_addresses(context_.resolver->addresses_of(config_.name), config_);
  if (!found.ok()) return owner_.on_discovery_failed(where + found.error());
  owner_.on_discovered(found.value());
}

}  // namespace pointsman::proxy
