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
constexpr std::size_t kMaxIdentifier = 63;  // NAMEDATALEN - 1
constexpr base::Duration kLongest = 24h;

constexpr std::array<std::pair<std::string_view, bool>, 2> kOnPromotion = {{{"keep"sv, false}, {"end"sv, true}}};
constexpr std::array<std::pair<std::string_view, bool>, 2> kPoolTargets = {{{"primary"sv, true}, {"replica"sv, false}}};
constexpr std::array<std::pair<std::string_view, AuthMethod>, 2> kMethods = {
    {{"scram"sv, AuthMethod::kScram}, {"passthrough"sv, AuthMethod::kPassthrough}}};
constexpr std::array<std::pair<std::string_view, bool>, 2> kVerifiers = {{{"lookup"sv, false}, {"userlist"sv, true}}};
constexpr std::array<std::pair<std::string_view, Fallback>, 3> kFallbacks = {
    {{"least_lagged"sv, Fallback::kLeastLagged}, {"primary"sv, Fallback::kPrimary}, {"error"sv, Fallback::kError}}};

class BranchReader {
 public:
  BranchReader(const Json& merged, const JsonPath& path, const ErrorSink& sink, ConfigFiles& files, BranchConfig& out)
      : root_(merged, path, sink), sink_(sink), files_(files), out_(out) {}

  void read();
  const Fingerprint& secrets() const { return secrets_; }

 private:
  void read_labels();
  void read_members();
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
  read_labels();
  read_members();
  read_tls();
  read_pools();
  root_.read_bool("roundtrip_metric", out_.roundtrip_metric);
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
  const Json* value = root_.find("labels");
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("labels");
  const auto* object = value->get_ptr<const Json::object_t*>();
  if (object == nullptr) return sink_.add(path, describe(*value) + " is no object");
  if (object->size() > kMaxLabels) return sink_.add(path, "more than " + std::to_string(kMaxLabels) + " labels");
  for (const auto& [key, text] : *object) {
    // The rule of Prometheus for label names; `branch` is taken (branch_info) and `__` belongs to Prometheus.
    const bool good = !key.empty() && key.size() <= kMaxIdentifier && !(key.front() >= '0' && key.front() <= '9') &&
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
  if (reader.require("host", "a host name or address") == nullptr) return;
  if (reader.read_text("host", out, 253) && !is_host(out)) {
    reader.error("host", "\"" + escape_for_log(out) + "\" is no host name and no numeric address");
  }
}

void BranchReader::read_zone(ObjectReader& reader, std::string& out) {
  if (reader.read_text("zone", out) && !is_label(out))
    reader.error("zone", "is not allowed; " + std::string(kLabelRule));
}

void BranchReader::read_members() {
  const Json* discover = root_.find("discover");
  if (discover != nullptr) {
    out_.discover = read_discover(*discover, root_.path_of("discover"), sink_, files_);
    if (root_.find("members") != nullptr)
      root_.error("discover",
                  "stands beside \"members\"; one of them is allowed (null takes one of the defaults' away)");
    return;
  }
  const Json* value = root_.require("members", "an array with at least one member (or \"discover\")");
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("members");
  const auto* array = as_array(*value, path, sink_, kMaxMembers);
  if (array == nullptr) return;
  if (array->empty()) sink_.add(path, "is empty; at least one member is needed");
  for (std::size_t i = 0; i < array->size(); ++i) read_member((*array)[i], JsonPath(path, i));
}

void BranchReader::read_member(const Json& value, const JsonPath& path) {
  ObjectReader reader(value, path, sink_);
  MemberConfig member;
  if (reader.require("name", "a name") != nullptr && reader.read_text("name", member.name) && !is_label(member.name)) {
    reader.error("name", "is not allowed; " + std::string(kLabelRule));
  }
  read_host(reader, member.host);
  reader.read_number("port", member.port, 1, 65535);
  reader.read_number("pgbouncer_port", member.pgbouncer_port, 1, 65535);
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
  root_.read_bool("insecure_backend", whole_branch_insecure_);
  insecure_.backend = insecure_.pgbouncer = whole_branch_insecure_;
  if (const Json* value = root_.find("backend_tls")) {
    const auto read = read_backend_tls(*value, root_.path_of("backend_tls"), sink_, files_);
    out_.backend_tls = read.tls;
    insecure_.backend = whole_branch_insecure_ || read.insecure;
  }
  if (const Json* value = root_.find("pgbouncer_tls")) {
    const auto read = read_backend_tls(*value, root_.path_of("pgbouncer_tls"), sink_, files_);
    out_.pgbouncer_tls = read.tls;
    insecure_.pgbouncer = whole_branch_insecure_ || read.insecure;
  }
}

void BranchReader::read_pools() {
  const Json* value = root_.find("pools");
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
  reader.read_choice<bool>("target", pool.to_primary, kPoolTargets);
  reader.read_duration("drain_timeout", pool.drain_timeout, 0ms, kLongest);
  bool insecure = false;
  reader.read_bool("insecure_backend", insecure);
  insecure = insecure || whole_branch_insecure_;
  if (const Json* tls = reader.find("backend_tls")) {
    const auto read = read_backend_tls(*tls, reader.path_of("backend_tls"), sink_, files_);
    pool.tls = read.tls;
    insecure = insecure || read.insecure;
  }
  if (const Json* endpoints = reader.require("endpoints", "an array with at least one endpoint")) {
    const JsonPath endpoints_path = reader.path_of("endpoints");
    const auto* array = as_array(*endpoints, endpoints_path, sink_, kMaxEndpoints);
    if (array != nullptr && array->empty()) sink_.add(endpoints_path, "is empty; at least one endpoint is needed");
    for (std::size_t i = 0; array != nullptr && i < array->size(); ++i) {
      read_endpoint((*array)[i], JsonPath(endpoints_path, i), pool);
    }
  }
  reader.finish();
  insecure_.pools.push_back(insecure);
  out_.pools.push_back(std::move(pool));
}

void BranchReader::read_endpoint(const Json& value, const JsonPath& path, PoolConfig& pool) {
  ObjectReader reader(value, path, sink_);
  PoolEndpointConfig endpoint;
  read_host(reader, endpoint.host);
  reader.read_number("port", endpoint.port, 1, 65535);
  read_zone(reader, endpoint.zone);
  reader.read_bool("draining", endpoint.draining);
  reader.finish();
  for (const PoolEndpointConfig& other : pool.endpoints) {
    if (!endpoint.host.empty() && other.host == endpoint.host && other.port == endpoint.port) {
      reader.error("host", "another endpoint has the same host and port");
    }
  }
  pool.endpoints.push_back(std::move(endpoint));
}

void BranchReader::read_default_pool() {
  if (!root_.read_text("default_pool", out_.default_pool)) return;
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
  if (!reader.read_text("password_file", file)) return;
  const auto& secret = files_.secret(file);
  if (!secret.ok()) return reader.error("password_file", secret.error());
  out = secret.value().text;
  secrets_.add(secret.value().digest);
}

void BranchReader::read_probe() {
  const Json* value = root_.find("probe");
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("probe");
  ObjectReader reader(*value, path, sink_);
  ProbeConfig& probe = out_.probe;
  reader.read_text("user", probe.user, kMaxIdentifier);
  read_password(reader, probe.password);
  reader.read_text("database", probe.database, kMaxIdentifier);
  reader.read_duration("interval", probe.interval, 50ms, 1h);
  reader.read_duration("timeout", probe.timeout, 50ms, 1min);
  reader.read_duration("idle_after", probe.idle_after, 1s, kLongest);
  reader.finish();
}

void BranchReader::read_pgbouncer_admin() {
  const Json* value = root_.find("pgbouncer_admin");
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("pgbouncer_admin");
  ObjectReader reader(*value, path, sink_);
  PgbouncerAdmin& admin = out_.pgbouncer_admin.emplace();
  reader.require("user", "a name that PgBouncer's admin_users lists");
  reader.read_text("user", admin.user, kMaxIdentifier);
  read_password(reader, admin.password);
  reader.finish();
}

void BranchReader::read_auth() {
  const Json* value = root_.find("auth");
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("auth");
  ObjectReader reader(*value, path, sink_);
  reader.read_choice<AuthMethod>("method", out_.auth.method, kMethods);
  bool from_userlist = false;
  reader.read_choice<bool>("verifiers", from_userlist, kVerifiers);
  // A userlist beside "verifiers": "lookup" counts: the one stands in a branch, the other in the defaults under it.
  std::string file;
  if (reader.read_text("userlist", file)) {
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
  if (const Json* lookup = reader.find("lookup")) {
    const JsonPath lookup_path = reader.path_of("lookup");
    ObjectReader login(*lookup, lookup_path, sink_);
    out_.auth.lookup.emplace();
    login.require("user", "a role");
    login.read_text("user", out_.auth.lookup->user, kMaxIdentifier);
    read_password(login, out_.auth.lookup->password);
    login.read_text("query", out_.auth.lookup->query, 4096);
    login.finish();
  }
  reader.finish();
}

void BranchReader::read_replicas() {
  const Json* value = root_.find("replicas");
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("replicas");
  ObjectReader reader(*value, path, sink_);
  ReplicaPolicy& policy = out_.replicas;
  reader.read_duration("max_lag", policy.max_lag, 1ms, kLongest);
  std::uint64_t bytes = 0;
  if (reader.read_number("max_lag_bytes", bytes, 1, std::uint64_t{1} << 50)) policy.max_lag_bytes = bytes;
  reader.read_choice<Fallback>("fallback", policy.fallback, kFallbacks);
  reader.read_duration("lag_hard_cap", policy.lag_hard_cap, 1ms, kLongest);
  reader.read_number("samples_out", policy.samples_out, 1, 100);
  reader.read_number("samples_in", policy.samples_in, 1, 100);
  reader.read_choice<bool>("on_promotion", policy.end_on_promotion, kOnPromotion);
  if (policy.lag_hard_cap < policy.max_lag) {
    reader.error("lag_hard_cap", format_duration(policy.lag_hard_cap) + " is not allowed; max_lag (" +
                                     format_duration(policy.max_lag) + ") or more is");
  }
  reader.finish();
}

void BranchReader::read_failover() {
  const Json* value = root_.find("failover");
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("failover");
  ObjectReader reader(*value, path, sink_);
  reader.read_duration("hold_timeout", out_.failover.hold_timeout, 0ms, 10min);
  reader.read_number("dead_after", out_.failover.dead_after, 1, 100);
  reader.read_duration("grace", out_.failover.grace, 0ms, kLongest);
  reader.finish();
}

void BranchReader::read_access() {
  const Json* value = root_.find("access");
  if (value == nullptr) return;
  const JsonPath path = root_.path_of("access");
  ObjectReader reader(*value, path, sink_);
  if (const Json* allow = reader.find("allow")) {
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
  if (const Json* endpoints = reader.find("private_endpoints")) {
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
