// `cancel`: the fleet's secret and its peers.

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "routing/config.h"
#include "tests/unit/routing/config_support.h"

namespace pointsman::routing {
namespace {

using test::all_errors;
using test::error_at;
using test::Folder;
using test::has;
using test::Json;

Json with_cancel(Json cancel) {
  Json document = test::good();
  document["cancel"] = std::move(cancel);
  return document;
}

std::string fatal_at(const Folder& folder, const Json& document, const std::string& path) {
  const LoadedConfig loaded = folder.load(document);
  CHECK(loaded.config == nullptr);
  INFO(all_errors(loaded));
  return error_at(loaded, path);
}

TEST_CASE("without it a router is on its own") {
  const Folder folder;
  const LoadedConfig loaded = folder.load(test::good());
  REQUIRE(loaded.config);
  CHECK(loaded.config->cancel.secrets.empty());
  CHECK_FALSE(loaded.config->cancel.peers);
}

TEST_CASE("a fleet's secret and peers, with defaults and without") {
  const Folder folder;
  folder.write("fleet.key", std::string(44, 'k') + "\n", 0600);
  const LoadedConfig plain =
      folder.load(with_cancel({{"secret_file", "fleet.key"}, {"peers", {{"dns", "pointsman-peers:7532"}}}}));
  INFO(all_errors(plain));
  REQUIRE(plain.config);
  const CancelConfig& cancel = plain.config->cancel;
  CHECK(cancel.secrets.reveal() == std::string(44, 'k'));
  REQUIRE(cancel.peers);
  CHECK(*cancel.peers == PeersConfig{"pointsman-peers", 7532, "0.0.0.0", 7532});
  CHECK(std::find(plain.watched_paths.begin(), plain.watched_paths.end(), cancel.secret_file) !=
        plain.watched_paths.end());

  const LoadedConfig chosen = folder.load(with_cancel(
      {{"secret_file", "fleet.key"}, {"peers", {{"dns", "[fd00::7]:7532"}, {"address", "::"}, {"port", 7540}}}}));
  REQUIRE(chosen.config);
  CHECK(*chosen.config->cancel.peers == PeersConfig{"fd00::7", 7532, "::", 7540});
  const LoadedConfig alone = folder.load(with_cancel({{"secret_file", "fleet.key"}}));
  REQUIRE(alone.config);
  CHECK_FALSE(alone.config->cancel.peers);
}

TEST_CASE("what is wrong with it is said where it stands") {
  const Folder folder;
  folder.write("fleet.key", std::string(44, 'k'), 0600);
  const auto peers = [](Json value) {
    return with_cancel({{"secret_file", "fleet.key"}, {"peers", std::move(value)}});
  };
  CHECK(has(fatal_at(folder, with_cancel("x"), "/cancel"), "object"));
  CHECK(has(fatal_at(folder, with_cancel(Json::object()), "/cancel/secret_file"), "is missing"));
  CHECK(has(fatal_at(folder, with_cancel({{"secret_file", "nowhere.key"}}), "/cancel/secret_file"), "nowhere.key"));
  CHECK(has(fatal_at(folder, with_cancel({{"secret_file", "fleet.key"}, {"more", 1}}), "/cancel/more"), "unknown"));
  CHECK(has(fatal_at(folder, peers(Json::object()), "/cancel/peers/dns"), "is missing"));
  for (const auto* text : {"peers", "peers:", ":7532", "peers:0", "peers:65536", "peers:7532x", "fd00::7:7532", "a b:1",
                           "peers:-1", "[peers:7532"}) {
    CAPTURE(text);
    CHECK(has(fatal_at(folder, peers({{"dns", text}}), "/cancel/peers/dns"), "is no name and port"));
  }
  CHECK(
      has(fatal_at(folder, peers({{"dns", "peers:7532"}, {"address", "peers"}}), "/cancel/peers/address"), "numeric"));
  const auto taken = test::good()["listeners"][0]["port"].get<int>();
  CHECK(has(fatal_at(folder, peers({{"dns", "peers:" + std::to_string(taken)}}), "/cancel/peers/dns"), "too"));
  CHECK(has(fatal_at(folder, peers({{"dns", "peers:7532"}, {"port", taken}}), "/cancel/peers/port"), "too"));
}

}  // namespace
}  // namespace pointsman::routing
