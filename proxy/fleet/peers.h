#pragma once
// The router among the others of its fleet (`cancel.peers`): cancel requests whose key it does not know, theirs and its
// own. Behind one address a cancel may land on any of them, and a key of protocol 3.0 has no room to say whose it is.
// Control loop only.
//
// Lifetime: shut_down(), then run the loop until idle(), then destroy.

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "proxy/admin/control_view.h"
#include "proxy/io/event_loop.h"
#include "proxy/server/messages.h"
#include "routing/config.h"

namespace pointsman::proxy {

class Peers {
 public:
  /// What it needs of the process.
  class Host {
   public:
    /// Has each worker search for the key; they answer by on_found() with `number`.
    virtual void search_for_peer(const protocol::CancelRequest& request, std::uint64_t number) = 0;
    virtual void deliver_cancel_answer(const PeersWanted& wanted, metrics::CancelOutcome outcome) = 0;

   protected:
    ~Host() = default;
  };

  Peers(EventLoop& loop, std::size_t workers, Host& host);
  ~Peers();
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  /// Starts to listen for them. The error names address, port and what to do.
  base::Result<bool> listen(const routing::PeersConfig& config);
  void configure(const routing::Config& config, const TlsContexts& tls);
  /// A worker's: deliver_cancel_answer() follows, within kPeerQuestion.
  void ask(PeersWanted wanted);
  void on_found(std::uint64_t number, metrics::CancelOutcome outcome);
  PeerStats stats() const;

  void shut_down();
  bool idle() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pointsman::proxy
