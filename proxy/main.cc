// The process: the command line is cli/commands, the router is server/control.
#include "proxy/cli/commands.h"
#include "proxy/server/control.h"

int main(int argc, char** argv) {
  using pointsman::proxy::Control;
  using pointsman::proxy::ServeOptions;
  return pointsman::proxy::run_command_line(
      argc, argv, [](const ServeOptions& options) { return Control(options.config_file).run(); });
}
