#pragma once
// A question to an HTTP server by name: finds the address, tries the next one after a failure, and keeps the TLS
// settings that go with it. One question at a time. Loop thread only.

#include <sys/stat.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "proxy/discovery/source.h"

namespace pointsman::proxy {

/// A verifying client context of a CA file (empty: the system's store), made anew when the file was replaced.
class HttpTls {
 public:
  explicit HttpTls(std::string ca_file) : ca_file_(std::move(ca_file)) {}
  base::Result<std::shared_ptr<const protocol::ClientTlsContext>> context();

 private:
  std::string ca_file_;
  std::shared_ptr<const protocol::ClientTlsContext> made_;
  struct timespec changed_ {};
  ino_t inode_ = 0;
};

class HttpAsk final : private HttpCall::Owner {
 public:
  /// The owner's calls come from the loop, and may start another question or cancel this one.
  HttpAsk(DiscoveryContext& context, HttpCall::Owner& owner, std::string ca_file);

  /// `query` lacks `address` and `tls`. Requires: !busy().
  void start(HttpQuery query);
  void cancel();
  bool busy() const { return call_ != nullptr || waiting_.has_value(); }
  void on_looked_up(const std::string& host);

 private:
  void on_http_piece(std::string_view piece) override { owner_.on_http_piece(piece); }
  void on_http_done(const HttpCall::Outcome& outcome) override;
  void on_timer();
  bool dial();
  void fail_later(std::string why);

  DiscoveryContext& context_;
  HttpCall::Owner& owner_;
  HttpTls tls_;
  std::unique_ptr<HttpCall> call_;
  std::optional<HttpQuery> waiting_;  // for its address, or to be told of failure_
  std::string failure_;
  std::size_t turn_ = 0;  // which of a name's addresses comes next
  LoopTimer timer_;
};

}  // namespace pointsman::proxy
