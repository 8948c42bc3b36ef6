#pragma once
// One side of one TLS connection as a codec: encrypted bytes in and out of the caller's buffers, no socket.
// Single-threaded.
//
//   encrypted in ──► handshake()/read() ──► plain out          plain in ──► write() ──► encrypted out (TlsOutput)
//
// Input is always consumed whole: OpenSSL reads straight from the caller's span, and what is less than a record stays
// inside OpenSSL, bounded by one record. Output goes straight into the caller's buffer: no memory BIO, no copy between.
// OpenSSL's error queue is cleared before each call and read right behind it.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "protocol/tls_context.h"

struct ssl_st;

namespace pointsman::protocol {

/// Plain text of one read's worth of records never exceeds its encrypted size plus one carried-over record (16 KiB +
/// overhead).
inline constexpr std::size_t kTlsRecordPlain = 16 * 1024;
inline constexpr std::size_t kTlsRecordOverhead = 256;
/// Room that `write()` needs for `plain` bytes: the bytes, the records' overhead, and an alert or a key update.
constexpr std::size_t tls_output_room(std::size_t plain) {
  return plain + (plain / kTlsRecordPlain + 2) * kTlsRecordOverhead + 512;
}

/// Room for what one call of handshake() puts out: the whole flight with a chain of kMaxTlsChain bytes. An output
/// without room makes the call fail, it is never overrun.
inline constexpr std::size_t kTlsHandshakeRoom = 32 * 1024;

/// What a client may send until its handshake is done, early records included: all a stranger can make OpenSSL keep.
inline constexpr std::size_t kMaxTlsHandshakeInput = 48 * 1024;

/// A caller's buffer that encrypted bytes are appended to.
struct TlsOutput {
  base::MutableBytes buffer;
  std::size_t size = 0;  ///< bytes appended so far

  base::Bytes filled() const { return buffer.first(size); }
};

class TlsEngine {
 public:
  enum class Status : std::uint8_t {
    kOk,         ///< handshake done, or bytes read and everything given used
    kNeedInput,  ///< everything given was used and made no plain byte; more must arrive
    kClosed,     ///< the peer sent close_notify; during the handshake that is a failure
    kFailed,     ///< failure() says why; an alert may be in the output: send it, then close
  };

  /// Never null: when OpenSSL cannot make a connection, the first handshake() fails and failure() says why.
  static std::unique_ptr<TlsEngine> accept(std::shared_ptr<const ServerTlsContext> context);
  /// `server_name` is sent as SNI when it is a host name, and verified (name or address) when the context's mode is
  /// verify-full. The settings' ALPN protocol is offered (`postgresql` is allowed also behind an SSLRequest). Requires:
  /// a name when the mode is verify-full.
  static std::unique_ptr<TlsEngine> connect(std::shared_ptr<const ClientTlsContext> context,
                                            const std::string& server_name);
  ~TlsEngine();
  TlsEngine(const TlsEngine&) = delete;
  TlsEngine& operator=(const TlsEngine&) = delete;

  /// Goes on with the handshake. `encrypted` is consumed whole; bytes that follow the handshake (early application
  /// records, 16 KiB at most) are kept in the engine: call read() with an empty span after kOk. For a client, the first
  /// call is made with an empty span. Requires: kOk was not returned before; output has kTlsHandshakeRoom left.
  Status handshake(base::Bytes encrypted, TlsOutput& output);

  struct Read {
    Status status = Status::kNeedInput;
    std::size_t bytes = 0;  ///< plain bytes placed; can be above 0 with any status but kNeedInput
  };
  /// Decrypts: feeds `encrypted` (whole) and fills `plain` until no whole record is left. Requires: handshake done, and
  /// `plain` has room for encrypted.size() + kTlsRecordPlain bytes, output has tls_output_room(0) left (alerts, a key
  /// update). Call it no more after kClosed.
  Read read(base::Bytes encrypted, base::MutableBytes plain, TlsOutput& output);

  /// Encrypts all of `plain`. Requires: handshake done; output has tls_output_room(plain.size()) left. False:
  /// failure().
  bool write(base::Bytes plain, TlsOutput& output);

  /// Appends close_notify (once); no write() after it. No effect before the handshake is done, and after a failure, of
  /// which an alert has told.
  void shutdown(TlsOutput& output);

  /// Gives OpenSSL's record buffers back while the connection is quiet; they return by themselves. No effect in
  /// mid-record.
  void release_buffers();

  // After the handshake:
  /// ALPN agreed is `postgresql`.
  bool alpn_postgresql() const;
  /// "TLSv1.2", "TLSv1.3".
  const char* version() const;
  bool resumed() const;
  /// Server side: the name the client asked for; empty if none. At most 255 bytes, as the client sent it: never a path,
  /// label or raw log field.
  std::string sni() const;
  /// Server side: ServerTlsContext::endpoint_hash() of this handshake's certificate. Client side: of the peer's
  /// certificate.
  std::string endpoint_hash() const;

  /// OpenSSL's words for the log; certificate errors name the verification result. Never shown to a client.
  const std::string& failure() const { return failure_; }

 private:
  struct Io;  // span and output of the call under way, seen by the BIO
  struct SpanBio;
  struct Loan;
  TlsEngine();

  void attach(ssl_ctx_st* context);
  Read drain(base::Bytes encrypted, base::MutableBytes plain, TlsOutput& output);
  Status fail(std::string reason);
  Status fail_from_openssl();

  std::unique_ptr<Io> io_;
  ssl_st* ssl_ = nullptr;
  std::shared_ptr<const ServerTlsContext> server_context_;
  std::shared_ptr<const ClientTlsContext> client_context_;
  std::string failure_;
};

}  // namespace pointsman::protocol
