// Defaults laid under a branch, and what has to happen to texts for that.

#include <filesystem>

#include "routing/config_reader.h"

namespace pointsman::routing {
namespace {

constexpr std::string_view kBranchMark = "${branch}";

bool names_a_file(std::string_view key) {
  return key == "password_file" || key == "token_file" || key == "ca" || key == "certificate" || key == "key" ||
         key == "userlist";
}
/// Free text of the operator's.
bool is_opaque(std::string_view key) {
  return key == "labels" || key.starts_with("x-");
}

void substitute(Json& value, std::string_view branch) {
  if (auto* text = value.get_ptr<std::string*>()) {
    for (std::size_t at = text->find(kBranchMark); at != std::string::npos;
         at = text->find(kBranchMark, at + branch.size())) {
      text->replace(at, kBranchMark.size(), branch);
    }
  } else if (value.is_structured()) {
    for (auto& child : value) substitute(child, branch);
  }
}

void lay_over(Json& base, const Json& own) {
  if (!base.is_object() || !own.is_object()) {
    base = own;
    return;
  }
  auto& object = base.get_ref<Json::object_t&>();
  for (const auto& [key, value] : own.get_ref<const Json::object_t&>()) {
    const auto found = object.find(key);
    if (found == object.end()) {
      object.emplace(key, value);
    } else {
      lay_over(found->second, value);
    }
  }
}

}  // namespace

std::string absolute_path(const std::string& path, const std::string& folder) {
  return (std::filesystem::path(folder) / path).lexically_normal().string();
}

void make_paths_absolute(Json& branch, const std::string& folder) {
  if (auto* array = branch.get_ptr<Json::array_t*>()) {
    for (Json& element : *array) make_paths_absolute(element, folder);
  }
  auto* object = branch.get_ptr<Json::object_t*>();
  if (object == nullptr) return;
  for (auto& [key, value] : *object) {
    if (is_opaque(key)) continue;
    auto* text = value.get_ptr<std::string*>();
    if (text == nullptr) {
      make_paths_absolute(value, folder);
    } else if (names_a_file(key) && !text->empty()) {
      *text = absolute_path(*text, folder);
    }
  }
}

Json merge_branch(const Json& defaults, const Json& own, std::string_view branch) {
  Json merged = defaults;
  lay_over(merged, own);
  substitute(merged, branch);
  return merged;
}

}  // namespace pointsman::routing
