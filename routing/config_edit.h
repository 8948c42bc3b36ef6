#pragma once
// One branch read on its own, against what the last load_config() found: for branches that come by the admin endpoint
// into branches_dir. Control thread; reads the files that the branch names.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "routing/config.h"

namespace pointsman::routing {

/// As large as a branch's file may be.
inline constexpr std::size_t kMaxBranchFileBytes = 1024 * 1024;

/// Absolute; empty: the configuration has no branches_dir.
const std::string& branches_dir(const BranchBase& base);
/// The branch stands in the configuration file itself, where no request may change it.
bool stands_in_file(const BranchBase& base, std::string_view name);

struct BranchRead {
  std::shared_ptr<const BranchConfig> branch;  ///< null when there are errors
  std::vector<ConfigError> errors;             ///< `file` is the place the text would have in branches_dir
  std::vector<std::string> watched_paths;      ///< files that the branch names
};
/// The same judgement as load_config()'s, of text that need not be a file yet. Requires: is_branch_name(name).
BranchRead read_branch_text(const BranchBase& base, const std::string& name, std::string_view text);

}  // namespace pointsman::routing
