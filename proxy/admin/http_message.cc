#include "proxy/admin/http_message.h"

#include <algorithm>

#include <nlohmann/json.hpp>

namespace pointsman::proxy {
namespace {

constexpr std::string_view kHexDigits = "0123456789ABCDEF";

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

}  // namespace

HttpResponse json_error(unsigned status, std::string_view what) {
  const nlohmann::ordered_json body = {{"error", what}};
  return {.status = status,
          .content_type = "application/json",
          .body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n",
          .headers = {}};
}

void tag(HttpResponse& response, std::string_view if_none_match) {
  if (response.status != 200) return;
  std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a: says that a body is another one, not that nobody forged it
  for (const char c : response.body) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  std::string etag = "\"";
  for (int shift = 60; shift >= 0; shift -= 4) etag += kHexDigits[(hash >> shift) & 15];
  etag += '"';
  // A list is not taken apart: a tag of ours can stand nowhere in it by chance. "*" asks for something else (writes).
  if (if_none_match.find(etag) != std::string_view::npos) {
    response.status = 304;
    response.body.clear();
  }
  response.headers.emplace_back("ETag", std::move(etag));
}

const std::string* RequestTarget::find(std::string_view name) const {
  const auto found =
      std::find_if(query.begin(), query.end(), [&](const auto& parameter) { return parameter.first == name; });
  return found == query.end() ? nullptr : &found->second;
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string decoded;
  decoded.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (text.size() - i < 3) return std::nullopt;
      const int high = hex_value(text[i + 1]);
      const int low = hex_value(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (c == '\0') return std::nullopt;
    decoded += c;
  }
  return decoded;
}

std::string percent_encode(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    if (is_unreserved(c)) {
      encoded += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    encoded += '%';
    encoded += kHexDigits[byte >> 4];
    encoded += kHexDigits[byte & 15];
  }
  return encoded;
}

base::Result<RequestTarget> parse_target(std::string_view target) {
  if (!target.starts_with('/')) return base::Error{"the request target must be a path"};
  const std::size_t mark = target.find('?');
  RequestTarget parsed;
  auto path = percent_decode(target.substr(0, mark));
  if (!path) return base::Error{"the path has a wrong percent escape"};
  parsed.path = std::move(*path);
  if (mark == std::string_view::npos) return parsed;

  std::string_view rest = target.substr(mark + 1);
  while (!rest.empty()) {
    const std::size_t end = rest.find('&');
    const std::string_view pair = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos || equals == 0)
      return base::Error{"the query must have the form name=value&name=value"};
    auto name = percent_decode(pair.substr(0, equals));
    auto value = percent_decode(pair.substr(equals + 1));
    if (!name || !value) return base::Error{"the query has a wrong percent escape: write %25 for a percent sign"};
    if (parsed.find(*name) != nullptr) return base::Error{"a query parameter is given twice"};
    parsed.query.emplace_back(std::move(*name), std::move(*value));
  }
  return parsed;
}

}  // namespace pointsman::proxy
