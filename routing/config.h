#pragma once
// The configuration as types (contract section 5), and its reader. Reading files is done here (control thread only);
// everything else is pure. Every error has the form `file: /json/path: what, and what is allowed`.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/secret.h"
#include "routing/session_options.h"
#include "routing/username.h"

namespace pointsman::routing {

/// An address range. IPv4 is kept as IPv4-mapped IPv6; a range of IPv6 addresses (`::/0`) contains no IPv4 address.
struct Cidr {
  std::uint8_t address[16] = {};
  std::uint8_t prefix_bits = 0;  ///< of 128
  bool contains(const std::uint8_t (&ipv6_mapped)[16]) const;
  static std::optional<Cidr> parse(std::string_view text);
};

enum class ListenerMode : std::uint8_t { kDirect, kPooled };
enum class ListenerTls : std::uint8_t { kRequired, kOptional, kOff };

struct ListenerConfig {
  std::string name;
  std::string address = "0.0.0.0";
  std::uint16_t port = 0;
  ListenerMode mode = ListenerMode::kDirect;
  ListenerTls tls = ListenerTls::kRequired;
  FixedRoute fixed;
  /// The branch is the first label of the TLS server name; `fixed` then has the target only.
  bool branch_from_sni = false;
  std::string sni_domain;  ///< what must stand behind that label; empty: anything
  bool proxy_protocol = false;
  std::vector<Cidr> trusted_proxies;
  std::size_t position = 0;  ///< in the file's `listeners`, for messages
};

/// A listener of mode "console": served by the control thread, in no worker's list.
struct ConsoleListener {
  std::string name;
  std::string address = "127.0.0.1";
  std::uint16_t port = 7531;
  ListenerTls tls = ListenerTls::kRequired;
  std::size_t position = 0;  ///< in the file's `listeners`, for messages
};
enum class ConsoleRole : std::uint8_t { kRead, kAdmin };
struct ConsoleUser {
  base::SecretString verifier;  ///< of SCRAM-SHA-256 (is_scram_verifier)
  ConsoleRole role = ConsoleRole::kRead;
};
/// Connections to the console that have not logged in yet: beyond them the oldest goes.
inline constexpr std::uint32_t kConsoleLogins = 16;
/// The admin console (docs/console.md).
struct ConsoleConfig {
  std::vector<ConsoleListener> listeners;
  std::map<std::string, ConsoleUser, std::less<>> users;
  std::uint32_t max_connections = 32;  ///< that have logged in
  base::Duration idle_timeout = std::chrono::hours(1);
};
/// The other routers behind the same address: they are asked about cancel keys that this one does not know.
struct PeersConfig {
  std::string host;  ///< a name with the address of each router (a headless Service), this one's own among them or not
  std::uint16_t port = 0;           ///< theirs
  std::string address = "0.0.0.0";  ///< where this one listens for them
  std::uint16_t listen_port = 0;    ///< `port` unless said otherwise
  friend bool operator==(const PeersConfig&, const PeersConfig&) = default;
};
/// Cancel requests across a fleet (docs/operations.md).
struct CancelConfig {
  base::SecretString secrets;  ///< what secret_file has (protocol/fleet_keys.h); empty: a router of its own
  std::string secret_file;     ///< absolute, for messages
  std::optional<PeersConfig> peers;
};
/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` in the one spelling that protocol/scram.h accepts.
bool is_scram_verifier(std::string_view text);

enum class TlsMode : std::uint8_t { kDisable, kRequire, kVerifyCa, kVerifyFull };

/// How to speak TLS with one kind of backend. `key()` identifies equal settings, so that contexts are shared.
struct BackendTlsConfig {
  TlsMode mode = TlsMode::kVerifyFull;
  std::string ca;           ///< absolute path, empty: system store
  std::string server_name;  ///< empty: the member's host
  std::string certificate;
  std::string key;
  std::string context_key() const;  ///< everything but server_name
};

struct MemberConfig {
  std::string name;
  std::string host;
  std::uint16_t port = 5432;
  std::uint16_t pgbouncer_port = 0;  ///< 0: none
  std::string zone;
};

struct PoolEndpointConfig {
  std::string host;
  std::uint16_t port = 6432;
  std::string zone;
  bool draining = false;  ///< takes no new sessions; those that are there end by `drain_timeout`
};
struct PoolConfig {
  std::string name;
  bool to_primary = true;  ///< "target": "primary" | "replica": what stands behind it; informs, does not route
  std::vector<PoolEndpointConfig> endpoints;
  std::optional<BackendTlsConfig> tls;
  base::Duration drain_timeout = std::chrono::minutes(10);  ///< for sessions on endpoints that are draining
};

struct ProbeConfig {
  std::string user = "pointsman";
  base::SecretString password;
  std::string database = "postgres";
  base::Duration interval = std::chrono::seconds(1);
  base::Duration timeout = std::chrono::seconds(2);
  base::Duration idle_after = std::chrono::minutes(5);
};

/// Who may PAUSE and RESUME the branch's PgBouncers on their consoles.
struct PgbouncerAdmin {
  std::string user;
  base::SecretString password;
};

enum class AuthMethod : std::uint8_t { kScram, kPassthrough };
struct LookupLogin {
  std::string user;
  base::SecretString password;
  std::string query;  ///< empty: pointsman.get_verifier, else pg_authid when superuser
};
struct AuthConfig {
  AuthMethod method = AuthMethod::kScram;
  /// Role name to verifier text, from a PgBouncer-style file; null: look-up over the probe login. Other than SCRAM
  /// verifiers: routing/userlist.h.
  std::shared_ptr<const std::map<std::string, std::string>> userlist;
  std::optional<LookupLogin> lookup;  ///< another login than the probe's
};

struct ReplicaPolicy {
  base::Duration max_lag = std::chrono::seconds(10);
  std::optional<std::uint64_t> max_lag_bytes;
  Fallback fallback = Fallback::kLeastLagged;
  base::Duration lag_hard_cap = std::chrono::seconds(60);
  std::uint32_t samples_out = 2;
  std::uint32_t samples_in = 3;
  bool end_on_promotion = false;  ///< "on_promotion": "keep" | "end": sessions of a replica that becomes the primary
};
struct FailoverPolicy {
  base::Duration hold_timeout = std::chrono::seconds(10);
  std::uint32_t dead_after = 3;
  base::Duration grace = std::chrono::seconds(30);
};

/// A branch has so many members at most, listed or discovered.
inline constexpr std::size_t kMaxMembers = 128;

enum class AddressFamily : std::uint8_t { kAny, kIpv4, kIpv6 };

/// Every address of a name is a member.
struct DnsDiscovery {
  std::string name;
  std::uint16_t port = 5432;
  AddressFamily family = AddressFamily::kAny;
  base::Duration interval = std::chrono::seconds(5);
  friend bool operator==(const DnsDiscovery&, const DnsDiscovery&) = default;
};
/// Where an HTTP server is; `path` has no slash at its end.
struct HttpUrl {
  bool tls = false;
  std::string host;
  std::uint16_t port = 0;
  std::string path;
  friend bool operator==(const HttpUrl&, const HttpUrl&) = default;
  /// `http://` or `https://`, host, optional port and path; nothing for anything else.
  static std::optional<HttpUrl> parse(std::string_view text);
  std::string to_string() const;
};
/// Patroni's REST interface: any node of the cluster answers for all.
struct PatroniDiscovery {
  std::vector<HttpUrl> urls;
  std::string ca;  ///< absolute path, empty: system store
  base::Duration interval = std::chrono::seconds(2);
  friend bool operator==(const PatroniDiscovery&, const PatroniDiscovery&) = default;
};
/// The endpoints of a service.
struct KubernetesDiscovery {
  std::string namespace_name;
  std::string service;
  std::string leader_service;       ///< its one ready endpoint is the leader; empty: none
  std::string port_name;            ///< empty: `postgres`, `postgresql`, or the only one
  std::string pgbouncer_port_name;  ///< empty: none
  std::uint16_t port = 5432;        ///< where slices carry no port at all
  std::optional<HttpUrl> api;       ///< absent: as the pod's environment says
  std::string ca;
  std::string token_file;
  friend bool operator==(const KubernetesDiscovery&, const KubernetesDiscovery&) = default;
};
struct DiscoverConfig {
  std::variant<DnsDiscovery, PatroniDiscovery, KubernetesDiscovery> source;
  std::uint16_t pgbouncer_port = 0;  ///< of members whose source tells none; 0: none there
  std::string zone;                  ///< of members whose source tells none
  friend bool operator==(const DiscoverConfig&, const DiscoverConfig&) = default;
};

struct BranchConfig {
  std::string name;
  std::map<std::string, std::string> labels;
  /// As listed, or as discovered (routing/discovery.h): then empty in what a file says.
  std::vector<MemberConfig> members;
  std::optional<DiscoverConfig> discover;
  std::vector<PoolConfig> pools;  ///< sorted by name
  std::string default_pool;       ///< empty: none
  ProbeConfig probe;
  std::optional<PgbouncerAdmin> pgbouncer_admin;  ///< absent: the probe's login
  BackendTlsConfig backend_tls;
  std::optional<BackendTlsConfig> pgbouncer_tls;  ///< absent: as backend_tls
  AuthConfig auth;
  ReplicaPolicy replicas;
  FailoverPolicy failover;
  std::vector<Cidr> allow;        ///< empty: everybody
  bool roundtrip_metric = false;  ///< round-trip histograms of its own
  /// Of the effective text and the secrets it names: equal to the former version's means nothing changed.
  std::uint64_t fingerprint = 0;

  const PoolConfig* find_pool(std::string_view pool) const;
};

struct TlsConfig {
  std::string certificate;
  std::string key;
  bool min_tls13 = false;
};
struct AdminConfig {
  std::string address = "127.0.0.1";
  std::uint16_t port = 9432;
  base::SecretString token;  ///< empty: writes from loopback only
};
struct MetricsConfig {
  std::string address = "0.0.0.0";
  std::uint16_t port = 9433;
};
enum class MetricsDetail : std::uint8_t { kActive, kAll, kNone };
enum class LogFormat : std::uint8_t { kText, kJson };

struct LimitsConfig {
  base::Duration startup_timeout = std::chrono::seconds(15);
  std::optional<std::uint32_t> max_connections;  ///< absent: what RLIMIT_NOFILE allows, at most 20,000
  std::uint32_t max_connections_per_branch = 5000;
  std::uint32_t max_held_per_branch = 200;
};

/// The whole configuration. Immutable once read; shared by the control thread's parts.
struct Config {
  std::string file;                       ///< absolute
  std::vector<ListenerConfig> listeners;  ///< without the consoles': workers know a listener by its place here
  ConsoleConfig console;
  std::optional<TlsConfig> tls;
  std::optional<AdminConfig> admin;
  std::optional<MetricsConfig> metrics;
  MetricsDetail metrics_detail = MetricsDetail::kActive;
  std::uint32_t workers = 0;  ///< 0: what the cgroup allows
  std::string zone;
  std::string log_level = "info";
  LogFormat log_format = LogFormat::kText;
  base::Duration tcp_keepalive = std::chrono::seconds(30);
  base::Duration tcp_user_timeout = std::chrono::seconds(30);
  LimitsConfig limits;
  bool hide_unknown_branches = false;
  CancelConfig cancel;
  std::string state_dir;  ///< absolute, empty: none
  base::Duration shutdown_delay{0};
  base::Duration drain_timeout = std::chrono::seconds(30);
  base::Duration drain_pace{0};  ///< over how long sessions are told to go, evenly; at most drain_timeout
  /// By name. Shared so that an unchanged branch keeps its object over a reload when its text did not change.
  std::map<std::string, std::shared_ptr<const BranchConfig>, std::less<>> branches;
};

struct ConfigError {
  std::string file;
  std::string path;  ///< JSON path, "" for the file as a whole
  std::string what;
  std::string to_string() const;  ///< `file: /json/path: what`
};

/// What branches are read against (routing/config_edit.h).
struct BranchBase;

struct LoadedConfig {
  /// Null when the top level is bad: then nothing may change.
  std::shared_ptr<const Config> config;
  /// Every error found. With a config: those of branches, which are not in `config->branches` (or are there in
  /// `previous`'s version), and of listeners that fix a branch or pool that is not there.
  std::vector<ConfigError> errors;
  /// Branch names that were rejected in this reading.
  std::vector<std::string> rejected_branches;
  /// Files and folders whose change should make the caller read again (the file itself, branches_dir, secrets,
  /// certificates, userlists).
  std::vector<std::string> watched_paths;
  /// With a config: for branches that are changed one at a time later.
  std::shared_ptr<const BranchBase> base;
};

/// How many descriptors this many connections take: two each (client and backend), the listeners and loops of each
/// worker, the probes of up to 256 members, and 64 for everything else.
std::uint64_t descriptors_needed(const Config& config, std::uint32_t max_connections, unsigned workers);
/// `max_connections` where none is given: what `descriptors` (RLIMIT_NOFILE) allow, 1 to 20,000.
std::uint32_t default_max_connections(const Config& config, std::uint64_t descriptors, unsigned workers);

/// Reads and validates a configuration. `previous`: a bad branch keeps the version it has there. Never throws.
/// Options that the contract names and this version does not do yet are refused ("not in this version").
LoadedConfig load_config(const std::string& file, const Config* previous);

}  // namespace pointsman::routing
