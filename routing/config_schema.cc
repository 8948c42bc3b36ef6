#include "routing/config_schema.h"

#include "routing/config_reader.h"

namespace pointsman::routing {
namespace {

constexpr const char* kDraft = "http://json-schema.org/draft-07/schema#";

/// What a reader is given instead of a document, and where its complaints that all is missing end.
struct Blank {
  SchemaRecorder recorder;
  std::vector<ConfigError> ignored;
  ErrorSink sink{"", &ignored, &recorder};
  JsonPath path;
  ConfigFiles files;  // none is opened: no path is ever read
  explicit Blank(SchemaRecorder::Reading reading) : recorder(reading) {}
};

const Json& nothing() {
  static const Json empty = Json::object();
  return empty;
}

Schema recorded_process() {
  Blank blank(SchemaRecorder::Reading::kAlone);
  ObjectReader root(nothing(), blank.path, blank.sink);
  Config config;
  read_process(root, "/", blank.files, config);
  find_branches(root);
  return blank.recorder.finish();
}

Schema recorded_console_listener() {
  Blank blank(SchemaRecorder::Reading::kAlone);
  read_console_listener(nothing(), blank.path, blank.sink, true);
  return blank.recorder.finish();
}

struct RecordedBranch {
  Schema branch;
  std::map<std::string, Schema> parts;
};
RecordedBranch recorded_branch() {
  Blank blank(SchemaRecorder::Reading::kMerged);
  read_branch("", nothing(), blank.path, blank.sink, blank.files);
  return {blank.recorder.finish(), blank.recorder.definitions()};
}

std::string document(const char* title, const Schema& object, const std::map<std::string, Schema>& definitions) {
  Schema out = {
      {"$schema", kDraft},
      {"title", title},
      {"description",
       "Printed by `pointsman schema`. Comments (//) are allowed in the file; keys that begin with x- are yours."}};
  for (const auto& [key, value] : object.items()) out[key] = value;
  out["definitions"] = definitions;
  return out.dump(2) + "\n";
}

}  // namespace

std::string config_schema() {
  Schema process = recorded_process();
  // Which of the two an entry is, its mode says (is_console_listener).
  Schema& listener = process["properties"]["listeners"]["items"];
  const Schema is_console = {{"required", {"mode"}}, {"properties", {{"mode", {{"const", "console"}}}}}};
  Schema console = recorded_console_listener();
  // VS Code completes a mode that is not yet written from what stands under `then`.
  console["properties"]["mode"] = listener["properties"]["mode"];
  listener = {{"if", is_console}, {"then", std::move(console)}, {"else", listener}};
  auto [branch, definitions] = recorded_branch();
  definitions.emplace("branch", std::move(branch));
  return document("Pointsman's configuration", process, definitions);
}

std::string branch_schema() {
  const auto [branch, definitions] = recorded_branch();
  return document("A branch of Pointsman's configuration", branch, definitions);
}

}  // namespace pointsman::routing
