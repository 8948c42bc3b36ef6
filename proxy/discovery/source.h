#pragma once
// What asks somebody for a branch's members, over and over, while it lives. Loop thread only.

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "proxy/discovery/http_client.h"
#include "proxy/monitor/event_log.h"
#include "proxy/monitor/resolver.h"
#include "routing/discovery.h"

namespace pointsman::proxy {

class DiscoverySource;

/// What all sources share; outlives them.
struct DiscoveryContext {
  HttpContext http;
  Resolver* resolver;
  std::minstd_rand* random;
  EventSink* events;
  std::vector<DiscoverySource*> running;  // to be told of look-ups

  void on_resolved(const std::string& host);
};

class DiscoverySource {
 public:
  /// Called from the loop, never from inside a call of the owner's; the source must outlive these calls.
  class Owner {
   public:
    virtual ~Owner() = default;
    /// A fresh answer, or word that the last one still holds.
    virtual void on_discovered(const routing::Discovered& found) = 0;
    /// The source does not answer, or says nothing that could be used. It is asked again.
    virtual void on_discovery_failed(const std::string& why) = 0;
  };

  virtual ~DiscoverySource();
  DiscoverySource(const DiscoverySource&) = delete;
  DiscoverySource& operator=(const DiscoverySource&) = delete;

  /// Something has changed, as it seems: ask out of turn, at most every kAskGap. A source that is told of changes by
  /// itself does nothing.
  virtual void ask_soon() {}
  virtual void on_looked_up(const std::string& host) = 0;

  static constexpr base::Duration kAskGap = std::chrono::milliseconds(200);

 protected:
  explicit DiscoverySource(DiscoveryContext& context);
  DiscoveryContext& context_;
};

/// The first question goes out on the loop's next turn.
std::unique_ptr<DiscoverySource> make_discovery_source(DiscoveryContext& context, DiscoverySource::Owner& owner,
                                                       const routing::DiscoverConfig& config);

}  // namespace pointsman::proxy
