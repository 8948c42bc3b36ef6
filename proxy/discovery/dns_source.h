#pragma once
// Members by DNS: every address of a name, asked for on an interval through the loop's resolver. Loop thread only.

#include <string>

#include "proxy/discovery/source.h"

namespace pointsman::proxy {

class DnsSource final : public DiscoverySource {
 public:
  DnsSource(DiscoveryContext& context, Owner& owner, routing::DnsDiscovery config);

  void ask_soon() override;
  void on_looked_up(const std::string& host) override;

 private:
  void ask();
  void take();

  Owner& owner_;
  routing::DnsDiscovery config_;
  base::Instant asked_{};
  LoopTimer timer_;
};

}  // namespace pointsman::proxy
