#pragma once
// What holds for every text that leaves us.

#include <algorithm>
#include <string_view>

#include "base/check.h"
#include "routing/refusal.h"

namespace pointsman::fuzz {

/// One line, nothing a terminal obeys.
inline void check_one_line(std::string_view text) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  POINTSMAN_CHECK(std::none_of(text.begin(), text.end(), control));
}

inline void check_refusal(const routing::Refusal& refusal) {
  constexpr std::size_t kLongest = 2048;  // a few quoted texts of 256 bytes each
  POINTSMAN_CHECK(refusal.sqlstate.size() == 5);
  POINTSMAN_CHECK(!refusal.message.empty());
  for (const std::string_view text : {std::string_view(refusal.message), std::string_view(refusal.detail),
                                      std::string_view(refusal.hint), std::string_view(refusal.log_detail)}) {
    check_one_line(text);
    POINTSMAN_CHECK(text.size() <= kLongest);
  }
}

}  // namespace pointsman::fuzz
