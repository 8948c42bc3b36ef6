#include "proxy/fleet/peer_wire.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pointsman::proxy {
namespace {

std::string told(const PeerFrame& frame) {
  struct Visitor {
    std::string operator()(const PeerHello& hello) const {
      return "hello " + std::to_string(hello.version) + " " + std::string(base::as_text(hello.router));
    }
    std::string operator()(const PeerAsk& ask) const {
      return "ask " + std::to_string(ask.number) + " " + std::to_string(ask.request.pid) + " " + ask.request.secret;
    }
    std::string operator()(const PeerAnswer& answer) const {
      return "answer " + std::to_string(answer.number) + " " + std::to_string(static_cast<int>(answer.verdict));
    }
  };
  return std::visit(Visitor{}, frame);
}

struct Reading {
  std::vector<std::string> frames;
  std::string fault;
};

Reading read(const std::string& stream, std::size_t chunk) {
  Reading reading;
  PeerReader reader;
  for (std::size_t at = 0; at < stream.size(); at += chunk) {
    reader.add(base::as_bytes(std::string_view(stream).substr(at, chunk)));
    while (const auto frame = reader.next()) reading.frames.push_back(told(*frame));
  }
  reading.fault = reader.fault();
  return reading;
}

std::string raw(std::uint16_t size, std::uint8_t type, const std::string& body) {
  std::string frame;
  base::append_be16(frame, size);
  base::append_u8(frame, type);
  return frame + body;
}

RouterId router(char fill) {
  RouterId id;
  id.fill(static_cast<base::Byte>(fill));
  return id;
}

TEST_CASE("frames come out as they went in, whole, byte by byte and at each split") {
  const std::string stream =
      print_frame(PeerHello{kPeerVersion, router('r')}) + print_frame(PeerAsk{7, {4711, "abcd"}}) +
      print_frame(PeerAsk{0xFFFFFFFF, {0, std::string(256, 'x')}}) + print_frame(PeerAnswer{7, PeerVerdict::kSent}) +
      print_frame(PeerAnswer{8, PeerVerdict::kThrottled});
  const std::vector<std::string> expected = {"hello 1 rrrrrrrrrrrrrrrr", "ask 7 4711 abcd",
                                             "ask 4294967295 0 " + std::string(256, 'x'), "answer 7 1", "answer 8 3"};
  CHECK(read(stream, stream.size()).frames == expected);
  CHECK(read(stream, 1).frames == expected);
  for (std::size_t split = 1; split < stream.size(); ++split) {
    PeerReader reader;
    std::vector<std::string> frames;
    for (const auto part : {std::string_view(stream).substr(0, split), std::string_view(stream).substr(split)}) {
      reader.add(base::as_bytes(part));
      while (const auto frame = reader.next()) frames.push_back(told(*frame));
    }
    CHECK(frames == expected);
    CHECK(reader.fault().empty());
  }
}

TEST_CASE("what a later version says beside it is passed over") {
  const std::string stream = raw(3 + 17 + 5, 1, "\2" + std::string(16, 'n') + "extra") + raw(3, 9, "") +
                             raw(3 + 200, 200, std::string(200, '?')) +
                             raw(3 + 5 + 1, 3, std::string("\0\0\0\5\0!", 6));
  const auto reading = read(stream, 3);
  CHECK(reading.frames == std::vector<std::string>{"hello 2 nnnnnnnnnnnnnnnn", "answer 5 0"});
  CHECK(reading.fault.empty());
}

TEST_CASE("what makes no sense ends the stream with a reason, and nothing behind it is read") {
  const std::string good = print_frame(PeerAnswer{1, PeerVerdict::kUnknown});
  const std::string bad[] = {
      raw(0, 1, ""),
      raw(2, 1, ""),
      raw(513, 2, std::string(510, 'a')),
      raw(0xFFFF, 2, ""),
      raw(3 + 16, 1, std::string(16, 'h')),
      raw(3 + 8 + 3, 2, std::string(11, 'a')),
      raw(3 + 8 + 257, 2, std::string(265, 'a')),
      raw(3 + 4, 3, "1234"),
      raw(3 + 5, 3, "1234\4"),
  };
  for (const auto& frame : bad) {
    const auto reading = read(good + frame + good, 1);
    CHECK(reading.frames == std::vector<std::string>{"answer 1 0"});
    CHECK_FALSE(reading.fault.empty());
  }
}

}  // namespace
}  // namespace pointsman::proxy
