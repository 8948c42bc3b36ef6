#pragma once
// How many CPUs this process may use.

#include <cstdint>

namespace pointsman::proxy {

/// The scheduler's affinity mask, further limited by the cgroup's CPU quota (cgroup v2 cpu.max, v1 cfs quota), rounded
/// up; 1 to 64.
std::uint32_t available_cpus();

}  // namespace pointsman::proxy
