#include "protocol/fleet_keys.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/unit/support/tls_pair.h"

namespace pointsman::protocol {
namespace {

using tests::contains;
using tests::TlsPair;
using tests::world;

const std::string kOld(44, 'o');
const std::string kNew(44, 'n');
const std::string kNonce = "0123456789abcdef";

std::shared_ptr<const FleetKeys> keys(const std::string& text) {
  const auto made = FleetKeys::parse(text);
  REQUIRE(made.ok());
  return made.value();
}

std::string seal(const FleetKeys& with, std::uint32_t pid, const std::string& content) {
  return with.seal(pid, base::as_bytes(kNonce), content);
}

TEST_CASE("what a router has sealed any router of the fleet opens") {
  const auto here = keys(kOld);
  const auto there = keys("# the fleet's\n\n" + kOld + "\r\n");
  for (const std::size_t size :
       {std::size_t{1}, std::size_t{15}, std::size_t{16}, std::size_t{80}, kMaxSealedContent}) {
    const std::string content(size, 'x');
    const auto secret = seal(*here, 4711, content);
    CHECK(secret.size() == size + kSealOverhead);
    CHECK(secret.size() <= 256);
    CHECK_FALSE(contains(secret, content.substr(0, 8)));
    CHECK(there->open(4711, secret) == content);
  }
}

TEST_CASE("nothing but the whole seal under its own PID opens") {
  const auto fleet = keys(kOld);
  const auto secret = seal(*fleet, 4711, "the destination");
  REQUIRE(fleet->open(4711, secret) == "the destination");
  CHECK_FALSE(fleet->open(4712, secret));
  CHECK_FALSE(fleet->open(4711 | 0x80000000U, secret));
  for (std::size_t size = 0; size < secret.size(); ++size) CHECK_FALSE(fleet->open(4711, secret.substr(0, size)));
  CHECK_FALSE(fleet->open(4711, secret + '\0'));
  CHECK_FALSE(fleet->open(4711, std::string(300, '\1')));
  for (std::size_t bit = 0; bit < secret.size() * 8; ++bit) {
    auto bad = secret;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    CAPTURE(bit);
    CHECK_FALSE(fleet->open(4711, bad));
  }
  CHECK_FALSE(keys(kNew)->open(4711, secret));
}

TEST_CASE("a nonce makes two seals of one content differ") {
  const auto fleet = keys(kOld);
  const std::string other = "fedcba9876543210";
  CHECK(seal(*fleet, 1, "same") == seal(*fleet, 1, "same"));
  CHECK(seal(*fleet, 1, "same") != fleet->seal(1, base::as_bytes(other), "same"));
}

TEST_CASE("the first secret seals, all of them open: a rotation loses nothing") {
  const auto before = keys(kOld);
  const auto appended = keys(kOld + "\n" + kNew + "\n");
  const auto moved = keys(kNew + "\n" + kOld + "\n");
  const auto after = keys(kNew);
  const auto old_seal = seal(*appended, 7, "content");
  const auto new_seal = seal(*moved, 7, "content");
  CHECK(before->open(7, old_seal));  // appended everywhere first: routers that do not know it yet are not given it
  CHECK(appended->open(7, new_seal));
  CHECK(moved->open(7, old_seal));
  CHECK(after->open(7, new_seal));
  CHECK_FALSE(after->open(7, old_seal));
}

TEST_CASE("what is no list of secrets is refused by line, and never shown") {
  const auto complaint = [](const std::string& text) {
    const auto made = FleetKeys::parse(text);
    REQUIRE_FALSE(made.ok());
    return made.error();
  };
  CHECK(contains(complaint(""), "openssl rand"));
  CHECK(contains(complaint("# nothing\n\n"), "openssl rand"));
  const auto shorter = complaint(kOld + "\n" + std::string(31, 's'));
  CHECK(contains(shorter, "line 2"));
  CHECK_FALSE(contains(shorter, "ssss"));
  CHECK(contains(complaint(std::string(1025, 'l')), "more than 1024"));
  CHECK(contains(complaint(kOld + "\n\n" + kOld), "line 3"));
  std::string many;
  for (int i = 0; i < 17; ++i) many += std::string(40, static_cast<char>('a' + i)) + "\n";
  CHECK(contains(complaint(many), "line 17"));
  CHECK(FleetKeys::parse(std::string(32, 's')).ok());
}

// ---- TLS between peers ---------------------------------------------------------------------------------------------

std::shared_ptr<const ServerTlsContext> peer_server(const std::string& text) {
  auto made = ServerTlsContext::create_for_peers(keys(text));
  REQUIRE(made.ok());
  return made.value();
}
std::shared_ptr<const ClientTlsContext> peer_client(const std::string& text) {
  auto made = ClientTlsContext::create_for_peers(keys(text));
  REQUIRE(made.ok());
  return made.value();
}

TEST_CASE("two routers that share the secret talk, in chunks of every size") {
  for (const auto chunk : tests::kChunks) {
    TlsPair pair(peer_server(kOld), peer_client(kOld), "");
    REQUIRE(pair.shake_hands(chunk));
    CHECK(std::string_view(pair.server.engine->version()) == "TLSv1.3");
    REQUIRE(pair.client.write("ask"));
    REQUIRE(pair.server.write("answer"));
    pair.pump(chunk);
    CHECK(pair.server.received == "ask");
    CHECK(pair.client.received == "answer");
  }
}

TEST_CASE("while a secret is rotated both sides know the one the caller names") {
  TlsPair caller_is_ahead(peer_server(kOld + "\n" + kNew), peer_client(kNew + "\n" + kOld), "");
  CHECK(caller_is_ahead.shake_hands());
  TlsPair caller_is_behind(peer_server(kNew + "\n" + kOld), peer_client(kOld + "\n" + kNew), "");
  CHECK(caller_is_behind.shake_hands());
}

TEST_CASE("without the secret nobody gets through, on either side") {
  TlsPair other_secret(peer_server(kOld), peer_client(kNew), "");
  CHECK_FALSE(other_secret.shake_hands());
  TlsPair stranger_calls(peer_server(kOld), world().client(BackendTlsMode::kRequire), "");
  CHECK_FALSE(stranger_calls.shake_hands());
  // One that has a certificate instead, even one of an authority that the system trusts.
  TlsPair stranger_answers(world().server(), peer_client(kOld), "");
  CHECK_FALSE(stranger_answers.shake_hands());
  CHECK_FALSE(stranger_answers.client.engine->failure().empty());
}

}  // namespace
}  // namespace pointsman::protocol
