#pragma once
// How the admin endpoint prints JSON. For the sources that make such answers: it brings nlohmann/json along.

#include <nlohmann/json.hpp>

#include <string>

namespace pointsman::proxy {

/// On one line; text that is no UTF-8 is repaired with U+FFFD.
inline std::string json_text(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}
inline std::string json_line(const nlohmann::ordered_json& json) {
  return json_text(json) + "\n";
}

}  // namespace pointsman::proxy
