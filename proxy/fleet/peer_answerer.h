#pragma once
// Answers the other routers of the fleet: whether a session here has a cancel key, and then tells its backend. Bounded:
// connections (those that have not said Hello: beyond their number the oldest goes), accepts and asks per second,
// searches at once. Control loop only.

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/result.h"
#include "base/token_bucket.h"
#include "metrics/blocks.h"
#include "proxy/fleet/peer_channel.h"
#include "proxy/fleet/peer_context.h"
#include "proxy/server/listener.h"

namespace pointsman::proxy {

class PeerAnswerer final : private PeerChannel::Owner, private AcceptSink {
 public:
  /// Has every worker search for the key: each answers by on_found() with this number.
  using Search = std::function<void(const protocol::CancelRequest& request, std::uint64_t number)>;

  PeerAnswerer(PeerContext& context, std::size_t workers, Search search);

  /// Once. The error names address, port and what to do.
  base::Result<bool> listen(const std::string& address, std::uint16_t port);
  /// For connections from now on; null: none is taken.
  void configure(std::shared_ptr<const protocol::ServerTlsContext> tls) { tls_ = std::move(tls); }
  void on_found(std::uint64_t number, metrics::CancelOutcome outcome);
  /// Asks by PeerVerdict.
  const std::array<std::uint64_t, 4>& answers() const { return answers_; }

  void on_tick(base::Instant now);
  bool busy() const { return !links_.empty(); }
  void shut_down();
  bool idle() const { return links_.empty(); }

 private:
  struct Link {
    std::unique_ptr<PeerChannel> channel;
    base::TokenBucket asks;
  };
  struct Running {
    std::uint64_t channel = 0;
    std::uint32_t ask = 0;
    std::size_t answers_missing = 0;
    base::Instant forget_at{};
  };

  // AcceptSink
  void on_accepted(std::size_t listener, int fd, const routing::SocketAddress& peer) override;
  void on_accept_paused(std::size_t listener, int error) override;
  // PeerChannel::Owner
  void on_peer_hello(PeerChannel& channel, const PeerHello& hello) override;
  void on_peer_ask(PeerChannel& channel, const PeerAsk& ask) override;
  void on_peer_answer(PeerChannel& channel, const PeerAnswer& answer) override;
  void on_peer_lost(PeerChannel& channel, std::string_view why) override;
  void on_peer_gone(PeerChannel& channel) override;

  void answer(PeerChannel& channel, std::uint32_t ask, PeerVerdict verdict);

  PeerContext& context_;
  std::size_t workers_;
  Search search_;
  std::shared_ptr<const protocol::ServerTlsContext> tls_;
  std::unique_ptr<Listener> listener_;
  std::map<std::uint64_t, Link> links_;  // by the channel's id: the oldest first
  std::map<std::uint64_t, Running> searches_;
  std::uint64_t next_channel_ = 1;
  std::uint64_t next_search_ = 1;
  std::array<std::uint64_t, 4> answers_{};
  base::TokenBucket accepts_;
  base::TokenBucket complaints_;
  bool closing_ = false;
};

}  // namespace pointsman::proxy
