#include "proxy/admin/http_connection.h"

#include <algorithm>
#include <array>

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/serializer.hpp>
#include <boost/beast/http/string_body.hpp>

#include "base/check.h"

namespace pointsman::proxy {
namespace {

namespace http = boost::beast::http;

constexpr std::size_t kReadBytes = 16 * 1024;
/// What may lie unparsed: a header, a body, and a read that went beyond them into a pipelined request.
constexpr std::size_t kInboxBytes = HttpLimits::kHeaderBytes + HttpLimits::kBodyBytes + kReadBytes;

base::Instant now_of_loop() {
  return base::from_hrtime(uv_hrtime());
}

HttpMethod to_method(http::verb verb) {
  if (verb == http::verb::get) return HttpMethod::kGet;
  if (verb == http::verb::head) return HttpMethod::kHead;
  if (verb == http::verb::post) return HttpMethod::kPost;
  if (verb == http::verb::put) return HttpMethod::kPut;
  if (verb == http::verb::delete_) return HttpMethod::kDelete;
  return HttpMethod::kOther;
}

std::string to_text(boost::beast::string_view text) {
  return std::string(text.data(), text.size());
}

/// The status line and the headers.
std::string print_header(const HttpResponse& response, unsigned version, bool keep_alive) {
  http::response<http::string_body> message;
  message.version(version);
  message.result(response.status);
  message.keep_alive(keep_alive);
  message.set(http::field::content_type, response.content_type);
  message.set(http::field::cache_control, "no-store");
  message.set("X-Content-Type-Options", "nosniff");
  for (const auto& [name, value] : response.headers) message.set(name, value);
  message.content_length(response.body.size());

  http::response_serializer<http::string_body> serializer(message);
  serializer.split(true);
  std::string text;
  boost::beast::error_code error;
  while (!error && !serializer.is_header_done()) {
    serializer.next(error, [&](boost::beast::error_code&, const auto& buffers) {
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

struct HttpConnection::Parser {
  Parser() {
    parser.header_limit(HttpLimits::kHeaderBytes);
    parser.body_limit(HttpLimits::kBodyBytes);
    parser.eager(true);
  }
  http::request_parser<http::string_body> parser;
};

HttpConnection::HttpConnection(HttpConnectionOwner& owner, std::uint64_t id, bool from_loopback)
    : owner_(owner), id_(id), from_loopback_(from_loopback), socket_(*this), parser_(std::make_unique<Parser>()) {}
HttpConnection::~HttpConnection() = default;

bool HttpConnection::start(EventLoop& loop, int fd, base::Instant now) {
  if (!socket_.adopt(loop, fd)) return false;
  deadline_ = now + HttpLimits::kRequestDeadline;
  socket_.want_read(true);
  return true;
}

void HttpConnection::on_readable(Socket&) {
  if (state_ == State::kLingering) return read_away();
  std::array<base::Byte, kReadBytes> buffer;
  const Socket::Io io = socket_.receive(buffer);
  if (io.would_block) return;
  if (io.bytes == 0) return begin_close();  // end or error: there is nobody to answer
  inbox_.append(base::as_text(base::Bytes(buffer).first(io.bytes)));
  parse();
}

void HttpConnection::read_away() {
  std::array<base::Byte, kReadBytes> buffer;
  const Socket::Io io = socket_.receive(buffer);
  if (io.bytes == 0 && !io.would_block) begin_close();
}

void HttpConnection::parse() {
  if (parsing_) return;  // an answer given inside on_request: the loop below goes on
  parsing_ = true;
  while (state_ == State::kReading && !inbox_.empty()) {
    boost::beast::error_code error;
    const std::size_t used = parser_->parser.put(boost::asio::buffer(inbox_), error);
    inbox_.erase(0, used);
    if (error == http::error::need_more) error = {};
    if (error == http::error::header_limit) {
      refuse(431, "the header is longer than " + std::to_string(HttpLimits::kHeaderBytes) + " bytes");
    } else if (error == http::error::body_limit) {
      refuse(413, "the body is longer than " + std::to_string(HttpLimits::kBodyBytes) + " bytes");
    } else if (error) {
      refuse(400, "malformed request: " + error.message());
    } else if (parser_->parser.is_done()) {
      hand_over();
    } else if (used == 0) {
      break;
    }
  }
  parsing_ = false;
  if (state_ == State::kReading && inbox_.size() > kInboxBytes) refuse(400, "malformed request: too long");
}

void HttpConnection::hand_over() {
  auto& message = parser_->parser.get();
  version_ = message.version();
  keep_alive_ = message.keep_alive() && ++requests_ < HttpLimits::kRequestsPerConnection;
  head_only_ = message.method() == http::verb::head;
  // RFC 9112 section 3.2: a request of HTTP/1.1 without exactly one Host is answered 400.
  if (version_ >= 11 && message.count(http::field::host) != 1) return refuse(400, "exactly one Host header is needed");
  const HttpRequest request{.method = to_method(message.method()),
                            .target = to_text(message.target()),
                            .authorization = to_text(message[http::field::authorization]),
                            .has_origin = message.count(http::field::origin) > 0,
                            .from_loopback = from_loopback_,
                            .if_match = to_text(message[http::field::if_match]),
                            .if_none_match = to_text(message[http::field::if_none_match]),
                            .body = std::move(message.body())};
  state_ = State::kHandling;
  socket_.want_read(false);
  deadline_ = now_of_loop() + HttpLimits::kWorkDeadline;
  owner_.on_request(*this, request);
}

void HttpConnection::refuse(unsigned status, std::string_view what) {
  keep_alive_ = false;
  linger_ = true;
  state_ = State::kHandling;
  respond(json_error(status, what));
}

void HttpConnection::respond(const HttpResponse& response) {
  if (state_ == State::kClosing) return;
  POINTSMAN_CHECK(state_ == State::kHandling);
  state_ = State::kWriting;
  socket_.want_read(false);
  deadline_ = now_of_loop() + HttpLimits::kResponseDeadline;
  outbox_ = print_header(response, version_, keep_alive_);
  if (!head_only_) outbox_ += response.body;
  sent_ = 0;
  write();
}

void HttpConnection::on_writable(Socket&) {
  write();
}

void HttpConnection::write() {
  if (state_ != State::kWriting) return;
  while (sent_ < outbox_.size()) {
    const Socket::Io io = socket_.send(base::as_bytes(std::string_view(outbox_).substr(sent_)));
    if (io.error != 0) return begin_close();
    sent_ += io.bytes;
    if (io.would_block) return socket_.want_write(true);
  }
  written();
}

void HttpConnection::written() {
  socket_.want_write(false);
  outbox_.clear();
  outbox_.shrink_to_fit();  // a page of metrics may be large, an idle connection is not
  head_only_ = false;
  if (linger_) {
    state_ = State::kLingering;
    inbox_.clear();
    deadline_ = now_of_loop() + HttpLimits::kLingerDeadline;
    socket_.shutdown_write();
    socket_.want_read(true);
    return;
  }
  if (!keep_alive_) return begin_close();
  state_ = State::kReading;
  deadline_ = now_of_loop() + HttpLimits::kRequestDeadline;
  parser_ = std::make_unique<Parser>();
  socket_.want_read(true);
  parse();
}

void HttpConnection::check_deadline(base::Instant now) {
  if (state_ != State::kClosing && now >= deadline_) begin_close();
}

void HttpConnection::begin_close() {
  if (state_ == State::kClosing) return;
  state_ = State::kClosing;
  socket_.close();
}

void HttpConnection::on_closed(Socket&) {
  owner_.on_gone(*this);
}

}  // namespace pointsman::proxy
