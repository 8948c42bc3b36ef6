#include "proxy/server/file_watch.h"

#include <sys/stat.h>

#include "base/check.h"

namespace pointsman::proxy {

namespace {

constexpr std::uint64_t kRoundMs = 500;

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {  // FNV-1a over the value's bytes
  for (int i = 0; i < 8; ++i) {
    hash = (hash ^ ((value >> (8 * i)) & 0xff)) * 0x100000001b3ULL;
  }
  return hash;
}

}  // namespace

std::uint64_t FileWatch::print_of(const std::vector<std::string>& paths) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const auto& path : paths) {
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) {
      hash = mix(hash, 1);
      continue;
    }
    hash = mix(hash, static_cast<std::uint64_t>(status.st_ino));
    hash = mix(hash, static_cast<std::uint64_t>(status.st_dev));
    hash = mix(hash, static_cast<std::uint64_t>(status.st_size));
    hash = mix(hash, static_cast<std::uint64_t>(status.st_mtim.tv_sec));
    hash = mix(hash, static_cast<std::uint64_t>(status.st_mtim.tv_nsec));
    hash = mix(hash, static_cast<std::uint64_t>(status.st_mode));
  }
  return hash;
}

struct FileWatch::Round {
  uv_work_t work{};
  FileWatch* watch = nullptr;
  std::vector<std::string> paths;
  std::uint64_t generation = 0;
  std::uint64_t print = 0;
};

void FileWatch::open(uv_loop_t* loop) {
  loop_ = loop;
  POINTSMAN_CHECK(uv_timer_init(loop, &timer_) == 0);
  timer_.data = this;
  uv_timer_start(
      &timer_, [](uv_timer_t* timer) { static_cast<FileWatch*>(timer->data)->look(); }, kRoundMs, kRoundMs);
}

void FileWatch::watch(std::vector<std::string> paths, std::uint64_t known) {
  paths_ = std::move(paths);
  ++generation_;
  known_ = last_ = known;
}

void FileWatch::close() {
  if (closed_) return;
  closed_ = true;
  uv_close(reinterpret_cast<uv_handle_t*>(&timer_), nullptr);
}

void FileWatch::look() {
  if (looking_) return;
  auto* round = new Round;
  round->watch = this;
  round->paths = paths_;
  round->generation = generation_;
  round->work.data = round;
  looking_ = true;
  const int queued = uv_queue_work(
      loop_, &round->work,
      [](uv_work_t* work) {
        auto* self = static_cast<Round*>(work->data);
        self->print = print_of(self->paths);
      },
      [](uv_work_t* work, int status) {
        auto* self = static_cast<Round*>(work->data);
        self->watch->looking_ = false;
        if (status == 0) self->watch->on_looked(self->generation, self->print);
        delete self;
      });
  if (queued != 0) {
    looking_ = false;
    delete round;
  }
}

void FileWatch::on_looked(std::uint64_t generation, std::uint64_t print) {
  if (closed_ || generation != generation_) return;
  const bool settled = print == last_;
  last_ = print;
  if (print == known_ || !settled) return;
  known_ = print;
  changed_(owner_);
}

}  // namespace pointsman::proxy
