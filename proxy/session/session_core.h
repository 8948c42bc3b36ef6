#pragma once
// The life of a connection, without a socket: events go in, actions come out (docs/architecture.md has the picture).
//
//   ProxyHeader? → Negotiating → TlsHandshake → AwaitingStartup → ClientAuth → (routing) ⇄ Holding → Connecting
//                → BackendNegotiating → BackendLogin → Relaying → Closed
//   and          Negotiating → Cancelling → Closed
//
// Strangers reach nothing: name, access and limits are judged at the startup packet, the client proves itself in
// ClientAuth, only then is it routed, held or connected; its AuthenticationOk waits until the backend said
// ReadyForQuery, so that every refusal before that still moves libpq on to its next host. `auth: passthrough` skips
// ClientAuth and is the one exception: each SASL frame is checked before it goes on.
//
// Rules: after every event the shell drains poll_action() until it is empty. The core never calls out but for the
// questions of CoreServices, which have no effect on the session. A step RETURNS the next phase; enter() alone assigns
// it. One thread. Randomness and time are arguments.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "protocol/messages.h"
#include "protocol/scram.h"
#include "protocol/startup.h"
#include "proxy/monitor/verifier_answer.h"
#include "routing/refusal.h"
#include "routing/selection.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

/// Why a connection ended: a word for the log. Refusals carry their own reason beside it.
enum class EndReason : std::uint8_t {
  kClientClosed,    ///< the client went, at any time
  kBackendClosed,   ///< the backend ended the session
  kClientError,     ///< socket or TLS error on the client's side
  kBackendError,    ///< socket or TLS error on the backend's side, after login
  kRefused,         ///< told no; the refusal's reason says why
  kBackendRefused,  ///< the backend's own error was passed on
  kCancelServed,    ///< a CancelRequest, whatever became of it
  kDrained,         ///< ended by shutdown at an idle boundary or at its time limit
  kStopped,         ///< the process stops at once
  kDemoted,         ///< its server is no longer the primary
  kPromoted,        ///< its replica has become the primary, and `replicas.on_promotion` is `end`
  kRemoved,         ///< its server was taken out of the branch
  kPoolDrained,     ///< its pool endpoint is being replaced
  kKilled,          ///< an administrator ended it on the console
};
std::string_view to_word(EndReason reason);

/// Entries as in BranchView::members and in the pool's endpoints; missing ones are 0.
struct LocalKnowledge {
  std::vector<std::uint32_t> member_sessions;
  std::vector<std::uint32_t> endpoint_sessions;
  std::vector<base::Instant> member_failed_at;  ///< last failed dial; empty: there was none lately
  std::vector<base::Instant> endpoint_failed_at;
};

/// What the core may ask. Answers have no effect on the session.
class CoreServices {
 public:
  virtual const routing::Config& config() = 0;
  /// The branch as of now; null when unknown.
  virtual std::shared_ptr<const routing::BranchView> branch(std::string_view name) = 0;
  virtual void random_bytes(base::MutableBytes out) = 0;
  /// The secret of a client's cancel key that every router of the fleet can serve (protocol 3.2). Empty: there is no
  /// fleet, or it cannot be said in a key; a random one has to do.
  virtual std::string seal_cancel_key(const std::string& branch, const routing::Decision& decision,
                                      const protocol::BackendKey& key) = 0;
  /// Takes the session into the branch's count, or says why not. Called once per session.
  virtual std::optional<routing::Refusal> admit(const std::shared_ptr<const routing::BranchView>& branch) = 0;
  /// Takes the session into the branch's count of held logins, or says why not; leave_hold gives the place back.
  virtual std::optional<routing::Refusal> enter_hold(const routing::BranchView& branch) = 0;
  virtual void leave_hold() = 0;
  /// What this worker knows of the members and of the endpoints of a pool (index -1: none asked), for the choice.
  virtual LocalKnowledge local_knowledge(const routing::BranchView& branch, int pool) = 0;
  /// Secret under which mock salts are made; the same for all routers with one TLS key.
  virtual std::string_view mock_secret() = 0;
  virtual bool draining() = 0;

 protected:
  ~CoreServices() = default;
};

/// The side of the listener that a session needs; outlives the session.
struct ListenerContext {
  const routing::ListenerConfig* config = nullptr;
  std::size_t index = 0;
};

struct ClientTlsInfo {
  std::string version{};
  std::string endpoint_hash{};  ///< empty: no channel binding possible
  bool alpn_postgresql = false;
  std::string server_name{};  ///< SNI as the client sent it; empty: none
};

// ---- actions ------------------------------------------------------------------------------------------------------

struct SendToClient {
  std::string bytes;
};
/// `early` is what the client sent already (a ClientHello); it goes to the engine.
struct StartClientTls {
  std::string early;
};
struct AskVerifier {
  std::string branch;
  std::string role;
  base::Instant not_before{};  ///< answers fetched before it do not count
  bool wait = true;            ///< false: only refresh, no answer is awaited
};
/// Dials; a backend connection that is still open is dropped first.
struct ConnectBackend {
  routing::SocketAddress address;
};
struct SendToBackend {
  std::string bytes;
};
struct StartBackendTls {
  routing::BackendTlsConfig settings;
  std::string server_name;
};
struct DropBackend {};
/// A member or endpoint could not be reached: worth a probe.
struct ReportDialFailure {
  std::string branch;
  routing::Decision decision;
};
/// A replica's position decides: have the branch probed now, and often until then.
struct ProbeAfresh {
  std::string branch;
  base::Instant until{};
};
struct ServeCancel {
  protocol::CancelRequest request;
};
/// The login is complete. `to_client` ends the login and is followed by what the backend sent behind it; `to_backend`
/// is what the client sent ahead. The client's key is minted by the core.
struct BeginRelay {
  std::string to_client;
  std::string to_backend;
  std::size_t backend_bytes_after_ready =
      0;  ///< so many bytes at the end of `to_client` are the backend's, behind its ReadyForQuery
  protocol::BackendKey backend_key;  ///< pid 0 and no secret: the backend gave none
  std::string client_secret;
};
/// Ends the connection. What was sent before goes out first.
struct Finish {
  EndReason reason = EndReason::kClientClosed;
  std::optional<routing::Refusal> refusal;
};

using Action = std::variant<SendToClient, StartClientTls, AskVerifier, ConnectBackend, SendToBackend, StartBackendTls,
                            DropBackend, ReportDialFailure, ProbeAfresh, ServeCancel, BeginRelay, Finish>;

/// What is known of a session for logs, /api/sessions and metrics. Stays while the session lives.
struct SessionIdentity {
  std::string user;  ///< as typed
  std::string database;
  std::string application;
  std::string branch;
  std::string target;
  std::string destination;
  std::shared_ptr<const routing::BranchView> view;  ///< as of the decision; null before the branch is known
  std::optional<routing::Decision> decision;
};

/// Instants of a login's milestones; epoch: not reached.
struct LoginTimes {
  base::Instant accepted{};
  base::Instant tls_done{};
  base::Instant startup_done{};
  base::Instant auth_done{};
  base::Instant routed{};  ///< when the connect that succeeded began
  base::Instant ready{};
  base::Duration held{0};
};

/// Everything about a session that outlives its login. The core gives it away when it is done.
struct SessionRecord {
  SessionIdentity identity;
  LoginTimes times;
  /// Set when a PROXY header named the client; it then replaces the peer's address.
  std::optional<routing::SocketAddress> proxied_source;
};

class SessionCore {
 public:
  /// `client_ip` is the client's address, IPv4-mapped; a PROXY header replaces it.
  SessionCore(CoreServices& services, const ListenerContext& listener, const std::uint8_t (&client_ip)[16],
              base::Instant now);
  ~SessionCore();
  SessionCore(const SessionCore&) = delete;
  SessionCore& operator=(const SessionCore&) = delete;

  // Events. Bytes are plain text (behind TLS: decrypted).
  void on_client_bytes(base::Bytes bytes, base::Instant now);
  void on_client_tls(const ClientTlsInfo& info, base::Instant now);
  void on_client_tls_failed(std::string_view why, base::Instant now);
  void on_client_eof(base::Instant now);
  void on_client_error(base::Instant now);
  void on_verifier(const VerifierAnswer& answer, base::Instant now);
  void on_connected(base::Instant now);
  void on_connect_failed(std::string_view why, base::Instant now);
  void on_backend_bytes(base::Bytes bytes, base::Instant now);
  void on_backend_tls(std::string_view endpoint_hash, base::Instant now);
  void on_backend_tls_failed(std::string_view why, base::Instant now);
  void on_backend_eof(std::string_view why, base::Instant now);
  void on_snapshot(base::Instant now);  ///< the branch's view changed
  void on_cancel_served(base::Instant now);
  void on_deadline(base::Instant now);  ///< deadline() has passed
  void on_drain(base::Instant now);     ///< the router shuts down: logins under way are told 57P03

  std::optional<Action> poll_action();

  /// When on_deadline wants to be called; nothing while relaying or closed.
  std::optional<base::Instant> deadline() const;
  /// "proxy", "negotiating", "tls", "startup", "auth", "holding", "connecting", "login", "relaying", "cancelling",
  /// "closed".
  std::string_view phase_name() const;
  /// The branch for whose view a held session waits; empty when it waits for none.
  std::string_view waiting_for_branch() const;
  bool relaying() const { return std::holds_alternative<Relaying>(phase_); }
  bool closed() const { return std::holds_alternative<Closed>(phase_); }

  const SessionRecord& record() const { return record_; }
  /// Requires: relaying. The core is of no use afterwards.
  SessionRecord take_record() { return std::move(record_); }

 private:
  struct Login;  // what a login knows between the startup packet and the relay

  struct ProxyHeader {};
  struct Negotiating {
    bool ssl_refused = false;
    bool gss_refused = false;
  };
  struct TlsHandshake {
    bool direct = false;
  };
  struct AwaitingStartup {};
  struct ClientAuth {
    std::unique_ptr<Login> login;
    std::unique_ptr<protocol::ScramServer> scram;  // null while the verifier is awaited
    bool initial_seen = false;
  };
  struct Holding {
    std::unique_ptr<Login> login;
    routing::Refusal last;
    base::Instant retry_at{};  // epoch: only a new view wakes it
  };
  struct Connecting {
    std::unique_ptr<Login> login;
    base::Instant dial_deadline{};
  };
  struct BackendNegotiating {
    std::unique_ptr<Login> login;
    bool tls_started = false;
  };
  struct BackendLogin {
    std::unique_ptr<Login> login;
    std::unique_ptr<protocol::ScramClient> scram;
    std::vector<std::string> offered;  // passthrough: mechanisms the client may choose from
    bool client_may_answer = false;    // passthrough: an authentication request of the backend is outstanding
    bool first_answer = true;
    bool accepted = false;  // AuthenticationOk seen
    protocol::BackendKey key;
    std::string greeting;  // what follows AuthenticationOk, for the client
    std::string endpoint_hash;
    std::string client_secret;   // the secret of the client's cancel key
    bool server_proved = false;  // its SCRAM signature was right
    std::string refusal_bytes;   // an ErrorResponse of the backend, kept while the verifier is read again
    bool rechecking = false;
  };
  struct Relaying {};
  struct Cancelling {};
  struct Closed {};
  using Phase = std::variant<ProxyHeader, Negotiating, TlsHandshake, AwaitingStartup, ClientAuth, Holding, Connecting,
                             BackendNegotiating, BackendLogin, Relaying, Cancelling, Closed>;
  /// A step's outcome: the phase to enter, or nothing when the present one goes on.
  using Next = std::optional<Phase>;

  void run(base::Instant now);
  void apply(Next next, base::Instant now);
  void enter(Phase phase);
  Next step(base::Instant now);

  // Before the startup packet, the packet, and the client's proof: session_startup.cc.
  Next step_proxy_header();
  Next step_negotiating(Negotiating& phase, base::Instant now);
  Next step_awaiting_startup(base::Instant now);
  Next refuse_startup(const protocol::StartupRejected& rejected);
  Next accept_startup(protocol::StartupMessage startup, base::Instant now);
  std::optional<routing::Refusal> read_parameters(Login& login);
  std::optional<routing::Refusal> judge_startup(Login& login);
  Next start_exchange(ClientAuth& phase, const VerifierAnswer& answer);
  Next step_client_auth(ClientAuth& phase, base::Instant now);
  Next sasl_message(ClientAuth& phase, const protocol::MessageView& message, base::Instant now);
  Next wrong_password(const Login& login, base::Instant now);
  Next client_while_waiting();
  Next login_timed_out();

  // Routing, holding and the backend's login: session_login.cc.
  Next route(std::unique_ptr<Login> login, base::Instant now);
  Next hold(std::unique_ptr<Login> login, routing::Refusal last, base::Instant retry_at, base::Instant now,
            std::optional<base::Duration> wait = std::nullopt);
  Next hold_timed_out(Holding& phase, base::Instant now);
  Next hold_expired(Login& login, const routing::Refusal& last, base::Instant now);
  /// The present candidate failed: the next one, or a held retry.
  Next candidate_failed(std::unique_ptr<Login> login, std::string_view why, bool report, base::Instant now);
  Next pass_on(std::string error_response);
  Next begin_login(std::unique_ptr<Login> login, std::string endpoint_hash);
  Next step_backend_negotiating(BackendNegotiating& phase, base::Instant now);
  Next step_backend_login(BackendLogin& phase, base::Instant now);
  std::string mint_cancel_secret(const Login& login, const protocol::BackendKey& key);
  Next backend_login_message(BackendLogin& phase, const protocol::MessageView& message, base::Instant now);
  Next backend_authentication(BackendLogin& phase, const protocol::MessageView& message, base::Instant now);
  Next backend_error(BackendLogin& phase, const protocol::MessageView& message, base::Instant now);
  Next recheck_done(BackendLogin& phase, const VerifierAnswer& answer, base::Instant now);
  Next passthrough_answer(BackendLogin& phase);
  void append_explanation(const Login& login, std::string& out) const;
  Next complete_login(BackendLogin& phase, base::Instant now);

  std::unique_ptr<Login> take_login();
  Next refuse(routing::Refusal refusal);
  Next finish(EndReason reason);
  Next close_silently(routing::Refusal refusal);
  static void consume(std::string& buffer, std::size_t count);
  void send_client(std::string bytes) { actions_.push_back(SendToClient{std::move(bytes)}); }

  CoreServices& services_;
  const ListenerContext& listener_;
  std::uint8_t client_ip_[16];
  Phase phase_;
  std::string from_client_;  // received and not yet used, bounded by kMaxPending
  std::string from_backend_;
  std::vector<Action> actions_;
  std::size_t next_action_ = 0;
  base::Instant login_deadline_{};
  SessionRecord record_;
  std::optional<ClientTlsInfo> client_tls_;
};

}  // namespace pointsman::proxy
