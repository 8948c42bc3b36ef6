#pragma once
// The shell around a ConsoleCore: one client's socket on the control loop. Bytes in, actions out, one piece of an
// answer at a time: while the socket does not take it, nothing more is made and nothing is read.
//
//   Serving ──Finish──► Lingering ──► Closing
//
// Deadlines besides the core's: a client that takes nothing of its answer for kWriteDeadline, a statement that has no
// answer after kWorkDeadline (what takes long has bounds of its own: a hold waits up to failover.hold_timeout), and
// kLinger for a client that has heard its last word.

#include <cstdint>
#include <memory>
#include <string>

#include "proxy/console/console_core.h"
#include "proxy/console/executor.h"
#include "proxy/io/side.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

class ConsoleConnection;

/// Who keeps the connections.
class ConsoleOwner : public ConsoleServices {
 public:
  virtual EventLoop& loop() = 0;
  virtual Scratch& scratch() = 0;
  virtual BufferPool& pool() = 0;
  /// Null: no certificate is configured.
  virtual std::shared_ptr<const protocol::ServerTlsContext> server_tls() = 0;
  /// Answer with on_result(), now or later.
  virtual void execute(ConsoleConnection& connection, const Statement& statement) = 0;
  virtual void count(StatementOutcome outcome) = 0;
  /// The memory may go.
  virtual void on_gone(ConsoleConnection& connection) = 0;

 protected:
  ~ConsoleOwner() = default;
};

class ConsoleConnection final : private SocketOwner {
 public:
  ConsoleConnection(ConsoleOwner& owner, std::uint64_t id, std::string listener, routing::ListenerTls tls,
                    const routing::SocketAddress& peer, base::Instant now);
  ~ConsoleConnection();
  ConsoleConnection(const ConsoleConnection&) = delete;
  ConsoleConnection& operator=(const ConsoleConnection&) = delete;

  /// Takes an accepted, non-blocking descriptor; false: it could not be watched and is closed, on_gone does not come.
  bool start(int fd);
  void on_result(StatementResult result);
  void check_deadline(base::Instant now);
  /// The router ends: a last word, and the end.
  void stop();
  /// Too many have not logged in: this one goes, without a word.
  void drop();

  std::uint64_t id() const { return id_; }
  bool logged_in() const { return core_.logged_in(); }
  bool ending() const { return stage_ != Stage::kServing; }
  ConsoleCaller caller() const { return {core_.user(), peer_}; }

 private:
  enum class Stage : std::uint8_t { kServing, kLingering, kClosing };

  void on_readable(Socket& socket) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  void pump();
  void perform(ConsoleAction& action);
  void start_tls(const ConsoleStartTls& start);
  void handshake(base::Bytes encrypted);
  void finish(const ConsoleFinish& finish);
  void linger();
  void linger_readable();
  void begin_close();
  base::Instant now() const;

  ConsoleOwner& owner_;
  std::uint64_t id_;
  std::string listener_;
  std::string peer_;
  ConsoleCore core_;
  Side side_;
  Stage stage_ = Stage::kServing;
  bool pumping_ = false;
  std::string tls_version_;
  std::string end_;         // for the log
  std::string end_reason_;  // for the log
  base::Instant began_;
  base::Instant write_deadline_{};  // while a write is pending
  base::Instant work_deadline_{};   // while a statement is executed
  base::Instant linger_deadline_{};
  std::uint32_t lingered_bytes_ = 0;
};

}  // namespace pointsman::proxy
