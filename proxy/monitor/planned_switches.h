#pragma once
// The planned switches of all branches: hold, release, adopt. Control loop only. A hold belongs to this router; others
// in front of the same branch know nothing of it.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/monitor/planned_hold.h"
#include "proxy/monitor/switch_answer.h"

namespace pointsman::proxy {

class PlannedSwitches final : private PlannedHold::Owner {
 public:
  /// `state`: null without a state_dir. All of them outlive this.
  PlannedSwitches(SqlContext& sql, Monitor& monitor, EventSink& events, StateDir* state);
  ~PlannedSwitches() override;
  PlannedSwitches(const PlannedSwitches&) = delete;
  PlannedSwitches& operator=(const PlannedSwitches&) = delete;

  /// Resumes what a former process left paused, by the markers it left. Once, when the monitor is configured.
  void resume_left_behind();

  /// Each calls `done` once.
  void hold(const std::string& branch, HoldOptions options, SwitchDone done);
  void release(const std::string& branch, SwitchDone done);
  void adopt(const std::string& branch, SwitchDone done);

  /// From inside the monitor: only notes it.
  void on_view(std::string_view branch);
  /// After the monitor: branches that are gone are let go.
  void on_config_changed();
  /// Ends every hold and takes no more.
  void drain();
  /// Calls `done` in the loop when nothing is under way any more; after drain() that is in a few seconds at most.
  void when_idle(std::function<void()> done);
  void shut_down();

 private:
  struct Adoption {
    std::string branch;
    base::Instant deadline{};
    SwitchDone done;
  };

  void on_hold_ended(PlannedHold& hold) override;
  void on_timer();
  bool idle() const { return holds_.empty() && adoptions_.empty(); }
  bool try_adopt(const Adoption& adoption);

  SwitchContext context_;
  std::map<std::string, std::unique_ptr<PlannedHold>, std::less<>> holds_;
  std::vector<Adoption> adoptions_;
  std::unique_ptr<LoopTimer> timer_;
  std::function<void()> when_idle_;
  bool draining_ = false;
};

}  // namespace pointsman::proxy
