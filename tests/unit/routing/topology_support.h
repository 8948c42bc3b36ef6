#pragma once
// A branch of three members under a clock of its own, fed with what probes would bring.

#include <memory>
#include <string>
#include <string_view>

#include "routing/topology.h"

namespace pointsman::routing::test {

inline std::shared_ptr<BranchConfig> three_members() {
  auto config = std::make_shared<BranchConfig>();
  config->name = "x";
  for (const char* name : {"pg-0", "pg-1", "pg-2"})
    config->members.push_back({name, std::string("10.0.0.1") + name[3], 5432, 6432, "a"});
  config->pools.push_back({"app", true, {{"10.0.1.1", 6432, ""}, {"pool-host", 6432, ""}}, {}});
  return config;
}

struct World {
  std::shared_ptr<BranchConfig> config = three_members();
  BranchTopology topology{config};
  base::Instant now{std::chrono::seconds(100)};
  bool changed = false;

  World() { topology.set_active(true); }

  ProbeSample primary(Lsn lsn, std::uint32_t timeline = 1, const char* system = "sys-1") const {
    return {.in_recovery = false,
            .timeline = timeline,
            .system_identifier = system,
            .current_lsn = lsn,
            .replay_lsn = {},
            .receiver_streaming = false,
            .replay_paused = false};
  }
  ProbeSample replica(Lsn lsn, std::uint32_t timeline = 1, bool streaming = true, const char* system = "sys-1") const {
    return {.in_recovery = true,
            .timeline = timeline,
            .system_identifier = system,
            .current_lsn = {},
            .replay_lsn = lsn,
            .receiver_streaming = streaming,
            .replay_paused = false};
  }
  void sample(std::size_t member, const ProbeSample& what) { changed = topology.on_sample(member, what, now); }
  void fail(std::size_t member, ProbeFailure failure = ProbeFailure::kUnreachable, int times = 1) {
    for (int i = 0; i < times; ++i) changed = topology.on_failure(member, failure, now);
  }
  /// pg-0 the primary at `lsn`, the others at the same place.
  void settle(Lsn lsn = 1000) {
    sample(0, primary(lsn));
    sample(1, replica(lsn));
    sample(2, replica(lsn));
  }
  std::shared_ptr<BranchView> view() { return topology.view(now); }
  MemberView member(std::size_t index) { return view()->members[index]; }
  MemberState state(std::size_t index) { return member(index).state; }
  bool told(std::string_view words) const { return topology.last_event().find(words) != std::string::npos; }
};

}  // namespace pointsman::routing::test
