#include "proxy/monitor/event_log.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

using namespace pointsman::proxy;

namespace {

std::size_t count_of(const EventRing& ring, std::string_view branch) {
  const auto is_its = [&](const Event& event) { return event.branch == branch; };
  return static_cast<std::size_t>(std::count_if(ring.events().begin(), ring.events().end(), is_its));
}

}  // namespace

TEST_CASE("the ring keeps the last events, with ids that grow") {
  EventRing ring;
  CHECK(ring.last_id() == 0);
  for (std::size_t i = 0; i < EventRing::kEvents + 7; ++i)
    CHECK(ring.add(static_cast<std::int64_t>(i), LogLevel::kInfo, EventKind::kReload, "", "reloaded") == i + 1);
  CHECK(ring.events().size() == EventRing::kEvents);
  CHECK(ring.events().front().id == 8);
  CHECK(ring.events().back().id == ring.last_id());
  CHECK(ring.events().back().unix_ms == static_cast<std::int64_t>(EventRing::kEvents + 6));
}

TEST_CASE("a branch that flaps pushes out its own events and nobody else's") {
  EventRing ring;
  ring.add(1, LogLevel::kWarning, EventKind::kFailover, "quiet", "pg-1 is the primary");
  for (std::size_t i = 0; i < 3 * EventRing::kEvents; ++i)
    ring.add(2, LogLevel::kWarning, EventKind::kProbe, "flapping", std::to_string(i));
  CHECK(count_of(ring, "flapping") == EventRing::kEventsOfOneBranch);
  CHECK(count_of(ring, "quiet") == 1);
  CHECK(ring.events().front().branch == "quiet");
  CHECK(ring.events().back().text == std::to_string(3 * EventRing::kEvents - 1));
  CHECK(std::is_sorted(ring.events().begin(), ring.events().end(),
                       [](const Event& a, const Event& b) { return a.id < b.id; }));
}

TEST_CASE("a text is cut at its limit, between characters") {
  EventRing ring;
  const auto kept = [&](std::size_t bytes, const std::string& tail) {
    ring.add(0, LogLevel::kInfo, EventKind::kProbe, "b", std::string(bytes, 'x') + tail);
    return ring.events().back().text.size();
  };
  CHECK(kept(EventRing::kTextBytes - 1, "") == EventRing::kTextBytes - 1);
  CHECK(kept(EventRing::kTextBytes, "") == EventRing::kTextBytes);
  CHECK(kept(EventRing::kTextBytes + 1, "") == EventRing::kTextBytes);
  CHECK(kept(EventRing::kTextBytes - 1, "\xC3\xA4") == EventRing::kTextBytes - 1);
  CHECK(kept(EventRing::kTextBytes - 2, "\xC3\xA4") == EventRing::kTextBytes);
}

TEST_CASE("the branch's name stands beside the text and not in it") {
  EventLog log([] { return std::int64_t{42}; });
  const auto told = [&](std::string_view text) {
    log.tell(LogLevel::kInfo, EventKind::kHold, "orders", text);
    return log.ring().events().back().text;
  };
  CHECK(told("pg-1 is down") == "pg-1 is down");
  CHECK(told("branch orders is released after 3.0 s") == "is released after 3.0 s");
  CHECK(told("branch orders's hold has ended by itself") == "hold has ended by itself");
  CHECK(told("branch orders: on hold") == "on hold");
  CHECK(told("branch orders2 is another one") == "branch orders2 is another one");
  CHECK(log.ring().events().back().unix_ms == 42);
  CHECK(log.ring().events().back().branch == "orders");
}
