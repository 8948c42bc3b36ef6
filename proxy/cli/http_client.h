#pragma once
// A small blocking HTTP client for the commands that ask a running router: one request a connection, an absolute
// deadline, a bounded answer. Plain HTTP only.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace pointsman::proxy {

struct AdminUrl {
  static constexpr std::uint16_t kDefaultPort = 9432;
  std::string host;
  std::uint16_t port = kDefaultPort;
  std::string prefix;             ///< a path before ours, without a slash at its end
  std::string to_string() const;  ///< "http://127.0.0.1:9432"
};
/// `[http://]HOST[:PORT][/PREFIX]`, IPv6 addresses in brackets. Pure.
base::Result<AdminUrl> parse_admin_url(std::string_view text);

struct HttpAnswer {
  unsigned status = 0;
  std::string body;
};
/// An answer to HTTP/1.0 as it was read up to the peer's end: its body goes to the end unless a Content-Length cuts it.
/// Pure.
base::Result<HttpAnswer> parse_http_answer(std::string_view raw);

/// GET. The error says what was tried and what to do. Names are resolved before the deadline's clock starts.
base::Result<HttpAnswer> http_get(const AdminUrl& url, std::string_view path_and_query, base::Duration deadline);
/// POST without a body. `token`: empty: none. Requires: it is one line of visible characters.
base::Result<HttpAnswer> http_post(const AdminUrl& url, std::string_view path_and_query, std::string_view token,
                                   base::Duration deadline);

}  // namespace pointsman::proxy
