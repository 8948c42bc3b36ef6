#pragma once
// Whole small files that are there or not, also after a crash: written beside, synced, renamed, the folder synced. May
// block: for libuv's thread pool, not for a loop.

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pointsman::proxy {

/// What a file is called while it is being written. Left behind by a crash only.
inline constexpr std::string_view kTemporarySuffix = ".new";

/// Follows no link, refuses more than `most` bytes.
base::Result<std::string> read_whole(const std::string& path, std::size_t most);
/// 0600, as secrets may be in it. Empty, or what went wrong.
std::string write_whole(const std::string& path, std::string_view text);
/// One that is not there is removed already. Empty, or what went wrong.
std::string remove_file(const std::string& path);

}  // namespace pointsman::proxy
