// Documents of discovery: the first byte says which kind. Whatever comes in, what comes out could have stood in a
// configuration, is bounded, and is sorted; words for the log are one line. A watch keeps the rules event by event.

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "routing/config_reader.h"
#include "routing/discovery.h"
#include "tests/fuzz/texts.h"

namespace {

using namespace pointsman;
using namespace pointsman::routing;

void check_found(const base::Result<Discovered>& result) {
  if (!result.ok()) {
    POINTSMAN_CHECK(!result.error().empty());
    return fuzz::check_one_line(result.error());
  }
  const Discovered& found = result.value();
  POINTSMAN_CHECK(!found.members.empty() && found.members.size() <= kMaxMembers);
  POINTSMAN_CHECK(found.problems.size() <= kMaxDiscoveryProblems);
  for (const std::string& problem : found.problems) fuzz::check_one_line(problem);
  std::set<std::string> names;
  std::set<std::pair<std::string, std::uint16_t>> places;
  std::string last;
  for (const DiscoveredMember& member : found.members) {
    POINTSMAN_CHECK(is_label(member.name) && is_host(member.host) && member.port != 0);
    POINTSMAN_CHECK(member.zone.empty() || is_label(member.zone));
    POINTSMAN_CHECK(last < member.name);
    last = member.name;
    POINTSMAN_CHECK(names.insert(member.name).second && places.emplace(member.host, member.port).second);
  }
  POINTSMAN_CHECK(!found.leader || names.contains(*found.leader));
  BranchConfig declared;
  declared.discover.emplace();
  POINTSMAN_CHECK(effective_config(declared, found)->members.size() == found.members.size());
}

KubernetesDiscovery wanted() {
  KubernetesDiscovery config;
  config.namespace_name = "db";
  config.service = "orders-r";
  config.leader_service = "orders-rw";
  config.pgbouncer_port_name = "pooler";
  return config;
}

/// A list, then a watch: a document each line.
void check_watch(std::string_view text) {
  EndpointSlices slices(wanted());
  const std::size_t end = text.find('\n');
  if (const auto error = slices.load_list(text.substr(0, end))) {
    fuzz::check_one_line(*error);
    POINTSMAN_CHECK(slices.resource_version().empty());
  } else {
    POINTSMAN_CHECK(!slices.resource_version().empty());
  }
  check_found(slices.discovered());
  while (text.find('\n') != std::string_view::npos) {
    text.remove_prefix(text.find('\n') + 1);
    const std::string version = slices.resource_version();
    const auto applied = slices.apply(text.substr(0, text.find('\n')));
    const bool good =
        applied.event == EndpointSlices::Event::kChanged || applied.event == EndpointSlices::Event::kBookmark;
    POINTSMAN_CHECK(good == applied.error.empty());
    fuzz::check_one_line(applied.error);
    for (const char c : slices.resource_version()) POINTSMAN_CHECK(is_label(std::string("a") + c));  // goes into a URL
    if (!good) break;  // whoever watches lists anew
    check_found(slices.discovered());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 3) {
    case 0:
      check_found(discovered_from_patroni(text));
      break;
    case 1:
      check_watch(text);
      break;
    default:
      fuzz::check_one_line(kubernetes_status_message(text));
      if (const auto url = HttpUrl::parse(text)) {
        fuzz::check_one_line(url->to_string());
        POINTSMAN_CHECK(HttpUrl::parse(url->to_string()) == url);
      }
      break;
  }
  return 0;
}
