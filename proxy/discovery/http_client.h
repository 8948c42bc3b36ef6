#pragma once
// One HTTP/1.1 GET over a connection of its own, asynchronous: for discovery's sources on the control loop. Bounded in
// time and size. A response may be taken as a stream, piece by piece (a watch). No redirects, no cookies, no proxy from
// the environment. Loop thread only. RFC 9112; parsing is Boost.Beast's.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/secret.h"
#include "protocol/tls_context.h"
#include "proxy/io/buffer_pool.h"
#include "proxy/io/event_loop.h"
#include "proxy/io/side.h"
#include "proxy/monitor/uv_handles.h"
#include "routing/config.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

/// What all calls of a loop share; outlives them.
struct HttpContext {
  EventLoop* loop;
  HandleCount handles;
  Scratch* scratch;
  BufferPool* pool;
};

struct HttpQuery {
  routing::HttpUrl url;            ///< host (for Host, SNI and verification), port, and the path's beginning
  std::string target;              ///< appended to the path: "/cluster", "/apis/…?watch=1"
  routing::SocketAddress address;  ///< where to connect, with its port
  std::shared_ptr<const protocol::ClientTlsContext> tls;  ///< Requires: not null when url.tls
  base::SecretString bearer;                              ///< a token; empty: none
  std::size_t most_body = 0;     ///< of a whole body; of a stream that succeeds there is no limit
  bool stream = false;           ///< a body of status 200 goes to on_http_piece
  base::Instant answer_by{};     ///< the whole response; of a stream its header
  base::Instant stream_until{};  ///< the end of a stream
};

class HttpCall {
 public:
  struct Outcome {
    unsigned status = 0;  ///< 0: there was no response
    std::string body;     ///< whole; of a stream that succeeded empty
    std::string error;    ///< empty: a complete response came, whatever its status
  };
  /// Called from the loop, never from inside the constructor. The owner may destroy the call in each of them.
  class Owner {
   public:
    virtual ~Owner() = default;
    /// Bytes of a stream, as they came.
    virtual void on_http_piece(std::string_view piece) = 0;
    /// The end, once.
    virtual void on_http_done(const Outcome& outcome) = 0;
  };

  HttpCall(const HttpContext& context, Owner& owner, HttpQuery query);
  /// Abandons what is under way.
  ~HttpCall();
  HttpCall(const HttpCall&) = delete;
  HttpCall& operator=(const HttpCall&) = delete;

 private:
  class Wire;
  struct Parser;

  void on_timer();
  void on_readable();
  void on_writable();
  bool read_handshake(base::Bytes encrypted);  // false: the call is over, or the handshake goes on
  bool send_request();                         // false: the call is over
  void parse(base::Bytes plain, bool ended);
  void finish(std::string error);

  HttpContext context_;
  Owner& owner_;
  HttpQuery query_;
  std::unique_ptr<Parser> parser_;
  Wire* wire_ = nullptr;  // frees itself when the loop is done with it
  LoopTimer timer_;
  std::string inbox_;    // what the parser has not used yet
  std::string failure_;  // of the dial: told on the next turn
  bool connected_ = false;
  bool streaming_ = false;
};

}  // namespace pointsman::proxy
