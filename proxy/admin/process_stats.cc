#include "proxy/admin/process_stats.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string>

namespace pointsman::proxy {
namespace {

std::string read_file(const char* path) {
  const std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<std::uint64_t> to_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Does not change while the machine runs, so it is read once.
std::optional<std::uint64_t> read_boot_time() {
  std::istringstream lines(read_file("/proc/stat"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("btime ")) return to_number(std::string_view(line).substr(6));
  }
  return std::nullopt;
}

std::optional<std::uint64_t> count_open_fds() {
  struct stat about {};
  // Linux 6.2 and later say the number as the directory's size; before, it is 0.
  if (stat("/proc/self/fd", &about) == 0 && about.st_size > 0) return static_cast<std::uint64_t>(about.st_size);
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return std::nullopt;
  std::uint64_t entries = 0;
  while (readdir(folder) != nullptr) ++entries;
  closedir(folder);
  return entries < 3 ? 0 : entries - 3;  // ".", ".." and the folder's own descriptor
}

}  // namespace

void parse_process_stat(std::string_view stat, long ticks_per_second, long page_bytes,
                        std::optional<std::uint64_t> boot_time, ProcessStats& stats) {
  // "1234 (name) S 1 …": the name may hold spaces and parentheses, so counting begins behind the last one, with
  // field 3.
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string_view::npos || ticks_per_second <= 0 || page_bytes <= 0) return;
  constexpr std::size_t kFirstField = 3;
  std::array<std::string_view, 25> fields{};  // [n]: field n of proc(5)
  std::string_view rest = stat.substr(name_end + 1);
  for (std::size_t field = kFirstField; field < fields.size() && !rest.empty(); ++field) {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    fields[field] = rest.substr(0, rest.find_first_of(" \n"));
    rest.remove_prefix(fields[field].size());
  }
  const double ticks = static_cast<double>(ticks_per_second);
  const auto user = to_number(fields[14]);
  const auto system = to_number(fields[15]);
  if (user && system) stats.cpu_seconds = static_cast<double>(*user + *system) / ticks;
  if (const auto started = to_number(fields[22]); started && boot_time) {
    stats.start_time_seconds = static_cast<double>(*boot_time) + static_cast<double>(*started) / ticks;
  }
  stats.virtual_bytes = to_number(fields[23]);
  if (const auto pages = to_number(fields[24])) stats.resident_bytes = *pages * static_cast<std::uint64_t>(page_bytes);
}

ProcessStats read_process_stats() {
  static const std::optional<std::uint64_t> boot_time = read_boot_time();
  ProcessStats stats;
  parse_process_stat(read_file("/proc/self/stat"), sysconf(_SC_CLK_TCK), sysconf(_SC_PAGESIZE), boot_time, stats);
  stats.open_fds = count_open_fds();
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) stats.max_fds = limit.rlim_cur;
  return stats;
}

}  // namespace pointsman::proxy
