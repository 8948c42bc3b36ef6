#include "routing/config_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/descriptor.h"

namespace pointsman::routing {
namespace {

enum class Access { kPlain, kSecret };

std::string system_error(int code) {
  return std::generic_category().message(code);
}

std::string octal(mode_t mode) {
  std::string text = "0000";
  for (std::size_t i = 0; i < 3; ++i) text[3 - i] = static_cast<char>('0' + ((mode >> (3 * i)) & 7u));
  return text;
}

std::optional<std::string> permission_fault(const struct stat& status) {
  const mode_t mode = status.st_mode & 0777u;
  if (status.st_uid == 0) {
    if ((mode & ~mode_t{0640}) != 0)
      return "mode " + octal(mode) + " is too open; a file of root's may be 0640 at most";
  } else if (status.st_uid == ::geteuid()) {
    if ((mode & ~mode_t{0600}) != 0) return "mode " + octal(mode) + " is too open; 0600 is allowed";
  } else {
    return "it belongs to another user; it must be ours (0600) or root's (0640 at most)";
  }
  return std::nullopt;
}

/// Not to wait for the other end of a pipe that somebody named: the open is non-blocking, then only a regular file will
/// do.
base::Result<std::string> read_checked(const std::string& path, std::size_t most, Access access) {
  const auto fault = [&](const std::string& what) { return base::Error{"cannot use " + path + ": " + what}; };
  const base::Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (file.number() < 0) return fault(system_error(errno));
  struct stat status = {};
  if (::fstat(file.number(), &status) != 0) return fault(system_error(errno));
  if (!S_ISREG(status.st_mode)) return fault("it is no regular file");
  if (access == Access::kSecret) {
    if (const auto permissions = permission_fault(status)) return fault(*permissions);
  }
  std::string text;
  if (static_cast<std::uint64_t>(status.st_size) <= most) text.resize(static_cast<std::size_t>(status.st_size) + 1);
  std::size_t length = 0;
  while (length < text.size()) {
    const ssize_t got = ::read(file.number(), text.data() + length, text.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fault(system_error(errno));
    if (got == 0) break;
    length += static_cast<std::size_t>(got);
  }
  // A file that grew meanwhile fills the byte behind its former end.
  if (text.empty() || length == text.size()) {
    return fault("it has more than " + std::to_string(most) + " bytes, or is being written");
  }
  text.resize(length);
  return text;
}

template <typename Value, typename Read>
const Value& cached(std::map<std::string, Value>& cache, const std::string& path, Read read) {
  const auto found = cache.find(path);
  return found != cache.end() ? found->second : cache.emplace(path, read()).first->second;
}

std::uint64_t digest_of(std::string_view text) {
  Fingerprint fingerprint;
  fingerprint.add(text);
  return fingerprint.value();
}

base::Result<ConfigFiles::Secret> read_secret(const std::string& path) {
  auto text = read_checked(path, kMaxSecretBytes, Access::kSecret);
  if (!text.ok()) return base::Error{text.error()};
  std::string& secret = text.value();
  if (secret.ends_with('\n')) secret.pop_back();
  if (secret.ends_with('\r')) secret.pop_back();
  if (secret.empty()) return base::Error{"cannot use " + path + ": it is empty"};
  if (secret.find('\0') != std::string::npos) return base::Error{"cannot use " + path + ": it contains a zero byte"};
  const std::uint64_t digest = digest_of(secret);
  base::SecretString kept(secret);
  base::wipe(secret.data(), secret.size());
  return ConfigFiles::Secret{std::move(kept), digest};
}

base::Result<ConfigFiles::Users> read_userlist(const std::string& path) {
  auto text = read_checked(path, kMaxUserlistBytes, Access::kSecret);
  if (!text.ok()) return base::Error{text.error()};
  auto users = parse_userlist(text.value());
  const std::uint64_t digest = digest_of(text.value());
  base::wipe(text.value().data(), text.value().size());
  if (!users.ok()) return base::Error{path + ": " + users.error()};
  return ConfigFiles::Users{std::make_shared<const Userlist>(std::move(users.value())), digest};
}

std::optional<std::string> file_fault(const std::string& path, Access access) {
  auto text = read_checked(path, kMaxUserlistBytes, access);
  if (!text.ok()) return text.error();
  const bool empty = text.value().empty();
  if (access == Access::kSecret) base::wipe(text.value().data(), text.value().size());
  if (empty) return "cannot use " + path + ": it is empty";
  return std::nullopt;
}

}  // namespace

base::Result<std::string> read_file(const std::string& path, std::size_t most) {
  return read_checked(path, most, Access::kPlain);
}

const base::Result<ConfigFiles::Secret>& ConfigFiles::secret(const std::string& path) {
  watch(path);
  return cached(secrets_, path, [&] { return read_secret(path); });
}

const base::Result<ConfigFiles::Users>& ConfigFiles::userlist(const std::string& path) {
  watch(path);
  return cached(userlists_, path, [&] { return read_userlist(path); });
}

const std::optional<std::string>& ConfigFiles::certificate_fault(const std::string& path) {
  watch(path);
  return cached(certificates_, path, [&] { return file_fault(path, Access::kPlain); });
}

const std::optional<std::string>& ConfigFiles::key_fault(const std::string& path) {
  watch(path);
  return cached(keys_, path, [&] { return file_fault(path, Access::kSecret); });
}

}  // namespace pointsman::routing
