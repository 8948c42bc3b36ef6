#pragma once
// The page behind GET /metrics. Control thread. An unknown value is an absent series; labels come from the
// configuration only.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "proxy/admin/control_view.h"
#include "proxy/admin/process_stats.h"

namespace pointsman::proxy {

class MetricsPage {
 public:
  /// Lines a page may have: beyond it whole series are left out and counted.
  static constexpr std::size_t kSeriesLimit = 50'000;

  explicit MetricsPage(const ControlView& control, std::size_t series_limit = kSeriesLimit)
      : control_(control), series_limit_(series_limit) {}

  std::string render(base::Instant now, const ProcessStats& process);

 private:
  const ControlView& control_;
  std::size_t series_limit_;
  std::uint64_t dropped_total_ = 0;
};

}  // namespace pointsman::proxy
