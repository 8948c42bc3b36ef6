#pragma once
// Members and leader by Patroni: `GET /cluster` of the nodes listed, one after the other until one answers; that one is
// asked from then on. Loop thread only.

#include <cstddef>
#include <string>

#include "proxy/discovery/http_ask.h"
#include "proxy/discovery/source.h"

namespace pointsman::proxy {

class PatroniSource final : public DiscoverySource, private HttpCall::Owner {
 public:
  PatroniSource(DiscoveryContext& context, DiscoverySource::Owner& owner, routing::PatroniDiscovery config);

  void ask_soon() override;
  void on_looked_up(const std::string& host) override { ask_.on_looked_up(host); }

 private:
  void on_http_piece(std::string_view) override {}
  void on_http_done(const HttpCall::Outcome& outcome) override;
  void begin_round();
  void ask_one();

  DiscoverySource::Owner& owner_;
  routing::PatroniDiscovery config_;
  HttpAsk ask_;
  LoopTimer timer_;
  std::size_t current_ = 0;  // of the URLs
  std::size_t tried_ = 0;    // in this round
  bool again_ = false;       // asked for while a round was under way
  base::Instant asked_{};
};

}  // namespace pointsman::proxy
