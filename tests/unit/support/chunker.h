#pragma once
// One stream, received in different pieces: whole, byte by byte, and cut in two at every position. An incremental
// parser must give the same result for all of them. Used by unit tests and fuzz targets; knows no test framework.

#include <cstddef>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/bytes.h"

namespace pointsman::test {

using Chunks = std::vector<base::Bytes>;

/// The pieces are views into `input`.
inline Chunks byte_by_byte(base::Bytes input) {
  Chunks chunks;
  for (std::size_t at = 0; at < input.size(); ++at) chunks.push_back(input.subspan(at, 1));
  return chunks;
}

/// Calls `run(chunks)` for each way and compares what it returns with that of the whole. Returns "" or which way
/// differed. `run` starts with a fresh parser each time.
template <typename Run>
std::string chunking_difference(base::Bytes input, Run run) {
  const auto expected = run(Chunks{input});
  if (!(run(byte_by_byte(input)) == expected)) return "byte by byte";
  for (std::size_t cut = 1; cut < input.size(); ++cut) {
    if (!(run(Chunks{input.first(cut), input.subspan(cut)}) == expected)) return "cut at " + std::to_string(cut);
  }
  return {};
}

/// For parsers that are given all bytes received so far and answer with a variant that has a NeedMore: feeds them until
/// the answer is another, and returns that. Each call sees a heap block of its own of just that size, so that
/// AddressSanitizer finds a read beyond it; the result must therefore hold no views.
template <typename NeedMore, typename Parse>
auto parse_growing(const Chunks& chunks, Parse parse) -> decltype(parse(base::Bytes{})) {
  std::vector<base::Byte> received;
  for (const base::Bytes chunk : chunks) {
    received.insert(received.end(), chunk.begin(), chunk.end());
    const std::vector<base::Byte> exact(received.begin(), received.end());
    auto result = parse(base::Bytes(exact));
    if (!std::holds_alternative<NeedMore>(result)) return result;
  }
  return NeedMore{};
}

}  // namespace pointsman::test
