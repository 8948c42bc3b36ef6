#include "protocol/framing.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>

#include "tests/unit/support/chunker.h"

namespace pointsman::protocol {
namespace {

using namespace std::string_literals;
using Direction = MessageScanner::Direction;

std::string message(char tag, std::string_view body) {
  std::string bytes(1, tag);
  base::append_be32(bytes, static_cast<std::uint32_t>(body.size() + 4));
  return bytes.append(body);
}
std::string header(char tag, std::uint32_t length) {
  std::string bytes(1, tag);
  base::append_be32(bytes, length);
  return bytes;
}
bool observe(MessageScanner& scanner, std::string_view bytes) {
  return scanner.observe(base::as_bytes(bytes));
}

/// All that a scanner can say.
std::string describe(const MessageScanner& scanner) {
  const auto shown = [](char c) { return c == 0 ? "none"s : std::string(1, c); };
  return (scanner.broken()        ? "broken"s
          : scanner.at_boundary() ? "boundary"s
                                  : "inside"s) +
         " tag " + shown(scanner.last_tag()) + " status " + shown(scanner.transaction_status()) + " ready " +
         std::to_string(scanner.ready_count());
}
/// The state after `stream`, found the same for every way of receiving it.
std::string after(Direction direction, std::string_view stream) {
  const auto run = [direction](const test::Chunks& chunks) {
    MessageScanner scanner(direction);
    for (const base::Bytes chunk : chunks) {
      const bool sound = scanner.observe(chunk);
      CHECK(sound == !scanner.broken());
    }
    return describe(scanner);
  };
  CHECK(test::chunking_difference(base::as_bytes(stream), run) == "");
  return run({base::as_bytes(stream)});
}
std::string from_backend(std::string_view stream) {
  return after(Direction::kFromBackend, stream);
}
std::string from_client(std::string_view stream) {
  return after(Direction::kFromClient, stream);
}

TEST_CASE("a new scanner is at a boundary, and an empty read changes nothing") {
  MessageScanner scanner(Direction::kFromBackend);
  CHECK(describe(scanner) == "boundary tag none status none ready 0");
  CHECK(observe(scanner, ""));
  CHECK(describe(scanner) == "boundary tag none status none ready 0");
  for (const std::string& begun : {"Z"s, "Z\0\0"s, "Z\0\0\0\5"s, "D\0\0\0\x09xx"s}) {
    MessageScanner in_it(Direction::kFromBackend);
    CHECK(observe(in_it, begun));
    const std::string before = describe(in_it);
    CHECK(observe(in_it, ""));
    CHECK(describe(in_it) == before);
  }
}

TEST_CASE("a boundary is where the last message ends and nowhere else") {
  const std::string stream = message('T', "abc") + message('D', "") + message('C', "SELECT 1\0"s);
  MessageScanner scanner(Direction::kFromBackend);
  for (std::size_t at = 0; at < stream.size(); ++at) {
    CHECK(observe(scanner, std::string_view(stream).substr(at, 1)));
    CHECK(scanner.at_boundary() == (at + 1 == 8 || at + 1 == 13 || at + 1 == stream.size()));
  }
  CHECK(from_backend(stream) == "boundary tag C status none ready 0");
}

TEST_CASE("the tag is that of the last message with a whole header") {
  CHECK(from_backend(message('T', "abc") + "D\0\0\0"s) == "inside tag T status none ready 0");
  CHECK(from_backend(message('T', "abc") + "D\0\0\0\5"s) == "inside tag D status none ready 0");
}

TEST_CASE("a ReadyForQuery's status is read, also when it comes apart from its header") {
  CHECK(from_backend(message('Z', "I")) == "boundary tag Z status I ready 1");
  CHECK(from_backend(message('Z', "I") + message('Z', "T") + message('Z', "E")) == "boundary tag Z status E ready 3");
  CHECK(from_backend(message('C', "BEGIN\0"s) + message('Z', "T") + message('N', "x")) ==
        "boundary tag N status T ready 1");
  CHECK(from_backend(message('Z', "I") + header('Z', 5)) == "inside tag Z status I ready 2");
}

TEST_CASE("a message that is called Z but is no ReadyForQuery is not counted") {
  CHECK(from_backend(header('Z', 4)) == "boundary tag Z status none ready 0");
  CHECK(from_backend(message('Z', "II")) == "boundary tag Z status none ready 0");
  CHECK(from_backend(header('Z', 4) + message('D', "I")) == "boundary tag D status none ready 0");
}

TEST_CASE("a backend's S, F and Q are no requests") {
  CHECK(from_backend(message('S', "a\0b\0"s) + message('Q', "") + message('F', "")) ==
        "boundary tag F status none ready 0");
}

TEST_CASE("a client's Query, Sync and FunctionCall are requests, and its Z is none") {
  CHECK(from_client(message('Q', "select 1\0"s)) == "boundary tag Q status none ready 1");
  CHECK(from_client(message('P', "x") + message('B', "") + message('D', "") + message('E', "") + message('S', "")) ==
        "boundary tag S status none ready 1");
  CHECK(from_client(message('F', "") + message('Q', "") + message('S', "") + message('H', "")) ==
        "boundary tag H status none ready 3");
  CHECK(from_client(message('Z', "I") + message('X', "")) == "boundary tag X status none ready 0");
}

TEST_CASE("a Sync that a COPY FROM STDIN swallows is taken back") {
  const std::string extended = message('P', "x") + message('B', "") + message('E', "") + message('S', "");
  const std::string data = message('d', "1\n") + message('d', "2\n");
  CHECK(from_client(extended + data + message('c', "") + message('S', "")) == "boundary tag S status none ready 1");
  CHECK(from_client(extended + message('c', "") + message('S', "")) == "boundary tag S status none ready 1");
  CHECK(from_client(extended + message('f', "no\0"s) + message('S', "")) == "boundary tag S status none ready 1");
  CHECK(from_client(message('Q', "copy t from stdin\0"s) + data + message('c', "")) ==
        "boundary tag c status none ready 1");
  CHECK(from_client(message('Q', "copy") + data + message('S', "") + message('d', "3\n") + message('c', "")) ==
        "boundary tag c status none ready 1");
  CHECK(from_client(extended + message('Q', "x") + message('d', "")) == "boundary tag d status none ready 2");
}

TEST_CASE("a length below 4 ends all boundaries for good") {
  for (const std::uint32_t length : {0U, 1U, 3U}) {
    const std::string stream = message('C', "x") + header('D', length);
    CHECK(from_backend(stream) == "broken tag D status none ready 0");
    CHECK(from_client(stream + message('Q', "x") + "rest") == "broken tag D status none ready 0");
    MessageScanner scanner(Direction::kFromBackend);
    CHECK_FALSE(observe(scanner, stream));
    CHECK_FALSE(observe(scanner, message('Z', "I")));
    CHECK_FALSE(observe(scanner, ""));
    CHECK_FALSE(scanner.at_boundary());
    CHECK(scanner.ready_count() == 0);
  }
  CHECK(from_backend(header('D', 4)) == "boundary tag D status none ready 0");
}

TEST_CASE("a broken stream stays broken however long it goes on") {
  MessageScanner scanner(Direction::kFromBackend);
  CHECK_FALSE(observe(scanner, header('D', 3)));
  const std::string piece(1U << 20, 'Z');
  for (int count = 0; count < 5'000; ++count) REQUIRE_FALSE(observe(scanner, piece));
  CHECK_FALSE(observe(scanner, message('Z', "I")));
  CHECK(describe(scanner) == "broken tag D status none ready 0");
}

TEST_CASE("a message of the greatest length ends where it says, beyond 4 GiB") {
  for (const std::uint32_t length : {0x7fffffffU, 0x80000000U, 0xffffffffU}) {
    MessageScanner scanner(Direction::kFromBackend);
    CHECK(observe(scanner, message('C', "x") + header('d', length)));
    const std::string piece(1U << 20, 'Z');
    std::uint64_t left = length - 4;
    for (; left >= piece.size(); left -= piece.size()) REQUIRE(observe(scanner, piece));
    CHECK_FALSE(scanner.at_boundary());
    CHECK(observe(scanner, std::string(static_cast<std::size_t>(left), 'Z') + message('Z', "I")));
    CHECK(describe(scanner) == "boundary tag Z status I ready 1");
  }
}

/// The same rules, a byte at a time and without a thought of speed.
class SlowScanner {
 public:
  explicit SlowScanner(Direction direction) : direction_(direction) {}
  void take(char byte) {
    if (broken_) return;
    message_.push_back(byte);
    if (message_.size() < 5) return;
    const std::uint64_t length = base::load_be32(base::as_bytes(message_).data() + 1);
    const bool from_backend = direction_ == Direction::kFromBackend;
    if (message_.size() == 5) {
      if (length < 4) {
        broken_ = true;
      } else if (from_backend) {
        ready_ += message_[0] == 'Z' && length == 5;
      } else if ("QSF"s.find(message_[0]) != std::string::npos) {
        ++ready_;
      } else if ("dcf"s.find(message_[0]) != std::string::npos && tag_ == 'S') {
        --ready_;
      }
      tag_ = message_[0];
    }
    if (from_backend && message_.size() == 6 && message_[0] == 'Z' && length == 5) status_ = byte;
    if (!broken_ && message_.size() == length + 1) message_.clear();
  }
  std::string state() const {
    const auto shown = [](char c) { return c == 0 ? "none"s : std::string(1, c); };
    return (broken_            ? "broken"s
            : message_.empty() ? "boundary"s
                               : "inside"s) +
           " tag " + shown(tag_) + " status " + shown(status_) + " ready " + std::to_string(ready_);
  }

 private:
  Direction direction_;
  std::string message_;
  char tag_ = 0;
  char status_ = 0;
  std::uint32_t ready_ = 0;
  bool broken_ = false;
};

TEST_CASE("random streams in random pieces: the same as byte by byte thought out slowly") {
  std::mt19937 random(7);
  const std::string tags = "ZZZSQFdcfDTC1\0\xff"s;
  for (int round = 0; round < 3'000; ++round) {
    const Direction direction = round % 2 == 0 ? Direction::kFromBackend : Direction::kFromClient;
    MessageScanner scanner(direction);
    SlowScanner slow(direction);
    std::string stream;
    for (int count = 0; count < 12; ++count) {
      const char tag = tags[random() % tags.size()];
      if (tag == 'Z') {
        stream += message('Z', random() % 8 == 0 ? "" : random() % 8 == 0 ? "IT" : "I");
      } else {
        stream += message(tag, std::string(random() % 16, static_cast<char>('Z')));
      }
      if (random() % 200 == 0) stream += header(tag, random() % 4);
    }
    for (std::size_t at = 0; at < stream.size();) {
      const std::size_t size = std::min<std::size_t>(1 + random() % 20, stream.size() - at);
      observe(scanner, std::string_view(stream).substr(at, size));
      for (const char byte : stream.substr(at, size)) slow.take(byte);
      REQUIRE(describe(scanner) == slow.state());
      at += size;
    }
  }
}

}  // namespace
}  // namespace pointsman::protocol
