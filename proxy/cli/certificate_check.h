#pragma once
// Reads every certificate and key that a configuration names, as `serve` would: part of `check`. Blocking.

#include <vector>

#include "routing/config.h"

namespace pointsman::proxy {

/// Requires: loaded.config. Settings that several branches share are read, and reported, once.
std::vector<routing::ConfigError> check_certificates(const routing::LoadedConfig& loaded);

}  // namespace pointsman::proxy
