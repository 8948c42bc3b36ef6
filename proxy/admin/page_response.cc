#include <algorithm>
#include <string>

#include "proxy/admin/page_files.h"

namespace pointsman::proxy {
namespace {

/// Nothing but this page's own files, nothing inline, no text that becomes markup, in nobody's frame (CSP Level 3).
constexpr std::string_view kContentSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

}  // namespace

HttpResponse page_response(std::string_view path) {
  const auto files = page_files();
  const auto file = std::find_if(files.begin(), files.end(), [&](const PageFile& f) { return f.path == path; });
  if (file == files.end()) return json_error(404, "no such path");
  HttpResponse response{
      .status = 200, .content_type = std::string(file->content_type), .body = std::string(file->body), .headers = {}};
  const auto header = [&](std::string_view name, std::string_view value) {
    response.headers.emplace_back(name, value);
  };
  header("Content-Security-Policy", kContentSecurityPolicy);
  header("Referrer-Policy", "no-referrer");
  header("Cross-Origin-Opener-Policy", "same-origin");
  header("Cross-Origin-Resource-Policy", "same-origin");
  header("X-Frame-Options", "DENY");  // for browsers that do not know frame-ancestors
  return response;
}

}  // namespace pointsman::proxy
