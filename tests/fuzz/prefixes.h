#pragma once
// The property of a parser that is given all bytes received so far: a prefix of the input is either not enough or gives
// the very result of the whole. Checked on every short prefix and a few long ones.

#include <algorithm>
#include <cstddef>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"

namespace pointsman::fuzz {

/// `parse` returns a comparable text and `need_more` is the text of "not enough". Each call sees a heap block of just
/// its size, so that AddressSanitizer finds a read beyond it.
template <typename Parse, typename Text>
void check_prefixes(base::Bytes input, Parse parse, const Text& need_more) {
  constexpr std::size_t kEach = 64;
  constexpr std::size_t kFurther = 16;
  const auto whole = parse(input);
  const std::size_t step = std::max<std::size_t>(1, input.size() / kFurther);
  for (std::size_t size = 0; size < input.size(); size += size < kEach ? 1 : step) {
    const std::vector<base::Byte> prefix(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(size));
    const auto result = parse(base::Bytes(prefix));
    POINTSMAN_CHECK(result == need_more || result == whole);
  }
}

}  // namespace pointsman::fuzz
