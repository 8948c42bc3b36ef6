#include "proxy/server/cpu_count.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace pointsman::proxy {

namespace {

std::uint32_t quota_cpus() {
  long long quota = -1;
  long long period = 0;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2) {
    std::string first;
    v2 >> first >> period;
    if (first != "max" && !first.empty()) quota = std::strtoll(first.c_str(), nullptr, 10);
  } else {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  if (quota <= 0 || period <= 0) return 64;
  return static_cast<std::uint32_t>(std::clamp<long long>((quota + period - 1) / period, 1, 64));
}

}  // namespace

std::uint32_t available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::uint32_t count = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    count = static_cast<std::uint32_t>(std::clamp(CPU_COUNT(&set), 1, 64));
  return std::min(count, quota_cpus());
}

}  // namespace pointsman::proxy
