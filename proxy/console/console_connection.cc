#include "proxy/console/console_connection.h"

#include <utility>

#include "base/check.h"
#include "proxy/log.h"

namespace pointsman::proxy {

using base::Instant;

namespace {

constexpr base::Duration kWriteDeadline = std::chrono::seconds(30);
constexpr base::Duration kWorkDeadline = std::chrono::minutes(12);
constexpr base::Duration kLinger = std::chrono::seconds(1);
constexpr std::uint32_t kMaxLingeredBytes = 1024 * 1024;

}  // namespace

ConsoleConnection::ConsoleConnection(ConsoleOwner& owner, std::uint64_t id, std::string listener,
                                     routing::ListenerTls tls, const routing::SocketAddress& peer, Instant now)
    : owner_(owner),
      id_(id),
      listener_(std::move(listener)),
      peer_(peer.to_string()),
      core_(owner, tls, now),
      side_(*this),
      began_(now) {}

ConsoleConnection::~ConsoleConnection() = default;

Instant ConsoleConnection::now() const {
  return base::from_hrtime(uv_hrtime());
}

bool ConsoleConnection::start(int fd) {
  if (!side_.socket.adopt(owner_.loop(), fd)) return false;
  side_.socket.want_read(true);
  return true;
}

void ConsoleConnection::on_result(StatementResult result) {
  if (stage_ != Stage::kServing) return;
  work_deadline_ = {};
  core_.on_result(std::move(result));
  pump();
}

void ConsoleConnection::stop() {
  if (stage_ != Stage::kServing) return begin_close();
  core_.on_stop();
  pump();
  begin_close();
}

void ConsoleConnection::drop() {
  end_ = to_word(ConsoleEnd::kRefused);
  end_reason_ = "too many connections that have not logged in: the oldest is dropped";
  begin_close();
}

void ConsoleConnection::check_deadline(Instant at) {
  const auto passed = [at](Instant deadline) { return deadline != Instant{} && at >= deadline; };
  if (stage_ == Stage::kClosing) return;
  if (stage_ == Stage::kLingering) {
    if (passed(linger_deadline_)) begin_close();
    return;
  }
  if (passed(write_deadline_) || passed(work_deadline_)) {
    end_ = to_word(ConsoleEnd::kClientError);
    end_reason_ = passed(write_deadline_) ? "the client takes nothing of its answer" : "no answer in time";
    return begin_close();
  }
  const auto due = core_.deadline();
  if (!due || at < *due) return;
  core_.on_deadline(at);
  pump();
  if (stage_ == Stage::kServing && side_.pending()) begin_close();  // it does not even take what it was told before
}

// ---- actions --------------------------------------------------------------------------------------------------------

/// Makes and sends until there is nothing to do, or the socket takes no more.
void ConsoleConnection::pump() {
  if (pumping_) return;  // an answer given inside execute(): the loop below goes on
  pumping_ = true;
  while (stage_ == Stage::kServing && !side_.pending()) {
    auto action = core_.poll_action(now());
    if (!action) break;
    perform(*action);
  }
  pumping_ = false;
  if (stage_ == Stage::kServing) side_.socket.want_read(!side_.pending() && core_.wants_input());
}

void ConsoleConnection::perform(ConsoleAction& action) {
  struct Visitor {
    ConsoleConnection& self;
    void operator()(ConsoleSend& send) const {
      const auto written = self.side_.write(base::as_bytes(send.bytes), self.owner_.scratch(), self.owner_.pool());
      if (written == Side::Write::kPending) self.write_deadline_ = self.now() + kWriteDeadline;
      if (written == Side::Write::kError) self.core_.on_error();
    }
    void operator()(ConsoleStartTls& start) const { self.start_tls(start); }
    void operator()(ConsoleLoggedIn&) const {
      log_record(LogLevel::kInfo, "console login",
                 {{"listener", self.listener_},
                  {"user", self.core_.user()},
                  {"client", self.peer_},
                  {"tls", self.tls_version_}});
    }
    void operator()(ConsoleExecute& execute) const {
      self.work_deadline_ = self.now() + kWorkDeadline;
      self.owner_.execute(self, execute.statement);
    }
    void operator()(ConsoleCount& count) const { self.owner_.count(count.outcome); }
    void operator()(ConsoleFinish& finish) const { self.finish(finish); }
  };
  std::visit(Visitor{*this}, action);
}

void ConsoleConnection::start_tls(const ConsoleStartTls& start) {
  auto context = owner_.server_tls();
  if (context == nullptr) return core_.on_tls_failed("no certificate is configured");
  side_.tls = protocol::TlsEngine::accept(std::move(context));
  if (!start.early.empty()) handshake(base::as_bytes(start.early));
}

void ConsoleConnection::handshake(base::Bytes encrypted) {
  protocol::TlsOutput output{owner_.scratch().wire, 0};
  const auto status = side_.tls->handshake(encrypted, output);
  if (output.size > 0 && side_.write_wire(output.filled(), owner_.pool()) == Side::Write::kError)
    return core_.on_error();
  if (status == protocol::TlsEngine::Status::kNeedInput) return;
  if (status != protocol::TlsEngine::Status::kOk) return core_.on_tls_failed(side_.tls->failure());
  side_.tls_ready = true;
  tls_version_ = side_.tls->version();
  core_.on_tls(side_.tls->endpoint_hash(), side_.tls->alpn_postgresql());
  // The startup packet often rides behind the client's Finished.
  protocol::TlsOutput more{owner_.scratch().wire, 0};
  const auto read = side_.tls->read({}, owner_.scratch().plain, more);
  if (more.size > 0) (void)side_.write_wire(more.filled(), owner_.pool());
  if (read.bytes > 0) core_.on_bytes({owner_.scratch().plain, read.bytes});
  if (read.status == protocol::TlsEngine::Status::kClosed) core_.on_eof();
  if (read.status == protocol::TlsEngine::Status::kFailed) core_.on_error();
}

// ---- the socket -----------------------------------------------------------------------------------------------------

void ConsoleConnection::on_readable(Socket&) {
  if (stage_ == Stage::kLingering) return linger_readable();
  if (stage_ != Stage::kServing) return;
  if (side_.tls != nullptr && !side_.tls_ready) {
    const auto io = side_.socket.receive(owner_.scratch().read);
    if (io.bytes > 0) handshake({owner_.scratch().read, io.bytes});
    if (io.bytes == 0 && (io.eof || io.error != 0)) core_.on_eof();
    return pump();
  }
  const auto read = side_.read(owner_.scratch(), owner_.pool());
  if (read.blocked) return;
  if (!read.plain.empty()) core_.on_bytes(read.plain);
  pump();
  if (stage_ != Stage::kServing) return;
  if (read.failed) {
    core_.on_error();
  } else if (read.eof) {
    core_.on_eof();
  }
  pump();
}

void ConsoleConnection::on_writable(Socket&) {
  if (stage_ == Stage::kClosing) return;
  const bool was_pending = side_.pending();
  const auto written = side_.flush();
  if (written == Side::Write::kPending) {
    write_deadline_ = now() + kWriteDeadline;
    return;
  }
  write_deadline_ = {};
  if (stage_ == Stage::kLingering) {
    if (written == Side::Write::kError) return begin_close();
    if (was_pending) linger();
    return;
  }
  if (written == Side::Write::kError) core_.on_error();
  pump();
}

// ---- the end --------------------------------------------------------------------------------------------------------

void ConsoleConnection::finish(const ConsoleFinish& finish) {
  end_ = to_word(finish.end);
  end_reason_ = finish.reason;
  if (finish.end == ConsoleEnd::kClientClosed || finish.end == ConsoleEnd::kClientError) return begin_close();
  linger();
}

/// The last words have been written: close_notify, FIN, and a moment for the client to read them. A close with unread
/// input would send a reset, and a reset may overtake the last words.
void ConsoleConnection::linger() {
  stage_ = Stage::kLingering;
  linger_deadline_ = now() + kLinger;
  side_.say_goodbye(owner_.scratch(), owner_.pool());
  if (side_.pending()) return side_.socket.want_read(false);
  side_.socket.shutdown_write();
  side_.socket.want_read(true);
}

void ConsoleConnection::linger_readable() {
  const auto io = side_.socket.receive(owner_.scratch().read);
  lingered_bytes_ += static_cast<std::uint32_t>(io.bytes);
  if (io.eof || io.error != 0 || lingered_bytes_ > kMaxLingeredBytes) begin_close();
}

void ConsoleConnection::begin_close() {
  if (stage_ == Stage::kClosing) return;
  stage_ = Stage::kClosing;
  side_.socket.close();
  // A connection that never said who it is may be a health check: not worth a line at info.
  const LogLevel level = core_.user().empty() && end_reason_.empty() ? LogLevel::kDebug : LogLevel::kInfo;
  std::vector<LogField> fields = {{"listener", listener_},
                                  {"user", core_.user()},
                                  {"client", peer_},
                                  {"end", end_.empty() ? std::string(to_word(ConsoleEnd::kStopped)) : end_}};
  if (!end_reason_.empty()) fields.push_back({"reason", end_reason_, 512});
  if (!tls_version_.empty()) fields.push_back({"tls", tls_version_});
  log_record(level, "console connection ended", fields);
}

void ConsoleConnection::on_closed(Socket&) {
  owner_.on_gone(*this);
}

}  // namespace pointsman::proxy
