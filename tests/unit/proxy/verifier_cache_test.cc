#include "proxy/monitor/verifier_cache.h"

#include <doctest/doctest.h>

#include <string>

namespace pointsman::proxy {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using Kind = VerifierAnswer::Kind;
using Verdict = VerifierCache::Verdict;

const base::Instant kStart{std::chrono::hours(100)};

VerifierQuery query(const std::string& role, std::uint64_t token = 0) {
  VerifierQuery out;
  out.branch = "b1";
  out.role = role;
  out.source[10] = out.source[11] = 0xff;  // 192.0.2.1
  out.source[12] = 192;
  out.source[14] = 2;
  out.source[15] = 1;
  out.token = token;
  return out;
}

/// As many sources as one likes, a /24 each.
VerifierQuery query_from(const std::string& role, std::uint32_t network) {
  auto out = query(role);
  out.source[12] = static_cast<std::uint8_t>(network >> 16 & 0xff);
  out.source[13] = static_cast<std::uint8_t>(network >> 8 & 0xff);
  out.source[14] = static_cast<std::uint8_t>(network & 0xff);
  return out;
}

VerifierAnswer answer(Kind kind, base::Instant expires_at = {}) {
  VerifierAnswer out;
  out.kind = kind;
  out.expires_at = expires_at;
  if (kind == Kind::kFound) out.verifier = std::make_shared<const protocol::ScramVerifier>();
  return out;
}

/// Puts a role into the cache.
void learn(VerifierCache& cache, const std::string& role, Kind kind, base::Instant now,
           base::Instant valid_until = {}) {
  REQUIRE(cache.ask(query_from(role, 0xff0000), now).verdict == Verdict::kLookUp);
  cache.finish("b1", role, answer(kind, valid_until), now);
}

}  // namespace

TEST_CASE("a role is looked up once, whoever asks meanwhile, and everybody is answered") {
  VerifierCache cache;
  CHECK(cache.ask(query("ann", 1), kStart).verdict == Verdict::kLookUp);
  CHECK(cache.ask(query("ann", 2), kStart).verdict == Verdict::kWait);
  CHECK(cache.ask(query("ann", 3), kStart + seconds(1)).verdict == Verdict::kWait);
  CHECK(cache.ask(query("bob", 4), kStart).verdict == Verdict::kLookUp);
  auto other_branch = query("ann", 5);
  other_branch.branch = "b2";
  CHECK(cache.ask(other_branch, kStart).verdict == Verdict::kLookUp);

  const auto done = cache.finish("b1", "ann", answer(Kind::kFound), kStart + seconds(1));
  REQUIRE(done.waiting.size() == 3);
  CHECK(done.waiting[0].token == 1);
  CHECK(done.waiting[2].token == 3);
  CHECK(done.again.empty());
  CHECK(done.answer.kind == Kind::kFound);
  CHECK(done.answer.fetched_at == kStart);  // when it was begun
}

TEST_CASE("a found verifier serves for 30 seconds, everything else for 5") {
  VerifierCache cache;
  learn(cache, "ann", Kind::kFound, kStart);
  learn(cache, "none", Kind::kNoRole, kStart);
  learn(cache, "md5", Kind::kUnusable, kStart);
  for (const char* role : {"ann", "none", "md5"})
    CHECK(cache.ask(query(role), kStart + seconds(5) - milliseconds(1)).verdict == Verdict::kHit);
  CHECK(cache.ask(query("none"), kStart + seconds(5)).verdict == Verdict::kLookUp);
  CHECK(cache.ask(query("md5"), kStart + seconds(5)).verdict == Verdict::kLookUp);
  CHECK(cache.ask(query("ann"), kStart + seconds(30) - milliseconds(1)).verdict == Verdict::kHit);
  CHECK(cache.ask(query("ann"), kStart + seconds(30)).verdict == Verdict::kLookUp);
}

TEST_CASE("a verifier never serves past its VALID UNTIL, not even when nobody answers") {
  VerifierCache cache;
  learn(cache, "ann", Kind::kFound, kStart, kStart + seconds(10));
  CHECK(cache.ask(query("ann"), kStart + seconds(10) - milliseconds(1)).verdict == Verdict::kHit);
  REQUIRE(cache.ask(query("ann"), kStart + seconds(10)).verdict == Verdict::kLookUp);
  CHECK(cache.finish("b1", "ann", answer(Kind::kUnavailable), kStart + seconds(10)).answer.kind == Kind::kUnavailable);
}

TEST_CASE("after a failed login a known role is looked up anew, once a second") {
  VerifierCache cache;
  learn(cache, "ann", Kind::kFound, kStart);
  auto again = query("ann");
  again.not_before = kStart + seconds(3);
  REQUIRE(cache.ask(again, kStart + seconds(3)).verdict == Verdict::kLookUp);
  cache.finish("b1", "ann", answer(Kind::kFound), kStart + seconds(3));
  CHECK(cache.ask(again, kStart + seconds(3) + milliseconds(100)).verdict == Verdict::kHit);  // fetched since

  again.not_before = kStart + seconds(3) + milliseconds(500);
  CHECK(cache.ask(again, kStart + seconds(4) - milliseconds(1)).verdict == Verdict::kHit);  // capped
  CHECK(cache.ask(again, kStart + seconds(4)).verdict == Verdict::kLookUp);
}

TEST_CASE("a failed login with an invented name costs no second look-up") {
  VerifierCache cache;
  learn(cache, "none", Kind::kNoRole, kStart);
  auto again = query("none");
  again.not_before = kStart + seconds(2);
  CHECK(cache.ask(again, kStart + seconds(2)).verdict == Verdict::kHit);
}

TEST_CASE("a query that wants a newer answer than the look-up under way can give asks again") {
  VerifierCache cache;
  REQUIRE(cache.ask(query("ann", 1), kStart).verdict == Verdict::kLookUp);
  auto later = query("ann", 2);
  later.not_before = kStart + milliseconds(5);
  REQUIRE(cache.ask(later, kStart + milliseconds(5)).verdict == Verdict::kWait);
  const auto done = cache.finish("b1", "ann", answer(Kind::kFound), kStart + milliseconds(9));
  REQUIRE(done.waiting.size() == 1);
  CHECK(done.waiting[0].token == 1);
  REQUIRE(done.again.size() == 1);
  CHECK(done.again[0].token == 2);
  CHECK(cache.ask(done.again[0], kStart + milliseconds(9)).verdict == Verdict::kLookUp);
}

TEST_CASE("while no member answers the last known verifier serves, for an hour") {
  for (const Kind trouble : {Kind::kUnavailable, Kind::kFault}) {
    VerifierCache cache;
    learn(cache, "ann", Kind::kFound, kStart);
    REQUIRE(cache.ask(query("ann"), kStart + minutes(59)).verdict == Verdict::kLookUp);
    const auto done = cache.finish("b1", "ann", answer(trouble), kStart + minutes(59));
    CHECK(done.answer.kind == Kind::kFound);
    CHECK(done.answer.fetched_at == kStart);
    // Nobody waits for dead members twice in five seconds.
    CHECK(cache.ask(query("ann"), kStart + minutes(59) + seconds(4)).verdict == Verdict::kHit);
    REQUIRE(cache.ask(query("ann"), kStart + minutes(60)).verdict == Verdict::kLookUp);
    CHECK(cache.finish("b1", "ann", answer(trouble), kStart + minutes(60)).answer.kind == trouble);
  }
}

TEST_CASE("a role that was dropped is not served from the past") {
  VerifierCache cache;
  learn(cache, "ann", Kind::kFound, kStart);
  REQUIRE(cache.ask(query("ann"), kStart + minutes(1)).verdict == Verdict::kLookUp);
  CHECK(cache.finish("b1", "ann", answer(Kind::kNoRole), kStart + minutes(1)).answer.kind == Kind::kNoRole);
  REQUIRE(cache.ask(query("ann"), kStart + minutes(2)).verdict == Verdict::kLookUp);
  CHECK(cache.finish("b1", "ann", answer(Kind::kUnavailable), kStart + minutes(2)).answer.kind == Kind::kUnavailable);
}

TEST_CASE("one network may order 60 look-ups at once and 20 a second after that; hits are free") {
  VerifierCache cache;
  learn(cache, "ann", Kind::kFound, kStart);
  for (int i = 0; i < 60; ++i) REQUIRE(cache.ask(query("x" + std::to_string(i)), kStart).verdict == Verdict::kLookUp);
  auto neighbour = query("y");
  neighbour.source[15] = 77;  // the same /24
  CHECK(cache.ask(neighbour, kStart).verdict == Verdict::kThrottled);
  CHECK(cache.ask(neighbour, kStart).answer.kind == Kind::kThrottled);
  CHECK(cache.ask(query("ann"), kStart).verdict == Verdict::kHit);
  CHECK(cache.ask(query_from("y", 0x010203), kStart).verdict == Verdict::kLookUp);
  for (int i = 0; i < 20; ++i)
    CHECK(cache.ask(query("z" + std::to_string(i)), kStart + seconds(1)).verdict == Verdict::kLookUp);
  CHECK(cache.ask(query("z20"), kStart + seconds(1)).verdict == Verdict::kThrottled);
}

TEST_CASE("a branch takes 200 look-ups of unknown names at once, and its known roles keep their own share") {
  VerifierCache cache;
  learn(cache, "ann", Kind::kFound, kStart);
  const auto later = kStart + seconds(31);
  std::uint32_t network = 0;
  for (int i = 0; i < 200; ++i)
    REQUIRE(cache.ask(query_from("x" + std::to_string(i), network++), later).verdict == Verdict::kLookUp);
  CHECK(cache.ask(query_from("x200", network++), later).verdict == Verdict::kThrottled);
  CHECK(cache.ask(query_from("ann", network++), later).verdict == Verdict::kLookUp);
  auto elsewhere = query_from("x", network++);
  elsewhere.branch = "b2";
  CHECK(cache.ask(elsewhere, later).verdict == Verdict::kLookUp);
}

TEST_CASE("a capped source still logs in with a role that was known within the hour") {
  VerifierCache cache;
  learn(cache, "ann", Kind::kFound, kStart);
  const auto later = kStart + minutes(5);
  for (int i = 0; i < 60; ++i) cache.ask(query("x" + std::to_string(i)), later);
  REQUIRE(cache.ask(query("x60"), later).verdict == Verdict::kThrottled);
  const auto served = cache.ask(query("ann"), later);
  CHECK(served.verdict == Verdict::kHit);
  CHECK(served.answer.kind == Kind::kFound);
}

TEST_CASE("the number of entries is bounded and the least recently used one goes") {
  VerifierCache cache;
  auto now = kStart;
  learn(cache, "first", Kind::kFound, now);
  learn(cache, "second", Kind::kFound, now);
  for (std::size_t i = 2; i < VerifierCache::kMaxEntries; ++i) {
    const auto role = std::to_string(i);
    now += milliseconds(20);  // the branch's rate
    REQUIRE(cache.ask(query_from(role, static_cast<std::uint32_t>(i)), now).verdict == Verdict::kLookUp);
    cache.finish("b1", role, answer(Kind::kFound), now);
    if (i + 1 == VerifierCache::kMaxEntries) {
      REQUIRE(cache.size() == VerifierCache::kMaxEntries);
      cache.ask(query_from("first", 0xaa0000), now);  // used: it moves to the front
      cache.finish("b1", "first", answer(Kind::kFound), now);
    }
  }
  learn(cache, "one more", Kind::kFound, now + seconds(1));
  CHECK(cache.size() == VerifierCache::kMaxEntries);
  CHECK(cache.ask(query_from("first", 0xaa0001), now + seconds(1)).verdict == Verdict::kHit);
  // "second" was the oldest; an outage shows that nothing is left of it.
  REQUIRE(cache.ask(query_from("second", 0xaa0002), now + seconds(1)).verdict == Verdict::kLookUp);
  CHECK(cache.finish("b1", "second", answer(Kind::kUnavailable), now + seconds(1)).answer.kind == Kind::kUnavailable);
}

TEST_CASE("a changed branch is forgotten, the others are not") {
  VerifierCache cache;
  learn(cache, "ann", Kind::kFound, kStart);
  auto other = query_from("ann", 0xaa0000);
  other.branch = "b2";
  REQUIRE(cache.ask(other, kStart).verdict == Verdict::kLookUp);
  cache.finish("b2", "ann", answer(Kind::kFound), kStart);
  cache.forget({"b1"});
  CHECK(cache.ask(query("ann"), kStart).verdict == Verdict::kLookUp);
  CHECK(cache.ask(other, kStart).verdict == Verdict::kHit);
}

TEST_CASE("IPv6 sources are capped by /64, and an IPv4 network is never one of them") {
  VerifierCache cache;
  auto v6 = query("x");
  for (std::size_t i = 0; i < 16; ++i) v6.source[i] = static_cast<std::uint8_t>(0x20 + i);
  for (int i = 0; i < 60; ++i) {
    v6.role = "v" + std::to_string(i);
    v6.source[15] = static_cast<std::uint8_t>(i);
    v6.source[8] = static_cast<std::uint8_t>(i);
    REQUIRE(cache.ask(v6, kStart).verdict == Verdict::kLookUp);
  }
  v6.role = "v60";
  CHECK(cache.ask(v6, kStart).verdict == Verdict::kThrottled);
  v6.source[7] ^= 1;
  CHECK(cache.ask(v6, kStart).verdict == Verdict::kLookUp);
}

}  // namespace pointsman::proxy
