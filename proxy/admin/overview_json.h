#pragma once
// The status page's JSON: /api/overview, a page of one small row per branch, and /api/events. Made to be asked for
// every second with 10,000 branches: what is not on the page asked for is looked at and not printed. Control thread.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "proxy/admin/control_view.h"

namespace pointsman::proxy {

/// What of the branches is wanted.
struct OverviewQuery {
  static constexpr std::size_t kSearchBytes = 128;
  static constexpr std::size_t kTerms = 8;
  static constexpr std::size_t kRows = 500;
  static constexpr std::size_t kDefaultRows = 100;

  std::string search;              ///< as it was asked for
  std::vector<std::string> terms;  ///< lower case: each must be part of a name, a label or a member's host
  bool only_problems = false;      ///< is:problem
  bool only_active = false;        ///< is:active
  std::size_t offset = 0;
  std::size_t limit = kDefaultRows;

  /// "shop is:problem". The error says what is allowed.
  static base::Result<OverviewQuery> parse(std::string_view search);
};

/// What a branch can be found by, in lower case and one piece: looking into 10,000 configurations each time would take
/// ten times as long. Holds on to a configuration until the branch has another one and is looked at again.
class SearchIndex {
 public:
  /// Of the branch that stands at `index` in the directory.
  std::string_view text_of(std::size_t index, const routing::BranchView& view);
  /// The directory has that many branches now.
  void resize(std::size_t branches) { entries_.resize(branches); }

 private:
  struct Entry {
    std::shared_ptr<const routing::BranchConfig> config;
    std::string text;
  };
  std::vector<Entry> entries_;
};

/// The router in short, counts over all branches, and the rows [offset, offset + limit) of those that match: errors
/// first, then warnings, then the ones in use, then the others, each by name. Nothing in it changes by itself with
/// time.
std::string overview_json(const ControlView& control, const OverviewQuery& query, SearchIndex& index);

struct EventsQuery {
  static constexpr std::size_t kDefaultRows = 100;
  std::uint64_t after = 0;
  std::string branch;  ///< empty: all
  std::size_t limit = kDefaultRows;
};
/// The newest `limit` events with an id above `after`, oldest first.
std::string events_json(const ControlView& control, const EventsQuery& query);

}  // namespace pointsman::proxy
