#include "direct_tls.h"

#include <dlfcn.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>

namespace {

// Length 8, then the code 1234 << 16 | 5679 (src/include/libpq/pqcomm.h: NEGOTIATE_SSL_CODE).
constexpr unsigned char kSslRequest[8] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f};

bool g_enabled = false;
int g_owed_answer = -1;  // the socket whose SSLRequest was swallowed and not yet answered; one connect at a time

template <typename Function>
Function next_of(const char* name) {
  void* symbol = dlsym(RTLD_NEXT, name);
  if (symbol == nullptr) std::abort();
  return reinterpret_cast<Function>(symbol);
}

}  // namespace

namespace direct_tls {

void enable() {
  g_enabled = true;
}

}  // namespace direct_tls

extern "C" {

ssize_t send(int fd, const void* bytes, size_t length, int flags) {
  static const auto real = next_of<ssize_t (*)(int, const void*, size_t, int)>("send");
  if (g_enabled && length == sizeof kSslRequest && std::memcmp(bytes, kSslRequest, length) == 0) {
    g_owed_answer = fd;
    return static_cast<ssize_t>(length);
  }
  return real(fd, bytes, length, flags);
}

ssize_t recv(int fd, void* bytes, size_t length, int flags) {
  static const auto real = next_of<ssize_t (*)(int, void*, size_t, int)>("recv");
  if (fd == g_owed_answer && length > 0) {
    g_owed_answer = -1;
    *static_cast<char*>(bytes) = 'S';
    return 1;
  }
  return real(fd, bytes, length, flags);
}

int poll(pollfd* fds, nfds_t count, int timeout) {
  static const auto real = next_of<int (*)(pollfd*, nfds_t, int)>("poll");
  if (g_owed_answer != -1 && count == 1 && fds->fd == g_owed_answer && (fds->events & POLLIN) != 0) {
    fds->revents = POLLIN;
    return 1;
  }
  return real(fds, count, timeout);
}
}
