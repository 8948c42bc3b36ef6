#pragma once
// One connection between two routers of a fleet: the socket, TLS by the shared secret, and frames (peer_wire.h). Both
// ends are this class; what is asked and answered is its owner's affair (peers.h). Bounded: what waits to be sent is
// one block, what came is read at once; every wait has a deadline. Control loop only.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "protocol/tls_context.h"
#include "proxy/fleet/peer_context.h"
#include "proxy/fleet/peer_wire.h"
#include "proxy/io/side.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

/// From the dial, or the accept, to the other side's Hello.
inline constexpr base::Duration kPeerHandshake = std::chrono::seconds(3);
/// A side that takes nothing of what it is sent.
inline constexpr base::Duration kPeerWrite = std::chrono::seconds(5);

class PeerChannel final : private SocketOwner {
 public:
  class Owner {
   public:
    /// The other side's Hello has come: frames may be sent from now on.
    virtual void on_peer_hello(PeerChannel& channel, const PeerHello& hello) = 0;
    virtual void on_peer_ask(PeerChannel& channel, const PeerAsk& ask) = 0;
    virtual void on_peer_answer(PeerChannel& channel, const PeerAnswer& answer) = 0;
    /// The end, once, perhaps from inside another call: nothing can be sent any more.
    virtual void on_peer_lost(PeerChannel& channel, std::string_view why) = 0;
    /// The loop has let go of the socket: the channel may be destroyed, in this call.
    virtual void on_peer_gone(PeerChannel& channel) = 0;

   protected:
    ~Owner() = default;
  };

  PeerChannel(PeerContext& context, Owner& owner, std::uint64_t id, const routing::SocketAddress& peer,
              base::Instant now);
  ~PeerChannel() = default;

  /// Takes an accepted connection. False: the descriptor is closed, and nothing follows.
  bool accept(int fd, std::shared_ptr<const protocol::ServerTlsContext> tls);
  /// Dials. False: it failed at once, and nothing follows.
  bool connect(std::shared_ptr<const protocol::ClientTlsContext> tls);

  std::uint64_t id() const { return id_; }
  const routing::SocketAddress& peer() const { return peer_; }
  bool ready() const { return stage_ == Stage::kReady; }
  bool ended() const { return stage_ == Stage::kClosed; }
  base::Instant used_at() const { return used_at_; }  ///< the last Ask or Answer either way, or the beginning

  /// Requires: ready().
  void send(const PeerAsk& ask) { send(print_frame(ask)); }
  void send(const PeerAnswer& answer) { send(print_frame(answer)); }
  void check_deadline(base::Instant now);
  /// The owner hears of it by on_peer_lost.
  void close(std::string_view why);

 private:
  enum class Stage : std::uint8_t { kConnecting, kHandshake, kHello, kReady, kClosed };

  // SocketOwner
  void on_readable(Socket& socket) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;

  void handshake(base::Bytes encrypted);
  void take(base::Bytes plain);
  void send(std::string_view frame);
  void wrote(Side::Write written);

  PeerContext& context_;
  Owner& owner_;
  std::uint64_t id_;
  routing::SocketAddress peer_;
  Side side_;
  std::shared_ptr<const protocol::ClientTlsContext> client_tls_;  // of one that dials, until it is connected
  PeerReader reader_;
  Stage stage_ = Stage::kConnecting;
  base::Instant began_;
  base::Instant used_at_;
  base::Instant write_deadline_{};  // epoch: nothing waits
};

}  // namespace pointsman::proxy
