#pragma once
// Who belongs to a branch, as told by others: DNS, Patroni, Kubernetes. Pure: documents in, members out; fetching is
// proxy/discovery's. Whatever stands here is a claim: roles and lag are the SQL probe's to verify (topology.h), a named
// leader is a veto and no proof. Documents come from outside: bounded, every name, host and port checked, nothing of
// them kept that a configuration could not have said. Any thread.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "routing/config.h"
#include "routing/snapshot.h"

namespace pointsman::routing {

/// Longer documents are refused before they are parsed.
inline constexpr std::size_t kMaxClusterDocument = 256 * 1024;  ///< Patroni's answer
inline constexpr std::size_t kMaxSliceList = 4 * 1024 * 1024;   ///< a list of EndpointSlices
inline constexpr std::size_t kMaxWatchEvent = 256 * 1024;       ///< one event of a watch
inline constexpr std::size_t kMaxDiscoveryProblems = 8;         ///< told in one answer

struct DiscoveredMember {
  std::string name{};  ///< a lawful member name (is_label)
  std::string host{};  ///< a numeric address or a host name
  std::uint16_t port = 5432;
  std::uint16_t pgbouncer_port = 0;  ///< 0: not told
  std::string zone{};                ///< empty: not told
  bool ready = true;                 ///< the source's opinion; the probe decides
  bool terminating = false;
  friend bool operator==(const DiscoveredMember&, const DiscoveredMember&) = default;
};

/// One answer of a source.
struct Discovered {
  std::vector<DiscoveredMember> members;  ///< by name, at most kMaxMembers; no name and no place twice
  std::optional<std::string> leader;      ///< one of `members`; nothing: the source names none
  std::vector<std::string> problems;      ///< entries that were left out or renamed, in words for the log

  friend bool operator==(const Discovered&, const Discovered&) = default;
};

/// The name of a member that is known by its address alone: `10.0.0.7` is `10-0-0-7`, `fd00::7` is `fd00--7`.
std::string member_name_of(std::string_view host);

/// An answer of DNS: each address is a member. Order and repetition do not matter. Fails when nothing of the wanted
/// family is there, or too much.
base::Result<Discovered> discovered_from_addresses(std::span<const SocketAddress> addresses,
                                                   const DnsDiscovery& wanted);

/// Patroni's `GET /cluster`. A replica tagged `noloadbalance` is left out: it takes no reads, and the leader's place it
/// takes under another role. A tag `zone` is the member's zone.
base::Result<Discovered> discovered_from_patroni(std::string_view document);

/// EndpointSlices (discovery.k8s.io/v1) of one or two services, as a list and then event by event.
class EndpointSlices {
 public:
  explicit EndpointSlices(KubernetesDiscovery wanted);
  ~EndpointSlices();
  EndpointSlices(const EndpointSlices&) = delete;
  EndpointSlices& operator=(const EndpointSlices&) = delete;

  /// Replaces everything. The error says what is wrong with the document; what was known stays then.
  std::optional<std::string> load_list(std::string_view document);

  enum class Event : std::uint8_t {
    kChanged,   ///< a slice came, changed or went
    kBookmark,  ///< nothing but a newer resource_version()
    kExpired,   ///< 410: the version is too old, list anew
    kFailed,    ///< not to be understood, or an error of the server's: list anew
  };
  struct Applied {
    Event event = Event::kFailed;
    std::string error;  ///< with kExpired and kFailed
  };
  /// One line of a watch.
  Applied apply(std::string_view event);

  /// Where a watch goes on; empty: nothing was listed yet.
  const std::string& resource_version() const { return resource_version_; }

  /// Who is a member by all slices together. Fails when there is nobody, or too many.
  base::Result<Discovered> discovered() const;

 private:
  struct Slice;
  KubernetesDiscovery wanted_;
  std::map<std::string, Slice> slices_;  // by name
  std::string resource_version_;
};

/// The words of a Kubernetes Status document for the log; empty when it is none.
std::string kubernetes_status_message(std::string_view document);

/// The declared branch with the found members in it, and the discover block's port and zone for those that told none.
/// Requires: declared.discover.
std::shared_ptr<const BranchConfig> effective_config(const BranchConfig& declared, const Discovered& found);

}  // namespace pointsman::routing
