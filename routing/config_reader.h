#pragma once
// The parts of load_config(), one per source file. Internal to routing's configuration reader; control thread only.

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "routing/config.h"
#include "routing/config_files.h"
#include "routing/json_reader.h"

namespace pointsman::routing {

/// What config_edit.cc reads a single branch against.
struct BranchBase {
  Json defaults = Json::object();  ///< paths are absolute
  std::string branches_dir;
  std::set<std::string, std::less<>> in_file;  ///< branches of the configuration file itself
};

/// config_merge.cc. Makes the paths in a branch's object (or in `defaults`) absolute, so that they can be merged: each
/// is relative to the folder of the file it stands in.
void make_paths_absolute(Json& branch, const std::string& folder);
/// `path` as written in a file of that folder.
std::string absolute_path(const std::string& path, const std::string& folder);
/// `own` laid over `defaults`: objects key by key, everything else replaced whole; then `${branch}` in every text.
Json merge_branch(const Json& defaults, const Json& own, std::string_view branch);

/// config_process.cc. Everything but the branches. Errors of these parts make the whole configuration bad.
void read_process(ObjectReader& root, const std::string& folder, ConfigFiles& files, Config& config);

/// A listener's `address`; the `$schema` that an editor reads, and nobody else.
void read_listening_address(ObjectReader& reader, std::string& address);
void read_schema_mark(ObjectReader& reader);

/// config_console.cc. The admin console: one entry of `listeners`, the top-level `console` (after the listeners), and
/// that its ports are nobody else's (after everything).
bool is_console_listener(const Json& listener);
ConsoleListener read_console_listener(const Json& value, const JsonPath& path, const ErrorSink& sink,
                                      bool tls_is_configured);
void read_console(ObjectReader& root, const std::string& folder, ConfigFiles& files, Config& config);
void check_console_ports(const Config& config, const JsonPath& listeners, const ErrorSink& sink);

/// config_cancel.cc. The top-level `cancel`, after everything that listens.
void read_cancel(ObjectReader& root, const std::string& folder, ConfigFiles& files, Config& config);

/// config.cc. Where the top level says that branches stand.
struct BranchPlaces {
  const Json* defaults = nullptr;  ///< an object
  std::string folder;              ///< as written; empty: none
  const Json* branches = nullptr;
};
BranchPlaces find_branches(ObjectReader& root);

/// config_branch.cc. A branch from its merged object. Whatever is wrong goes to the sink; the result counts only when
/// nothing was added there.
std::shared_ptr<BranchConfig> read_branch(const std::string& name, const Json& merged, const JsonPath& path,
                                          const ErrorSink& sink, ConfigFiles& files);

/// config_policies.cc. Parts of a branch that need no file.
void read_labels(ObjectReader& branch, BranchConfig& out);
void read_replicas(ObjectReader& branch, BranchConfig& out);
void read_failover(ObjectReader& branch, BranchConfig& out);
void read_access(ObjectReader& branch, BranchConfig& out);
/// An array of address ranges; returns it as it stands there, null when it is no array or not there.
const Json::array_t* read_ranges(ObjectReader& reader, const Key& key, std::size_t least, std::vector<Cidr>& out);

/// config_discover.cc. The `discover` object of a branch.
DiscoverConfig read_discover(const Json& value, const JsonPath& path, const ErrorSink& sink, ConfigFiles& files);

/// config_backend_tls.cc. One `backend_tls` object.
struct BackendTlsRead {
  BackendTlsConfig tls;
  bool insecure = false;
};
BackendTlsRead read_backend_tls(const Json& value, const JsonPath& path, const ErrorSink& sink, ConfigFiles& files);
/// After everything else of the branch is read: weak TLS towards anything but loopback, passthrough over TLS.
/// `insecure`: as said by the branch, by `backend_tls`, by `pgbouncer_tls` and by each pool (same order as
/// branch.pools).
struct InsecureFlags {
  bool backend = false;
  bool pgbouncer = false;
  std::vector<bool> pools;
};
void check_backend_tls(const BranchConfig& branch, const InsecureFlags& insecure, const JsonPath& path,
                       const ErrorSink& sink);

/// A host name or numeric address, no brackets.
bool is_host(std::string_view text);
bool is_numeric_address(const std::string& text);
/// 127.0.0.0/8, ::1 (also IPv4-mapped), localhost.
bool is_loopback(const std::string& host);
/// What may name a listener, a member, a zone: 1 to 63 of A-Z a-z 0-9 . _ -, a letter or digit first.
bool is_label(std::string_view text);
inline constexpr std::string_view kNotALabel =
    "is not allowed; 1 to 63 of A-Z a-z 0-9 . _ - with a letter or digit first";
inline constexpr std::string_view kLabelRule = kNotALabel.substr(kNotALabel.find("1 to"));

/// Kinds of texts that stand in more than one place.
inline constexpr TextForm kFile{.title = "path of a file"};
inline constexpr TextForm kIdentifier{.most = 63};  // NAMEDATALEN - 1
inline constexpr TextForm kPoolName{.title = "name of a pool", .pattern = "^[a-z0-9][a-z0-9_-]{0,62}$"};
inline constexpr TextRule kLabel{
    .form = {.title = "name: A-Z a-z 0-9 . _ -", .pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"},
    .holds = [](const std::string& text) { return is_label(text); },
    .complaint = kNotALabel};
inline constexpr TextRule kHost{
    .form = {.title = "host name or address", .pattern = "^([A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:.]+)$", .most = 253},
    .holds = [](const std::string& text) { return is_host(text); },
    .complaint = "is no host name and no numeric address",
    .quotes_value = true};

}  // namespace pointsman::routing
