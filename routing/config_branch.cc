// One branch, from its merged object to BranchConfig.

#include <algorithm>
#include <array>
#include <set>

#include "routing/config_reader.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using namespace std::string_view_literals;

constexpr std::size_t kMaxPools = 64;
constexpr std::size_t kMaxEndpoints = 128;
constexpr std::size_t kMaxLabels = 16;
constexpr std::size_t kMaxRanges = 1024;
constexpr base::Duration kLongest = 24h;

constexpr std::array<std::pair<std::string_view, bool>, 2> kOnPromotion = {{{"keep"sv, false}, {"end"sv, true}}};
constexpr std::array<std::pair<std::string_view, bool>, 2> kPoolTargets = {{{"primary"sv, true}, {"replica"sv, false}}};
constexpr std::array<std::pair<std::string_view, AuthMethod>, 2> kMethods = {
    {{"scram"sv, AuthMethod::kScram}, {"passthrough"sv, AuthMethod::kPassthrough}}};
constexpr std::array<std::pair<std::string_view, bool>, 2> kVerifiers = {{{"lookup"sv, false}, {"userlist"sv, true}}};
constexpr std::array<std::pair<std::string_view, Fallback>, 3> kFallbacks = {
    {{"least_lagged"sv, Fallback::kLeastLagged}, {"primary"sv, Fallback::kPrimary}, {"error"sv, Fallback::kError}}};

/// Words that mean or may come to mean a target of their own are none (is_pool_name).
constexpr TextForm kNewPoolName{
    .title = {}, .pattern = "^(?!(primary|replica|local|any|standby|rw|ro|default)$)[a-z0-9][a-z0-9_-]{0,62}$"};
constexpr std::string_view kTls = "backend_tls";

class BranchReader {
 public:
  BranchReader(const Json& merged, const JsonPath& path, const ErrorSink& sink, ConfigFiles& files, BranchConfig& out)
      : root_(merged, path, sink), sink_(sink), files_(files), out_(out) {}

  void read();
  const Fingerprint& secrets() const { return secrets_; }

 private:
  void read_labels();
  void read_origin();
  void read_members(const Json* value);
  void read_member(const Json& value, const JsonPath& path);
  void read_pools();
  void read_pool(const std::string& name, const Json& value, const JsonPath& path);
  void read_endpoint(const Json& value, const JsonPath& path, PoolConfig& pool);
  void read_default_pool();
  void read_probe();
  void read_pgbouncer_admin();
  void read_tls();
  void read_auth();
  void read_replicas();
  void read_failover();
  void read_access();
  void read_password(ObjectReader& reader, base::SecretString& out);
  void read_host(ObjectReader& reader, std::string& out);
  void read_zone(ObjectReader& reader, std::string& out);

  ObjectReader root_;
  const ErrorSink& sink_;
  ConfigFiles& files_;
  BranchConfig& out_;
  InsecureFlags insecure_;
  bool whole_branch_insecure_ = false;
  Fingerprint secrets_;
};

void BranchReader::read() {
  read_schema_mark(root_);
  read_labels();
  read_origin();
  read_tls();
  read_pools();
  root_.read_bool({"roundtrip_metric",
                   "Round-trip times under the branch's own label, instead of in the series that all others share."},
                  out_.roundtrip_metric);
  read_default_pool();
  read_probe();
  read_pgbouncer_admin();
  read_auth();
  read_replicas();
  read_failover();
  read_access();
  root_.finish();
  check_backend_tls(out_, insecure_, root_.path(), sink_);
}

void BranchReader::read_labels() {
  constexpr TextForm kName{.title = {}, .pattern = "^(?!__|branch$)[A-Za-z_][A-Za-z0-9_]{0,62}$"};
  const Json* value = root_.find({"labels", "Yours; they appear in the metric pointsman_branch_info."},
                                 {.kind = Shape::Kind::kTextMap, .most = kMaxLabels, .text = kName});
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("labels");
  const auto* object = value->get_ptr<const Json::object_t*>();
  if (object == nullptr) return sink_.add(path, describe(*value) + " is no object");
  if (object->size() > kMaxLabels) return sink_.add(path, "more than " + std::to_string(kMaxLabels) + " labels");
  for (const auto& [key, text] : *object) {
    // The rule of Prometheus for label names; `branch` is taken (branch_info) and `__` belongs to Prometheus.
    const bool good = !key.empty() && key.size() <= kIdentifier.most && !(key.front() >= '0' && key.front() <= '9') &&
                      !key.starts_with("__") && key != "branch" && std::all_of(key.begin(), key.end(), [](char c) {
                        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
                      });
    const auto* label = text.get_ptr<const std::string*>();
    if (!good) {
      sink_.add(JsonPath(path, key),
                "is no label name; a-z A-Z 0-9 _ are allowed, no digit and no __ first, and not \"branch\"");
    } else if (label == nullptr || label->size() > 256) {
      sink_.add(JsonPath(path, key), describe(text) + " is not allowed; a text of at most 256 bytes is");
    } else {
      out_.labels.emplace(key, *label);
    }
  }
}

void BranchReader::read_host(ObjectReader& reader, std::string& out) {
  reader.require("host", "a host name or address");
  reader.read_text({"host", "A name is resolved off the connection path; the last good answer is kept."}, out, kHost);
}

void BranchReader::read_zone(ObjectReader& reader, std::string& out) {
  reader.read_text({"zone", "Where it stands."}, out, kLabel);
}

void BranchReader::read_origin() {
  const Json* discover =
      root_.find_object({"discover", "Where to ask for the members: exactly one of dns, kubernetes, patroni."});
  if (discover != nullptr) out_.discover = read_discover(*discover, root_.path_of("discover"), sink_, files_);
  const Json* members = root_.find({"members",
                                    "The PostgreSQL servers of one cluster, in any order: who is primary is found out. "
                                    "Required here or in `defaults`, or discover."},
                                   {.kind = Shape::Kind::kObjects, .least = 1, .most = kMaxMembers});
  if (!root_.has("discover")) {
    read_members(members);
  } else if (members != nullptr) {
    root_.error("discover", "stands beside \"members\"; one of them is allowed (null takes one of the defaults' away)");
  }
}

void BranchReader::read_members(const Json* value) {
  if (value == nullptr)
    return root_.error("members", "is missing; an array with at least one member (or \"discover\") is needed");
  const JsonPath path = root_.path_of("members");
  const auto* array = as_array(*value, path, sink_, kMaxMembers);
  if (array == nullptr) return;
  if (array->empty()) sink_.add(path, "is empty; at least one member is needed");
  for (std::size_t i = 0; i < array->size(); ++i) read_member((*array)[i], JsonPath(path, i));
}

void BranchReader::read_member(const Json& value, const JsonPath& path) {
  ObjectReader reader(value, path, sink_);
  MemberConfig member;
  reader.require("name", "a name");
  reader.read_text({"name", "As in logs, metrics and status."}, member.name, kLabel);
  read_host(reader, member.host);
  reader.read_number({"port", "PostgreSQL's."}, member.port, 1, 65535);
  reader.read_number({"pgbouncer_port", "The PgBouncer beside this PostgreSQL. Without it there is none."},
                     member.pgbouncer_port, 1, 65535);
  read_zone(reader, member.zone);
  reader.finish();
  for (const MemberConfig& other : out_.members) {
    if (!member.name.empty() && other.name == member.name) reader.error("name", "another member has this name");
    if (!member.host.empty() && other.host == member.host && other.port == member.port) {
      reader.error("host", "member " + other.name + " has the same host and port");
    }
  }
  out_.members.push_back(std::move(member));
}

void BranchReader::read_tls() {
  root_.read_bool({"insecure_backend", "Allows backend_tls weaker than verify-full for the whole branch."},
                  whole_branch_insecure_);
  insecure_.backend = insecure_.pgbouncer = whole_branch_insecure_;
  if (const Json* value = root_.find_object(
          {"backend_tls", "TLS to PostgreSQL, and to PgBouncers that have no settings of their own."}, kTls)) {
    const auto read = read_backend_tls(*value, root_.path_of("backend_tls"), sink_, files_);
    out_.backend_tls = read.tls;
    insecure_.backend = whole_branch_insecure_ || read.insecure;
  }
  if (const Json* value = root_.find_object(
          {"pgbouncer_tls", "TLS to the PgBouncers beside members and to pools. Without it as backend_tls."}, kTls)) {
    const auto read = read_backend_tls(*value, root_.path_of("pgbouncer_tls"), sink_, files_);
    out_.pgbouncer_tls = read.tls;
    insecure_.pgbouncer = whole_branch_insecure_ || read.insecure;
  }
}

void BranchReader::read_pools() {
  const Json* value =
      root_.find({"pools",
                  "Dedicated PgBouncers by name: 1 to 63 of a-z 0-9 _ -, a letter or digit first, no reserved word. "
                  "null takes one of the defaults away."},
                 {.kind = Shape::Kind::kMap, .most = kMaxPools, .text = kNewPoolName, .null_takes = true});
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("pools");
  const auto* object = value->get_ptr<const Json::object_t*>();
  if (object == nullptr) return sink_.add(path, describe(*value) + " is no object");
  if (object->size() > kMaxPools) return sink_.add(path, "more than " + std::to_string(kMaxPools) + " pools");
  for (const auto& [name, pool] : *object) {  // sorted by name: Json::object_t is a std::map
    if (pool.is_null()) continue;             // a pool of `defaults` that this branch does not have
    read_pool(name, pool, JsonPath(path, name));
  }
}

void BranchReader::read_pool(const std::string& name, const Json& value, const JsonPath& path) {
  if (!is_pool_name(name)) {
    sink_.add(path,
              "is no pool name; 1 to 63 of a-z 0-9 _ - with a letter or digit first are, but none of primary replica "
              "local any "
              "standby rw ro default");
  }
  ObjectReader reader(value, path, sink_);
  PoolConfig pool;
  pool.name = name;
  reader.read_choice<bool>(
      {"target", "What the pool stands on; informs, does not route: the PgBouncer's configuration does."},
      pool.to_primary, kPoolTargets);
  reader.read_duration({"drain_timeout", "How long sessions on a draining endpoint may go on."}, pool.drain_timeout,
                       0ms, kLongest);
  bool insecure = false;
  reader.read_bool({"insecure_backend", "Allows TLS weaker than verify-full to this pool."}, insecure);
  insecure = insecure || whole_branch_insecure_;
  if (const Json* tls = reader.find_object({"backend_tls", "TLS to this pool. Without it the branch's."}, kTls)) {
    const auto read = read_backend_tls(*tls, reader.path_of("backend_tls"), sink_, files_);
    pool.tls = read.tls;
    insecure = insecure || read.insecure;
  }
  reader.require("endpoints", "an array with at least one endpoint");
  const JsonPath endpoints_path = reader.path_of("endpoints");
  const auto* array = reader.read_array({"endpoints", "The PgBouncers of this pool."}, 1, kMaxEndpoints);
  if (array != nullptr && array->empty()) sink_.add(endpoints_path, "is empty; at least one endpoint is needed");
  for (std::size_t i = 0; array != nullptr && i < array->size(); ++i) {
    read_endpoint((*array)[i], JsonPath(endpoints_path, i), pool);
  }
  reader.finish();
  insecure_.pools.push_back(insecure);
  out_.pools.push_back(std::move(pool));
}

void BranchReader::read_endpoint(const Json& value, const JsonPath& path, PoolConfig& pool) {
  ObjectReader reader(value, path, sink_);
  PoolEndpointConfig endpoint;
  read_host(reader, endpoint.host);
  reader.read_number({"port", "PgBouncer's."}, endpoint.port, 1, 65535);
  read_zone(reader, endpoint.zone);
  reader.read_bool({"draining", "true: no new sessions; those that are there end by drain_timeout."},
                   endpoint.draining);
  reader.finish();
  for (const PoolEndpointConfig& other : pool.endpoints) {
    if (!endpoint.host.empty() && other.host == endpoint.host && other.port == endpoint.port) {
      reader.error("host", "another endpoint has the same host and port");
    }
  }
  pool.endpoints.push_back(std::move(endpoint));
}

void BranchReader::read_default_pool() {
  if (!root_.read_text(
          {"default_pool",
           "What plain `role.branch` means on a pooled listener. Without it the PgBouncer beside the primary."},
          out_.default_pool, kPoolName))
    return;
  const PoolConfig* pool = out_.find_pool(out_.default_pool);
  if (pool == nullptr) {
    root_.error("default_pool", "\"" + escape_for_log(out_.default_pool) + "\" is none of the branch's pools");
  } else if (!pool->to_primary) {
    root_.error("default_pool",
                "pool \"" + pool->name + "\" stands on replicas; a user name without target means the primary");
  }
}

void BranchReader::read_password(ObjectReader& reader, base::SecretString& out) {
  std::string file;
  if (!reader.read_text(
          {"password_file", "Holds the password, a secret. Not needed where a client certificate logs in."}, file,
          kFile))
    return;
  const auto& secret = files_.secret(file);
  if (!secret.ok()) return reader.error("password_file", secret.error());
  out = secret.value().text;
  secrets_.add(secret.value().digest);
}

void BranchReader::read_probe() {
  const Json* value =
      root_.find_object({"probe", "The login by which members are looked at while the branch is in use."});
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("probe");
  ObjectReader reader(*value, path, sink_);
  ProbeConfig& probe = out_.probe;
  reader.read_text({"user", "The role."}, probe.user, kIdentifier);
  read_password(reader, probe.password);
  reader.read_text({"database", "The database it connects to."}, probe.database, kIdentifier);
  reader.read_duration({"interval", "How often each member is asked."}, probe.interval, 50ms, 1h);
  reader.read_duration({"timeout", "How long it may take to answer."}, probe.timeout, 50ms, 1min);
  reader.read_duration(
      {"idle_after", "A branch without sessions and logins for so long is not probed; the next login wakes it."},
      probe.idle_after, 1s, kLongest);
  reader.finish();
}

void BranchReader::read_pgbouncer_admin() {
  const Json* value = root_.find_object({"pgbouncer_admin",
                                         "Who may PAUSE, RECONNECT and RESUME on the consoles of the branch's "
                                         "PgBouncers. Without it the probe's login."});
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("pgbouncer_admin");
  ObjectReader reader(*value, path, sink_);
  PgbouncerAdmin& admin = out_.pgbouncer_admin.emplace();
  reader.require("user", "a name that PgBouncer's admin_users lists");
  reader.read_text({"user", "A name of PgBouncer's admin_users."}, admin.user, kIdentifier);
  read_password(reader, admin.password);
  reader.finish();
}

void BranchReader::read_auth() {
  const Json* value = root_.find_object({"auth", "How clients prove who they are."});
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("auth");
  ObjectReader reader(*value, path, sink_);
  reader.read_choice<AuthMethod>({"method", "passthrough: the exchange is relayed, and Pointsman knows no verifier."},
                                 out_.auth.method, kMethods);
  bool from_userlist = false;
  reader.read_choice<bool>({"verifiers", "lookup: from the cluster, by the look-up function; userlist: from a file."},
                           from_userlist, kVerifiers);
  // A userlist beside "verifiers": "lookup" counts: the one stands in a branch, the other in the defaults under it.
  std::string file;
  if (reader.read_text({"userlist", "A PgBouncer-style file, `\"role\" \"SCRAM-SHA-256$…\"` a line; a secret."}, file,
                       kFile)) {
    const auto& users = files_.userlist(file);
    if (!users.ok()) {
      reader.error("userlist", users.error());
    } else {
      out_.auth.userlist = users.value().list;
      secrets_.add(users.value().digest);
    }
  } else if (from_userlist) {
    reader.error("userlist", "is missing; \"verifiers\": \"userlist\" needs the file");
  }
  if (const Json* lookup = reader.find_object({"lookup", "Another login for the look-up than the probe's."})) {
    const JsonPath lookup_path = reader.path_of("lookup");
    ObjectReader login(*lookup, lookup_path, sink_);
    out_.auth.lookup.emplace();
    login.require("user", "a role");
    login.read_text({"user", "The role."}, out_.auth.lookup->user, kIdentifier);
    read_password(login, out_.auth.lookup->password);
    login.read_text({"query",
                     "Your own, with $1; columns role, verifier and optionally valid_until, can_login. Without it "
                     "pointsman.get_verifier."},
                    out_.auth.lookup->query, {.title = "SQL", .most = 4096});
    login.finish();
  }
  reader.finish();
}

void BranchReader::read_replicas() {
  const Json* value = root_.find_object({"replicas", "Which replica is fresh enough."});
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("replicas");
  ObjectReader reader(*value, path, sink_);
  ReplicaPolicy& policy = out_.replicas;
  reader.read_duration({"max_lag", "How far behind a replica may be."}, policy.max_lag, 1ms, kLongest);
  std::uint64_t bytes = 0;
  if (reader.read_number({"max_lag_bytes", "And in bytes of WAL. Without it no limit."}, bytes, 1,
                         std::uint64_t{1} << 50))
    policy.max_lag_bytes = bytes;
  reader.read_choice<Fallback>({"fallback", "Where to when no replica qualifies."}, policy.fallback, kFallbacks);
  reader.read_duration({"lag_hard_cap", "least_lagged goes no further than this; at least max_lag."},
                       policy.lag_hard_cap, 1ms, kLongest);
  reader.read_number({"samples_out", "How many samples above the limit take a replica out."}, policy.samples_out, 1,
                     100);
  reader.read_number({"samples_in", "How many below 60 % of it bring it back."}, policy.samples_in, 1, 100);
  reader.read_choice<bool>(
      {"on_promotion", "Sessions of a replica that becomes the primary: they stay, or end when idle next (57P01)."},
      policy.end_on_promotion, kOnPromotion);
  if (policy.lag_hard_cap < policy.max_lag) {
    reader.error("lag_hard_cap", format_duration(policy.lag_hard_cap) + " is not allowed; max_lag (" +
                                     format_duration(policy.max_lag) + ") or more is");
  }
  reader.finish();
}

void BranchReader::read_failover() {
  const Json* value = root_.find_object({"failover", "When the primary is lost or another one takes over."});
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("failover");
  ObjectReader reader(*value, path, sink_);
  reader.read_duration({"hold_timeout", "How long a login waits for a primary or a replica before it is told 57P03."},
                       out_.failover.hold_timeout, 0ms, 10min);
  reader.read_number({"dead_after", "So many failed probes, and a member gets no new sessions."},
                     out_.failover.dead_after, 1, 100);
  reader.read_duration(
      {"grace", "How long a session that is not idle may stay on a server that was demoted or taken out."},
      out_.failover.grace, 0ms, kLongest);
  reader.finish();
}

void BranchReader::read_access() {
  const Json* value = root_.find_object({"access", "Who may connect at all. Without it everybody."});
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("access");
  ObjectReader reader(*value, path, sink_);
  if (const Json* allow =
          reader.find({"allow", "Client addresses that may connect."}, Shape::texts(kRange, 1, kMaxRanges))) {
    const JsonPath allow_path = reader.path_of("allow");
    const auto* array = as_array(*allow, allow_path, sink_, kMaxRanges);
    if (array != nullptr && array->empty()) {
      sink_.add(allow_path, "is empty and would let nobody in; leave it out to let everybody in");
    }
    for (std::size_t i = 0; array != nullptr && i < array->size(); ++i) {
      const auto* text = (*array)[i].get_ptr<const std::string*>();
      const auto range = text == nullptr ? std::nullopt : Cidr::parse(*text);
      if (range) {
        out_.allow.push_back(*range);
      } else {
        sink_.add(JsonPath(allow_path, i),
                  describe((*array)[i]) +
                      " is no address range; \"10.0.0.0/8\" or \"2001:db8::/32\" is, with zero bits "
                      "behind the prefix");
      }
    }
  }
  if (const Json* endpoints = reader.find({"private_endpoints", "Not in this version."}, Shape::texts({}, 0, 0))) {
    if (!endpoints->is_array() || !endpoints->empty())
      reader.error("private_endpoints", "not in this version; [] is allowed");
  }
  reader.finish();
}

void hash_json(const Json& value, Fingerprint& out) {
  out.add(static_cast<std::uint64_t>(value.type()));
  if (const auto* object = value.get_ptr<const Json::object_t*>()) {
    out.add(object->size());
    for (const auto& [key, child] : *object) {
      out.add(key);
      hash_json(child, out);
    }
  } else if (const auto* array = value.get_ptr<const Json::array_t*>()) {
    out.add(array->size());
    for (const Json& child : *array) hash_json(child, out);
  } else if (const auto* text = value.get_ptr<const std::string*>()) {
    out.add(*text);
  } else {
    out.add(value.dump());
  }
}

}  // namespace

std::shared_ptr<BranchConfig> read_branch(const std::string& name, const Json& merged, const JsonPath& path,
                                          const ErrorSink& sink, ConfigFiles& files) {
  auto branch = std::make_shared<BranchConfig>();
  branch->name = name;
  BranchReader reader(merged, path, sink, files, *branch);
  reader.read();
  Fingerprint fingerprint = reader.secrets();
  hash_json(merged, fingerprint);
  branch->fingerprint = fingerprint.value();
  return branch;
}

}  // namespace pointsman::routing
