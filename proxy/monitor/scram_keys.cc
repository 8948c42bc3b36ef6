#include "proxy/monitor/scram_keys.h"

#include <openssl/rand.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace pointsman::proxy {
namespace {

constexpr std::size_t kMaxEntries = 1'024;
constexpr std::size_t kMaxRunning = 2;  // of libuv's four threads

}  // namespace

struct ScramKeys::Job {
  uv_work_t request;
  ScramKeys* owner;      // null when it went away meanwhile
  const Waiter* waiter;  // who asked first; compared only, it may be gone
  Name name;
  base::SecretString password;
  std::string salt;
  std::uint32_t iterations;
  protocol::ScramLoginKeys keys;
};

ScramKeys::ScramKeys(uv_loop_t* loop) : loop_(loop) {
  POINTSMAN_CHECK(RAND_bytes(secret_.data(), static_cast<int>(secret_.size())) == 1);
}

ScramKeys::~ScramKeys() {
  for (Job* job : jobs_) {
    job->owner = nullptr;
    uv_cancel(reinterpret_cast<uv_req_t*>(&job->request));  // fails when it runs already: then it lands later
  }
}

ScramKeys::Name ScramKeys::name_of(std::string_view password, std::string_view salt, std::uint32_t iterations) const {
  std::string text;
  text.reserve(3 * sizeof(std::uint32_t) + password.size() + salt.size());  // room at once: what grows leaves copies
  base::append_be32(text, iterations);
  base::append_be32(text, static_cast<std::uint32_t>(salt.size()));
  text.append(salt).append(password);
  const auto hash = protocol::hmac_sha256(base::as_text(secret_.span()), text);
  base::wipe(text.data(), text.size());
  Name name;
  static_assert(sizeof name == decltype(hash)::size());
  std::memcpy(name.data(), hash.data(), name.size());
  return name;
}

std::optional<protocol::ScramLoginKeys> ScramKeys::find(std::string_view password, std::string_view salt,
                                                        std::uint32_t iterations) {
  const auto found = entries_.find(name_of(password, salt, iterations));
  if (found == entries_.end()) return std::nullopt;
  found->second.used = ++uses_;
  return found->second.keys;
}

void ScramKeys::derive(Waiter& waiter, const base::SecretString& password, std::string_view salt,
                       std::uint32_t iterations) {
  POINTSMAN_CHECK(
      std::none_of(wishes_.begin(), wishes_.end(), [&](const Wish& wish) { return wish.waiter == &waiter; }));
  wishes_.push_back({&waiter, name_of(password.reveal(), salt, iterations), password, std::string(salt), iterations});
  pump();
}

void ScramKeys::cancel(Waiter& waiter) {
  std::erase_if(wishes_, [&](const Wish& wish) { return wish.waiter == &waiter; });
  for (Job* job : jobs_) {
    const bool wanted =
        std::any_of(wishes_.begin(), wishes_.end(), [&](const Wish& wish) { return wish.name == job->name; });
    if (!wanted) uv_cancel(reinterpret_cast<uv_req_t*>(&job->request));  // takes it only if no thread has begun
  }
}

bool ScramKeys::may_start(const Wish& wish) const {
  return std::none_of(jobs_.begin(), jobs_.end(),
                      [&](const Job* job) { return job->name == wish.name || job->waiter == wish.waiter; });
}

void ScramKeys::pump() {
  for (const Wish& wish : wishes_) {
    if (jobs_.size() >= kMaxRunning) return;
    if (may_start(wish)) start(wish);
  }
}

void ScramKeys::start(const Wish& wish) {
  auto job = std::make_unique<Job>();
  job->request.data = job.get();
  job->owner = this;
  job->waiter = wish.waiter;
  job->name = wish.name;
  job->password = wish.password;
  job->salt = wish.salt;
  job->iterations = wish.iterations;
  const int status = uv_queue_work(
      loop_, &job->request,
      [](uv_work_t* request) {  // on a thread of libuv's, with the job alone
        auto& own = *static_cast<Job*>(request->data);
        auto derived = protocol::derive_scram(own.password.reveal(), own.salt, own.iterations);
        own.keys = {std::move(derived.client_key), std::move(derived.verifier.stored_key),
                    std::move(derived.verifier.server_key)};
      },
      [](uv_work_t* request, int result) {
        const std::unique_ptr<Job> landed(static_cast<Job*>(request->data));
        if (landed->owner != nullptr) landed->owner->land(*landed, result);
      });
  POINTSMAN_CHECK(status == 0);
  jobs_.push_back(job.release());
}

void ScramKeys::land(Job& job, int status) {
  std::erase(jobs_, &job);
  if (status == 0) {
    keep(job.name, job.keys);
    // Each call may add and cancel wishes.
    const auto next = [&] {
      return std::find_if(wishes_.begin(), wishes_.end(), [&](const Wish& wish) { return wish.name == job.name; });
    };
    for (auto wish = next(); wish != wishes_.end(); wish = next()) {
      Waiter& waiter = *wish->waiter;
      wishes_.erase(wish);
      waiter.on_scram_keys(job.keys);
    }
  }
  pump();
}

void ScramKeys::keep(const Name& name, const protocol::ScramLoginKeys& keys) {
  if (entries_.size() >= kMaxEntries) {
    entries_.erase(std::min_element(entries_.begin(), entries_.end(),
                                    [](const auto& a, const auto& b) { return a.second.used < b.second.used; }));
  }
  entries_.insert_or_assign(name, Entry{keys, ++uses_});
}

}  // namespace pointsman::proxy
