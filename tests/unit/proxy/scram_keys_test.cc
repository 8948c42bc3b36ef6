#include "proxy/monitor/scram_keys.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"

namespace pointsman::proxy {
namespace {

constexpr char kSalt[] = "sixteen bytes...";

/// A loop that ends with nothing left in it.
struct Loop {
  Loop() { POINTSMAN_CHECK(uv_loop_init(&loop) == 0); }
  ~Loop() {
    run();
    CHECK(uv_loop_close(&loop) == 0);
  }
  void run() { uv_run(&loop, UV_RUN_DEFAULT); }
  uv_loop_t loop;
};

struct Waiter final : ScramKeys::Waiter {
  void on_scram_keys(const protocol::ScramLoginKeys& keys) override {
    ++calls;
    got = keys;
    if (const auto call = std::exchange(then, nullptr)) call();
  }
  int calls = 0;
  protocol::ScramLoginKeys got;
  std::function<void()> then;
};

bool fits(const protocol::ScramLoginKeys& keys, const char* password, std::uint32_t iterations) {
  const auto derived = protocol::derive_scram(password, kSalt, iterations);
  const auto same = [](const protocol::ScramKey& a, const protocol::ScramKey& b) {
    return std::equal(a.span().begin(), a.span().end(), b.span().begin());
  };
  return same(keys.client_key, derived.client_key) && same(keys.stored_key, derived.verifier.stored_key) &&
         same(keys.server_key, derived.verifier.server_key);
}

const base::SecretString kSecret("secret");
const base::SecretString kOther("other");

}  // namespace

TEST_CASE("keys are derived off the loop and known from then on, for just this password, salt and count") {
  Loop loop;
  ScramKeys keys(&loop.loop);
  Waiter waiter;
  CHECK_FALSE(keys.find("secret", kSalt, 3));
  keys.derive(waiter, kSecret, kSalt, 3);
  CHECK(waiter.calls == 0);
  loop.run();
  CHECK(waiter.calls == 1);
  CHECK(fits(waiter.got, "secret", 3));
  const auto known = keys.find("secret", kSalt, 3);
  REQUIRE(known);
  CHECK(fits(*known, "secret", 3));
  CHECK_FALSE(keys.find("secret", kSalt, 4));
  CHECK_FALSE(keys.find("other", kSalt, 3));
  CHECK_FALSE(keys.find("secret", "another salt", 3));
  CHECK_FALSE(keys.find(".secret", "sixteen bytes..", 3));  // the same bytes, cut elsewhere
}

TEST_CASE("more waiters than may run at once are all served, equal ones by one derivation") {
  Loop loop;
  ScramKeys keys(&loop.loop);
  std::vector<Waiter> waiters(9);
  for (std::size_t i = 0; i < waiters.size(); ++i)
    keys.derive(waiters[i], i % 2 == 0 ? kSecret : kOther, kSalt, static_cast<std::uint32_t>(1 + i % 3));
  loop.run();
  for (std::size_t i = 0; i < waiters.size(); ++i) {
    CAPTURE(i);
    CHECK(waiters[i].calls == 1);
    CHECK(fits(waiters[i].got, i % 2 == 0 ? "secret" : "other", static_cast<std::uint32_t>(1 + i % 3)));
  }
}

TEST_CASE("who cancels, or goes away, is called no more, and can come back") {
  Loop loop;
  ScramKeys keys(&loop.loop);
  auto gone = std::make_unique<Waiter>();
  Waiter back;
  Waiter stays;
  keys.derive(*gone, kSecret, kSalt, 50'000);
  keys.derive(back, kSecret, kSalt, 50'001);
  keys.derive(stays, kOther, kSalt, 5);
  keys.cancel(*gone);
  gone.reset();
  keys.cancel(back);
  keys.cancel(back);
  keys.derive(back, kOther, kSalt, 6);
  loop.run();
  CHECK(stays.calls == 1);
  CHECK(back.calls == 1);
  CHECK(fits(back.got, "other", 6));
}

TEST_CASE("a waiter may derive again, and cancel others, from inside its call") {
  Loop loop;
  ScramKeys keys(&loop.loop);
  Waiter first;
  Waiter second;
  first.then = [&] {
    keys.cancel(second);
    keys.derive(first, kOther, kSalt, 8);
  };
  keys.derive(first, kSecret, kSalt, 7);
  keys.derive(second, kSecret, kSalt, 7);
  loop.run();
  CHECK(first.calls == 2);
  CHECK(second.calls == 0);
  CHECK(fits(first.got, "other", 8));
}

TEST_CASE("a derivation that runs outlives whoever asked for it") {
  Loop loop;
  Waiter waiter;
  {
    ScramKeys keys(&loop.loop);
    keys.derive(waiter, kSecret, kSalt, 100'000);
    keys.cancel(waiter);
  }
  loop.run();
  CHECK(waiter.calls == 0);
}

TEST_CASE("of what was derived, the least used is forgotten") {
  Loop loop;
  ScramKeys keys(&loop.loop);
  Waiter waiter;
  const auto derive = [&](std::uint32_t iterations) {
    keys.derive(waiter, kSecret, kSalt, iterations);
    loop.run();
  };
  for (std::uint32_t i = 1; i <= 1'024; ++i) derive(i);
  CHECK(keys.find("secret", kSalt, 1));
  derive(1'025);
  CHECK(keys.find("secret", kSalt, 1));
  CHECK_FALSE(keys.find("secret", kSalt, 2));
  CHECK(keys.find("secret", kSalt, 3));
  CHECK(keys.find("secret", kSalt, 1'025));
}

}  // namespace pointsman::proxy
