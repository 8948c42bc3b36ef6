#include "proxy/discovery/http_client.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/write.hpp>

#include "base/check.h"

namespace pointsman::proxy {
namespace {

namespace http = boost::beast::http;
using boost::beast::error_code;

constexpr std::uint32_t kMaxHeader = 16 * 1024;
/// A body that says why a stream was refused.
constexpr std::size_t kMaxRefusal = 64 * 1024;
/// A peer that vanishes while a stream is quiet is found by TCP: idle time, then three probes of a third of it.
constexpr unsigned kKeepaliveSeconds = 15;
constexpr unsigned kUserTimeoutMs = 20'000;

std::string host_field(const routing::HttpUrl& url) {
  const bool ipv6 = url.host.find(':') != std::string::npos;
  const std::string host = ipv6 ? "[" + url.host + "]" : url.host;
  const bool usual = url.port == (url.tls ? 443 : 80);
  return usual ? host : host + ":" + std::to_string(url.port);
}

std::string print_request(const HttpQuery& query) {
  http::request<http::empty_body> request;
  request.version(11);
  request.method(http::verb::get);
  request.target(query.url.path + query.target);
  request.set(http::field::host, host_field(query.url));
  request.set(http::field::user_agent, "pointsman");
  request.set(http::field::accept, "application/json");
  request.set(http::field::connection, "close");
  if (!query.bearer.empty()) request.set(http::field::authorization, "Bearer " + query.bearer.reveal());
  http::request_serializer<http::empty_body> serializer(request);
  std::string text;
  error_code error;
  while (!error && !serializer.is_done()) {
    serializer.next(error, [&](error_code&, const auto& buffers) {
      std::size_t bytes = 0;
      for (auto it = boost::asio::buffer_sequence_begin(buffers); it != boost::asio::buffer_sequence_end(buffers);
           ++it) {
        const boost::asio::const_buffer part = *it;
        text.append(static_cast<const char*>(part.data()), part.size());
        bytes += part.size();
      }
      serializer.consume(bytes);
    });
  }
  POINTSMAN_CHECK(!error);
  return text;
}

}  // namespace

/// The socket of one call. Outlives it until the loop lets go.
class HttpCall::Wire final : public SocketOwner {
 public:
  Wire(HttpCall& call, HandleCount count) : side(*this), call_(&call), count_(std::move(count)) { ++*count_; }

  /// The call is over: nothing more is said to it.
  void release() {
    call_ = nullptr;
    side.forget_peer();
    if (!side.socket.busy()) return done();  // the dial failed at once: on_closed never comes
    side.socket.close();
  }
  void on_readable(Socket&) override {
    if (call_ != nullptr) call_->on_readable();
  }
  void on_writable(Socket&) override {
    if (call_ != nullptr) call_->on_writable();
  }
  void on_closed(Socket&) override { done(); }

  Side side;

 private:
  ~Wire() = default;
  void done() {
    --*count_;
    delete this;
  }
  HttpCall* call_;
  HandleCount count_;
};

/// Keeps status and body. A body goes to `piece` or `body`, and both are looked at between calls of put() only.
struct HttpCall::Parser final : http::basic_parser<false> {
  explicit Parser(const HttpQuery& query) : stream(query.stream), most(query.most_body) {
    header_limit(kMaxHeader);
    // Counted here. Not boost::none: Beast 1.74 takes every Content-Length to be more than that.
    body_limit(std::numeric_limits<std::uint64_t>::max());
    eager(true);
  }
  bool streams() const { return stream && status == 200; }

  void on_request_impl(http::verb, boost::beast::string_view, boost::beast::string_view, int, error_code&) override {}
  void on_response_impl(int code, boost::beast::string_view, int, error_code&) override {
    status = static_cast<unsigned>(code);
  }
  void on_field_impl(http::field, boost::beast::string_view, boost::beast::string_view, error_code&) override {}
  void on_header_impl(error_code&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(boost::beast::string_view text, error_code& error) override { return take(text, error); }
  void on_chunk_header_impl(std::uint64_t, boost::beast::string_view, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, boost::beast::string_view text, error_code& error) override {
    return take(text, error);
  }
  void on_finish_impl(error_code&) override {}

  std::size_t take(boost::beast::string_view text, error_code& error) {
    if (streams()) {
      piece.append(text.data(), text.size());
    } else if (body.size() + text.size() > (stream ? kMaxRefusal : most)) {
      error = http::error::body_limit;
    } else {
      body.append(text.data(), text.size());
    }
    return text.size();
  }

  const bool stream;
  const std::size_t most;
  unsigned status = 0;
  std::string body;
  std::string piece;
};

HttpCall::HttpCall(const HttpContext& context, Owner& owner, HttpQuery query)
    : context_(context),
      owner_(owner),
      query_(std::move(query)),
      parser_(std::make_unique<Parser>(query_)),
      timer_(context_.loop->uv(), context_.handles, this,
             [](void* self) { static_cast<HttpCall*>(self)->on_timer(); }) {
  POINTSMAN_CHECK(query_.address.known() && (!query_.url.tls || query_.tls != nullptr));
  wire_ = new Wire(*this, context_.handles);
  timer_.start(query_.answer_by);
  const int error = wire_->side.socket.connect(*context_.loop, &query_.address.base, query_.address.size,
                                               kKeepaliveSeconds, kUserTimeoutMs);
  if (error == 0) return;
  failure_ = std::strerror(error);
  timer_.start(loop_clock());
}

HttpCall::~HttpCall() {
  if (wire_ != nullptr) wire_->release();
}

void HttpCall::on_timer() {
  if (!failure_.empty()) return finish(failure_);
  finish(connected_ ? (streaming_ ? "the stream was not ended in time" : "no whole answer came in time")
                    : "the connection was not accepted in time");
}

void HttpCall::on_writable() {
  Side& side = wire_->side;
  if (connected_) {
    if (side.flush() == Side::Write::kError) finish("the connection broke while the request was sent");
    return;
  }
  if (const int error = side.socket.connect_error(); error != 0) return finish(std::strerror(error));
  connected_ = true;
  side.socket.want_write(false);
  side.socket.want_read(true);
  if (!query_.url.tls) {
    (void)send_request();
    return;
  }
  side.tls = protocol::TlsEngine::connect(query_.tls, query_.url.host);
  (void)read_handshake({});
}

/// False: the call is over, or the handshake goes on.
bool HttpCall::read_handshake(base::Bytes encrypted) {
  Side& side = wire_->side;
  protocol::TlsOutput output{context_.scratch->wire, 0};
  const auto status = side.tls->handshake(encrypted, output);
  if (output.size > 0) (void)side.write_wire(output.filled(), *context_.pool);
  if (status == protocol::TlsEngine::Status::kNeedInput) return false;
  if (status != protocol::TlsEngine::Status::kOk) {
    finish("TLS: " + side.tls->failure());
    return false;
  }
  side.tls_ready = true;
  return send_request();
}

bool HttpCall::send_request() {
  std::string request = print_request(query_);
  const auto sent = wire_->side.write(base::as_bytes(request), *context_.scratch, *context_.pool);
  base::wipe(request.data(), request.size());  // it has the token
  if (sent != Side::Write::kError) return true;
  finish("the connection broke while the request was sent");
  return false;
}

void HttpCall::on_readable() {
  Side& side = wire_->side;
  if (side.tls != nullptr && !side.tls_ready) {
    const auto io = side.socket.receive(context_.scratch->read);
    if (io.would_block) return;
    if (io.bytes == 0)
      return finish(io.eof ? "the connection was closed during the TLS handshake" : std::strerror(io.error));
    if (!read_handshake(base::Bytes(context_.scratch->read, io.bytes))) return;
    // Records that came behind the handshake's last stay in the engine until they are asked for.
    protocol::TlsOutput output{context_.scratch->wire, 0};
    const auto early = side.tls->read({}, context_.scratch->plain, output);
    if (output.size > 0) (void)side.write_wire(output.filled(), *context_.pool);
    if (early.status == protocol::TlsEngine::Status::kFailed) return finish("TLS: " + side.tls->failure());
    return parse(base::Bytes(context_.scratch->plain, early.bytes),
                 early.status == protocol::TlsEngine::Status::kClosed);
  }
  const auto got = side.read(*context_.scratch, *context_.pool);
  if (got.blocked) return;
  if (got.failed && got.plain.empty()) {
    return finish(got.error != 0 ? std::strerror(got.error) : side.tls != nullptr ? "TLS: " + side.tls->failure() : "");
  }
  parse(got.plain, got.eof || got.failed);
}

void HttpCall::parse(base::Bytes plain, bool ended) {
  inbox_.append(base::as_text(plain));
  error_code error;
  while (!inbox_.empty() && !parser_->is_done()) {
    const std::size_t used = parser_->put(boost::asio::buffer(inbox_), error);
    inbox_.erase(0, used);
    if (error == http::error::need_more) {
      error = {};
      break;
    }
    if (error || used == 0) break;
  }
  // Chunk headers and trailers are read whole; one without an end is not waited for.
  if (!error && inbox_.size() > kMaxHeader + kReadSize) error = http::error::header_limit;
  if (!error && ended && parser_->got_some() && !parser_->is_done()) parser_->put_eof(error);
  if (!streaming_ && parser_->streams()) {
    streaming_ = true;
    timer_.start(query_.stream_until);
  }
  const std::string piece = std::exchange(parser_->piece, {});
  const bool over = parser_->is_done() || ended || static_cast<bool>(error);
  std::string why = error ? "malformed answer: " + error.message() : std::string();
  if (!error && ended && !parser_->is_done()) why = "the connection was closed before the answer was complete";
  if (piece.empty()) {
    if (over) finish(std::move(why));
    return;
  }
  if (!over) return owner_.on_http_piece(piece);  // may be the call's end
  // The end is told on the next turn: the owner may end the call because of the piece.
  failure_ = why.empty() ? "the server ended the stream" : std::move(why);
  wire_->side.socket.want_read(false);
  timer_.start(loop_clock());
  owner_.on_http_piece(piece);
}

void HttpCall::finish(std::string error) {
  timer_.stop();
  std::exchange(wire_, nullptr)->release();
  Outcome outcome;
  outcome.status = parser_->status;
  if (!streaming_) outcome.body = std::move(parser_->body);
  outcome.error = std::move(error);
  if (streaming_ && outcome.error.empty()) outcome.error = "the server ended the stream";
  owner_.on_http_done(outcome);
}

}  // namespace pointsman::proxy
