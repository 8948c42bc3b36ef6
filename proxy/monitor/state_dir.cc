#include "proxy/monitor/state_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"
#include "proxy/io/durable_file.h"
#include "proxy/log.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxFileBytes = 1024 * 1024;
constexpr std::size_t kMaxMembers = routing::kMaxMembers;
constexpr std::size_t kMaxText = 512;
constexpr std::string_view kIdentitySuffix = ".identity.json";
constexpr std::string_view kMarkerSuffix = ".hold.json";

std::string member_key(const routing::MemberConfig& member) {
  return member.name + "@" + member.host + ":" + std::to_string(member.port);
}

/// `name` without the suffix, when a branch's name is left.
std::optional<std::string> branch_of(std::string_view name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return std::nullopt;
  name.remove_suffix(suffix.size());
  return routing::is_branch_name(name) ? std::optional<std::string>(name) : std::nullopt;
}

}  // namespace

std::optional<KnownIdentity> identity_of(const routing::BranchView& view) {
  if (view.system_identifier.empty() || view.timeline == 0) return std::nullopt;
  KnownIdentity identity{view.system_identifier, view.timeline, {}};
  for (const auto& member : view.config->members) identity.members.push_back(member_key(member));
  std::sort(identity.members.begin(), identity.members.end());
  return identity;
}

std::string identity_text(const KnownIdentity& identity) {
  const Json json = {{"system_identifier", identity.system_identifier},
                     {"timeline", identity.timeline},
                     {"members", identity.members}};
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<KnownIdentity> parse_identity(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const auto at = [&json](const char* key) {
    const auto found = json.find(key);
    return found == json.end() ? nullptr : &*found;
  };
  const Json* identifier = at("system_identifier");
  const Json* timeline = at("timeline");
  const Json* members = at("members");
  if (identifier == nullptr || timeline == nullptr || members == nullptr || !members->is_array()) return std::nullopt;
  const auto* text_value = identifier->get_ptr<const std::string*>();
  const auto* number = timeline->get_ptr<const Json::number_unsigned_t*>();
  if (text_value == nullptr || text_value->empty() || text_value->size() > kMaxText || number == nullptr ||
      *number == 0 || *number > UINT32_MAX || members->size() > kMaxMembers)
    return std::nullopt;
  KnownIdentity identity{*text_value, static_cast<std::uint32_t>(*number), {}};
  for (const Json& member : *members) {
    const auto* name = member.get_ptr<const std::string*>();
    if (name == nullptr || name->size() > kMaxText) return std::nullopt;
    identity.members.push_back(*name);
  }
  return identity;
}

bool still_counts(const KnownIdentity& identity, const routing::BranchConfig& config) {
  if (config.discover) return true;
  return std::any_of(config.members.begin(), config.members.end(), [&](const routing::MemberConfig& member) {
    return std::find(identity.members.begin(), identity.members.end(), member_key(member)) != identity.members.end();
  });
}

struct StateDir::Work {
  static void run(uv_work_t* work) {
    Job& job = static_cast<StateDir*>(work->data)->job_;
    job.error = job.text ? write_whole(job.path, *job.text) : remove_file(job.path);
  }
  static void after(uv_work_t* work, int) { static_cast<StateDir*>(work->data)->on_done(); }
};

base::Result<std::unique_ptr<StateDir>> StateDir::open(uv_loop_t* loop, const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return base::Error{"cannot make the folder " + path + ": " + std::strerror(errno) +
                       "; make it, or its parent, writable for the user that runs Pointsman"};
  std::unique_ptr<StateDir> made(new StateDir(loop, path));
  const std::string trial = path + "/.trial";
  if (auto error = write_whole(trial, {}); !error.empty()) return base::Error{std::move(error)};
  if (auto error = remove_file(trial); !error.empty()) return base::Error{std::move(error)};
  made->read_all();
  return made;
}

void StateDir::read_all() {
  DIR* folder = ::opendir(path_.c_str());
  if (folder == nullptr) {
    complaints_.push_back("cannot read " + path_ + ": " + std::strerror(errno));
    return;
  }
  while (const dirent* entry = ::readdir(folder)) {
    const std::string_view name = entry->d_name;
    const std::string path = path_ + "/" + entry->d_name;
    const auto identity = branch_of(name, kIdentitySuffix);
    const auto marker = branch_of(name, kMarkerSuffix);
    if (!identity && !marker) continue;
    auto text = read_whole(path, kMaxFileBytes);
    if (!text.ok()) {
      complaints_.push_back(text.error());
    } else if (marker) {
      markers_.emplace(*marker, std::move(text.value()));
    } else if (auto known = parse_identity(text.value())) {
      identities_.emplace(*identity, Identity{std::move(*known), nullptr});
    } else {
      complaints_.push_back(path + " is not what this program writes and is not used");
    }
  }
  ::closedir(folder);
}

const KnownIdentity* StateDir::identity(const routing::BranchConfig& config) const {
  const auto found = identities_.find(config.name);
  return found == identities_.end() || !still_counts(found->second.known, config) ? nullptr : &found->second.known;
}

void StateDir::remember(const routing::BranchView& view) {
  if (view.system_identifier.empty() || view.timeline == 0) return;
  Identity& written = identities_[view.config->name];
  // The usual case, several times a second and branch.
  if (written.config == view.config && written.known.system_identifier == view.system_identifier &&
      written.known.timeline == view.timeline)
    return;
  auto identity = identity_of(view);
  if (!identity) return;
  const bool news = written.known != *identity;
  written = {std::move(*identity), view.config};
  if (!news) return;
  add({path_ + "/" + view.config->name + std::string(kIdentitySuffix), identity_text(written.known), {}, {}});
}

void StateDir::write_marker(const std::string& branch, std::string text, std::function<void(std::string)> done) {
  add({path_ + "/" + branch + std::string(kMarkerSuffix), std::move(text), std::move(done), {}});
}

void StateDir::remove_marker(const std::string& branch) {
  add({path_ + "/" + branch + std::string(kMarkerSuffix), std::nullopt, {}, {}});
}

void StateDir::add(Job job) {
  // What waits to be written to the same file, and nobody waits for, is out of date.
  const auto waiting =
      std::find_if(jobs_.rbegin(), jobs_.rend(), [&](const Job& other) { return other.path == job.path; });
  if (waiting != jobs_.rend() && !waiting->done && !job.done) {
    waiting->text = std::move(job.text);
    return;
  }
  jobs_.push_back(std::move(job));
  if (!busy_) start_next();
}

void StateDir::start_next() {
  busy_ = true;
  job_ = std::move(jobs_.front());
  jobs_.pop_front();
  work_.data = this;
  POINTSMAN_CHECK(uv_queue_work(loop_, &work_, &Work::run, &Work::after) == 0);
}

void StateDir::on_done() {
  Job job = std::move(job_);
  busy_ = false;
  if (!jobs_.empty()) start_next();
  if (job.error.empty()) {
    complained_ = false;
  } else if (!std::exchange(complained_, true)) {
    log_record(LogLevel::kError, "state_dir: " + job.error, {});
  }
  if (job.done) job.done(std::move(job.error));
}

}  // namespace pointsman::proxy
