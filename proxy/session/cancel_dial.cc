#include "proxy/session/cancel_dial.h"

#include "protocol/startup.h"
#include "proxy/server/worker.h"

namespace pointsman::proxy {

namespace {
/// From the dial to the backend's hang-up.
constexpr base::Duration kCancelTimeout = std::chrono::seconds(5);
}  // namespace

CancelDial::CancelDial(Worker& worker, CancelTarget target)
    : worker_(worker), target_(std::move(target)), side_(*this) {}
CancelDial::~CancelDial() {
  base::wipe(target_.secret.data(), target_.secret.size());
}

void CancelDial::start() {
  worker_.wheel().arm(*this, base::from_hrtime(uv_hrtime()) + kCancelTimeout);
  if (side_.socket.connect(worker_.loop(), &target_.address.base, target_.address.size, 0, 0) != 0) finish(false);
}

void CancelDial::on_writable(Socket& socket) {
  if (connecting_) {
    connecting_ = false;
    if (socket.connect_error() != 0) {
      finish(false);
      return;
    }
    socket.want_write(false);
    socket.want_read(true);
    if (target_.tls == nullptr) {
      send_request();
    } else {
      awaiting_tls_answer_ = true;
      if (side_.write_wire(base::as_bytes(protocol::build_ssl_request()), worker_.pool()) == Side::Write::kError)
        finish(false);
    }
    return;
  }
  if (side_.flush() == Side::Write::kError) finish(false);
}

void CancelDial::on_readable(Socket& socket) {
  if (finished_) return;
  if (connecting_) {
    finish(false);
    return;
  }
  if (awaiting_tls_answer_) {
    base::Byte answer[2];
    const auto io = socket.receive(answer);
    if (io.would_block) return;
    awaiting_tls_answer_ = false;
    if (io.bytes != 1 || answer[0] != 'S') {
      finish(false);
      return;
    }
    side_.tls = protocol::TlsEngine::connect(target_.tls, target_.server_name);
    handshake({});
    return;
  }
  const auto io = socket.receive(worker_.scratch().read);
  if (io.would_block) return;
  if (side_.tls != nullptr && !side_.tls_ready && io.bytes > 0) {
    handshake({worker_.scratch().read, io.bytes});
    return;
  }
  // The backend never answers a CancelRequest: its end is the answer.
  if (io.eof || io.error != 0) finish(sent_);
}

void CancelDial::handshake(base::Bytes encrypted) {
  protocol::TlsOutput output{worker_.scratch().wire, 0};
  const auto status = side_.tls->handshake(encrypted, output);
  if (output.size > 0 && side_.write_wire(output.filled(), worker_.pool()) == Side::Write::kError) {
    finish(false);
    return;
  }
  if (status == protocol::TlsEngine::Status::kNeedInput) return;
  if (status != protocol::TlsEngine::Status::kOk) {
    finish(false);
    return;
  }
  side_.tls_ready = true;
  send_request();
}

void CancelDial::send_request() {
  sent_ = true;
  if (side_.write(base::as_bytes(protocol::build_cancel_request(target_.pid, target_.secret)), worker_.scratch(),
                  worker_.pool()) == Side::Write::kError) {
    finish(false);
  }
}

void CancelDial::on_deadline(base::Instant) {
  finish(sent_);
}

void CancelDial::finish(bool sent) {
  if (finished_) return;
  finished_ = true;
  worker_.wheel().disarm(*this);
  worker_.cancels().dial_done(*this, sent);
  if (side_.socket.busy()) {
    side_.socket.close();
  } else {
    worker_.cancels().forget(*this);
  }
}

void CancelDial::on_closed(Socket&) {
  worker_.cancels().forget(*this);
}

}  // namespace pointsman::proxy
