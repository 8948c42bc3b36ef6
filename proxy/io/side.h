#pragma once
// One connection to a peer: a socket, perhaps TLS around it, and the bytes it has not taken yet. The buffers of a read
// or a write belong to the loop's owner and are lent for the length of a call. One thread.

#include <memory>

#include "protocol/tls_engine.h"
#include "proxy/io/buffer_pool.h"
#include "proxy/io/socket.h"

namespace pointsman::proxy {

/// A loop's scratch memory: valid during one call only.
struct Scratch {
  // On cache lines: the kernel's copies of whole buffers are measurably dearer elsewhere.
  alignas(64) base::Byte read[kReadSize];    // as it came from a socket
  alignas(64) base::Byte plain[kPlainSize];  // decrypted
  alignas(64) base::Byte wire[kWireSize];    // encrypted
};

class Side {
 public:
  explicit Side(SocketOwner& owner) : socket(owner) {}

  enum class Write : std::uint8_t {
    kDone,     ///< the kernel has it all
    kPending,  ///< a rest waits for the socket; nothing more may be read from the other side
    kError,    ///< the socket or TLS failed
  };
  /// Sends plain bytes (at most kPlainSize), encrypted if TLS is up. While a rest waits, more is taken as long as it
  /// fits the one block.
  Write write(base::Bytes plain, Scratch& scratch, BufferPool& pool);
  /// Sends bytes of the TLS engine itself (handshake, alert, key update).
  Write write_wire(base::Bytes wire, BufferPool& pool);
  /// The socket is writable: sends the rest.
  Write flush();
  bool pending() const { return rest_ != nullptr; }

  struct Read {
    base::Bytes plain;     ///< in the scratch memory
    bool full = false;     ///< the socket had at least a whole buffer: there may be more
    bool blocked = false;  ///< nothing there
    bool eof = false;      ///< FIN or close_notify
    bool failed = false;   ///< reset, or TLS failure (failure())
    int error = 0;         ///< errno of a socket failure
  };
  /// One receive, decrypted if TLS is up. `eof` and `failed` can come with bytes.
  Read read(Scratch& scratch, BufferPool& pool);

  /// A new connection begins: nothing of the old one may reach it.
  void forget_peer() {
    rest_.reset();
    tls.reset();
    tls_ready = said_goodbye_ = false;
  }

  /// Appends close_notify where TLS is up. Once.
  void say_goodbye(Scratch& scratch, BufferPool& pool);

  Socket socket;
  std::unique_ptr<protocol::TlsEngine> tls;  // null: plain
  bool tls_ready = false;                    // handshake done

 private:
  BufferPool::Lease rest_;
  bool said_goodbye_ = false;
};

}  // namespace pointsman::proxy
