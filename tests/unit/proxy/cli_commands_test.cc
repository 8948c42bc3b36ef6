#include "proxy/cli/commands.h"

#include <doctest/doctest.h>

#include <initializer_list>
#include <iostream>
#include <sstream>
#include <vector>

#include "proxy/admin/version.h"

using namespace pointsman;

namespace {

struct Run {
  int status = -1;
  int served = 0;
  std::string config_file;
  std::string out;
  std::string err;
};

/// Runs a command line with what it prints caught.
Run run(std::initializer_list<const char*> arguments, int serve_status = 0) {
  std::vector<std::string> copies(arguments.begin(), arguments.end());
  copies.insert(copies.begin(), "pointsman");
  std::vector<char*> argv;
  for (auto& text : copies) argv.push_back(text.data());
  argv.push_back(nullptr);
  const std::ostringstream out;
  const std::ostringstream err;
  auto* const cout_before = std::cout.rdbuf(out.rdbuf());
  auto* const cerr_before = std::cerr.rdbuf(err.rdbuf());
  Run result;
  result.status =
      proxy::run_command_line(static_cast<int>(argv.size() - 1), argv.data(), [&](const proxy::ServeOptions& options) {
        ++result.served;
        result.config_file = options.config_file;
        return serve_status;
      });
  std::cout.rdbuf(cout_before);
  std::cerr.rdbuf(cerr_before);
  result.out = out.str();
  result.err = err.str();
  return result;
}

}  // namespace

TEST_CASE("serve is handed its configuration and gives its status on") {
  const Run served = run({"serve", "--config", "p.json"}, 1);
  CHECK(served.served == 1);
  CHECK(served.config_file == "p.json");
  CHECK(served.status == 1);
}

TEST_CASE("version and help are printed and are a success") {
  const Run version = run({"--version"});
  CHECK(version.status == 0);
  CHECK(version.out == "pointsman " + std::string(proxy::version()) + "\n");
  const Run help = run({"--help"});
  CHECK(help.status == 0);
  for (const auto* word : {"serve", "check", "route", "status", "hold", "release", "adopt"})
    CHECK(help.out.find(word) != std::string::npos);
  CHECK(run({"status", "--help"}).out.find("--watch") != std::string::npos);
}

TEST_CASE("wrong usage is 2, says so on stderr and runs nothing") {
  for (const auto& wrong :
       {run({}), run({"serve"}), run({"check"}), run({"route"}), run({"frobnicate"}), run({"serve", "--config"}),
        run({"serve", "--config", "a", "b"}), run({"status", "--x"}), run({"serve", "--config", "a", "status"}),
        run({"hold"}), run({"release"}), run({"adopt", "a", "b"}), run({"release", "--force", "a"})}) {
    CHECK(wrong.status == 2);
    CHECK(wrong.served == 0);
    CHECK(wrong.out.empty());
    CHECK_FALSE(wrong.err.empty());
  }
}

TEST_CASE("a wrong admin URL is a failure that names it") {
  const Run wrong = run({"status", "--admin", "https://router"});
  CHECK(wrong.status == 1);
  CHECK(wrong.err.starts_with("pointsman: \"https://router\" is no admin URL"));
  CHECK(run({"route", "--admin", "x:0", "alice.orders"}).status == 1);
}

TEST_CASE("a token file that is missing is a failure that names it, before anybody is asked") {
  const Run missing = run({"hold", "--token-file", "/nonexistent/token", "orders"});
  CHECK(missing.status == 1);
  CHECK(missing.err.starts_with("pointsman: cannot use /nonexistent/token: "));
}

TEST_CASE("check of a file that is not there fails and names the file") {
  const Run missing = run({"check", "--config", "/nonexistent/pointsman.json"});
  CHECK(missing.status == 1);
  CHECK(missing.out.empty());
  CHECK(missing.err.find("/nonexistent/pointsman.json: ") != std::string::npos);
}
