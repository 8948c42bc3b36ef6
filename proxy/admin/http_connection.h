#pragma once
// One HTTP/1.1 connection on the control loop: bytes in, requests out, one answer at a time. Parsing and printing by
// Boost.Beast, which does no I/O; Beast is seen in the .cc only. Bounded: header, body, requests per connection, and a
// deadline for each step.

#include <uv.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "proxy/admin/http_message.h"
#include "proxy/io/socket.h"

namespace pointsman::proxy {

class HttpConnection;

class HttpConnectionOwner {
 public:
  /// Answer with respond(), now or later. No other request comes from this connection before that.
  virtual void on_request(HttpConnection& connection, const HttpRequest& request) = 0;
  /// The memory may go.
  virtual void on_gone(HttpConnection& connection) = 0;

 protected:
  ~HttpConnectionOwner() = default;
};

struct HttpLimits {
  static constexpr std::uint32_t kHeaderBytes = 8 * 1024;
  static constexpr std::uint64_t kBodyBytes = 1024 * 1024;  ///< a branch, at most
  static constexpr unsigned kRequestsPerConnection = 1000;
  static constexpr base::Duration kRequestDeadline = std::chrono::seconds(5);  ///< for a request to arrive whole
  /// For it to be worked out. What takes long has bounds of its own: a hold waits for PAUSE up to
  /// failover.hold_timeout.
  static constexpr base::Duration kWorkDeadline = std::chrono::minutes(12);
  static constexpr base::Duration kResponseDeadline = std::chrono::seconds(30);  ///< for an answer to be taken
  static constexpr base::Duration kLingerDeadline = std::chrono::seconds(1);
};

class HttpConnection final : private SocketOwner {
 public:
  HttpConnection(HttpConnectionOwner& owner, std::uint64_t id, bool from_loopback);
  ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  /// Takes an accepted, non-blocking descriptor; false: it could not be watched and is closed, on_gone does not come.
  bool start(EventLoop& loop, int fd, base::Instant now);
  /// Requires: a request is waiting for its answer.
  void respond(const HttpResponse& response);
  /// Ends it when the present step's deadline has passed.
  void check_deadline(base::Instant now);
  void begin_close();

  std::uint64_t id() const { return id_; }
  /// Where the request that waits for an answer came in: the owner's own mark.
  std::size_t endpoint = 0;

 private:
  enum class State : std::uint8_t {
    kReading,
    kHandling,  // the owner has the request
    kWriting,
    kLingering,  // an error was answered; what the peer still sends is read away, or the reset would eat the answer
                 // (RFC 9112 section 9.6)
    kClosing,
  };
  struct Parser;

  void on_readable(Socket& socket) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  void read_away();
  /// Parses what is in hand until a request is under way or more bytes are needed.
  void parse();
  void hand_over();
  void refuse(unsigned status, std::string_view what);
  void write();
  void written();

  HttpConnectionOwner& owner_;
  std::uint64_t id_;
  bool from_loopback_;
  Socket socket_;
  State state_ = State::kReading;
  bool parsing_ = false;
  bool keep_alive_ = false;
  bool linger_ = false;
  bool head_only_ = false;
  unsigned version_ = 11;
  unsigned requests_ = 0;
  base::Instant deadline_{};
  std::string inbox_;   // received, not parsed
  std::string outbox_;  // being sent
  std::size_t sent_ = 0;
  std::unique_ptr<Parser> parser_;
};

}  // namespace pointsman::proxy
