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
constexpr base::Duration kLongest = 24h;

constexpr std::array<std::pair<std::string_view, bool>, 2> kPoolTargets = {{{"primary"sv, true}, {"replica"sv, false}}};
constexpr std::array<std::pair<std::string_view, AuthMethod>, 2> kMethods = {
    {{"scram"sv, AuthMethod::kScram}, {"passthrough"sv, AuthMethod::kPassthrough}}};
constexpr std::array<std::pair<std::string_view, bool>, 2> kVerifiers = {{{"lookup"sv, false}, {"userlist"sv, true}}};

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
  read_labels(root_, out_);
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
  read_replicas(root_, out_);
  read_failover(root_, out_);
  read_access(root_, out_);
  root_.finish();
  check_backend_tls(out_, insecure_, root_.path(), sink_);
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
