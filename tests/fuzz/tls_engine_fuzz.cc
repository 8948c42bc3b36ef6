// The TLS engine against hostile bytes. First byte modulo 3: the input goes to a server, or to a client, or an honest
// pair's traffic is changed on the way. Second byte: the size of the chunks. No crash, no byte written beyond the room
// asked for, and what is read is always a prefix of what was written.

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "tests/fuzz/scram_fuzz_support.h"
#include "tests/unit/support/tls_pair.h"

namespace {

using namespace pointsman;
using protocol::TlsEngine;
using tests::TlsEnd;
using Status = TlsEngine::Status;

struct World {
  tests::TlsWorld made;
  std::shared_ptr<const protocol::ServerTlsContext> server = made.server();
  std::shared_ptr<const protocol::ClientTlsContext> newest = made.client();
  std::shared_ptr<const protocol::ClientTlsContext> older = [this] {
    auto context = made.client();
    SSL_CTX_set_max_proto_version(context->native(), TLS1_2_VERSION);
    return context;
  }();
};

World& world() {
  static World made;
  return made;
}

void run_raw(TlsEnd end, std::string_view input, std::size_t chunk, bool is_client) {
  if (is_client) POINTSMAN_CHECK(end.start() == Status::kNeedInput);
  const auto status = end.feed(input, chunk);
  // Nobody who does not take part can get through a handshake.
  POINTSMAN_CHECK(!end.established && end.received.empty());
  POINTSMAN_CHECK((status == Status::kFailed) == !end.engine->failure().empty());
}

/// Carries what one end has put out to the other, changed when it is flight number `target`.
struct Wire {
  int target;
  int flight = 0;
  fuzz::Choices& choices;
  bool touched = false;

  void carry(TlsEnd& from, TlsEnd& to, std::size_t chunk) {
    auto bytes = from.take_outgoing();
    if (bytes.empty() || to.status == Status::kFailed || to.status == Status::kClosed) return;
    if (flight++ == target) {
      // Two bytes of the input say where: a flight is longer than 255.
      const std::size_t at = (choices.byte() * std::size_t{256} + choices.byte()) % bytes.size();
      const auto tail = choices.change(std::string_view(bytes).substr(at));
      touched = tail != std::string_view(bytes).substr(at);
      bytes = bytes.substr(0, at) + tail;
    }
    to.feed(bytes, chunk);
  }
};

void run_changed(fuzz::Choices choices, std::size_t chunk) {
  const auto flags = choices.byte();
  auto& w = world();
  tests::TlsPair pair(w.server, (flags & 1) != 0 ? w.older : w.newest);
  Wire wire{flags >> 1 & 7, 0, choices};
  pair.client.start();
  for (int turn = 0; turn < 4; ++turn) {
    wire.carry(pair.client, pair.server, chunk);
    wire.carry(pair.server, pair.client, chunk);
  }
  const bool both = pair.client.established && pair.server.established;
  POINTSMAN_CHECK(both || wire.touched);
  std::string sent_by_client;
  std::string sent_by_server;
  for (int turn = 0; both && turn < 3; ++turn) {
    // Long data in tiny chunks only costs time.
    const unsigned longest = chunk < 64 ? 10 : 16;
    const std::string data(std::size_t{1} << (choices.byte() % longest), static_cast<char>('a' + turn));
    if (pair.client.write(data)) sent_by_client += data;
    if (pair.server.write(data)) sent_by_server += data;
    wire.carry(pair.client, pair.server, chunk);
    wire.carry(pair.server, pair.client, chunk);
    if ((flags & 0x10) != 0) pair.server.engine->release_buffers();
  }
  POINTSMAN_CHECK(sent_by_client.starts_with(pair.server.received));
  POINTSMAN_CHECK(sent_by_server.starts_with(pair.client.received));
  if (both && !wire.touched)
    POINTSMAN_CHECK(pair.server.received == sent_by_client && pair.client.received == sent_by_server);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Choices choices(data, size);
  const auto kind = choices.byte() % 3;
  const auto chunk_choice = choices.byte();
  const std::size_t chunk = chunk_choice < 128 ? std::string::npos : std::size_t{chunk_choice} - 127;
  switch (kind) {
    case 0:
      run_raw(TlsEnd(TlsEngine::accept(world().server)), choices.rest(), chunk, false);
      break;
    case 1:
      run_raw(TlsEnd(TlsEngine::connect(world().newest, "db.test")), choices.rest(), chunk, true);
      break;
    default:
      run_changed(choices, chunk);
  }
  return 0;
}
