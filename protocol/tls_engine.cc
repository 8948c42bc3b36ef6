#include "protocol/tls_engine.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "protocol/openssl_error.h"
#include "protocol/postgres_format.h"

namespace pointsman::protocol {

struct TlsEngine::Io {
  base::Bytes input;            ///< what the call under way has not yet consumed
  TlsOutput* output = nullptr;  ///< set during a call only
  bool overflow = false;        ///< the output had no room: the connection is given up
  bool established = false;
  bool failed = false;
  std::size_t handshake_input = 0;  ///< bytes given to handshake() so far
  std::vector<base::Byte> early;    ///< records that came behind the handshake's last, until the first read()
};

namespace {

enum class Wait { kInput, kClosed, kFailed };

/// Why a call of OpenSSL's did not succeed. A BIO without room for output counts as a failure.
Wait judge(const SSL* ssl, int result) {
  switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
      return Wait::kInput;
    case SSL_ERROR_ZERO_RETURN:
      return Wait::kClosed;
    default:
      return Wait::kFailed;
  }
}

/// SSL_set_tlsext_host_name() without its C casts.
bool send_name(SSL* ssl, const std::string& name) {
  return SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(name.c_str())) == 1;
}

bool is_address(const std::string& name) {
  in6_addr buffer{};
  return ::inet_pton(AF_INET, name.c_str(), &buffer) == 1 || ::inet_pton(AF_INET6, name.c_str(), &buffer) == 1;
}

/// The name or address that the peer's certificate must bear.
bool expect_name(SSL* ssl, const std::string& name, bool address) {
  X509_VERIFY_PARAM* const parameters = SSL_get0_param(ssl);
  if (address) return X509_VERIFY_PARAM_set1_ip_asc(parameters, name.c_str()) == 1;
  X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  // With its size: a name with a zero byte is refused, not cut.
  return X509_VERIFY_PARAM_set1_host(parameters, name.data(), name.size()) == 1;
}

}  // namespace

// ---- the BIO: OpenSSL's socket is the span and the buffer of the call under way -----------------------------------

// A struct, for access to the private Io.
struct TlsEngine::SpanBio {
  static int read(BIO* bio, char* data, std::size_t room, std::size_t* got) {
    auto& io = *static_cast<Io*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (io.input.empty()) {
      BIO_set_retry_read(bio);
      return 0;
    }
    const auto count = std::min(room, io.input.size());
    std::memcpy(data, io.input.data(), count);
    io.input = io.input.subspan(count);
    *got = count;
    return 1;
  }

  static int write(BIO* bio, const char* data, std::size_t size, std::size_t* written) {
    auto& io = *static_cast<Io*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (io.output == nullptr || io.output->buffer.size() - io.output->size < size) {
      io.overflow = true;
      return 0;
    }
    std::memcpy(io.output->buffer.data() + io.output->size, data, size);
    io.output->size += size;
    *written = size;
    return 1;
  }

  static long control(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }

  static int create(BIO* bio) {
    BIO_set_init(bio, 1);
    return 1;
  }

  /// Made once, by whichever thread comes first; lives as long as the process.
  static const BIO_METHOD* method() {
    static const BIO_METHOD* const made = [] {
      BIO_METHOD* const fresh = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "caller's span");
      POINTSMAN_CHECK(fresh != nullptr);
      BIO_meth_set_read_ex(fresh, &read);
      BIO_meth_set_write_ex(fresh, &write);
      BIO_meth_set_ctrl(fresh, &control);
      BIO_meth_set_create(fresh, &create);
      return fresh;
    }();
    return made;
  }
};

/// Lends span and buffer to the BIO for the length of one call, and clears the error queue before it.
struct TlsEngine::Loan {
  Loan(Io& lender, base::Bytes input, TlsOutput& output) : io(lender) {
    io.input = input;
    io.output = &output;
    clear_openssl_errors();
  }
  ~Loan() {
    io.input = {};
    io.output = nullptr;
  }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;

  Io& io;
};

// ---- making --------------------------------------------------------------------------------------------------------

TlsEngine::TlsEngine() : io_(std::make_unique<Io>()) {}

TlsEngine::~TlsEngine() {
  SSL_free(ssl_);
}

void TlsEngine::attach(ssl_ctx_st* context) {
  ssl_ = SSL_new(context);
  BIO* const bio = ssl_ == nullptr ? nullptr : BIO_new(SpanBio::method());
  if (bio == nullptr) {
    fail("no memory for a TLS connection");
    return;
  }
  BIO_set_data(bio, io_.get());
  SSL_set_bio(ssl_, bio, bio);
}

std::unique_ptr<TlsEngine> TlsEngine::accept(std::shared_ptr<const ServerTlsContext> context) {
  std::unique_ptr<TlsEngine> engine(new TlsEngine);
  clear_openssl_errors();
  engine->attach(context->native());
  engine->server_context_ = std::move(context);
  if (!engine->io_->failed) SSL_set_accept_state(engine->ssl_);
  return engine;
}

std::unique_ptr<TlsEngine> TlsEngine::connect(std::shared_ptr<const ClientTlsContext> context,
                                              const std::string& server_name) {
  std::unique_ptr<TlsEngine> engine(new TlsEngine);
  clear_openssl_errors();
  engine->attach(context->native());
  engine->client_context_ = std::move(context);
  if (engine->io_->failed) return engine;
  SSL_set_connect_state(engine->ssl_);

  // OpenSSL takes an empty name for "verify none", so it must not come this far.
  const bool must_match = engine->client_context_->mode() == BackendTlsMode::kVerifyFull;
  POINTSMAN_CHECK(!must_match || !server_name.empty());
  // "example.org." is example.org, but neither SNI (RFC 6066, section 3) nor certificates know the dot.
  const std::string name = server_name.ends_with('.') ? server_name.substr(0, server_name.size() - 1) : server_name;
  const bool address = is_address(name);
  if (must_match && (name.empty() || !expect_name(engine->ssl_, name, address))) {
    engine->fail("the server name cannot be verified");
  } else if (!address && !name.empty() && !send_name(engine->ssl_, name)) {
    engine->fail("the server name cannot be sent: " + take_openssl_error("unknown error"));
  }
  return engine;
}

// ---- running -------------------------------------------------------------------------------------------------------

TlsEngine::Status TlsEngine::fail(std::string reason) {
  io_->failed = true;
  failure_ = std::move(reason);
  return Status::kFailed;
}

TlsEngine::Status TlsEngine::fail_from_openssl() {
  const long verdict = SSL_get_verify_result(ssl_);
  std::string reason = take_openssl_error("connection broken");
  if (io_->overflow) {
    reason = "output buffer full";
  } else if (client_context_ != nullptr && verdict != X509_V_OK && SSL_get_verify_mode(ssl_) != SSL_VERIFY_NONE) {
    reason += std::string(": ") + X509_verify_cert_error_string(verdict);
  }
  return fail(std::move(reason));
}

TlsEngine::Status TlsEngine::handshake(base::Bytes encrypted, TlsOutput& output) {
  if (io_->failed) return Status::kFailed;
  POINTSMAN_CHECK(!io_->established);
  if (server_context_ != nullptr) {
    // OpenSSL takes 64 KiB as soon as it is called: not for a client that has sent nothing. It would also take a
    // ClientHello of 128 KiB.
    if (encrypted.empty()) return Status::kNeedInput;
    io_->handshake_input += encrypted.size();
    if (io_->handshake_input > kMaxTlsHandshakeInput) return fail("TLS handshake is too long");
  }
  const Loan loan(*io_, encrypted, output);
  const int result = SSL_do_handshake(ssl_);
  if (result == 1) {
    if (io_->input.size() > kTlsRecordPlain) return fail("too much data behind the TLS handshake");
    io_->early.assign(io_->input.begin(), io_->input.end());
    // One BIO read per record in place of two, for header and body. Not before: it would hide early records in
    // OpenSSL's buffer.
    SSL_set_read_ahead(ssl_, 1);
    io_->established = true;
    return Status::kOk;
  }
  switch (judge(ssl_, result)) {
    case Wait::kInput:
      return Status::kNeedInput;
    case Wait::kClosed:
      return fail("closed during the TLS handshake");
    case Wait::kFailed:
      break;
  }
  return fail_from_openssl();
}

TlsEngine::Read TlsEngine::read(base::Bytes encrypted, base::MutableBytes plain, TlsOutput& output) {
  if (io_->failed) return {Status::kFailed, 0};
  POINTSMAN_CHECK(io_->established);
  POINTSMAN_CHECK(plain.size() >= encrypted.size() + kTlsRecordPlain);
  Read early;
  if (!io_->early.empty()) [[unlikely]] {
    const auto records = std::move(io_->early);
    io_->early = {};
    early = drain(records, plain, output);
    if (early.status == Status::kClosed || early.status == Status::kFailed) return early;
  }
  auto rest = drain(encrypted, plain.subspan(early.bytes), output);
  rest.bytes += early.bytes;
  if (rest.status == Status::kNeedInput && rest.bytes > 0) rest.status = Status::kOk;
  return rest;
}

TlsEngine::Read TlsEngine::drain(base::Bytes encrypted, base::MutableBytes plain, TlsOutput& output) {
  const Loan loan(*io_, encrypted, output);
  std::size_t filled = 0;
  auto status = Status::kNeedInput;
  // Another SSL_read just to hear "no more" would cost as much as decrypting a short record.
  while (status == Status::kNeedInput && (!io_->input.empty() || SSL_has_pending(ssl_) != 0)) {
    // The room that read() requires is never used up; a caller's arithmetic must not become an endless loop all the
    // same.
    POINTSMAN_CHECK(filled < plain.size());
    std::size_t got = 0;
    const int result = SSL_read_ex(ssl_, plain.data() + filled, plain.size() - filled, &got);
    filled += got;
    if (result == 1) continue;
    const auto wait = judge(ssl_, result);
    if (wait == Wait::kInput) break;
    status = wait == Wait::kClosed ? Status::kClosed : fail_from_openssl();
  }
  // OpenSSL keeps a warning that it could not send and says nothing: a peer that provokes so many of them in one read
  // is not spoken to any longer.
  if (io_->overflow && status != Status::kFailed) status = fail_from_openssl();
  return {status, filled};
}

bool TlsEngine::write(base::Bytes plain, TlsOutput& output) {
  if (io_->failed) return false;
  POINTSMAN_CHECK(io_->established);
  POINTSMAN_CHECK(output.buffer.size() - output.size >= tls_output_room(plain.size()));
  if (plain.empty()) return true;
  const Loan loan(*io_, {}, output);
  std::size_t written = 0;
  if (SSL_write_ex(ssl_, plain.data(), plain.size(), &written) == 1) return true;
  fail_from_openssl();
  return false;
}

void TlsEngine::shutdown(TlsOutput& output) {
  if (io_->failed || !io_->established || (SSL_get_shutdown(ssl_) & SSL_SENT_SHUTDOWN) != 0) return;
  const Loan loan(*io_, {}, output);
  // 0: ours is sent, the peer's has not come. Nobody waits for it: PostgreSQL's own Terminate has gone before.
  if (SSL_shutdown(ssl_) < 0) clear_openssl_errors();
}

void TlsEngine::release_buffers() {
  if (ssl_ != nullptr && io_->established) SSL_free_buffers(ssl_);
}

// ---- what was agreed -----------------------------------------------------------------------------------------------

bool TlsEngine::alpn_postgresql() const {
  const unsigned char* name = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl_, &name, &size);
  return base::as_text({name, size}) == kAlpnPostgresql;
}

const char* TlsEngine::version() const {
  return SSL_get_version(ssl_);
}

bool TlsEngine::resumed() const {
  return SSL_session_reused(ssl_) == 1;
}

std::string TlsEngine::sni() const {
  const char* const name = SSL_get_servername(ssl_, TLSEXT_NAMETYPE_host_name);
  return name == nullptr ? std::string() : std::string(name);
}

std::string TlsEngine::endpoint_hash() const {
  if (server_context_ != nullptr) return server_context_->endpoint_hash();
  const X509* const certificate = SSL_get0_peer_certificate(ssl_);
  return certificate == nullptr ? std::string() : certificate_endpoint_hash(certificate);
}

}  // namespace pointsman::protocol
