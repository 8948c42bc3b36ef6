#pragma once
// What discovery knows of one branch, and how fresh that is. The source runs between start() and stop(); the last known
// members outlive it, and whatever goes wrong with it. Loop thread only.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "proxy/discovery/source.h"
#include "proxy/discovery/status.h"

namespace pointsman::proxy {

class BranchDiscovery final : private DiscoverySource::Owner {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    /// found() is another set of members now.
    virtual void on_members_found() = 0;
    /// leader() is another now.
    virtual void on_leader_named() = 0;
  };

  BranchDiscovery(DiscoveryContext& context, Owner& owner, std::string branch, routing::DiscoverConfig config);

  /// A reload. What is known stays while the same place is asked. Calls no owner.
  void reconfigure(const routing::DiscoverConfig& config);
  void start();
  void stop();
  void ask_soon();

  /// Nothing: no answer yet.
  const std::optional<routing::Discovered>& found() const { return found_; }
  /// Whom the source names, as long as it answers.
  std::optional<std::string> leader() const;
  DiscoveryStatus status(base::Instant now) const;

 private:
  void on_discovered(const routing::Discovered& found) override;
  void on_discovery_failed(const std::string& why) override;
  void report_problems(const routing::Discovered& found);
  void note_leader();
  void tell(LogLevel level, const std::string& what);

  DiscoveryContext& context_;
  Owner& owner_;
  std::string branch_;
  routing::DiscoverConfig config_;
  std::unique_ptr<DiscoverySource> source_;  // while started
  std::optional<routing::Discovered> found_;
  std::optional<std::string> named_;  // as the owner knows it
  base::Instant answered_at_{};       // epoch: never
  bool fresh_ = false;                // the last question was answered
  std::string failure_;               // of the last question; empty: none, or not asked
  std::vector<std::string> problems_told_;
  std::uint64_t failures_ = 0;
};

}  // namespace pointsman::proxy
