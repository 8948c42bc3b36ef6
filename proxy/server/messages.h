#pragma once
// What the threads tell each other: values in mailboxes, nothing shared but what is immutable.

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "metrics/blocks.h"
#include "protocol/fleet_keys.h"
#include "protocol/messages.h"
#include "protocol/startup.h"
#include "protocol/tls_context.h"
#include "proxy/admin/control_view.h"
#include "proxy/monitor/verifier_service.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

/// The TLS contexts of one configuration, made by the control thread. Immutable.
struct TlsContexts {
  std::shared_ptr<const protocol::ServerTlsContext> server;  ///< null: no TLS configured
  /// By routing::BackendTlsConfig::context_key(). A context that could not be made is absent: its legs fail with
  /// backend_fault.
  std::unordered_map<std::string, std::shared_ptr<const protocol::ClientTlsContext>> clients;
  std::string mock_secret;
  /// Of the fleet; null: this router is none of one. The two contexts are for its peers.
  std::shared_ptr<const protocol::FleetKeys> fleet_keys;
  std::shared_ptr<const protocol::ServerTlsContext> peer_server;
  std::shared_ptr<const protocol::ClientTlsContext> peer_client;
};

// ---- control → worker ---------------------------------------------------------------------------------------------

struct NewDirectory {
  std::shared_ptr<const routing::Directory> directory;
  std::vector<std::shared_ptr<const routing::BranchView>> views;
  std::shared_ptr<const TlsContexts> tls;
};
struct NewView {
  const routing::Directory* directory = nullptr;  ///< identity only: a view of an older directory is dropped
  std::size_t index = 0;
  std::shared_ptr<const routing::BranchView> view;
};
struct VerifierReady {
  VerifierQuery query;
  VerifierAnswer answer;
};
/// A CancelRequest that another worker received: the owner of the session acts.
struct CancelSearch {
  protocol::CancelRequest request;
  std::uint32_t origin_worker = 0;
  std::uint64_t origin_session = 0;
};
/// Its `origin_worker` when another router asks: the control thread gets the answer, with the search's number for a
/// session.
inline constexpr std::uint32_t kPeerOrigin = 0xFFFFFFFF;
/// The answer; kUnknownKey: not here.
struct CancelAnswer {
  std::uint64_t origin_session = 0;
  metrics::CancelOutcome outcome = metrics::CancelOutcome::kUnknownKey;
};
/// A login of another worker failed with this verifier: whoever has it cached asks again.
struct VerifierStale {
  std::string branch;
  std::string role;
};
struct BeginDrain {
  base::Duration pace{};  ///< over which relaying sessions are told to go; 0: at once
};
struct StopNow {};
struct CollectSessions {
  std::uint64_t request = 0;
};
/// An administrator ends a session.
struct KillSession {
  std::uint64_t request = 0;
  std::uint64_t session = 0;
};
using ToWorker = std::variant<NewDirectory, NewView, VerifierReady, VerifierStale, CancelSearch, CancelAnswer,
                              BeginDrain, StopNow, CollectSessions, KillSession>;

// ---- worker → control ---------------------------------------------------------------------------------------------

struct BranchWanted {
  std::string branch;
};
struct DialFailed {
  std::string branch;
  int member = -1;
};
/// A session waits for a replica to replay what it has seen: probe the branch now, and often until then.
struct FreshWanted {
  std::string branch;
  base::Instant until{};
};
/// A cancel key that no worker here knows: the other routers are asked. A CancelAnswer follows.
struct PeersWanted {
  protocol::CancelRequest request;
  std::uint32_t origin_worker = 0;
  std::uint64_t origin_session = 0;
};
struct SessionsCollected {
  std::uint64_t request = 0;
  std::vector<SessionRow> rows;
};
struct SessionKilled {
  std::uint64_t request = 0;
  bool found = false;
};
/// While draining: the worker has no session left.
struct WorkerEmpty {
  std::uint32_t worker = 0;
};
/// The worker's loop has ended; its thread can be joined.
struct WorkerStopped {
  std::uint32_t worker = 0;
};
using ToControl = std::variant<VerifierQuery, BranchWanted, DialFailed, FreshWanted, PeersWanted, CancelAnswer,
                               SessionsCollected, SessionKilled, WorkerEmpty, WorkerStopped>;

}  // namespace pointsman::proxy
