#include "routing/config.h"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>
#include <thread>
#include <tuple>
#include <utility>

#include "routing/config_edit.h"
#include "routing/config_reader.h"

namespace pointsman::routing {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxPathText = 4096;

/// A branch as it was found, before the defaults are laid under it.
struct BranchSource {
  std::string file;
  std::string prefix;  ///< JSON path of the branch in that file
  Json own;
};

class Loader {
 public:
  Loader(const std::string& file, const Config* previous) : previous_(previous) {
    std::error_code error;
    const fs::path absolute = fs::absolute(file, error).lexically_normal();
    file_ = error ? file : absolute.string();
    folder_ = fs::path(file_).parent_path().string();
  }
  LoadedConfig load();

 private:
  void read_document(const Json& document);
  void collect_branches(const BranchPlaces& places, ObjectReader& root);
  void collect_folder(const std::string& folder, ObjectReader& root);
  void collect_file(const fs::path& file);
  void add_source(const std::string& name, BranchSource source);
  void read_branches();
  void read_one(const std::string& name, const BranchSource& source);
  void report_branch(const std::string& name, const BranchSource& source, std::vector<ConfigError> found);
  void reject(const std::string& name);
  void check_fixed_routes();
  void check_descriptors();
  void bad_top_level(std::string path, std::string what) {
    fatal_ = true;
    result_.errors.push_back({file_, std::move(path), std::move(what)});
  }

  const Config* previous_;
  std::string file_;
  std::string folder_;
  ConfigFiles files_;
  std::shared_ptr<Config> config_ = std::make_shared<Config>();
  std::shared_ptr<BranchBase> base_ = std::make_shared<BranchBase>();
  std::map<std::string, BranchSource> sources_;
  std::set<std::string> rejected_;
  std::set<std::tuple<std::string, std::string>> reported_defaults_;  // path and text: said once, not once per branch
  std::vector<ConfigError> branch_errors_;
  bool fatal_ = false;
  LoadedConfig result_;  // its errors are those of the top level until load() adds the branches'
};

LoadedConfig Loader::load() {
  files_.watch(file_);
  config_->file = file_;
  auto text = read_file(file_, kMaxConfigBytes);
  if (!text.ok()) {
    bad_top_level("", text.error());
  } else {
    ParsedJson parsed = parse_json(text.value());
    if (!parsed.value) {
      bad_top_level(parsed.error_path, parsed.error);
    } else if (!parsed.value->is_object()) {
      bad_top_level("", describe(*parsed.value) + " is no object");
    } else {
      read_document(*parsed.value);
    }
  }
  result_.errors.insert(result_.errors.end(), std::make_move_iterator(branch_errors_.begin()),
                        std::make_move_iterator(branch_errors_.end()));
  result_.rejected_branches.assign(rejected_.begin(), rejected_.end());
  result_.watched_paths.assign(files_.watched().begin(), files_.watched().end());
  if (!fatal_) {
    result_.config = config_;
    result_.base = base_;
  }
  return std::move(result_);
}

void Loader::read_document(const Json& document) {
  const ErrorSink sink{file_, &result_.errors};
  const JsonPath path;
  ObjectReader root(document, path, sink);
  read_process(root, folder_, files_, *config_);
  const BranchPlaces places = find_branches(root);
  if (places.defaults != nullptr) {
    base_->defaults = *places.defaults;
    make_paths_absolute(base_->defaults, folder_);
  }
  collect_branches(places, root);
  root.finish();
  fatal_ = !result_.errors.empty();
  read_branches();
  check_fixed_routes();
  check_descriptors();
}

void Loader::collect_branches(const BranchPlaces& places, ObjectReader& root) {
  if (!places.folder.empty()) {
    base_->branches_dir = absolute_path(places.folder, folder_);
    collect_folder(base_->branches_dir, root);
  }
  if (places.branches == nullptr) return;
  const auto* object = places.branches->get_ptr<const Json::object_t*>();
  if (object == nullptr) return root.error("branches", describe(*places.branches) + " is no object");
  for (const auto& [name, own] : *object) {
    if (name.starts_with("x-")) continue;
    base_->in_file.insert(name);
    BranchSource source{file_, append_to_path("/branches", name), own};
    make_paths_absolute(source.own, folder_);
    add_source(name, std::move(source));
  }
}

void Loader::collect_folder(const std::string& folder, ObjectReader& root) {
  files_.watch(folder);
  std::error_code error;
  std::vector<fs::path> found;
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const fs::path& path = entries->path();
    // Dot files and Kubernetes' ..data and ..2026_…: beside the links that count, the machinery that swaps them.
    if (!path.filename().string().starts_with('.') && path.extension() == ".json") found.push_back(path);
  }
  if (error) return root.error("branches_dir", "cannot read " + folder + ": " + error.message());
  std::sort(found.begin(), found.end());
  for (const fs::path& path : found) collect_file(path);
}

void Loader::collect_file(const fs::path& path) {
  const std::string name = path.stem().string();
  const std::string file = path.string();
  const auto bad = [&](std::string json_path, std::string what) {
    branch_errors_.push_back({escape_for_log(file, kMaxPathText), std::move(json_path), std::move(what)});
    reject(name);
  };
  auto text = read_file(file, kMaxBranchFileBytes);
  if (!text.ok()) return bad("", text.error());
  ParsedJson parsed = parse_json(text.value());
  if (!parsed.value) return bad(std::move(parsed.error_path), std::move(parsed.error));
  BranchSource source{escape_for_log(file, kMaxPathText), "", *std::move(parsed.value)};
  make_paths_absolute(source.own, path.parent_path().string());
  add_source(name, std::move(source));
}

void Loader::add_source(const std::string& name, BranchSource source) {
  const auto bad = [&](std::string what) {
    branch_errors_.push_back({source.file, source.prefix, std::move(what)});
    reject(name);
  };
  if (!is_branch_name(name)) {
    return bad("\"" + escape_for_log(name) +
               "\" is no branch name; 1 to 63 of a-z 0-9 - with a letter or digit first are allowed");
  }
  const auto [at, inserted] = sources_.try_emplace(name);
  if (!inserted) return bad("branch \"" + name + "\" is defined in " + at->second.file + " too");
  at->second = std::move(source);
}

void Loader::reject(const std::string& name) {
  rejected_.insert(name);
  if (previous_ == nullptr) return;
  const auto kept = previous_->branches.find(name);
  if (kept != previous_->branches.end()) config_->branches.insert_or_assign(name, kept->second);
}

void Loader::read_branches() {
  for (const auto& [name, source] : sources_) {
    if (!rejected_.contains(name)) read_one(name, source);
  }
}

void Loader::read_one(const std::string& name, const BranchSource& source) {
  std::vector<ConfigError> found;
  const ErrorSink sink{source.file, &found};
  const JsonPath path(source.prefix);
  if (!source.own.is_object()) {
    sink.add(path, describe(source.own) + " is no object");
    return report_branch(name, source, std::move(found));
  }
  const Json merged = merge_branch(base_->defaults, source.own, name);
  std::shared_ptr<const BranchConfig> branch = read_branch(name, merged, path, sink, files_);
  if (!found.empty()) return report_branch(name, source, std::move(found));
  if (previous_ != nullptr) {
    const auto former = previous_->branches.find(name);
    if (former != previous_->branches.end() && former->second->fingerprint == branch->fingerprint)
      branch = former->second;
  }
  config_->branches.insert_or_assign(name, std::move(branch));
}

/// Whether a JSON path, as our errors print it, leads to something in a document.
bool leads_somewhere(const Json& document, std::string_view path) {
  const Json* here = &document;
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string key(path.substr(0, path.find('/')));
    path.remove_prefix(key.size());
    if (!here->is_object())
      return here->is_array();  // an array is replaced whole: what is in it comes from where it stands
    const auto found = here->find(key);
    if (found == here->end()) return false;
    here = &*found;
  }
  return true;
}

void Loader::report_branch(const std::string& name, const BranchSource& source, std::vector<ConfigError> found) {
  reject(name);
  for (ConfigError& error : found) {
    const std::string inner = error.path.substr(source.prefix.size());
    if (!leads_somewhere(source.own, inner) && leads_somewhere(base_->defaults, inner)) {
      if (!reported_defaults_.emplace(inner, error.what).second) continue;
      error.file = file_;
      error.path = "/defaults" + inner;
    }
    branch_errors_.push_back(std::move(error));
  }
}

void Loader::check_fixed_routes() {
  for (std::size_t i = 0; i < config_->listeners.size(); ++i) {
    const FixedRoute& fixed = config_->listeners[i].fixed;
    if (!is_branch_name(fixed.branch) || rejected_.contains(fixed.branch)) continue;  // none, or reported already
    const std::string path = "/listeners/" + std::to_string(config_->listeners[i].position);
    const auto branch = config_->branches.find(fixed.branch);
    if (branch == config_->branches.end()) {
      branch_errors_.push_back(
          {file_, path + "/branch", "no branch \"" + escape_for_log(fixed.branch) + "\" is configured"});
    } else if (fixed.target.kind == TargetKind::kPool && branch->second->find_pool(fixed.target.pool) == nullptr) {
      branch_errors_.push_back(
          {file_, path + "/target",
           "branch \"" + fixed.branch + "\" has no pool \"" + escape_for_log(fixed.target.pool) + "\""});
    }
  }
}

void Loader::check_descriptors() {
  if (!config_->limits.max_connections) return;
  const unsigned workers = config_->workers != 0 ? config_->workers : std::max(1u, std::thread::hardware_concurrency());
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max == RLIM_INFINITY) return;
  const std::uint32_t wanted = *config_->limits.max_connections;
  const std::uint64_t needed = descriptors_needed(*config_, wanted, workers);
  if (needed <= limit.rlim_max) return;
  bad_top_level("/limits/max_connections",
                std::to_string(wanted) + " connections need " + std::to_string(needed) +
                    " file descriptors and RLIMIT_NOFILE gives " + std::to_string(limit.rlim_max) + "; at most " +
                    std::to_string(default_max_connections(*config_, limit.rlim_max, workers)) +
                    " are allowed, or a higher limit (LimitNOFILE= in systemd, ulimit -n)");
}

}  // namespace

BranchPlaces find_branches(ObjectReader& root) {
  constexpr std::string_view kBranch = "branch";
  BranchPlaces places;
  places.defaults = root.find_object({"defaults",
                                      "Any key of a branch, laid under every branch: objects key by key, everything "
                                      "else replaced whole. `${branch}` stands for its name."},
                                     kBranch);
  if (places.defaults != nullptr && !places.defaults->is_object()) {
    root.error("defaults", describe(*places.defaults) + " is no object");
    places.defaults = nullptr;
  }
  root.read_text({"branches_dir", "Holds one file per branch, NAME.json."}, places.folder,
                 {.title = "path of a folder"});
  constexpr TextForm kName{.title = {}, .pattern = "^(?!x-)[a-z0-9][a-z0-9-]{0,62}$"};
  places.branches = root.find({"branches", "The branches by name: 1 to 63 of a-z 0-9 -, a letter or digit first."},
                              {.kind = Shape::Kind::kMap, .text = kName, .definition = kBranch, .x_is_yours = true});
  return places;
}

LoadedConfig load_config(const std::string& file, const Config* previous) {
  return Loader(file, previous).load();
}

}  // namespace pointsman::routing
