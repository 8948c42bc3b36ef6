#pragma once
// The configuration as a JSON Schema (draft-07), for editors: made by the reader that load_config() judges with, so
// it knows every key that is read, and no other. What it rejects load_config() rejects too, but for two things: a word
// of a list made with `${branch}`, and keys of `defaults` that no branch takes over. What keys say of each other
// (one of two, a file that must be there) is load_config()'s alone. Any thread; no I/O.

#include <string>

namespace pointsman::routing {

/// Of a configuration file. Ends with a line feed, as does the other.
std::string config_schema();
/// Of a branch's file in `branches_dir`.
std::string branch_schema();

}  // namespace pointsman::routing
