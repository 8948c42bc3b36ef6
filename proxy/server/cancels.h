#pragma once
// CancelRequests of one worker: whose key is it, and who carries the request to the backend. A request may arrive at
// any worker of any router of the fleet. In this order: a session of this worker has the key; the key itself tells the
// backend (sealed, protocol/fleet_keys.h); another worker has it (CancelSearch); another router has it (PeersWanted).
// The owner of the session dials, or whoever opened the key, and the client hears nothing either way (protocol-flow,
// "Canceling Requests in Progress"). Bounded: wrong keys per source network, dials at once in all and per backend,
// requests that wait. The worker's thread only.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/token_bucket.h"
#include "metrics/blocks.h"
#include "protocol/startup.h"
#include "proxy/server/messages.h"
#include "proxy/session/cancel_dial.h"
#include "routing/selection.h"

namespace pointsman::proxy {

class Session;
class Worker;

class Cancels {
 public:
  explicit Cancels(Worker& worker);

  /// From the login's end until the backend's PID may be another's: the session's key is found.
  void add(Session& session);
  void remove(Session& session);

  /// The secret part of a session's key that any router of the fleet can open; empty: there is no fleet, or no room.
  std::string seal(const std::string& branch, const routing::Decision& decision, const protocol::BackendKey& key);

  /// A client's CancelRequest; `session` is the connection that brought it and is told by on_cancel_served().
  void serve(Session& session, const protocol::CancelRequest& request);
  /// Cancels what the session's backend is doing; nobody waits for the outcome.
  void cancel(const Session& session);
  void apply(const CancelSearch& message);
  void apply(const CancelAnswer& message);

  // From the dials.
  void dial_done(CancelDial& dial, bool sent);
  void forget(CancelDial& dial);

  /// Outside of the dials' own calls: frees those that ended and starts those that wait.
  void bury();
  /// From here on no request is accepted; what is under way goes on.
  void stop() { stopping_ = true; }
  /// Ends what is under way.
  void drop();
  bool idle() const { return dials_.empty() && waiting_.empty(); }

 private:
  struct Search {
    protocol::CancelRequest request;
    std::uint32_t answers_missing = 0;  ///< of this router's workers; 0: the peers are asked
    std::uint8_t source[16] = {};
  };

  Session* find(const protocol::CancelRequest& request);
  void begin(const Session& session, std::uint32_t origin_worker, std::uint64_t origin_session);
  /// Dials where `decision` leads, with the backend's key.
  void begin(const routing::BranchView& view, const routing::Decision& decision, const protocol::BackendKey& key,
             std::uint32_t origin_worker, std::uint64_t origin_session);
  bool begin_sealed(const protocol::CancelRequest& request, std::uint64_t origin_session);
  void nobody_here(std::uint64_t origin_session);
  void start_waiting();
  /// Whoever waits for the outcome hears of it.
  void tell(std::uint32_t origin_worker, std::uint64_t origin_session, metrics::CancelOutcome outcome);
  void finish(std::uint64_t origin_session, metrics::CancelOutcome outcome);
  base::TokenBucket& guesses_of(const std::uint8_t (&source)[16]);

  Worker& worker_;
  std::unordered_multimap<std::uint32_t, Session*> keys_;  // by backend PID
  std::unordered_map<std::uint64_t, Search> searches_;     // by the connection that asks
  std::unordered_map<CancelDial*, std::unique_ptr<CancelDial>> dials_;
  std::size_t dials_running_ = 0;
  std::deque<CancelTarget> waiting_;
  std::vector<std::unique_ptr<CancelDial>> dead_dials_;
  std::vector<base::TokenBucket> guesses_;  // wrong keys by hash of the source's network
  bool stopping_ = false;
};

}  // namespace pointsman::proxy
