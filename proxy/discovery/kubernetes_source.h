#pragma once
// Members and leader by Kubernetes' EndpointSlices: a list, then a watch that goes on where the list ended.
//
//   Pausing ──► Listing ──list──► Watching ──the server ends it──► Watching   (from the last resourceVersion)
//      ▲           │                 │
//      └──failure──┴─410, failure────┘                        a 410 lists anew at once, everything else after a pause
//
// The token is read for every request (they rotate). Loop thread only.

#include <string>
#include <string_view>

#include "proxy/discovery/http_ask.h"
#include "proxy/discovery/source.h"

namespace pointsman::proxy {

class KubernetesSource final : public DiscoverySource, private HttpCall::Owner {
 public:
  KubernetesSource(DiscoveryContext& context, DiscoverySource::Owner& owner, routing::KubernetesDiscovery config);

  void on_looked_up(const std::string& host) override { ask_.on_looked_up(host); }

 private:
  enum class Phase : std::uint8_t { kPausing, kListing, kWatching };

  void on_http_piece(std::string_view piece) override;
  void on_http_done(const HttpCall::Outcome& outcome) override;
  void on_timer();
  void list();
  void watch();
  bool prepare(HttpQuery& query);
  void listed(const HttpCall::Outcome& outcome);
  void watch_ended(const HttpCall::Outcome& outcome);
  void list_anew();
  void pause();
  void fail(const std::string& why);
  void tell();
  std::string said(const HttpCall::Outcome& outcome) const;

  DiscoverySource::Owner& owner_;
  routing::KubernetesDiscovery config_;
  routing::EndpointSlices slices_;
  HttpAsk ask_;
  LoopTimer timer_;
  Phase phase_ = Phase::kPausing;
  bool watch_next_ = false;   // behind the pause
  std::string line_;          // of the watch, as far as it has come
  base::Instant began_{};     // the request under way
  base::Duration backoff_{};  // the next pause, before jitter
};

}  // namespace pointsman::proxy
