#pragma once
// Names to addresses, off the loop (libuv's threads; libuv itself lets name look-ups have only half of them). One
// flight per name, whoever asks. The last good answer stays until a better one comes: a DNS that fails moves nothing
// (F20). Loop thread only.

#include <uv.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

class Resolver {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    /// A look-up ended; `changed` tells whether addresses_of() answers differently now. Called from the loop.
    virtual void on_resolved(const std::string& host, bool changed) = 0;
  };

  Resolver(uv_loop_t* loop, Owner& owner);
  /// Flights that are still in the air land on their own and are forgotten; the loop must run until then.
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  /// Asks for the host's addresses again unless a flight is in the air or the answer is younger than `max_age`. Numeric
  /// hosts are known at once.
  void refresh(const std::string& host, base::Duration max_age, base::Instant now);
  /// The last good answer, without ports, IPv4 first: an unprobed address (a pool's) cannot be tried one by one, and
  /// `localhost` is ::1 first on machines where servers listen on 127.0.0.1 only. Empty: never resolved.
  const std::vector<routing::SocketAddress>& addresses_of(const std::string& host) const;
  /// Why the last look-up failed; empty when it did not.
  std::string_view error_of(const std::string& host) const;
  /// A look-up is under way: on_resolved follows.
  bool in_flight(const std::string& host) const;
  /// Forgets names that nobody has asked for since `before`.
  void forget_unused(base::Instant before);

  bool idle() const { return in_flight_ == 0; }

 private:
  struct Flight;
  struct Name {
    std::vector<routing::SocketAddress> addresses;
    std::string error;
    std::optional<base::Instant> answered_at;
    base::Instant wanted_at{};
    Flight* flight = nullptr;
  };
  void land(Flight& flight, int status, const addrinfo* list);

  uv_loop_t* loop_;
  Owner& owner_;
  std::map<std::string, Name, std::less<>> names_;
  std::size_t in_flight_ = 0;
};

}  // namespace pointsman::proxy
