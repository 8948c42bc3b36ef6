#pragma once
// The command line (contract section 6): parses it with CLI11 and runs every command but `serve`, which is handed
// back to main.

#include <functional>
#include <string>

namespace pointsman::proxy {

struct ServeOptions {
  std::string config_file;
};

/// Returns the process's exit status: 0 success, 1 failure, 2 usage. `serve` runs the router.
int run_command_line(int argc, char** argv, const std::function<int(const ServeOptions&)>& serve);

}  // namespace pointsman::proxy
