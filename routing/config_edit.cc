#include "routing/config_edit.h"

#include <utility>

#include "routing/config_reader.h"

namespace pointsman::routing {

const std::string& branches_dir(const BranchBase& base) {
  return base.branches_dir;
}

bool stands_in_file(const BranchBase& base, std::string_view name) {
  return base.in_file.contains(name);
}

BranchRead read_branch_text(const BranchBase& base, const std::string& name, std::string_view text) {
  BranchRead read;
  ConfigFiles files;
  const ErrorSink sink{base.branches_dir + "/" + name + ".json", &read.errors};
  ParsedJson parsed = parse_json(text);
  if (!parsed.value) {
    read.errors.push_back({sink.file, std::move(parsed.error_path), std::move(parsed.error)});
    return read;
  }
  const JsonPath path;
  if (!parsed.value->is_object()) {
    sink.add(path, describe(*parsed.value) + " is no object");
    return read;
  }
  make_paths_absolute(*parsed.value, base.branches_dir);
  const Json merged = merge_branch(base.defaults, *parsed.value, name);
  auto branch = read_branch(name, merged, path, sink, files);
  read.watched_paths.assign(files.watched().begin(), files.watched().end());
  if (read.errors.empty()) read.branch = std::move(branch);
  return read;
}

}  // namespace pointsman::routing
