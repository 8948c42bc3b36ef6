#include "proxy/session/session.h"

#include <cstring>

#include "base/check.h"
#include "metrics/blocks.h"
#include "proxy/log.h"
#include "proxy/server/worker.h"
#include "routing/refusals.h"

namespace pointsman::proxy {

using base::Instant;

namespace {

struct MappedIp {
  std::uint8_t bytes[16];
  explicit MappedIp(const routing::SocketAddress& address) { address.mapped_ip(bytes); }
};

}  // namespace

Session::Session(Worker& worker, std::uint64_t id, std::size_t listener, const routing::SocketAddress& peer,
                 bool over_limit, Instant now)
    : worker_(worker),
      directory_(worker.directory()),
      listener_{&directory_->config().listeners[listener], listener},
      id_(id),
      peer_(peer),
      core_(new SessionCore(*this, listener_, MappedIp(peer).bytes, now)),
      client_(*this),
      backend_(*this),
      listener_index_(static_cast<std::uint8_t>(listener)),
      over_limit_(over_limit) {}

Session::~Session() = default;

bool Session::start(int fd) {
  if (!client_.socket.adopt(worker_.loop(), fd)) {
    retired_ = true;
    return false;
  }
  client_.socket.want_read(true);
  update_deadline();
  return true;
}

Instant Session::now() const {
  return base::from_hrtime(uv_hrtime());
}

// ---- the core's questions -------------------------------------------------------------------------------------------

const routing::Config& Session::config() {
  return directory_->config();
}
std::shared_ptr<const routing::BranchView> Session::branch(std::string_view name) {
  return worker_.branch(name);
}
void Session::random_bytes(base::MutableBytes out) {
  worker_.random_bytes(out);
}

std::string Session::seal_cancel_key(const std::string& branch, const routing::Decision& decision,
                                     const protocol::BackendKey& key) {
  return worker_.cancels().seal(branch, decision, key);
}
std::string_view Session::mock_secret() {
  return worker_.tls().mock_secret;
}
bool Session::draining() {
  return worker_.draining();
}

std::optional<routing::Refusal> Session::admit(const std::shared_ptr<const routing::BranchView>& branch) {
  if (over_limit_) return routing::router_full(worker_.max_connections());
  if (branch->block == nullptr) return std::nullopt;  // not in use until now: counted at the decision
  const auto limit = config().limits.max_connections_per_branch;
  if (branch->block->admitted_in_all() >= limit) return routing::branch_full(branch->config->name, limit);
  count_admission(*branch);
  return std::nullopt;
}

void Session::count_admission(const routing::BranchView& view) {
  if (view.block == nullptr || view.block == block_) return;
  // Between admission and decision the branch may have got other members, and with them another block.
  if (admitted_) block_->admitted.fetch_sub(1, std::memory_order_relaxed);
  admitted_ = true;
  block_ = view.block;
  slot_ = &block_->slot(worker_.index());
  block_->admitted.fetch_add(1, std::memory_order_relaxed);
}

std::optional<routing::Refusal> Session::enter_hold(const routing::BranchView& branch) {
  const auto limit = config().limits.max_held_per_branch;
  auto& held = worker_.held(branch.config->name);
  // The limit is the branch's on all workers together; each may fill its share, rounded up.
  const auto share = (limit + worker_.worker_count() - 1) / worker_.worker_count();
  if (held >= share) return routing::too_many_held(branch.config->name, limit);
  ++held;
  if (branch.block != nullptr) {
    hold_block_ = branch.block;
    hold_block_->slot(worker_.index()).holding.add();
  }
  return std::nullopt;
}

void Session::leave_hold() {
  auto& held = worker_.held(identity().branch);
  if (held > 0) --held;
  if (hold_block_ != nullptr) hold_block_->slot(worker_.index()).holding.subtract();
  hold_block_.reset();
}

LocalKnowledge Session::local_knowledge(const routing::BranchView& branch, int pool) {
  LocalKnowledge known;
  const std::vector<routing::PoolEndpointView> none;
  const auto& endpoints = pool < 0 ? none : branch.pools[static_cast<std::size_t>(pool)].endpoints;
  if (worker_.any_dial_failed()) {
    for (const auto& member : branch.members) known.member_failed_at.push_back(worker_.dial_failed_at(member.address));
    for (const auto& endpoint : endpoints) known.endpoint_failed_at.push_back(worker_.dial_failed_at(endpoint.address));
  }
  if (branch.block == nullptr) return known;
  const auto active = [&](std::size_t destination) {
    return static_cast<std::uint32_t>(branch.block->active(worker_.index(), destination));
  };
  const std::size_t count = branch.members.size();
  for (std::size_t i = 0; i < count; ++i) known.member_sessions.push_back(active(i));
  std::size_t first = 2 * count;
  for (int p = 0; p < pool; ++p) first += branch.pools[static_cast<std::size_t>(p)].endpoints.size();
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    known.endpoint_sessions.push_back(active(first + i));
  }
  return known;
}

// ---- events from the worker -----------------------------------------------------------------------------------------

void Session::on_verifier(const VerifierAnswer& answer) {
  if (stage_ != Stage::kLogin) return;
  core_->on_verifier(answer, now());
  run_actions();
}

void Session::on_new_view() {
  if (stage_ != Stage::kLogin) return;
  core_->on_snapshot(now());
  run_actions();
}

void Session::on_cancel_served() {
  if (stage_ != Stage::kLogin) return;
  core_->on_cancel_served(now());
  run_actions();
}

void Session::drop_before_login() {
  if (stage_ != Stage::kLogin) return;
  refusal_ = std::make_unique<routing::Refusal>(routing::router_full(worker_.max_connections()));
  refusal_->log_detail = "too many connections that have not logged in: the oldest is dropped";
  begin_close(EndReason::kRefused);
}

void Session::on_deadline(Instant at) {
  armed_for_ = {};
  switch (stage_) {
    case Stage::kLogin:
      core_->on_deadline(at);
      run_actions();
      return;
    case Stage::kClientGone:
      // The client has gone in the middle of a request that still runs: nobody will read its answer.
      if (!idle() && from_client_.last_tag() != 'X') worker_.cancels().cancel(*this);
      begin_close(end_reason_);
      return;
    case Stage::kLingering:
      begin_close(end_reason_);
      return;
    case Stage::kRelay:
      end_by_farewell();
      return;
    case Stage::kClosing:
      return;
  }
}

void Session::update_deadline() {
  if (stage_ != Stage::kLogin) return;
  const auto deadline = core_->deadline();
  if (!deadline) {
    worker_.wheel().disarm(*this);
    armed_for_ = {};
  } else if (*deadline != armed_for_ || !armed()) {
    armed_for_ = *deadline;
    worker_.wheel().arm(*this, *deadline);
  }
}

// ---- the core's actions ---------------------------------------------------------------------------------------------

void Session::run_actions() {
  while (stage_ == Stage::kLogin) {
    auto action = core_->poll_action();
    if (!action) break;
    perform(*action);
  }
  update_deadline();
}

void Session::perform(Action& action) {
  struct Visitor {
    Session& session;
    void operator()(SendToClient& send) const {
      if (session.client_.write(base::as_bytes(send.bytes), session.worker_.scratch(), session.worker_.pool()) ==
          Side::Write::kError) {
        session.begin_close(EndReason::kClientError);
      }
    }
    void operator()(StartClientTls& start) const {
      const auto& context = session.worker_.tls().server;
      if (context == nullptr) {
        session.core_->on_client_tls_failed("no certificate is configured", session.now());
        return;
      }
      session.client_.tls = protocol::TlsEngine::accept(context);
      if (!start.early.empty()) session.client_handshake(base::as_bytes(start.early));
    }
    void operator()(AskVerifier& ask) const { session.worker_.ask_verifier(session, ask); }
    void operator()(ConnectBackend& connect) const { session.perform_connect(connect); }
    void operator()(SendToBackend& send) const {
      if (!session.backend_.socket.open()) return;
      if (session.backend_.write(base::as_bytes(send.bytes), session.worker_.scratch(), session.worker_.pool()) ==
          Side::Write::kError) {
        session.drop_backend();
        session.core_->on_backend_eof("connection lost while sending", session.now());
      }
    }
    void operator()(StartBackendTls& start) const { session.perform_backend_tls(start); }
    void operator()(DropBackend&) const { session.drop_backend(); }
    void operator()(ReportDialFailure& report) const {
      session.count_dial_failure(report.decision);
      session.worker_.report_dial_failure(report.branch, report.decision.member, report.decision.address);
    }
    void operator()(ProbeAfresh& probe) const { session.worker_.probe_afresh(probe.branch, probe.until); }
    void operator()(ServeCancel& cancel) const { session.worker_.cancels().serve(session, cancel.request); }
    void operator()(BeginRelay& relay) const { session.perform_begin_relay(relay); }
    void operator()(Finish& finish) const { session.perform_finish(finish); }
  };
  std::visit(Visitor{*this}, action);
}

void Session::drop_backend() {
  reopen_backend_ = false;
  backend_connecting_ = false;
  backend_.socket.close();
  backend_.forget_peer();
}

void Session::perform_connect(const ConnectBackend& connect) {
  drop_backend();
  if (backend_.socket.busy()) {  // the loop lets go of the old handle first
    reopen_backend_ = true;
    next_address_ = connect.address;
    return;
  }
  const auto& config = directory_->config();
  const auto keepalive =
      static_cast<unsigned>(std::chrono::duration_cast<std::chrono::seconds>(config.tcp_keepalive).count());
  const auto user_timeout =
      static_cast<unsigned>(std::chrono::duration_cast<std::chrono::milliseconds>(config.tcp_user_timeout).count());
  backend_connecting_ = true;
  const int error =
      backend_.socket.connect(worker_.loop(), &connect.address.base, connect.address.size, keepalive, user_timeout);
  if (error != 0) {
    backend_connecting_ = false;
    core_->on_connect_failed(std::strerror(error), now());
  }
}

void Session::perform_backend_tls(const StartBackendTls& start) {
  const auto& contexts = worker_.tls().clients;
  const auto found = contexts.find(start.settings.context_key());
  if (found == contexts.end()) {
    core_->on_backend_tls_failed("backend_tls could not be set up, see the log of the last reload", now());
    return;
  }
  backend_.tls = protocol::TlsEngine::connect(found->second, start.server_name);
  backend_handshake({});
}

void Session::perform_begin_relay(BeginRelay& relay) {
  stage_ = Stage::kRelay;
  worker_.wheel().disarm(*this);
  worker_.login_ended(*this);
  count_decision();
  backend_key_ = std::move(relay.backend_key);
  client_secret_ = std::move(relay.client_secret);
  if (!backend_key_.secret.empty()) {
    worker_.cancels().add(*this);
    in_cancel_table_ = true;
  }
  record_ = core_->take_record();
  core_.reset();
  worker_.log_login(*this, listener_index_);
  directory_.reset();
  if (client_.tls != nullptr || backend_.tls != nullptr) worker_.note_active(*this);

  const auto early = base::as_bytes(relay.to_client).last(relay.backend_bytes_after_ready);
  if (!early.empty()) from_backend_.observe(early);
  auto written = Side::Write::kDone;
  for (base::Bytes rest = base::as_bytes(relay.to_client); !rest.empty() && written != Side::Write::kError;) {
    const auto piece = rest.first(std::min(rest.size(), kReadSize));
    rest = rest.subspan(piece.size());
    written = client_.write(piece, worker_.scratch(), worker_.pool());
  }
  if (written == Side::Write::kError) {
    client_ended(true);
    return;
  }
  if (written == Side::Write::kPending) backend_.socket.want_read(false);
  if (!relay.to_backend.empty()) {
    from_client_.observe(base::as_bytes(relay.to_backend));
    request_began_ns_ = uv_hrtime();
    written = backend_.write(base::as_bytes(relay.to_backend), worker_.scratch(), worker_.pool());
    if (written == Side::Write::kError) {
      backend_write_failed();
      return;
    }
    if (written == Side::Write::kPending) client_.socket.want_read(false);
  }
  if (worker_.draining()) drain();
  // The branch may have changed while the backend's login was under way.
  if (const auto present = worker_.present_view(identity().branch); present != nullptr && present != identity().view) {
    reconsider(*present);
  }
  if (stage_ != Stage::kRelay) return;
  // Many clients log in and wait: what the login's records needed is worth more to the next one. It comes back by
  // itself.
  release_tls_buffers();
}

void Session::perform_finish(Finish& finish) {
  if (finish.refusal) refusal_ = std::make_unique<routing::Refusal>(std::move(*finish.refusal));
  drop_backend();
  worker_.login_ended(*this);
  linger(finish.reason);
}

// ---- bytes of a login -----------------------------------------------------------------------------------------------

void Session::on_readable(Socket& socket) {
  switch (stage_) {
    case Stage::kRelay:
      if (&socket == &client_.socket) {
        relay(client_, backend_, from_client_, bytes_from_client_, relayed_from_client_);
      } else {
        relay(backend_, client_, from_backend_, bytes_to_client_, relayed_to_client_);
      }
      return;
    case Stage::kLogin:
      if (&socket == &client_.socket) {
        client_login_readable();
      } else {
        backend_login_readable();
      }
      return;
    case Stage::kClientGone:
      if (&socket == &backend_.socket) {
        relay(backend_, client_, from_backend_, bytes_to_client_, relayed_to_client_);
      } else {
        client_.socket.want_read(false);
      }
      return;
    case Stage::kLingering:
      linger_readable();
      return;
    case Stage::kClosing:
      return;
  }
}

void Session::on_writable(Socket& socket) {
  if (stage_ == Stage::kClosing) return;
  const bool is_client = &socket == &client_.socket;
  Side& side = is_client ? client_ : backend_;
  if (!is_client && backend_connecting_) {
    backend_connecting_ = false;
    const int error = socket.connect_error();
    if (error != 0) {
      drop_backend();
      core_->on_connect_failed(std::strerror(error), now());
    } else {
      socket.want_write(false);
      socket.want_read(true);
      core_->on_connected(now());
    }
    run_actions();
    return;
  }
  const auto written = side.flush();
  if (written == Side::Write::kPending) return;
  if (written == Side::Write::kError) {
    if (stage_ == Stage::kLingering) {
      begin_close(end_reason_);
    } else if (stage_ == Stage::kLogin && is_client) {
      begin_close(EndReason::kClientError);
    } else if (stage_ == Stage::kLogin) {
      drop_backend();
      core_->on_backend_eof("connection lost while sending", now());
      run_actions();
    } else if (is_client) {
      client_ended(true);
    } else {
      backend_write_failed();
    }
    return;
  }
  if (stage_ == Stage::kLingering) {
    linger(end_reason_);  // the last words are out: FIN, and a moment for the client
  } else if (stage_ == Stage::kClientGone && !is_client) {
    backend_.socket.shutdown_write();
  } else if (stage_ != Stage::kLogin) {
    if (ends_when_idle_ && stage_ == Stage::kRelay && idle()) {
      end_at_boundary();
      return;
    }
    // The one side has caught up: the other may be read again.
    Side& source = is_client ? backend_ : client_;
    if (source.socket.open()) source.socket.want_read(true);
  }
}

void Session::client_login_readable() {
  if (client_.tls != nullptr && !client_.tls_ready) {
    // A storm of handshakes must not starve the sessions that are in: beyond the budget the socket stays readable and
    // is met again.
    if (!worker_.take_handshake_turn()) return;
    const auto io = client_.socket.receive(worker_.scratch().read);
    if (io.bytes > 0) {
      client_handshake({worker_.scratch().read, io.bytes});
      run_actions();
    } else if (io.eof || io.error != 0) {
      core_->on_client_eof(now());
      run_actions();
    }
    return;
  }
  // A direct-TLS client's first read is its ClientHello, and costs a signature.
  if (client_.tls == nullptr && core_->phase_name() == "negotiating" && !worker_.take_handshake_turn()) return;
  const auto read = client_.read(worker_.scratch(), worker_.pool());
  if (read.blocked) return;
  if (!read.plain.empty()) {
    core_->on_client_bytes(read.plain, now());
    run_actions();
  }
  if (stage_ != Stage::kLogin) {
    // The login ended with these bytes: what else the client said, and its end, is the relay's.
    if (stage_ == Stage::kRelay && (read.eof || read.failed)) client_ended(read.failed);
    return;
  }
  if (read.failed) {
    core_->on_client_error(now());
  } else if (read.eof) {
    core_->on_client_eof(now());
  }
  run_actions();
}

void Session::client_handshake(base::Bytes encrypted) {
  auto& scratch = worker_.scratch();
  protocol::TlsOutput output{scratch.wire, 0};
  const auto status = client_.tls->handshake(encrypted, output);
  if (output.size > 0 && client_.write_wire(output.filled(), worker_.pool()) == Side::Write::kError) {
    core_->on_client_error(now());
    return;
  }
  if (status == protocol::TlsEngine::Status::kNeedInput) return;
  if (status != protocol::TlsEngine::Status::kOk) {
    worker_.count_handshake("");
    core_->on_client_tls_failed(client_.tls->failure(), now());
    return;
  }
  client_.tls_ready = true;
  client_tls_version_ = client_.tls->version();
  worker_.count_handshake(client_tls_version_);
  core_->on_client_tls(
      {client_tls_version_, client_.tls->endpoint_hash(), client_.tls->alpn_postgresql(), client_.tls->sni()}, now());
  // The startup packet often rides behind the client's Finished.
  protocol::TlsOutput more{scratch.wire, 0};
  const auto read = client_.tls->read({}, scratch.plain, more);
  if (more.size > 0) (void)client_.write_wire(more.filled(), worker_.pool());
  if (read.bytes > 0) core_->on_client_bytes({scratch.plain, read.bytes}, now());
  if (read.status == protocol::TlsEngine::Status::kClosed) core_->on_client_eof(now());
  if (read.status == protocol::TlsEngine::Status::kFailed) core_->on_client_error(now());
}

void Session::backend_login_readable() {
  if (backend_connecting_) return;
  if (backend_.tls != nullptr && !backend_.tls_ready) {
    const auto io = backend_.socket.receive(worker_.scratch().read);
    if (io.bytes > 0) {
      backend_handshake({worker_.scratch().read, io.bytes});
    } else if (io.eof || io.error != 0) {
      drop_backend();
      core_->on_backend_eof(io.eof ? "connection closed in the TLS handshake" : std::strerror(io.error), now());
    }
    run_actions();
    return;
  }
  const auto read = backend_.read(worker_.scratch(), worker_.pool());
  if (read.blocked) return;
  if (!read.plain.empty()) {
    core_->on_backend_bytes(read.plain, now());
    run_actions();
  }
  if (!read.eof && !read.failed) return;
  if (stage_ == Stage::kRelay) {
    backend_ended(read.failed);
  } else if (stage_ == Stage::kLogin && backend_.socket.open()) {
    drop_backend();
    core_->on_backend_eof(read.eof ? "connection closed during the login" : std::strerror(read.error), now());
    run_actions();
  }
}

void Session::backend_handshake(base::Bytes encrypted) {
  protocol::TlsOutput output{worker_.scratch().wire, 0};
  const auto status = backend_.tls->handshake(encrypted, output);
  if (output.size > 0) (void)backend_.write_wire(output.filled(), worker_.pool());
  if (status == protocol::TlsEngine::Status::kNeedInput) return;
  if (status != protocol::TlsEngine::Status::kOk) {
    core_->on_backend_tls_failed(backend_.tls->failure(), now());
    return;
  }
  backend_.tls_ready = true;
  core_->on_backend_tls(backend_.tls->endpoint_hash(), now());
}

void Session::on_closed(Socket& socket) {
  if (&socket == &backend_.socket && reopen_backend_ && stage_ == Stage::kLogin) {
    reopen_backend_ = false;
    perform_connect({next_address_});
    run_actions();
    return;
  }
  release_memory_when_done();
}

}  // namespace pointsman::proxy
