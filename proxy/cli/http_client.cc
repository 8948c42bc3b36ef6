#include "proxy/cli/http_client.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>

#include "base/bytes.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

using Clock = std::chrono::steady_clock;

/// The largest answer is the status of some ten thousand branches.
constexpr std::size_t kMaxAnswerBytes = 64 * 1024 * 1024;

template <typename Number>
std::optional<Number> to_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

/// 0, or an errno; ETIMEDOUT after the deadline.
int wait_for(int fd, short events, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return ETIMEDOUT;
    pollfd descriptor{.fd = fd, .events = events, .revents = 0};
    const int ready = ::poll(&descriptor, 1, static_cast<int>(left));
    if (ready > 0) return 0;
    if (ready < 0 && errno != EINTR) return errno;
  }
}

int connect_to(int fd, const addrinfo& address, Clock::time_point deadline) {
  if (::connect(fd, address.ai_addr, address.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  if (const int error = wait_for(fd, POLLOUT, deadline); error != 0) return error;
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

int send_all(int fd, std::string_view text, Clock::time_point deadline) {
  while (!text.empty()) {
    const ssize_t sent = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      text.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno != EINTR && errno != EAGAIN) {
      return errno;
    } else if (const int error = wait_for(fd, POLLOUT, deadline); error != 0) {
      return error;
    }
  }
  return 0;
}

int receive_all(int fd, std::string& answer, Clock::time_point deadline) {
  std::array<char, 64 * 1024> buffer;
  for (;;) {
    const ssize_t received = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (received == 0) return 0;
    if (received > 0) {
      if (answer.size() + static_cast<std::size_t>(received) > kMaxAnswerBytes) return EMSGSIZE;
      answer.append(buffer.data(), static_cast<std::size_t>(received));
    } else if (errno != EINTR && errno != EAGAIN) {
      return errno;
    } else if (const int error = wait_for(fd, POLLIN, deadline); error != 0) {
      return error;
    }
  }
}

std::string explain_connect(const AdminUrl& url, int error) {
  const std::string where = url.to_string();
  if (error == ECONNREFUSED) {
    return "nothing listens on " + where +
           ": is `pointsman serve` running, with an \"admin\" section in its configuration on that address? "
           "Another address is given with --admin URL.";
  }
  return "cannot reach " + where + ": " + std::strerror(error) + ". Another address is given with --admin URL.";
}

std::string host_for_url(const std::string& host) {
  return host.find(':') == std::string::npos ? host : "[" + host + "]";
}

/// The value of a header in a block of lines, without the spaces around it.
std::optional<std::string_view> find_header(std::string_view block, std::string_view lower_name) {
  while (!block.empty()) {
    const std::size_t end = std::min(block.find("\r\n"), block.size());
    std::string_view line = block.substr(0, end);
    block.remove_prefix(std::min(end + 2, block.size()));
    const std::size_t colon = line.find(':');
    if (colon != lower_name.size()) continue;
    const bool same = std::equal(lower_name.begin(), lower_name.end(), line.begin(), [](char wanted, char c) {
      return wanted == (c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
    });
    if (!same) continue;
    line.remove_prefix(colon + 1);
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    while (!line.empty() && (line.back() == ' ' || line.back() == '\t')) line.remove_suffix(1);
    return line;
  }
  return std::nullopt;
}

}  // namespace

std::string AdminUrl::to_string() const {
  return "http://" + host_for_url(host) + ":" + std::to_string(port) + prefix;
}

base::Result<AdminUrl> parse_admin_url(std::string_view text) {
  const auto fault = [&](std::string_view what) {
    return base::Error{"\"" + routing::escape_for_log(text) + "\" is no admin URL: " + std::string(what) +
                       "; the form is http://HOST[:PORT]"};
  };
  std::string_view rest = text;
  if (rest.starts_with("https://")) return fault("the admin endpoint speaks plain HTTP");
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.find("://") != std::string_view::npos) {
    return fault("the scheme must be http");
  }
  AdminUrl url;
  if (const std::size_t slash = rest.find('/'); slash != std::string_view::npos) {
    url.prefix = rest.substr(slash);
    while (url.prefix.ends_with('/')) url.prefix.pop_back();
    rest = rest.substr(0, slash);
  }
  for (const char c : text) {
    if (c <= ' ' || c > '~' || c == '?' || c == '#' || c == '@')
      return fault("it has a character that cannot stand there");
  }
  std::string_view port;
  bool has_port = false;
  if (rest.starts_with('[')) {
    const std::size_t bracket = rest.find(']');
    if (bracket == std::string_view::npos) return fault("the bracket is not closed");
    url.host = rest.substr(1, bracket - 1);
    rest.remove_prefix(bracket + 1);
    has_port = !rest.empty();
    if (has_port && rest[0] != ':') return fault("only a port may follow the address");
    port = has_port ? rest.substr(1) : std::string_view{};
  } else {
    const std::size_t colon = rest.find(':');
    has_port = colon != std::string_view::npos;
    url.host = rest.substr(0, colon);
    port = has_port ? rest.substr(colon + 1) : std::string_view{};
    if (port.find(':') != std::string_view::npos) return fault("an IPv6 address stands in brackets");
  }
  if (url.host.empty()) return fault("the host is missing");
  if (has_port) {
    const auto number = to_number<std::uint16_t>(port);
    if (!number || *number == 0) return fault("the port must be 1 to 65535");
    url.port = *number;
  }
  return url;
}

base::Result<HttpAnswer> parse_http_answer(std::string_view raw) {
  const base::Error malformed{"the answer is no HTTP: does something else listen there?"};
  const std::size_t header_end = raw.find("\r\n\r\n");
  if (header_end == std::string_view::npos || !raw.starts_with("HTTP/1.")) return malformed;
  const std::string_view header = raw.substr(0, header_end);
  const std::string_view status_line = header.substr(0, header.find("\r\n"));
  // HTTP/1.1 200 OK
  if (status_line.size() < 12 || status_line[8] != ' ') return malformed;
  const auto status = to_number<unsigned>(status_line.substr(9, 3));
  if (!status || *status < 100) return malformed;

  std::string_view body = raw.substr(header_end + 4);
  const std::string_view fields = header.substr(std::min(status_line.size() + 2, header.size()));
  if (find_header(fields, "transfer-encoding"))
    return base::Error{"the answer came in a transfer coding that was not asked for"};
  if (const auto length = find_header(fields, "content-length")) {
    const auto bytes = to_number<std::size_t>(*length);
    if (!bytes) return malformed;
    if (body.size() < *bytes)
      return base::Error{"the answer was cut off: " + std::to_string(body.size()) + " of " + std::to_string(*bytes) +
                         " bytes"};
    body = body.substr(0, *bytes);
  }
  return HttpAnswer{.status = *status, .body = std::string(body)};
}

namespace {

/// `headers`: more of them, each with its line end.
base::Result<HttpAnswer> http_ask(const AdminUrl& url, std::string_view method, std::string_view path_and_query,
                                  const std::string& headers, base::Duration allowed) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(url.host.c_str(), std::to_string(url.port).c_str(), &hints, &found); error != 0) {
    return base::Error{"cannot resolve " + url.host + ": " + gai_strerror(error)};
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);

  const auto deadline = Clock::now() + allowed;
  int error = EADDRNOTAVAIL;
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    const Descriptor socket(::socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (socket.get() < 0) {
      error = errno;
      continue;
    }
    error = connect_to(socket.get(), *address, deadline);
    if (error != 0) continue;
    // HTTP/1.0: the answer ends with the connection and is never chunked, whatever proxy stands between.
    const std::string request = std::string(method) + " " + url.prefix + std::string(path_and_query) +
                                " HTTP/1.0\r\nHost: " + host_for_url(url.host) + ":" + std::to_string(url.port) +
                                "\r\nAccept: application/json\r\n" + headers + "\r\n";
    std::string raw;
    error = send_all(socket.get(), request, deadline);
    if (error == 0) error = receive_all(socket.get(), raw, deadline);
    if (error != 0) return base::Error{"no answer from " + url.to_string() + ": " + std::strerror(error)};
    return parse_http_answer(raw);
  }
  return base::Error{explain_connect(url, error)};
}

}  // namespace

base::Result<HttpAnswer> http_get(const AdminUrl& url, std::string_view path_and_query, base::Duration deadline) {
  return http_ask(url, "GET", path_and_query, {}, deadline);
}

base::Result<HttpAnswer> http_post(const AdminUrl& url, std::string_view path_and_query, std::string_view token,
                                   base::Duration deadline) {
  std::string headers = "Content-Length: 0\r\n";
  if (!token.empty()) headers += "Authorization: Bearer " + std::string(token) + "\r\n";
  return http_ask(url, "POST", path_and_query, headers, deadline);
}

}  // namespace pointsman::proxy
