#pragma once
// The status page's JSON: /api/overview, a page of one small row per branch, and /api/events. Made to be asked for
// every second with 10,000 branches: what is not on the page asked for is looked at and not printed. Control thread.

#include <cstddef>
#include <cstdint>
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

/// The router in short, counts over all branches, and the rows [offset, offset + limit) of those that match: errors
/// first, then warnings, then the ones in use, then the others, each by name. Nothing in it changes by itself with
/// time.
std::string overview_json(const ControlView& control, const OverviewQuery& query);

struct EventsQuery {
  static constexpr std::size_t kDefaultRows = 100;
  std::uint64_t after = 0;
  std::string branch;  ///< empty: all
  std::size_t limit = kDefaultRows;
};
/// The newest `limit` events with an id above `after`, oldest first.
std::string events_json(const ControlView& control, const EventsQuery& query);

}  // namespace pointsman::proxy
