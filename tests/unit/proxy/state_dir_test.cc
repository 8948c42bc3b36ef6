#include "proxy/monitor/state_dir.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

using namespace pointsman;
using proxy::KnownIdentity;
using proxy::StateDir;

namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    std::string made = (fs::temp_directory_path() / "pointsman-state-XXXXXX").string();
    REQUIRE(::mkdtemp(made.data()) != nullptr);
    path_ = made;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  std::string path(const std::string& name) const { return (path_ / name).string(); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path(name)) << text; }
  std::string read(const std::string& name) const {
    std::ifstream file(path(name));
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

 private:
  fs::path path_;
};

std::shared_ptr<routing::BranchConfig> orders() {
  auto config = std::make_shared<routing::BranchConfig>();
  config->name = "orders";
  config->members = {{"pg-1", "10.0.0.11", 5432, 0, ""}, {"pg-0", "10.0.0.10", 5432, 0, ""}};
  return config;
}

routing::BranchView view(const std::string& identifier, std::uint32_t timeline) {
  routing::BranchView view;
  view.config = orders();
  view.system_identifier = identifier;
  view.timeline = timeline;
  return view;
}

/// A loop that runs until the folder is written.
struct Loop {
  uv_loop_t loop{};
  Loop() { REQUIRE(uv_loop_init(&loop) == 0); }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  ~Loop() { CHECK(uv_loop_close(&loop) == 0); }
  void run() { uv_run(&loop, UV_RUN_DEFAULT); }
};

}  // namespace

TEST_CASE("an identity is told and read back; what is none is nothing") {
  const auto identity = proxy::identity_of(view("7301", 4));
  REQUIRE(identity);
  CHECK(identity->members == std::vector<std::string>{"pg-0@10.0.0.10:5432", "pg-1@10.0.0.11:5432"});
  const std::string text = proxy::identity_text(*identity);
  CHECK(proxy::parse_identity(text) == identity);
  CHECK_FALSE(proxy::identity_of(view("", 4)));
  CHECK_FALSE(proxy::identity_of(view("7301", 0)));
  for (std::size_t size = 0; size + 1 < text.size(); ++size)
    CHECK_FALSE(proxy::parse_identity(std::string_view(text).substr(0, size)));
  for (const auto* wrong : {"[]", R"({"system_identifier":"","timeline":1,"members":[]})",
                            R"({"system_identifier":"1","timeline":0,"members":[]})",
                            R"({"system_identifier":"1","timeline":4294967296,"members":[]})",
                            R"({"system_identifier":"1","timeline":-1,"members":[]})",
                            R"({"system_identifier":1,"timeline":1,"members":[]})",
                            R"({"system_identifier":"1","timeline":1,"members":[1]})"}) {
    CAPTURE(wrong);
    CHECK_FALSE(proxy::parse_identity(wrong));
  }
}

TEST_CASE("an identity counts while one of its members is there, or members are discovered") {
  const KnownIdentity identity{"7301", 4, {"pg-0@10.0.0.10:5432"}};
  auto config = *orders();
  CHECK(still_counts(identity, config));
  config.members[1].port = 5433;
  CHECK_FALSE(still_counts(identity, config));
  config.discover.emplace();
  CHECK(still_counts(identity, config));
}

TEST_CASE("the folder is made for us alone, keeps what it is given, and is written only on change") {
  const Folder folder;
  Loop loop;
  {
    auto opened = StateDir::open(&loop.loop, folder.path("state"));
    REQUIRE(opened.ok());
    struct stat status {};
    REQUIRE(::stat(folder.path("state").c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0700);
    StateDir& state = *opened.value();
    CHECK(state.identity(*orders()) == nullptr);
    state.remember(view("7301", 1));
    state.remember(view("7301", 2));
    state.remember(view("7301", 3));
    std::vector<std::string> done;
    state.write_marker("orders", "marker", [&](std::string error) { done.push_back(std::move(error)); });
    CHECK_FALSE(state.idle());
    loop.run();
    CHECK(state.idle());
    CHECK(done == std::vector<std::string>{""});
    CHECK(folder.read("state/orders.hold.json") == "marker");
    CHECK(proxy::parse_identity(folder.read("state/orders.identity.json"))->timeline == 3);
    fs::remove(folder.path("state/orders.identity.json"));
    state.remember(view("7301", 3));
    CHECK(state.idle());
  }
  folder.write("state/orders.identity.json", proxy::identity_text(*proxy::identity_of(view("7301", 3))));
  auto again = StateDir::open(&loop.loop, folder.path("state"));
  REQUIRE(again.ok());
  REQUIRE(again.value()->identity(*orders()) != nullptr);
  CHECK(again.value()->identity(*orders())->timeline == 3);
  CHECK(again.value()->markers().at("orders") == "marker");
  again.value()->remove_marker("orders");
  again.value()->remove_marker("orders");
  again.value()->write_marker("orders", "another", [](const std::string&) {});
  again.value()->remove_marker("orders");
  loop.run();
  CHECK_FALSE(fs::exists(folder.path("state/orders.hold.json")));
  CHECK(std::distance(fs::directory_iterator(folder.path("state")), fs::directory_iterator()) == 1);
}

TEST_CASE(
    "what cannot be read there is complained about and left alone; names that are no branch's are not looked at") {
  const Folder folder;
  folder.write("orders.identity.json", "{");
  folder.write("big.identity.json", std::string(1024 * 1024 + 1, ' '));
  folder.write("Not A Branch.identity.json", "{");
  folder.write("notes.txt", "{");
  Loop loop;
  auto opened = StateDir::open(&loop.loop, folder.path("."));
  REQUIRE(opened.ok());
  CHECK(opened.value()->complaints().size() == 2);
  CHECK(opened.value()->identity(*orders()) == nullptr);
  CHECK(folder.read("orders.identity.json") == "{");
}

TEST_CASE("a folder that cannot be made or written says so") {
  const Folder folder;
  folder.write("file", "");
  Loop loop;
  CHECK_FALSE(StateDir::open(&loop.loop, folder.path("file")).ok());
  const auto missing = StateDir::open(&loop.loop, folder.path("a/b"));
  REQUIRE_FALSE(missing.ok());
  CHECK(missing.error().find("cannot make the folder") != std::string::npos);
}

TEST_CASE("a marker that cannot be written is told to whoever waits for it") {
  const Folder folder;
  Loop loop;
  auto opened = StateDir::open(&loop.loop, folder.path("state"));
  REQUIRE(opened.ok());
  fs::remove_all(folder.path("state"));
  std::string told;
  opened.value()->write_marker("orders", "marker", [&](std::string error) { told = std::move(error); });
  loop.run();
  CHECK(told.find("cannot write") != std::string::npos);
}
