// First packets: every prefix agrees with the whole, and what was parsed is built back.

#include <algorithm>
#include <cstdint>
#include <string>
#include <variant>

#include "base/check.h"
#include "protocol/postgres_format.h"
#include "protocol/startup.h"
#include "tests/fuzz/prefixes.h"

namespace {

using namespace pointsman;
using Parsed = std::variant<protocol::NeedMore, protocol::ParsedFirstPacket, protocol::StartupRejected>;

std::string describe(const protocol::StartupMessage& message) {
  std::string text;
  for (const auto& [name, value] : message.parameters) text.append(name).append(1, '\0').append(value).append(1, '\0');
  text.append(1, '\0');
  for (const std::string& option : message.protocol_options) text.append(option).append(1, '\0');
  return text;
}

std::string describe(const Parsed& result) {
  if (std::holds_alternative<protocol::NeedMore>(result)) return "need more";
  if (const auto* rejected = std::get_if<protocol::StartupRejected>(&result)) {
    return "rejected " + std::string(to_message(rejected->fault)) + std::to_string(rejected->major) + "." +
           std::to_string(rejected->minor);
  }
  const auto& parsed = std::get<protocol::ParsedFirstPacket>(result);
  std::string text = std::to_string(parsed.consumed) + "/" + std::to_string(parsed.packet.index()) + " ";
  if (const auto* cancel = std::get_if<protocol::CancelRequest>(&parsed.packet)) {
    return text + std::to_string(cancel->pid) + cancel->secret;
  }
  if (const auto* startup = std::get_if<protocol::StartupMessage>(&parsed.packet)) {
    return text + std::to_string(startup->major) + "." + std::to_string(startup->minor) + describe(*startup);
  }
  return text;
}

void check_startup(const protocol::StartupMessage& message) {
  POINTSMAN_CHECK(message.major == protocol::kProtocolMajor);
  const std::string* const user = message.find("user");
  POINTSMAN_CHECK(user != nullptr && !user->empty());
  for (const char* const single : {"user", "database", "replication", "options"}) {
    const auto named = [single](const protocol::StartupParameter& each) { return each.name == single; };
    POINTSMAN_CHECK(std::count_if(message.parameters.begin(), message.parameters.end(), named) <= 1);
  }
  for (const auto& each : message.parameters) POINTSMAN_CHECK(!each.name.empty() && !each.name.starts_with("_pq_."));
  for (const auto& each : message.protocol_options) POINTSMAN_CHECK(each.starts_with("_pq_."));

  const std::string built = protocol::build_startup_message(message.parameters);
  const Parsed again = protocol::parse_first_packet(base::as_bytes(built));
  const auto& parsed = std::get<protocol::ParsedFirstPacket>(again);
  POINTSMAN_CHECK(parsed.consumed == built.size());
  protocol::StartupMessage expected = message;
  expected.protocol_options.clear();
  POINTSMAN_CHECK(describe(std::get<protocol::StartupMessage>(parsed.packet)) == describe(expected));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const base::Bytes input(data, size);
  const auto parse = [](base::Bytes bytes) { return describe(protocol::parse_first_packet(bytes)); };
  fuzz::check_prefixes(input, parse, std::string("need more"));

  const Parsed result = protocol::parse_first_packet(input);
  if (std::holds_alternative<protocol::NeedMore>(result)) POINTSMAN_CHECK(size < protocol::kMaxStartupPacket);
  const auto* const parsed = std::get_if<protocol::ParsedFirstPacket>(&result);
  if (parsed == nullptr) return 0;
  POINTSMAN_CHECK(parsed->consumed >= 8 && parsed->consumed <= size && parsed->consumed <= protocol::kMaxStartupPacket);
  POINTSMAN_CHECK(parse(input.first(parsed->consumed)) == parse(input));
  if (const auto* startup = std::get_if<protocol::StartupMessage>(&parsed->packet)) check_startup(*startup);
  if (const auto* cancel = std::get_if<protocol::CancelRequest>(&parsed->packet)) {
    POINTSMAN_CHECK(protocol::build_cancel_request(cancel->pid, cancel->secret) ==
                    base::as_text(input.first(parsed->consumed)));
  }
  return 0;
}
