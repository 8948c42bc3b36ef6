#pragma once
// SCRAM login keys out of passwords, by PBKDF2 on libuv's threads: the number of rounds is the server's to name, so
// neither the loop nor all of the threads may be given to it (T17). At most two derivations run at once, and one for
// each waiter, also when the waiter has gone and come back; the others wait in order, within their own deadlines. What
// was derived is kept: a role has the same salt on all members of a cluster. Loop thread only.

#include <uv.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "protocol/scram.h"

namespace pointsman::proxy {

class ScramKeys {
 public:
  class Waiter {
   public:
    /// Called from the loop. May derive and cancel, and may destroy the waiter.
    virtual void on_scram_keys(const protocol::ScramLoginKeys& keys) = 0;

   protected:
    ~Waiter() = default;
  };

  explicit ScramKeys(uv_loop_t* loop);
  /// Derivations that still run land on their own and are forgotten; the loop must run until then, which it does.
  ~ScramKeys();
  ScramKeys(const ScramKeys&) = delete;
  ScramKeys& operator=(const ScramKeys&) = delete;

  /// What is known already.
  std::optional<protocol::ScramLoginKeys> find(std::string_view password, std::string_view salt,
                                               std::uint32_t iterations);
  /// Ends in on_scram_keys, unless cancelled. Requires: `waiter` waits for nothing.
  void derive(Waiter& waiter, const base::SecretString& password, std::string_view salt, std::uint32_t iterations);
  /// The waiter is called no more. No effect when it waits for nothing.
  void cancel(Waiter& waiter);

 private:
  using Name = std::array<std::uint8_t, 32>;  // of a password, a salt and a count: an HMAC under a secret of ours
  struct Wish {
    Waiter* waiter;
    Name name;
    base::SecretString password;
    std::string salt;
    std::uint32_t iterations;
  };
  struct Job;
  struct Entry {
    protocol::ScramLoginKeys keys;
    std::uint64_t used = 0;
  };

  Name name_of(std::string_view password, std::string_view salt, std::uint32_t iterations) const;
  void pump();
  bool may_start(const Wish& wish) const;
  void start(const Wish& wish);
  void land(Job& job, int status);
  void keep(const Name& name, const protocol::ScramLoginKeys& keys);

  uv_loop_t* loop_;
  base::SecretArray<32> secret_;
  std::map<Name, Entry> entries_;
  std::uint64_t uses_ = 0;
  std::list<Wish> wishes_;  // also those whose job runs
  std::vector<Job*> jobs_;  // running
};

}  // namespace pointsman::proxy
