#pragma once
// The folder `state_dir`: what must outlive this process. Per branch NAME.identity.json, its system identifier and the
// highest timeline seen, and while it is on hold NAME.hold.json, the marker. Read once, at start; written whole (a
// temporary file, fsync, rename), one file at a time, off the loop and only on change. Control thread.

#include <uv.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "routing/snapshot.h"

namespace pointsman::proxy {

struct KnownIdentity {
  std::string system_identifier;
  std::uint32_t timeline = 0;
  std::vector<std::string> members;  ///< "pg-0@10.0.0.10:5432"
  friend bool operator==(const KnownIdentity&, const KnownIdentity&) = default;
};
/// What is worth remembering of a view; nullopt: nothing is known yet. Pure, as the next two.
std::optional<KnownIdentity> identity_of(const routing::BranchView& view);
std::string identity_text(const KnownIdentity& identity);
std::optional<KnownIdentity> parse_identity(std::string_view text);
/// Whether it is the same cluster's that the configuration means: one of its members is still there, or members are
/// discovered.
bool still_counts(const KnownIdentity& identity, const routing::BranchConfig& config);

class StateDir {
 public:
  /// Makes the folder (0700) where it is missing and reads what lies there. `loop` may be initialised later, and must
  /// run until idle() after the last write. The error says what to do.
  static base::Result<std::unique_ptr<StateDir>> open(uv_loop_t* loop, const std::string& path);
  StateDir(const StateDir&) = delete;
  StateDir& operator=(const StateDir&) = delete;

  /// What was found at start and could not be used, a line each.
  const std::vector<std::string>& complaints() const { return complaints_; }
  /// What is known of the branch, if it still counts.
  const KnownIdentity* identity(const routing::BranchConfig& config) const;
  /// Markers found at start, by branch.
  const std::map<std::string, std::string>& markers() const { return markers_; }

  /// Writes the branch's identity when it is another than the one that was written last.
  void remember(const routing::BranchView& view);
  /// `done` gets an empty text, or what went wrong. The marker is on the disk when it is called.
  void write_marker(const std::string& branch, std::string text, std::function<void(std::string)> done);
  void remove_marker(const std::string& branch);
  bool idle() const { return !busy_; }

 private:
  struct Job {
    std::string path;
    std::optional<std::string> text;  // nullopt: remove it
    std::function<void(std::string)> done;
    std::string error;
  };
  struct Work;

  StateDir(uv_loop_t* loop, std::string path) : loop_(loop), path_(std::move(path)) {}
  void read_all();
  void add(Job job);
  void start_next();
  void on_done();

  uv_loop_t* loop_;
  std::string path_;
  struct Identity {
    KnownIdentity known;
    std::shared_ptr<const routing::BranchConfig> config;  // it was told under; null: it was read
  };
  std::map<std::string, Identity, std::less<>> identities_;
  std::map<std::string, std::string> markers_;
  std::vector<std::string> complaints_;
  std::deque<Job> jobs_;  // that wait
  Job job_;               // with busy_: the worker thread's
  uv_work_t work_{};
  bool busy_ = false;
  bool complained_ = false;  // said so in the log, since the last write that went well
};

}  // namespace pointsman::proxy
