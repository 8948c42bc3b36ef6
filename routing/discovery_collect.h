#pragma once
// What the readers of discovery documents share. Internal to routing/discovery*.cc.

#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "routing/discovery.h"
#include "routing/json_reader.h"

namespace pointsman::routing {

/// Takes members one by one and keeps those that a configuration could have listed.
class MemberCollector {
 public:
  /// The name of the member it became; nothing: it was left out, and a problem says why. An unlawful name is replaced
  /// by one made of host and port, an unlawful zone is dropped.
  std::optional<std::string> add(DiscoveredMember member);
  void problem(std::string text);
  /// The whole; `nobody` is the error when there is no member.
  base::Result<Discovered> finish(std::string nobody) &&;

  Discovered& found() { return found_; }

 private:
  Discovered found_;
  std::set<std::string> names_;
  std::set<std::pair<std::string, std::uint16_t>> places_;
  std::size_t seen_ = 0;
};

/// The value of a key of an object; null when `value` is none or has no such key.
const Json* child(const Json* value, std::string_view key);
/// Null unless it is a text, an array.
const std::string* text_at(const Json* value, std::string_view key);
const Json::array_t* array_at(const Json* value, std::string_view key);
/// 1 to 65535; 0 otherwise.
std::uint16_t port_at(const Json* value, std::string_view key);
/// `absent` when it is missing or null, false when it is no boolean.
bool flag_at(const Json* value, std::string_view key, bool absent);

}  // namespace pointsman::routing
