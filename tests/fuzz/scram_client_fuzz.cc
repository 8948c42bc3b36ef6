// The client side of SCRAM against a hostile backend. First byte: bit 0 uses PLUS, bit 1 chooses between messages made
// of the input alone (separated by a zero byte) and those of an honest server, changed. No crash, and kDone only for
// the honest messages.

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "tests/fuzz/scram_fuzz_support.h"

namespace {

using namespace pointsman;
using protocol::ScramClient;
using protocol::ScramServer;
using Outcome = ScramClient::Outcome;

ScramClient make_client(bool plus) {
  return {fuzz::role_keys(), fuzz::kClientNonce, plus, false, plus ? fuzz::kEndpointHash : ""};
}

void check_continue(const ScramClient& client, Outcome outcome) {
  POINTSMAN_CHECK((outcome == Outcome::kContinue) == client.reason().empty());
  POINTSMAN_CHECK((outcome == Outcome::kContinue) == !client.message().empty());
}

void run_raw(bool plus, std::string_view input) {
  auto client = make_client(plus);
  (void)client.first_message();
  const auto cut = std::min(input.find('\0'), input.size());
  std::string server_first(input.substr(0, cut));
  // Our nonce stands where the input says "$".
  if (const auto at = server_first.find('$'); at != std::string::npos) server_first.replace(at, 1, fuzz::kClientNonce);
  const auto outcome = client.on_continue(server_first);
  check_continue(client, outcome);
  if (outcome != Outcome::kContinue) return;
  POINTSMAN_CHECK(client.on_final(input.substr(std::min(cut + 1, input.size()))) != Outcome::kDone);
}

void run_changed(bool plus, fuzz::Choices choices) {
  auto client = make_client(plus);
  ScramServer server(fuzz::role().verifier, false, fuzz::kServerNonce, plus, plus ? fuzz::kEndpointHash : "");
  POINTSMAN_CHECK(server.on_initial(client.mechanism(), client.first_message()) == ScramServer::Outcome::kContinue);
  const auto first = server.message();
  const bool change_first = choices.byte() % 2 == 1;
  const auto sent_first = change_first ? choices.change(first) : first;
  const auto outcome = client.on_continue(sent_first);
  check_continue(client, outcome);
  if (outcome != Outcome::kContinue) {
    POINTSMAN_CHECK(sent_first != first);
    return;
  }
  if (server.on_final(client.message()) != ScramServer::Outcome::kSuccess) {
    POINTSMAN_CHECK(sent_first != first);
    return;
  }
  POINTSMAN_CHECK(sent_first == first);
  const auto sent_final = choices.change(server.message());
  const auto last = client.on_final(sent_final);
  POINTSMAN_CHECK((last == Outcome::kDone) == (sent_final == server.message()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Choices choices(data, size);
  const auto flags = choices.byte();
  const bool plus = (flags & 1) != 0;
  if ((flags & 2) != 0) {
    run_changed(plus, choices);
  } else {
    run_raw(plus, choices.rest());
  }
  return 0;
}
