#pragma once
// The status page, as the build has embedded it from proxy/admin/page (page/embed.cmake). Any thread.

#include <span>
#include <string_view>

#include "proxy/admin/http_message.h"

namespace pointsman::proxy {

struct PageFile {
  std::string_view path;  ///< "/" or "/assets/NAME"
  std::string_view content_type;
  std::string_view body;
};
std::span<const PageFile> page_files();

/// The answer to a GET for `path` with the headers that keep a browser from doing anything but show it; 404 where there
/// is no such file.
HttpResponse page_response(std::string_view path);

}  // namespace pointsman::proxy
