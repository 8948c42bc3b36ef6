#pragma once
// A configuration folder of a test's own, removed at its end.

#include <sys/stat.h>

#include <doctest/doctest.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "routing/config.h"

namespace pointsman::routing::test {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class Folder {
 public:
  Folder() {
    std::string made = (fs::temp_directory_path() / "pointsman-config-XXXXXX").string();
    REQUIRE(::mkdtemp(made.data()) != nullptr);
    path_ = made;
    write("server.crt", "certificate");
    write("server.key", "key", 0600);
    write("ca.crt", "ca");
    write("probe.pw", "secret\n", 0600);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  std::string path(const std::string& name) const { return (path_ / name).string(); }
  void write(const std::string& name, const std::string& text, mode_t mode = 0644) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path(name), std::ios::binary) << text;
    REQUIRE(::chmod(path(name).c_str(), mode) == 0);
  }

  LoadedConfig load(const std::string& text, const Config* previous = nullptr) const {
    write("pointsman.json", text);
    return load_config(path("pointsman.json"), previous);
  }
  LoadedConfig load(const Json& document, const Config* previous = nullptr) const {
    return load(document.dump(2), previous);
  }

 private:
  fs::path path_;
};

/// A good configuration of one branch `x`, to be changed by the test.
inline Json good() {
  return Json::parse(R"({
    "listeners": [{"name": "direct", "port": 5432}, {"name": "pooled", "port": 6432, "mode": "pooled"}],
    "tls": {"certificate": "server.crt", "key": "server.key"},
    "branches": {"x": {
      "members": [{"name": "pg-0", "host": "10.0.0.10", "pgbouncer_port": 6432}, {"name": "pg-1", "host": "pg-1.example"}],
      "pools": {"reads": {"target": "replica", "endpoints": [{"host": "10.0.0.20"}]}, "app": {"endpoints": [{"host": "10.0.0.21", "port": 7432}]}},
      "probe": {"password_file": "probe.pw"},
      "backend_tls": {"ca": "ca.crt"}
    }}
  })");
}

inline Json changed(const std::string& pointer, const Json& value) {
  Json document = good();
  document[Json::json_pointer(pointer)] = value;
  return document;
}

inline std::string all_errors(const LoadedConfig& loaded) {
  std::string text;
  for (const ConfigError& error : loaded.errors) text += error.to_string() + "\n";
  return text;
}

/// The only error, which is at this path.
inline std::string error_at(const LoadedConfig& loaded, const std::string& path) {
  INFO(all_errors(loaded));
  REQUIRE(loaded.errors.size() == 1);
  CHECK(loaded.errors[0].path == path);
  return loaded.errors[0].what;
}
inline bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace pointsman::routing::test
