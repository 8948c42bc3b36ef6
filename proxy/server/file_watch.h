#pragma once
// Notices that files have changed, also when a directory's symbolic link is swapped (Kubernetes' `..data`): what a path
// leads to is compared, twice a second, off the loop. A change is reported when it has held still for one round, so a
// file is not read half-written. Control thread.

#include <uv.h>

#include <cstdint>
#include <string>
#include <vector>

namespace pointsman::proxy {

class FileWatch {
 public:
  using Handler = void (*)(void* owner);
  FileWatch(void* owner, Handler changed) : owner_(owner), changed_(changed) {}
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

  void open(uv_loop_t* loop);
  /// What to watch from now on. `known` is the print that print_of() gave before the files were read: what changed
  /// since is a change.
  void watch(std::vector<std::string> paths, std::uint64_t known);
  /// A number for what the paths lead to now.
  static std::uint64_t print_of(const std::vector<std::string>& paths);
  void close();

 private:
  struct Round;  // one look, on the thread pool
  void look();
  void on_looked(std::uint64_t generation, std::uint64_t print);

  void* owner_;
  Handler changed_;
  uv_loop_t* loop_ = nullptr;
  uv_timer_t timer_{};
  std::vector<std::string> paths_;
  std::uint64_t generation_ = 0;
  std::uint64_t known_ = 0;  // the print whose content was read
  std::uint64_t last_ = 0;   // the print of the last round
  bool looking_ = false;
  bool closed_ = false;
};

}  // namespace pointsman::proxy
