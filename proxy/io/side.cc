#include "proxy/io/side.h"

#include <cstring>

namespace pointsman::proxy {

Side::Write Side::write(base::Bytes plain, Scratch& scratch, BufferPool& pool) {
  if (tls == nullptr) return write_wire(plain, pool);
  protocol::TlsOutput output{scratch.wire, 0};
  if (!tls->write(plain, output)) return Write::kError;
  return write_wire(output.filled(), pool);
}

Side::Write Side::write_wire(base::Bytes wire, BufferPool& pool) {
  if (rest_ == nullptr) [[likely]] {
    const auto io = socket.send(wire);
    if (io.bytes == wire.size()) [[likely]]
      return Write::kDone;
    if (io.error != 0) return Write::kError;
    wire = wire.subspan(io.bytes);
    rest_ = pool.lease();
    socket.want_write(true);
  }
  // One block a side: what does not fit is a peer that floods while it does not read (TLS key updates can do that).
  if (kWireSize - rest_->end < wire.size()) {
    std::memmove(rest_->data, rest_->data + rest_->begin, rest_->end - rest_->begin);
    rest_->end -= rest_->begin;
    rest_->begin = 0;
    if (kWireSize - rest_->end < wire.size()) return Write::kError;
  }
  std::memcpy(rest_->data + rest_->end, wire.data(), wire.size());
  rest_->end += wire.size();
  return Write::kPending;
}

Side::Write Side::flush() {
  if (rest_ == nullptr) return Write::kDone;
  const auto io = socket.send({rest_->data + rest_->begin, rest_->end - rest_->begin});
  if (io.error != 0) return Write::kError;
  rest_->begin += io.bytes;
  if (rest_->begin < rest_->end) return Write::kPending;
  rest_.reset();
  socket.want_write(false);
  return Write::kDone;
}

Side::Read Side::read(Scratch& scratch, BufferPool& pool) {
  Read result;
  const auto io = socket.receive(scratch.read);
  result.full = io.bytes == kReadSize;
  result.blocked = io.would_block;
  result.eof = io.eof;
  result.failed = io.error != 0;
  result.error = io.error;
  result.plain = base::Bytes(scratch.read, io.bytes);
  if (tls == nullptr || io.bytes == 0) return result;

  protocol::TlsOutput output{scratch.wire, 0};
  const auto decrypted = tls->read(result.plain, scratch.plain, output);
  result.plain = base::Bytes(scratch.plain, decrypted.bytes);
  if (decrypted.status == protocol::TlsEngine::Status::kClosed) result.eof = true;
  if (decrypted.status == protocol::TlsEngine::Status::kFailed) result.failed = true;
  if (output.size > 0 && write_wire(output.filled(), pool) == Write::kError) result.failed = true;
  return result;
}

void Side::say_goodbye(Scratch& scratch, BufferPool& pool) {
  if (tls == nullptr || !tls_ready || said_goodbye_ || !socket.open()) return;
  said_goodbye_ = true;
  protocol::TlsOutput output{scratch.wire, 0};
  tls->shutdown(output);
  if (output.size > 0) (void)write_wire(output.filled(), pool);
}

}  // namespace pointsman::proxy
