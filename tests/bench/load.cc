// The bench's client. libpq logs in (so TLS, SCRAM and startup are those of a real client), then the program talks
// on the bare socket or the SSL object itself: its own share of a core stays small and equal for every peer.
//
// Usage: load [--direct-tls] CONNINFO, then commands on standard input, each answered by one line of JSON:
//   open N                      log in until N sessions are open
//   simple|prepared seconds S   run transactions (one SELECT by key) on all sessions for S seconds
//   simple|prepared count N     the same, N transactions on each session
//   out BYTES ROW               COPY TO STDOUT of about BYTES in rows of ROW bytes, on the first session
//   in BYTES ROW                COPY FROM STDIN, in writes of 8 KiB as libpq makes them
//   login seconds S | count N   log in and out again, one after the other
//   quit
// Between two commands the program makes no system call but the read of standard input, so the caller can take the
// proxy's counters while nothing moves.

#include <libpq-fe.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "direct_tls.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kAccounts = 100'000;  // rows of table accounts, as the runner creates it
constexpr size_t kReadBuffer = 256 * 1024;
constexpr size_t kCopyWrite = 8 * 1024;  // libpq's pqPutMsgEnd sends multiples of 8 KiB

[[noreturn]] void die(const std::string& why) {
  std::fprintf(stderr, "load: %s\n", why.c_str());
  std::exit(1);
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void put_int32(std::string& out, size_t value) {
  for (int shift : {24, 16, 8, 0}) out.push_back(static_cast<char>((value >> shift) & 0xff));
}

std::string message(char tag, std::string_view body) {
  std::string out(1, tag);
  put_int32(out, body.size() + 4);
  out.append(body);
  return out;
}

// Walks over the server's messages in whatever chunks they come; counts ReadyForQuery and payload bytes.
class Scanner {
 public:
  // Returns how many ReadyForQuery messages were completed within `bytes`.
  int feed(const unsigned char* bytes, size_t length) {
    int ready = 0;
    while (length > 0) {
      if (header_have_ < 5) {
        const size_t take = std::min<size_t>(5 - header_have_, length);
        std::memcpy(header_ + header_have_, bytes, take);
        header_have_ += take;
        bytes += take;
        length -= take;
        if (header_have_ < 5) return ready;
        body_left_ = (size_t{header_[1]} << 24 | size_t{header_[2]} << 16 | size_t{header_[3]} << 8 | header_[4]) - 4;
      }
      const size_t take = std::min(body_left_, length);
      if (header_[0] == 'E') error_.append(reinterpret_cast<const char*>(bytes), take);
      bytes += take;
      length -= take;
      body_left_ -= take;
      if (body_left_ > 0) return ready;
      if (header_[0] == 'E') {
        std::replace(error_.begin(), error_.end(), '\0', ' ');
        die("the server says: " + error_);
      }
      if (header_[0] == 'Z') ++ready;
      last_tag_ = static_cast<char>(header_[0]);
      header_have_ = 0;
    }
    return ready;
  }

  char last_tag() const { return last_tag_; }

 private:
  unsigned char header_[5] = {};
  size_t header_have_ = 0;
  size_t body_left_ = 0;
  char last_tag_ = 0;
  std::string error_;
};

class Session {
 public:
  explicit Session(const std::string& conninfo) : pg_(PQconnectdb(conninfo.c_str())) {
    if (PQstatus(pg_) != CONNECTION_OK) die(PQerrorMessage(pg_));
    fd_ = PQsocket(pg_);
    ssl_ = static_cast<SSL*>(PQsslStruct(pg_, "OpenSSL"));
  }
  ~Session() { PQfinish(pg_); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  int fd() const { return fd_; }

  std::string tls() const {
    if (ssl_ == nullptr) return "none";
    return std::string(SSL_get_version(ssl_)) + " " + SSL_get_cipher_name(ssl_);
  }

  // Bytes written now, 0 when the socket is full.
  size_t write_some(const char* bytes, size_t length) {
    if (ssl_ == nullptr) {
      const ssize_t sent = ::write(fd_, bytes, length);
      if (sent < 0 && errno != EAGAIN) die(std::string("write: ") + std::strerror(errno));
      return sent < 0 ? 0 : static_cast<size_t>(sent);
    }
    const int sent = SSL_write(ssl_, bytes, static_cast<int>(length));
    if (sent <= 0 && SSL_get_error(ssl_, sent) != SSL_ERROR_WANT_WRITE) die("SSL_write failed");
    return sent <= 0 ? 0 : static_cast<size_t>(sent);
  }

  void write_all(std::string_view bytes) {
    while (!bytes.empty()) {
      const size_t sent = write_some(bytes.data(), std::min<size_t>(bytes.size(), kCopyWrite));
      bytes.remove_prefix(sent);
      if (sent == 0) wait(POLLOUT);
    }
  }

  // Bytes read now, 0 when there are none yet.
  size_t read_some(unsigned char* into, size_t length) {
    if (ssl_ == nullptr) {
      const ssize_t got = ::read(fd_, into, length);
      if (got == 0) die("the server closed the connection");
      if (got < 0 && errno != EAGAIN) die(std::string("read: ") + std::strerror(errno));
      return got < 0 ? 0 : static_cast<size_t>(got);
    }
    const int got = SSL_read(ssl_, into, static_cast<int>(length));
    if (got <= 0 && SSL_get_error(ssl_, got) != SSL_ERROR_WANT_READ) die("SSL_read failed or the server closed");
    return got <= 0 ? 0 : static_cast<size_t>(got);
  }

  void wait(short events) const {
    pollfd entry{fd_, events, 0};
    if (::poll(&entry, 1, 60'000) <= 0) die("nothing moved for a minute");
  }

  Scanner scanner;
  Clock::time_point sent_at;
  bool prepared = false;
  long left = 0;

 private:
  PGconn* pg_;
  int fd_;
  SSL* ssl_;
};

class Load {
 public:
  explicit Load(std::string conninfo) : conninfo_(std::move(conninfo)), buffer_(kReadBuffer) {}

  void open(size_t count) {
    while (sessions_.size() < count) sessions_.push_back(std::make_unique<Session>(conninfo_));
    std::printf("{\"sessions\": %zu, \"tls\": \"%s\"}\n", sessions_.size(), sessions_.at(0)->tls().c_str());
  }

  void transactions(bool prepared, double seconds, long count) {
    const int poller = epoll_create1(EPOLL_CLOEXEC);
    for (auto& session : sessions_) {
      if (prepared && !session->prepared) prepare(*session);
      epoll_event event{EPOLLIN, {.ptr = session.get()}};
      epoll_ctl(poller, EPOLL_CTL_ADD, session->fd(), &event);
      session->left = count;
    }
    std::vector<uint32_t> latencies;
    latencies.reserve(1 << 18);
    const auto start = Clock::now();
    const auto end = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    for (auto& session : sessions_) begin_transaction(*session, prepared);
    size_t running = sessions_.size();
    epoll_event events[64];
    while (running > 0) {
      const int ready = epoll_wait(poller, events, 64, 60'000);
      if (ready <= 0) die("no answer for a minute");
      for (int i = 0; i < ready; ++i) {
        auto& session = *static_cast<Session*>(events[i].data.ptr);
        const size_t got = session.read_some(buffer_.data(), buffer_.size());
        if (session.scanner.feed(buffer_.data(), got) == 0) continue;
        const auto now = Clock::now();
        latencies.push_back(static_cast<uint32_t>((now - session.sent_at) / std::chrono::nanoseconds(1)));
        const bool more = count > 0 ? --session.left > 0 : now < end;
        if (more) {
          begin_transaction(session, prepared);
        } else {
          --running;
        }
      }
    }
    const double took = seconds_since(start);
    ::close(poller);
    std::sort(latencies.begin(), latencies.end());
    const auto percentile = [&](double share) {
      return latencies[std::min(latencies.size() - 1, static_cast<size_t>(share * double(latencies.size())))] / 1e3;
    };
    std::printf("{\"transactions\": %zu, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", latencies.size(),
                took, percentile(0.50), percentile(0.99));
  }

  void copy_out(size_t bytes, size_t row) {
    const std::string text(row - 1, 'x');  // the row's newline is the last byte
    const std::string rows = std::to_string(bytes / row);
    Session& session = *sessions_.at(0);
    const auto start = Clock::now();
    query(session, "COPY (SELECT '" + text + "' FROM generate_series(1, " + rows + ")) TO STDOUT");
    size_t total = 0;
    for (bool done = false; !done;) {
      const size_t got = session.read_some(buffer_.data(), buffer_.size());
      if (got == 0) session.wait(POLLIN);
      total += got;
      done = session.scanner.feed(buffer_.data(), got) > 0;
    }
    std::printf("{\"bytes\": %zu, \"seconds\": %.6f}\n", total, seconds_since(start));
  }

  void copy_in(size_t bytes, size_t row) {
    const std::string one = message('d', std::string(row - 1, 'x') + '\n');
    std::string block;  // whole messages, so it can be sent again and again
    while (block.size() < kReadBuffer) block += one;
    Session& session = *sessions_.at(0);
    const auto start = Clock::now();
    query(session, "COPY sink FROM STDIN WHERE false");  // parsed and checked row by row, stored nowhere
    read_until(session, 'G');
    size_t total = 0;
    for (; total < bytes; total += block.size()) session.write_all(block);
    session.write_all(message('c', ""));
    read_until(session, 'Z');
    std::printf("{\"bytes\": %zu, \"seconds\": %.6f}\n", total, seconds_since(start));
  }

  void logins(double seconds, long count) {
    const auto start = Clock::now();
    long done = 0;
    while (count > 0 ? done < count : seconds_since(start) < seconds) {
      Session session(conninfo_);
      ++done;
    }
    std::printf("{\"logins\": %ld, \"seconds\": %.6f}\n", done, seconds_since(start));
  }

 private:
  static void query(Session& session, const std::string& sql) {
    session.write_all(message('Q', std::string_view(sql.c_str(), sql.size() + 1)));
  }

  void read_until(Session& session, char tag) {
    do {
      session.wait(POLLIN);
      session.scanner.feed(buffer_.data(), session.read_some(buffer_.data(), buffer_.size()));
    } while (session.scanner.last_tag() != tag);
  }

  void prepare(Session& session) {
    using namespace std::string_view_literals;
    session.write_all(message('P', "by_key\0SELECT abalance FROM accounts WHERE aid = $1\0\0\0"sv) + message('S', ""));
    read_until(session, 'Z');
    session.prepared = true;
  }

  // The messages psql or pgbench would send: one Query, or Bind, Describe, Execute and Sync in one write.
  void begin_transaction(Session& session, bool prepared) {
    using namespace std::string_view_literals;
    const std::string key = std::to_string(std::uniform_int_distribution<int>(1, kAccounts)(random_));
    std::string out;
    if (prepared) {
      std::string bind("\0by_key\0\0\0\0\1"sv);
      put_int32(bind, key.size());
      bind += key;
      bind += "\0\1\0\0"sv;
      out = message('B', bind) + message('D', "P\0"sv) + message('E', "\0\0\0\0\0"sv) + message('S', "");
    } else {
      const std::string sql = "SELECT abalance FROM accounts WHERE aid = " + key + ";";
      out = message('Q', std::string_view(sql.c_str(), sql.size() + 1));
    }
    session.sent_at = Clock::now();
    session.write_all(out);
  }

  std::string conninfo_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<unsigned char> buffer_;
  std::mt19937 random_{42};
};

void run_command(Load& load, const std::string& line) {
  std::istringstream words(line);
  std::string verb, unit;
  double number = 0;
  words >> verb;
  if (verb == "open" && words >> number) return load.open(static_cast<size_t>(number));
  if (verb == "out" || verb == "in") {
    size_t row = 0;
    if (!(words >> number >> row) || row < 2) die("bad command: " + line);
    const auto bytes = static_cast<size_t>(number);
    return verb == "out" ? load.copy_out(bytes, row) : load.copy_in(bytes, row);
  }
  if (!(words >> unit >> number) || (unit != "seconds" && unit != "count")) die("bad command: " + line);
  const double seconds = unit == "seconds" ? number : 0;
  const long count = unit == "count" ? static_cast<long>(number) : 0;
  if (verb == "login") return load.logins(seconds, count);
  if (verb == "simple" || verb == "prepared") return load.transactions(verb == "prepared", seconds, count);
  die("bad command: " + line);
}

}  // namespace

int main(int argc, char** argv) {
  const bool direct = argc == 3 && std::string_view(argv[1]) == "--direct-tls";
  if (argc != (direct ? 3 : 2)) die("usage: load [--direct-tls] CONNINFO");
  if (direct) direct_tls::enable();
  std::signal(SIGPIPE, SIG_IGN);
  Load load(argv[argc - 1]);
  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    run_command(load, line);
    std::fflush(stdout);
  }
  return 0;
}
