// The server side of SCRAM against a hostile client. First byte: bit 0 offers PLUS, bit 1 makes it a mock, bit 2
// chooses between messages made of the input alone (separated by a zero byte) and the messages of an honest login,
// changed. Either way: no crash, and success only for the honest messages.

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "tests/fuzz/scram_fuzz_support.h"

namespace {

using namespace pointsman;
using protocol::ScramClient;
using protocol::ScramServer;
using Outcome = ScramServer::Outcome;

struct Scene {
  bool plus;
  bool mock;
  ScramServer server{fuzz::role().verifier, mock, fuzz::kServerNonce, plus, plus ? fuzz::kEndpointHash : ""};
};

void check_outcome(const ScramServer& server, Outcome outcome, bool may_succeed) {
  POINTSMAN_CHECK((outcome == Outcome::kSuccess || outcome == Outcome::kContinue) == server.reason().empty());
  POINTSMAN_CHECK(outcome != Outcome::kSuccess || may_succeed);
  if (outcome != Outcome::kSuccess) return;
  POINTSMAN_CHECK(base::as_text(server.login_keys().client_key.span()) ==
                  base::as_text(fuzz::role().client_key.span()));
}

void run_raw(Scene scene, std::string_view input) {
  const auto cut = std::min(input.find('\0'), input.size());
  const auto mechanism = scene.server.mechanisms().front();
  auto outcome = scene.server.on_initial(mechanism, input.substr(0, cut));
  check_outcome(scene.server, outcome, false);
  if (outcome != Outcome::kContinue) return;
  // What the client can know of the nonce stands where the input says "$".
  std::string final_message(input.substr(std::min(cut + 1, input.size())));
  if (const auto at = final_message.find('$'); at != std::string::npos) {
    const auto& first = scene.server.message();
    final_message.replace(at, 1, first.substr(2, first.find(',') - 2));
  }
  outcome = scene.server.on_final(final_message);
  check_outcome(scene.server, outcome, false);
}

void run_changed(Scene scene, fuzz::Choices choices) {
  ScramClient client(fuzz::role_keys(), fuzz::kClientNonce, scene.plus, false, scene.plus ? fuzz::kEndpointHash : "");
  const auto first = client.first_message();
  const bool change_first = choices.byte() % 2 == 1;
  const auto sent_first = change_first ? choices.change(first) : first;
  auto outcome = scene.server.on_initial(client.mechanism(), sent_first);
  check_outcome(scene.server, outcome, false);
  if (outcome != Outcome::kContinue) return;
  if (client.on_continue(scene.server.message()) != ScramClient::Outcome::kContinue) {
    POINTSMAN_CHECK(sent_first != first);  // another nonce than the client's
    return;
  }
  const auto sent_final = choices.change(client.message());
  const bool honest = sent_first == first && sent_final == client.message();
  outcome = scene.server.on_final(sent_final);
  check_outcome(scene.server, outcome, honest && !scene.mock);
  POINTSMAN_CHECK(!honest || outcome == (scene.mock ? Outcome::kWrongPassword : Outcome::kSuccess));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Choices choices(data, size);
  const auto flags = choices.byte();
  const bool plus = (flags & 1) != 0;
  const bool mock = (flags & 2) != 0;
  if ((flags & 4) != 0) {
    run_changed({plus, mock}, choices);
  } else {
    run_raw({plus, mock}, choices.rest());
  }
  return 0;
}
