#include "proxy/io/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/descriptor.h"

namespace pointsman::proxy {
namespace {

std::string system_error(std::string_view what, const std::string& path) {
  return std::string(what) + " " + path + ": " + std::strerror(errno);
}

/// Empty, or what went wrong.
std::string sync_folder(const std::string& path) {
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  const base::Descriptor file(::open(folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  if (file.number() < 0 || ::fsync(file.number()) != 0) return system_error("cannot write", folder);
  return {};
}

}  // namespace

base::Result<std::string> read_whole(const std::string& path, std::size_t most) {
  const base::Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.number() < 0) return base::Error{system_error("cannot read", path)};
  std::string text;
  std::array<char, 16 * 1024> buffer;
  for (;;) {
    const ssize_t got = ::read(file.number(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::Error{system_error("cannot read", path)};
    if (got == 0) return text;
    if (text.size() + static_cast<std::size_t>(got) > most)
      return base::Error{path + " has more than " + std::to_string(most) + " bytes"};
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

std::string write_whole(const std::string& path, std::string_view text) {
  const std::string temporary = path + std::string(kTemporarySuffix);
  {
    const base::Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (file.number() < 0) return system_error("cannot write", temporary);
    while (!text.empty()) {
      const ssize_t written = ::write(file.number(), text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return system_error("cannot write", temporary);
      text.remove_prefix(static_cast<std::size_t>(written));
    }
    if (::fsync(file.number()) != 0) return system_error("cannot write", temporary);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return system_error("cannot write", path);
  return sync_folder(path);
}

std::string remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return system_error("cannot remove", path);
  return sync_folder(path);
}

}  // namespace pointsman::proxy
