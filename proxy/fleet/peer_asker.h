#pragma once
// Asks the other routers of the fleet who knows a cancel key. Connections are made when there is something to ask, to
// every address of the configured name but this router's own, and stay for a while. Bounded: questions at once and per
// second, addresses, and time: a question is answered within kPeerQuestion, whatever the others do. Control loop only.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/token_bucket.h"
#include "proxy/fleet/peer_channel.h"
#include "proxy/fleet/peer_context.h"
#include "proxy/monitor/resolver.h"
#include "proxy/server/messages.h"
#include "routing/config.h"

namespace pointsman::proxy {

/// Longer than a cancel dial, which the peer waits for before it answers.
inline constexpr base::Duration kPeerQuestion = std::chrono::seconds(7);
inline constexpr std::size_t kMostPeers = 1024;

class PeerAsker final : private PeerChannel::Owner, private Resolver::Owner {
 public:
  /// Called once for each ask(), perhaps from inside it.
  using Done = std::function<void(const PeersWanted& wanted, metrics::CancelOutcome outcome)>;

  PeerAsker(PeerContext& context, Done done);
  ~PeerAsker() = default;

  /// As of now; null or nothing: there is nobody to ask.
  void configure(std::optional<routing::PeersConfig> peers, std::shared_ptr<const protocol::ClientTlsContext> tls);
  /// kSentByPeer, kFailed, kUnknownKey: a peer, or all of them, said so. kPeerFailed: nobody knew, but not everybody
  /// answered. kThrottled: nobody was asked.
  void ask(PeersWanted wanted);
  /// Other routers by the name's last answer.
  std::size_t known() const;

  /// Deadlines, idle connections, and the name's addresses now and then.
  void on_tick(base::Instant now);
  /// Something has a deadline within the next second or so.
  bool busy() const { return !questions_.empty() || !links_.empty(); }
  void shut_down();
  bool idle() const { return links_.empty() && resolver_.idle(); }

 private:
  struct Question {
    PeersWanted wanted;
    base::Instant deadline{};
    std::vector<routing::SocketAddress> asked;
    bool resolving = false;      // the name's addresses are on their way: there may be more to ask
    bool incomplete = false;     // somebody could not be asked, or did not say
    std::size_t unanswered = 1;  // peers, and ourselves until everybody has been asked
  };
  struct Link {
    std::unique_ptr<PeerChannel> channel;
    std::vector<std::uint32_t> waiting;  // numbers of questions it has not answered
    bool to_self = false;
  };

  // PeerChannel::Owner
  void on_peer_hello(PeerChannel& channel, const PeerHello& hello) override;
  void on_peer_ask(PeerChannel& channel, const PeerAsk& ask) override;
  void on_peer_answer(PeerChannel& channel, const PeerAnswer& answer) override;
  void on_peer_lost(PeerChannel& channel, std::string_view why) override;
  void on_peer_gone(PeerChannel& channel) override;
  // Resolver::Owner
  void on_resolved(const std::string& host, bool changed) override;

  /// Whoever has not been asked yet.
  void ask_everybody(std::uint32_t number);
  Link* link_to(const routing::SocketAddress& address);
  Link& link_of(const PeerChannel& channel);
  /// One peer less to wait for.
  void settle(std::uint32_t number, bool said_no);
  void conclude(std::uint32_t number, metrics::CancelOutcome outcome);
  void complain(const std::string& peer, std::string_view why);

  PeerContext& context_;
  Done done_;
  std::optional<routing::PeersConfig> peers_;
  std::shared_ptr<const protocol::ClientTlsContext> tls_;
  Resolver resolver_;
  std::map<std::uint64_t, Link> links_;  // by the channel's id
  std::set<std::string> own_;            // addresses behind which this router itself answered
  std::map<std::uint32_t, Question> questions_;
  std::uint32_t next_question_ = 1;
  std::uint64_t next_channel_ = 1;
  base::TokenBucket asks_;
  base::TokenBucket complaints_;
  bool closing_ = false;
};

}  // namespace pointsman::proxy
