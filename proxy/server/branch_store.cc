#include "proxy/server/branch_store.h"

#include <sys/stat.h>

#include <cstdio>
#include <utility>

#include "base/check.h"
#include "proxy/io/durable_file.h"
#include "routing/config_files.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

constexpr std::size_t kMaxWaiting = 64;

using Kind = BranchEdit::Kind;
using Outcome = BranchEditAnswer::Outcome;

/// Of the bytes: an editor that has seen them knows what it replaces.
std::string etag_of(std::string_view text) {
  routing::Fingerprint print;
  print.add(text);
  char hex[24];
  std::snprintf(hex, sizeof hex, "\"%016llx\"", static_cast<unsigned long long>(print.value()));
  return hex;
}

bool is_there(const std::string& path) {
  struct stat status = {};
  return ::lstat(path.c_str(), &status) == 0;
}

BranchEditAnswer say(Outcome outcome, std::string text) {
  return {.outcome = outcome, .text = std::move(text), .etag = {}, .errors = {}};
}

/// On the thread pool.
BranchEditAnswer carry_out(const BranchEdit& edit, const std::string& path) {
  std::string stored;
  const bool found = is_there(path);
  if (found) {
    auto text = read_whole(path, routing::kMaxBranchFileBytes);
    if (!text.ok()) return say(Outcome::kFailed, text.error());
    stored = std::move(text.value());
  }
  const std::string etag = found ? etag_of(stored) : std::string();
  const auto precondition = [&](std::string text) {
    auto answer = say(Outcome::kPrecondition, std::move(text));
    answer.etag = etag;
    return answer;
  };
  if (edit.only_new && found) return precondition("there is such a branch already");
  if (!edit.if_match.empty() && !(edit.if_match == "*" ? found : edit.if_match == etag))
    return precondition(found ? "the branch has changed since" : "there is no such branch any more");
  if (edit.kind != Kind::kWrite && !found) return say(Outcome::kNotFound, "no such branch in branches_dir");

  BranchEditAnswer answer;
  answer.etag = etag;
  std::string fault;
  switch (edit.kind) {
    case Kind::kRead:
      answer.outcome = Outcome::kRead;
      answer.text = std::move(stored);
      return answer;
    case Kind::kWrite:
      answer.outcome = found ? Outcome::kReplaced : Outcome::kCreated;
      answer.text = found ? "replaced" : "created";
      answer.etag = etag_of(edit.text);
      if (!found || answer.etag != etag) fault = write_whole(path, edit.text);
      break;
    case Kind::kRemove:
      answer.outcome = Outcome::kRemoved;
      answer.text = "removed";
      answer.etag.clear();
      fault = remove_file(path);
      break;
  }
  return fault.empty() ? answer : say(Outcome::kFailed, std::move(fault));
}

/// What speaks against it before any file is looked at; an answer that says kRead means nothing does.
BranchEditAnswer judge(const BranchEdit& edit, const routing::BranchBase& base) {
  if (!routing::is_branch_name(edit.branch))
    return say(Outcome::kNotFound,
               "no branch can have this name; 1 to 63 of a-z 0-9 - with a letter or digit first can");
  if (routing::branches_dir(base).empty())
    return say(Outcome::kConflict,
               "the configuration has no branches_dir: branches stand in its file, and are changed there");
  if (routing::stands_in_file(base, edit.branch))
    return say(Outcome::kConflict, "this branch stands in the configuration file itself, and is changed there");
  if (edit.kind != Kind::kWrite) return say(Outcome::kRead, {});
  const auto read = routing::read_branch_text(base, edit.branch, edit.text);
  if (read.errors.empty()) return say(Outcome::kRead, {});
  auto answer = say(Outcome::kInvalid, "the branch is not valid, nothing was changed");
  for (const auto& error : read.errors) answer.errors.push_back(error.path + ": " + error.what);
  return answer;
}

}  // namespace

BranchStore::~BranchStore() {
  POINTSMAN_CHECK(idle());
}

void BranchStore::edit(BranchEdit edit, BranchEditDone done) {
  if (stopped_) return done(say(Outcome::kBusy, "the router is shutting down"));
  if (const auto verdict = judge(edit, owner_.branch_base()); verdict.outcome != Outcome::kRead) return done(verdict);
  if (jobs_.size() >= kMaxWaiting)
    return done(say(Outcome::kBusy, "too many requests for branches wait already; try again"));
  std::string path = routing::branches_dir(owner_.branch_base()) + "/" + edit.branch + ".json";
  jobs_.push_back({std::move(edit), std::move(done), std::move(path), {}});
  if (!busy_) start_next();
}

void BranchStore::shut_down() {
  stopped_ = true;
  jobs_.clear();
  job_.done = nullptr;
}

void BranchStore::start_next() {
  busy_ = true;
  job_ = std::move(jobs_.front());
  jobs_.pop_front();
  work_.data = this;
  POINTSMAN_CHECK(uv_queue_work(loop_, &work_, &BranchStore::run, &BranchStore::after) == 0);
}

void BranchStore::run(uv_work_t* work) {
  Job& job = static_cast<BranchStore*>(work->data)->job_;
  job.answer = carry_out(job.edit, job.path);
}

void BranchStore::after(uv_work_t* work, int) {
  static_cast<BranchStore*>(work->data)->finish();
}

void BranchStore::finish() {
  const Job job = std::move(job_);
  busy_ = false;
  if (stopped_) return;
  const Outcome outcome = job.answer.outcome;
  if (outcome == Outcome::kCreated || outcome == Outcome::kReplaced) {
    // Against what is in force now: a reload may have come between. What it would not take then, it will report.
    const auto read = routing::read_branch_text(owner_.branch_base(), job.edit.branch, job.edit.text);
    if (read.branch != nullptr) owner_.apply_branch(job.edit.branch, read);
  } else if (outcome == Outcome::kRemoved) {
    owner_.apply_branch(job.edit.branch, {});
  }
  if (!jobs_.empty()) start_next();
  job.done(job.answer);
}

}  // namespace pointsman::proxy
