#include "proxy/monitor/pg_connection.h"

#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "proxy/io/side.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

using FailureKind = PgFailure::Kind;

std::string new_nonce() {
  std::array<base::Byte, 18> random{};
  POINTSMAN_CHECK(RAND_bytes(random.data(), static_cast<int>(random.size())) == 1);
  return protocol::base64_encode(base::as_text(random));
}

PgFailure network_failure(std::string text) {
  return {FailureKind::kNetwork, {}, std::move(text)};
}
PgFailure tls_failure(std::string_view text) {
  return {FailureKind::kTls, {}, "TLS: " + routing::escape_for_log(text)};
}

}  // namespace

/// The socket lives longer than the connection that let go of it: until the loop has closed it.
class PgConnection::Wire final : private SocketOwner {
 public:
  Wire(PgConnection& connection, const HandleCount& count) : side(*this), connection_(&connection), count_(count) {}

  /// 0 or an errno; then nothing was opened.
  int connect(EventLoop& loop, const routing::SocketAddress& address) {
    const int error = side.socket.connect(loop, &address.base, address.size, 0, 0);
    if (error == 0) ++*count_;
    return error;
  }
  /// The connection goes away. Frees this, now or later.
  void let_go() {
    connection_ = nullptr;
    side.forget_peer();
    if (!side.socket.busy()) {
      delete this;
      return;
    }
    side.socket.close();
  }

  Side side;

 private:
  ~Wire() = default;
  void on_readable(Socket&) override {
    if (connection_ != nullptr) connection_->on_readable();
  }
  void on_writable(Socket&) override {
    if (connection_ != nullptr) connection_->on_writable();
  }
  void on_closed(Socket&) override {
    --*count_;
    delete this;
  }

  PgConnection* connection_;
  HandleCount count_;
};

PgConnection::PgConnection(SqlContext& context, const HandleCount& count, Owner& owner)
    : context_(context),
      count_(count),
      owner_(owner),
      deadline_(context.loop.uv(), count, this, [](void* self) { static_cast<PgConnection*>(self)->on_timer(); }) {}

PgConnection::~PgConnection() {
  close();
}

void PgConnection::close() {
  deadline_.stop();
  context_.keys.cancel(*this);
  if (wire_ != nullptr && client_ != nullptr) {
    client_->terminate();
    (void)send_output();
    wire_->side.say_goodbye(context_.scratch, context_.pool);
  }
  drop_wire();
  client_.reset();
  phase_ = Phase::kClosed;
}

void PgConnection::drop_wire() {
  if (wire_ != nullptr) std::exchange(wire_, nullptr)->let_go();
}

// ---- what the owner asks for ----------------------------------------------------------------------------------------

void PgConnection::connect(const PgTarget& target, base::Instant deadline) {
  POINTSMAN_CHECK(phase_ == Phase::kClosed && target.address.known());
  tls_ = target.tls;
  if (tls_.server_name.empty()) tls_.server_name = target.host;
  SqlLogin login;
  login.user = target.user;
  login.password = target.password;
  login.database = target.database;
  login.application_name = target.application_name;
  login.options = target.options;
  login.tls = tls_.mode != routing::TlsMode::kDisable;
  client_ = std::make_unique<SqlClient>(std::move(login), new_nonce());
  phase_ = Phase::kDialing;
  wire_ = new Wire(*this, count_);
  if (const int error = wire_->connect(context_.loop, target.address); error != 0)
    return fail_later(network_failure(std::strerror(error)));
  deadline_.start(deadline);
}

void PgConnection::query(std::string_view sql, std::span<const std::string> parameters, base::Instant deadline) {
  POINTSMAN_CHECK(phase_ == Phase::kIdle);
  client_->query(sql, parameters);
  begin_operation(deadline);
}

void PgConnection::command(std::string_view sql, base::Instant deadline) {
  POINTSMAN_CHECK(phase_ == Phase::kIdle);
  client_->command(sql);
  begin_operation(deadline);
}

void PgConnection::begin_operation(base::Instant deadline) {
  phase_ = Phase::kQuerying;
  if (!send_output()) return fail_later(network_failure("the connection was lost"));
  deadline_.start(deadline);
}

// ---- the socket -----------------------------------------------------------------------------------------------------

void PgConnection::on_writable() {
  if (phase_ != Phase::kDialing) {
    if (wire_->side.flush() == Side::Write::kError) fail(network_failure("the connection was lost"));
    return;
  }
  Socket& socket = wire_->side.socket;
  if (const int error = socket.connect_error(); error != 0) return fail(network_failure(std::strerror(error)));
  phase_ = Phase::kLogin;
  socket.want_write(false);
  socket.want_read(true);
  act_on(client_->start());
}

void PgConnection::on_readable() {
  const Side& side = wire_->side;
  if (side.tls != nullptr && !side.tls_ready) {
    read_handshake();
  } else {
    read();
  }
}

void PgConnection::read() {
  Side& side = wire_->side;
  const auto got = side.read(context_.scratch, context_.pool);
  if (got.blocked) return;
  auto event = SqlClient::Event::kNothing;
  if (!got.plain.empty()) {
    event = client_->on_bytes(got.plain);
    // It lies in the scratch memory, encrypted or not on its way there.
    const bool was_encrypted = side.tls != nullptr;
    base::wipe(was_encrypted ? context_.scratch.plain : context_.scratch.read, got.plain.size());
  }
  if (event == SqlClient::Event::kFailed || (!got.eof && !got.failed)) return act_on(event);
  // A TLS 1.3 server that does not like our certificate says so after the handshake (RFC 8446, 4.4.2.4).
  if (phase_ == Phase::kLogin && side.tls != nullptr && !side.tls->failure().empty())
    return fail(tls_failure(side.tls->failure()));
  if (got.error != 0) return fail(network_failure(std::strerror(got.error)));
  fail(network_failure(phase_ == Phase::kLogin ? "the server closed the connection during the login"
                                               : "the server closed the connection"));
}

/// False when the connection is broken.
bool PgConnection::send_output() {
  WipedBuffer& output = client_->output();
  while (!output.empty()) {
    const auto piece = output.bytes().first(std::min(output.size(), kReadSize));
    if (wire_->side.write(piece, context_.scratch, context_.pool) == Side::Write::kError) return false;
    output.consume(piece.size());
  }
  return true;
}

void PgConnection::act_on(SqlClient::Event event) {
  if (!send_output()) return fail(network_failure("the connection was lost"));
  switch (event) {
    case SqlClient::Event::kNothing:
      return;
    case SqlClient::Event::kStartTls:
      return start_tls();
    case SqlClient::Event::kDeriveKeys:
      return derive_keys();
    case SqlClient::Event::kFailed:
      return fail(client_->failure());
    case SqlClient::Event::kReady:
      deadline_.stop();
      phase_ = Phase::kIdle;
      return owner_.on_pg_connected();
    case SqlClient::Event::kAnswer: {
      deadline_.stop();
      phase_ = Phase::kIdle;
      const PgRows rows = client_->take_rows();
      return owner_.on_pg_rows(rows);
    }
    case SqlClient::Event::kStatementFailed: {
      deadline_.stop();
      phase_ = Phase::kIdle;
      const PgFailure failure = client_->failure();
      return owner_.on_pg_failure(failure);
    }
  }
}

// ---- TLS and keys ---------------------------------------------------------------------------------------------------

void PgConnection::start_tls() {
  const auto found = context_.tls.find(tls_.context_key());
  if (found == context_.tls.end())
    return fail(tls_failure("backend_tls could not be set up, see the log of the last reload"));
  wire_->side.tls = protocol::TlsEngine::connect(found->second, tls_.server_name);
  handshake({});
}

void PgConnection::read_handshake() {
  const auto io = wire_->side.socket.receive(context_.scratch.read);
  if (io.would_block) return;
  if (io.bytes > 0) return handshake({context_.scratch.read, io.bytes});
  fail(network_failure(io.eof ? "the server closed the connection in the TLS handshake" : std::strerror(io.error)));
}

void PgConnection::handshake(base::Bytes encrypted) {
  Side& side = wire_->side;
  protocol::TlsOutput output{context_.scratch.wire, 0};
  const auto status = side.tls->handshake(encrypted, output);
  const bool sent = output.size == 0 || side.write_wire(output.filled(), context_.pool) != Side::Write::kError;
  if (status == protocol::TlsEngine::Status::kNeedInput && sent) return;
  if (status != protocol::TlsEngine::Status::kOk) return fail(tls_failure(side.tls->failure()));
  if (!sent) return fail(network_failure("the connection was lost"));
  side.tls_ready = true;
  act_on(client_->on_tls(side.tls->endpoint_hash()));
}

void PgConnection::derive_keys() {
  const auto& password = client_->password();
  if (auto known = context_.keys.find(password.reveal(), client_->salt(), client_->iterations()))
    return act_on(client_->on_keys(std::move(*known)));
  context_.keys.derive(*this, password, client_->salt(), client_->iterations());
}

void PgConnection::on_scram_keys(const protocol::ScramLoginKeys& keys) {
  act_on(client_->on_keys(keys));
}

// ---- the end --------------------------------------------------------------------------------------------------------

void PgConnection::on_timer() {
  switch (phase_) {
    case Phase::kFailing:
      return fail(std::move(pending_failure_));
    case Phase::kDialing:
      return fail({FailureKind::kTimeout, {}, "no connection within the deadline"});
    case Phase::kLogin:
      return fail({FailureKind::kTimeout, {}, "no login within the deadline"});
    case Phase::kIdle:
    case Phase::kQuerying:
    case Phase::kClosed:
      return fail({FailureKind::kTimeout, {}, "no answer within the deadline"});
  }
}

void PgConnection::fail(PgFailure failure) {
  close();
  owner_.on_pg_failure(failure);  // may destroy this
}

void PgConnection::fail_later(PgFailure failure) {
  drop_wire();
  phase_ = Phase::kFailing;
  pending_failure_ = std::move(failure);
  deadline_.start(loop_clock());
}

}  // namespace pointsman::proxy
