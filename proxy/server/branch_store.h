#pragma once
// The branches in branches_dir, changed one at a time by requests. Files are read and written on libuv's thread pool,
// one request after the other; a change is judged before it is written and in force when it is answered. Control
// thread.
//
// The folder stays the truth: the router's own watch of it reads everything again some time later, and finds what is
// already in force.

#include <uv.h>

#include <deque>
#include <string>

#include "proxy/admin/branch_edit.h"
#include "routing/config_edit.h"

namespace pointsman::proxy {

class BranchStore {
 public:
  class Owner {
   public:
    virtual const routing::BranchBase& branch_base() const = 0;
    /// Puts the branch in force, or takes it out when `read.branch` is null.
    virtual void apply_branch(const std::string& name, const routing::BranchRead& read) = 0;

   protected:
    ~Owner() = default;
  };

  BranchStore(uv_loop_t* loop, Owner& owner) : loop_(loop), owner_(owner) {}
  /// Requires: idle().
  ~BranchStore();
  BranchStore(const BranchStore&) = delete;
  BranchStore& operator=(const BranchStore&) = delete;

  /// `done` is called once: before this returns when nothing has to be read or written.
  void edit(BranchEdit edit, BranchEditDone done);
  /// Nothing new is begun; what is under way ends, and nobody is told.
  void shut_down();
  bool idle() const { return !busy_; }

 private:
  struct Job {
    BranchEdit edit;
    BranchEditDone done;
    std::string path;
    BranchEditAnswer answer;
  };
  static void run(uv_work_t* work);
  static void after(uv_work_t* work, int status);
  void start_next();
  void finish();

  uv_loop_t* loop_;
  Owner& owner_;
  uv_work_t work_{};
  std::deque<Job> jobs_;
  Job job_;  // with busy_: the pool's, until after()
  bool busy_ = false;
  bool stopped_ = false;
};

}  // namespace pointsman::proxy
