#include "proxy/server/sd_notify.h"

#include <sys/time.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <ctime>

#include "base/descriptor.h"
#include "proxy/log.h"

namespace pointsman::proxy {

namespace {

constexpr std::size_t kMaxStatusBytes = 200;
constexpr timeval kSendTimeout{.tv_sec = 1, .tv_usec = 0};

std::int64_t microseconds(base::Duration duration) {
  return std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
}

void append_status(std::string& message, std::string_view status) {
  message += "STATUS=";
  for (const char c : status.substr(0, kMaxStatusBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    message += byte < 0x20 || byte == 0x7f ? ' ' : c;
  }
  message += '\n';
}

}  // namespace

base::Result<NotifyAddress> parse_notify_socket(std::string_view value) {
  NotifyAddress parsed;
  if (value.size() < 2 || (value.front() != '/' && value.front() != '@'))
    return base::Error{"it must be an absolute path, or @ and a name"};
  if (value.find('\0') != std::string_view::npos) return base::Error{"it has a zero byte"};
  // A path ends with a zero byte, which must fit; an abstract name begins with one and is as long as it says (unix(7)).
  const bool abstract = value.front() == '@';
  const std::size_t room = sizeof(parsed.address.sun_path) - (abstract ? 0 : 1);
  if (value.size() > room) return base::Error{"it is longer than " + std::to_string(room) + " bytes"};
  parsed.address.sun_family = AF_UNIX;
  std::memcpy(parsed.address.sun_path, value.data(), value.size());
  if (abstract) parsed.address.sun_path[0] = '\0';
  parsed.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + value.size() + (abstract ? 0 : 1));
  return parsed;
}

std::string ready_message(std::string_view status) {
  std::string message = "READY=1\n";
  append_status(message, status);
  return message;
}

std::string reloading_message(std::uint64_t monotonic_us) {
  return "RELOADING=1\nMONOTONIC_USEC=" + std::to_string(monotonic_us) + "\n";
}

std::string stopping_message(std::string_view status, base::Duration time_needed) {
  std::string message = "STOPPING=1\nEXTEND_TIMEOUT_USEC=" + std::to_string(microseconds(time_needed)) + "\n";
  append_status(message, status);
  return message;
}

ServiceManager::ServiceManager(const char* value) {
  if (value == nullptr || *value == '\0') return;
  auto parsed = parse_notify_socket(value);
  if (parsed.ok()) {
    address_ = parsed.value();
  } else {
    complaint_ = parsed.error();
  }
}

void ServiceManager::ready(std::string_view status) const {
  send(ready_message(status));
}

void ServiceManager::reloading() const {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  send(reloading_message(static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 +
                         static_cast<std::uint64_t>(now.tv_nsec) / 1'000));
}

void ServiceManager::stopping(std::string_view status, base::Duration time_needed) const {
  send(stopping_message(status, time_needed));
}

void ServiceManager::send(const std::string& message) const {
  if (!complaint_.empty() && !complained_) {
    complained_ = true;
    log_record(LogLevel::kWarning, "NOTIFY_SOCKET cannot be used: the service manager is told nothing",
               {{"error", complaint_}});
  }
  if (address_.size == 0) return;
  const base::Descriptor socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  (void)setsockopt(socket.number(), SOL_SOCKET, SO_SNDTIMEO, &kSendTimeout, sizeof(kSendTimeout));
  const auto sent = sendto(socket.number(), message.data(), message.size(), MSG_NOSIGNAL,
                           reinterpret_cast<const sockaddr*>(&address_.address), address_.size);
  if (sent >= 0) return;
  const int error = errno;
  log_record(LogLevel::kWarning, "the service manager could not be told",
             {{"message", message.substr(0, message.find('\n'))}, {"error", std::strerror(error)}});
}

}  // namespace pointsman::proxy
