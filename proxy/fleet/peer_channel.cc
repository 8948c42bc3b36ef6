#include "proxy/fleet/peer_channel.h"

#include <cstring>
#include <utility>

#include "base/check.h"
#include "proxy/monitor/uv_handles.h"

namespace pointsman::proxy {

namespace {

constexpr unsigned kKeepaliveSeconds = 15;
constexpr unsigned kUserTimeoutMs = 5'000;

}  // namespace

PeerChannel::PeerChannel(PeerContext& context, Owner& owner, std::uint64_t id, const routing::SocketAddress& peer,
                         base::Instant now)
    : context_(context), owner_(owner), id_(id), peer_(peer), side_(*this), began_(now), used_at_(now) {}

bool PeerChannel::accept(int fd, std::shared_ptr<const protocol::ServerTlsContext> tls) {
  if (!side_.socket.adopt(*context_.loop, fd)) return false;
  side_.tls = protocol::TlsEngine::accept(std::move(tls));
  stage_ = Stage::kHandshake;
  side_.socket.want_read(true);
  return true;
}

bool PeerChannel::connect(std::shared_ptr<const protocol::ClientTlsContext> tls) {
  client_tls_ = std::move(tls);
  return side_.socket.connect(*context_.loop, &peer_.base, peer_.size, kKeepaliveSeconds, kUserTimeoutMs) == 0;
}

void PeerChannel::check_deadline(base::Instant now) {
  if (stage_ == Stage::kClosed) return;
  if (stage_ != Stage::kReady && now >= began_ + kPeerHandshake) {
    return close(stage_ == Stage::kConnecting  ? "the connection was not accepted in time"
                 : stage_ == Stage::kHandshake ? "the TLS handshake was not done in time"
                                               : "no Hello came in time");
  }
  if (write_deadline_ != base::Instant{} && now >= write_deadline_) close("it takes nothing of what it is sent");
}

void PeerChannel::close(std::string_view why) {
  if (stage_ == Stage::kClosed) return;
  if (stage_ == Stage::kReady) side_.say_goodbye(context_.scratch(), context_.pool);
  stage_ = Stage::kClosed;
  side_.socket.close();
  owner_.on_peer_lost(*this, why);
}

void PeerChannel::on_closed(Socket&) {
  owner_.on_peer_gone(*this);
}

void PeerChannel::on_writable(Socket& socket) {
  if (stage_ == Stage::kClosed) return;
  if (stage_ != Stage::kConnecting) return wrote(side_.flush());
  if (const int error = socket.connect_error(); error != 0) return close(std::strerror(error));
  stage_ = Stage::kHandshake;
  socket.want_write(false);
  socket.want_read(true);
  side_.tls = protocol::TlsEngine::connect(std::exchange(client_tls_, nullptr), "");
  handshake({});
}

void PeerChannel::handshake(base::Bytes encrypted) {
  protocol::TlsOutput output{context_.scratch().wire, 0};
  const auto status = side_.tls->handshake(encrypted, output);
  if (output.size > 0) wrote(side_.write_wire(output.filled(), context_.pool));
  if (stage_ == Stage::kClosed || status == protocol::TlsEngine::Status::kNeedInput) return;
  // Mostly: the other side's secret_file has not our secret.
  if (status != protocol::TlsEngine::Status::kOk) return close("TLS: " + side_.tls->failure());
  side_.tls_ready = true;
  stage_ = Stage::kHello;
  send(print_frame(PeerHello{kPeerVersion, context_.router}));
  if (stage_ == Stage::kClosed) return;
  // The other side's Hello often rides behind its Finished.
  protocol::TlsOutput more{context_.scratch().wire, 0};
  const auto early = side_.tls->read({}, context_.scratch().plain, more);
  if (more.size > 0) wrote(side_.write_wire(more.filled(), context_.pool));
  if (early.bytes > 0) take({context_.scratch().plain, early.bytes});
  if (early.status == protocol::TlsEngine::Status::kClosed) return close("it hung up");
  if (early.status == protocol::TlsEngine::Status::kFailed) close("TLS: " + side_.tls->failure());
}

void PeerChannel::on_readable(Socket& socket) {
  if (stage_ == Stage::kConnecting || stage_ == Stage::kClosed) return;
  if (stage_ == Stage::kHandshake) {
    const auto io = socket.receive(context_.scratch().read);
    if (io.would_block) return;
    if (io.bytes == 0) return close(io.eof ? "it hung up during the TLS handshake" : std::strerror(io.error));
    return handshake({context_.scratch().read, io.bytes});
  }
  const auto read = side_.read(context_.scratch(), context_.pool);
  if (read.blocked) return;
  take(read.plain);
  if (stage_ == Stage::kClosed) return;
  if (read.failed) return close(read.error != 0 ? std::strerror(read.error) : "TLS: " + side_.tls->failure());
  if (read.eof) close("it hung up");
}

void PeerChannel::take(base::Bytes plain) {
  reader_.add(plain);
  while (stage_ != Stage::kClosed) {
    const auto frame = reader_.next();
    if (!frame) break;
    if (const auto* hello = std::get_if<PeerHello>(&*frame)) {
      if (stage_ == Stage::kReady) return close("a second Hello");
      stage_ = Stage::kReady;
      owner_.on_peer_hello(*this, *hello);
      continue;
    }
    if (stage_ != Stage::kReady) return close("no Hello at first");
    used_at_ = loop_clock();
    if (const auto* ask = std::get_if<PeerAsk>(&*frame)) owner_.on_peer_ask(*this, *ask);
    if (const auto* answer = std::get_if<PeerAnswer>(&*frame)) owner_.on_peer_answer(*this, *answer);
  }
  if (stage_ != Stage::kClosed && !reader_.fault().empty()) close(reader_.fault());
}

void PeerChannel::send(std::string_view frame) {
  if (stage_ == Stage::kClosed) return;
  POINTSMAN_CHECK(stage_ == Stage::kHello || stage_ == Stage::kReady);
  used_at_ = loop_clock();
  wrote(side_.write(base::as_bytes(frame), context_.scratch(), context_.pool));
}

void PeerChannel::wrote(Side::Write written) {
  if (written == Side::Write::kError) return close("the connection broke");
  if (written == Side::Write::kDone) {
    write_deadline_ = {};
  } else if (write_deadline_ == base::Instant{}) {
    write_deadline_ = loop_clock() + kPeerWrite;
  }
}

}  // namespace pointsman::proxy
