// What peers say and what a seal may hold: every split reads the same frames, frames that were read are printed back,
// and a destination that was decoded encodes to the same bytes. The first byte chooses.

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/check.h"
#include "protocol/fleet_keys.h"
#include "proxy/fleet/peer_wire.h"
#include "proxy/fleet/sealed_destination.h"

namespace {

using namespace pointsman;

std::vector<std::string> frames_of(std::string_view stream, std::size_t chunk, std::string& fault) {
  proxy::PeerReader reader;
  std::vector<std::string> frames;
  for (std::size_t at = 0; at < stream.size(); at += chunk) {
    reader.add(base::as_bytes(stream.substr(at, chunk)));
    while (const auto frame = reader.next())
      frames.push_back(std::visit([](const auto& any) { return proxy::print_frame(any); }, *frame));
  }
  fault = reader.fault();
  return frames;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] % 3 == 0) {
    std::string fault;
    const auto whole = frames_of(rest, rest.size() + 1, fault);
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{data[0]} / 3 + 1}) {
      std::string other;
      POINTSMAN_CHECK(frames_of(rest, chunk, other) == whole && other == fault);
    }
    std::string printed;
    for (const auto& frame : whole) printed += frame;
    POINTSMAN_CHECK(frames_of(printed, printed.size() + 1, fault) == whole && fault.empty());
  } else if (data[0] % 3 == 1) {
    const auto destination = proxy::decode_destination(rest);
    if (destination) POINTSMAN_CHECK(proxy::encode_destination(*destination, rest.size()) == rest);
  } else {
    static const auto keys = protocol::FleetKeys::parse(std::string(40, 'k')).value();
    POINTSMAN_CHECK(!keys->open(1, rest));  // whoever forges one has broken AES
    (void)protocol::FleetKeys::parse(rest);
  }
  return 0;
}
