#pragma once
// Requests and answers of the admin endpoint as plain data, and the strict reading of a request target. Pure.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace pointsman::proxy {

enum class HttpMethod : std::uint8_t { kGet, kHead, kPost, kPut, kDelete, kOther };

struct HttpRequest {
  HttpMethod method = HttpMethod::kGet;
  std::string target;         ///< as sent: path and query, encoded
  std::string authorization;  ///< the header's value, "" without
  bool has_origin = false;    ///< a browser sent it on behalf of a page
  bool from_loopback = false;
  std::string if_match = {};       ///< the header's value, "" without
  std::string if_none_match = {};  ///< the same
  std::string body = {};
};

struct HttpResponse {
  unsigned status = 200;
  std::string content_type;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  ///< beside Content-Type and Content-Length
};

/// Gives a 200 an ETag made of its body, and makes it a 304 without one when the caller has that body already (RFC 9110
/// section 13.1.2).
void tag(HttpResponse& response, std::string_view if_none_match);
/// {"error": "…"} with a line end. Bytes that are no UTF-8 become U+FFFD.
HttpResponse json_error(unsigned status, std::string_view what);

/// A decoded request target. Parameters in the order they came; no name twice.
struct RequestTarget {
  std::string path;
  std::vector<std::pair<std::string, std::string>> query;
  /// Null when absent.
  const std::string* find(std::string_view name) const;
};

/// Reads `/path?name=value&…`. `+` is a plus (RFC 3986, not a form). The error is for the client.
base::Result<RequestTarget> parse_target(std::string_view target);

/// Decodes %XX. nullopt: an incomplete or wrong escape, or a zero byte.
std::optional<std::string> percent_decode(std::string_view text);
/// Encodes everything but RFC 3986's unreserved characters.
std::string percent_encode(std::string_view text);

}  // namespace pointsman::proxy
