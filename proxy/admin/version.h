#pragma once
// The version of this build, given by CMake's project().

#include <string_view>

namespace pointsman::proxy {

std::string_view version();

}  // namespace pointsman::proxy
