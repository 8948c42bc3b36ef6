// Whole configuration files: the reader never fails itself, says every error in one line, and what it accepts keeps the
// promises of config.h. The input lies in a folder with the files that good configurations name.

#include <sys/stat.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/check.h"
#include "routing/config.h"
#include "routing/json_reader.h"
#include "tests/fuzz/texts.h"

namespace {

using namespace pointsman;
using namespace pointsman::routing;

class Folder {
 public:
  Folder() {
    std::string made = (std::filesystem::temp_directory_path() / "pointsman-fuzz-XXXXXX").string();
    POINTSMAN_CHECK(::mkdtemp(made.data()) != nullptr);
    path_ = made;
    for (const char* secret : {"server.crt", "server.key", "ca.crt", "probe.pw", "admin.token"})
      write(secret, "text\n");
    write("users.txt", "\"app\" \"SCRAM-SHA-256$4096:c2FsdA==$a:b\"\n");
    std::filesystem::create_directory(path_ / "branches.d");
    write("branches.d/a.json", R"({"members": [{"name": "pg", "host": "10.0.0.1"}]})");
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string write(const std::string& name, std::string_view text) const {
    const std::string file = (path_ / name).string();
    std::ofstream(file, std::ios::binary) << text;
    POINTSMAN_CHECK(::chmod(file.c_str(), 0600) == 0);
    return file;
  }

 private:
  std::filesystem::path path_;
};

/// Our document builder agrees with nlohmann's, but for what it refuses on purpose.
void check_parser(std::string_view text) {
  const ParsedJson ours = parse_json(text);
  const Json theirs = Json::parse(text, nullptr, /*allow_exceptions=*/false, /*ignore_comments=*/true);
  if (ours.value) {
    POINTSMAN_CHECK(!theirs.is_discarded() && *ours.value == theirs);
  } else {
    POINTSMAN_CHECK(!ours.error.empty());
    const bool on_purpose = ours.error.find("twice") != std::string::npos || ours.error.starts_with("nested deeper");
    POINTSMAN_CHECK(theirs.is_discarded() || on_purpose);
  }
}

void check_branch(const std::string& name, const BranchConfig& branch) {
  POINTSMAN_CHECK(branch.name == name && is_branch_name(name));
  POINTSMAN_CHECK(branch.members.empty() == branch.discover.has_value());
  for (const MemberConfig& member : branch.members)
    POINTSMAN_CHECK(!member.name.empty() && !member.host.empty() && member.port != 0);
  for (const PoolConfig& pool : branch.pools) {
    POINTSMAN_CHECK(is_pool_name(pool.name) && !pool.endpoints.empty());
    POINTSMAN_CHECK(branch.find_pool(pool.name) == &pool);
  }
  POINTSMAN_CHECK(branch.default_pool.empty() || branch.find_pool(branch.default_pool)->to_primary);
  POINTSMAN_CHECK(branch.replicas.lag_hard_cap >= branch.replicas.max_lag);
  POINTSMAN_CHECK(branch.failover.dead_after > 0);
  POINTSMAN_CHECK(branch.auth.method == AuthMethod::kScram || branch.backend_tls.mode == TlsMode::kDisable);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check_parser(text);

  const std::string file = folder.write("pointsman.json", text);
  const LoadedConfig loaded = load_config(file, nullptr);
  POINTSMAN_CHECK(loaded.config != nullptr || !loaded.errors.empty());
  POINTSMAN_CHECK(loaded.rejected_branches.empty() || !loaded.errors.empty());
  POINTSMAN_CHECK(!loaded.watched_paths.empty());
  for (const ConfigError& error : loaded.errors) fuzz::check_one_line(error.to_string());
  if (loaded.config == nullptr) return 0;
  POINTSMAN_CHECK(!loaded.config->listeners.empty());
  for (const auto& [name, branch] : loaded.config->branches) check_branch(name, *branch);
  for (const std::string& name : loaded.rejected_branches) POINTSMAN_CHECK(!loaded.config->branches.contains(name));

  const LoadedConfig again = load_config(file, loaded.config.get());
  POINTSMAN_CHECK(again.config != nullptr && again.errors.size() == loaded.errors.size());
  POINTSMAN_CHECK(again.config->branches == loaded.config->branches);  // the same objects
  return 0;
}
