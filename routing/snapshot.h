#pragma once
// What a worker knows when it decides: immutable views built by the control thread. One BranchView per branch, replaced
// whole when something about the branch changed; a Directory per configuration, replaced at reload. Plain data; any
// thread may read.

#include <netinet/in.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "routing/config.h"

namespace pointsman::metrics {
class BranchBlock;  // per-branch counters, one slot per worker (metrics/blocks.h)
}

namespace pointsman::routing {

/// A resolved address, ready for connect(). Size 0: not resolved yet.
struct SocketAddress {
  union {
    sockaddr base;
    sockaddr_in v4;
    sockaddr_in6 v6;
  };
  socklen_t size = 0;
  SocketAddress() : v6{} {}
  bool known() const { return size != 0; }
  std::string to_string() const;  ///< "10.0.0.1:5432", "[::1]:5432", "?" when unknown
  friend bool operator==(const SocketAddress& a, const SocketAddress& b);
  /// A numeric address; unknown when `host` is a name.
  static SocketAddress from_numeric(const std::string& host, std::uint16_t port);
  SocketAddress with_port(std::uint16_t port) const;
  /// The IP as IPv4-mapped IPv6, for access rules and rate limits.
  void mapped_ip(std::uint8_t (&out)[16]) const;
};

enum class MemberRole : std::uint8_t { kUnknown, kPrimary, kReplica };
enum class MemberState : std::uint8_t { kOk, kLagging, kUnknown, kDown };
std::string_view to_text(MemberRole role);
std::string_view to_text(MemberState state);

struct MemberView {
  std::string name;
  std::string host;
  std::string zone;
  SocketAddress address;            ///< PostgreSQL
  SocketAddress pgbouncer_address;  ///< unknown: none there
  MemberRole role = MemberRole::kUnknown;
  MemberState state = MemberState::kUnknown;
  std::optional<double> lag_seconds;
  std::optional<double>
      lag_at_least;  ///< with lag_seconds unknown: it is more than this (older than all we saw of the primary)
  std::optional<std::uint64_t> lag_bytes;
  std::optional<Lsn> position;  ///< primary: current LSN; replica: replayed LSN
  std::uint32_t timeline = 0;   ///< 0: unknown
  /// Primary: of the last good probe. Replica: what its lag is as of, so not later than the primary's last sample
  /// (primary lost: the lag is frozen and this stays behind). Epoch: never.
  base::Instant sampled_at{};
  base::Instant probed_at{};   ///< of the last good probe, whatever the role; epoch: never
  bool probe_refused = false;  ///< the last probe failed by our own credentials: the operator's fault
  /// Why a member that answers is not used: "other_cluster", "old_timeline", "not_named", "second_writer". Empty: it
  /// is, or does not answer.
  std::string_view rejected;
};

struct PoolEndpointView {
  std::string host;
  SocketAddress address;
  std::string zone;
};
struct PoolView {
  std::string name;
  bool to_primary = true;
  std::vector<PoolEndpointView> endpoints;  ///< in configuration's order
};

/// One branch as of one moment.
struct BranchView {
  std::shared_ptr<const BranchConfig> config;
  std::uint64_t version = 0;  ///< grows with each publication of this branch
  bool active = false;        ///< probes run
  bool settled = false;       ///< each member has answered or failed once since activation: a verdict can be given
  std::vector<MemberView> members;  ///< in configuration's order
  std::vector<PoolView> pools;      ///< in configuration's order
  int primary =
      -1;  ///< index of the verified primary that takes logins, -1: none (its member may keep the role while down)
  std::uint32_t timeline = 0;  ///< highest seen, 0: unknown
  std::string system_identifier;
  bool on_hold = false;         ///< a planned switch is under way: new sessions to the primary wait
  std::uint64_t failovers = 0;  ///< how often another member became the primary
  /// Counters of this branch, one slot per worker; null while inactive. Lives on while a session holds it.
  std::shared_ptr<metrics::BranchBlock> block;

  const PoolView* find_pool(std::string_view pool, std::size_t* index = nullptr) const;
};

/// The branches of one configuration by name. `index` is stable for the life of this Directory.
class Directory {
 public:
  explicit Directory(std::shared_ptr<const Config> config);
  const Config& config() const { return *config_; }
  std::size_t size() const { return names_.size(); }
  const std::string& name(std::size_t index) const { return names_[index]; }
  /// -1 when unknown.
  int find(std::string_view branch) const;

 private:
  std::shared_ptr<const Config> config_;
  std::vector<std::string> names_;
  std::unordered_map<std::string_view, int> index_;
};

}  // namespace pointsman::routing
