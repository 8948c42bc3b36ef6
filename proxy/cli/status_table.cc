#include "proxy/cli/status_table.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <vector>

#include <nlohmann/json.hpp>

namespace pointsman::proxy {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 9> kTitles = {"BRANCH", "TIMELINE", "NODE",    "ROLE",    "STATE",
                                                     "LAG",    "BEHIND",   "SAMPLED", "SESSIONS"};
using MemberRow = std::array<std::string, kTitles.size()>;
/// From here on columns hold numbers and stand to the right.
constexpr std::size_t kFirstNumber = 5;

const base::Error kUnexpected{
    "the answer is not what this version expects: is the admin endpoint a pointsman of another version?"};

std::string seconds(const Json& value) {
  if (!value.is_number()) return "-";
  const double number = value.get<double>();
  char text[32];
  std::snprintf(text, sizeof text, number < 10 ? "%.2f s" : "%.0f s", number);
  return text;
}

std::string bytes(const Json& value) {
  if (!value.is_number()) return "-";
  static constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double number = value.get<double>();
  std::size_t unit = 0;
  while (number >= 1024 && unit + 1 < kUnits.size()) {
    number /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", number, kUnits[unit]);
  return text;
}

std::string number(const Json& value) {
  return value.is_number() ? value.dump() : "-";
}

void add_branch(const std::string& name, const Json& branch, std::vector<MemberRow>& rows) {
  if (!branch.at("active").get<bool>()) {
    const std::size_t members = branch.at("members").size();
    rows.push_back({name, "-", std::to_string(members) + (members == 1 ? " member" : " members"), "-", "not in use",
                    "-", "-", "-", "-"});
    return;
  }
  const std::size_t first = rows.size();
  for (const Json& member : branch.at("members")) {
    rows.push_back({"", "", member.at("name").get<std::string>(), member.at("role").get<std::string>(),
                    member.at("state").get<std::string>(), seconds(member.at("lag_seconds")),
                    bytes(member.at("lag_bytes")), seconds(member.at("sample_age_seconds")),
                    number(member.at("sessions"))});
  }
  for (const Json& pool : branch.at("pools")) {
    for (const Json& endpoint : pool.at("endpoints")) {
      rows.push_back({"", "", pool.at("name").get<std::string>() + "/" + endpoint.at("address").get<std::string>(),
                      "pool, " + pool.at("target").get<std::string>(), endpoint.at("state").get<std::string>(), "-",
                      "-", "-", number(endpoint.at("sessions"))});
    }
  }
  if (first == rows.size()) return;
  rows[first][0] = name;
  rows[first][1] = number(branch.at("timeline"));
}

std::string print(const std::vector<MemberRow>& rows) {
  std::array<std::size_t, kTitles.size()> widths{};
  for (const MemberRow& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const MemberRow& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      if (i > 0) line += "  ";
      line += i < kFirstNumber ? row[i] + padding : padding + row[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

using Line = std::array<std::string, 4>;

/// Columns side by side, each as wide as its widest text.
std::string print_lines(const std::vector<Line>& lines) {
  std::array<std::size_t, 4> widths{};
  for (const Line& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const Line& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      text += (i == 0 ? "  " : "   ") + line[i];
      if (i + 1 < line.size()) text.append(widths[i] - line[i].size(), ' ');
    }
    text += "\n";
  }
  return text;
}

/// Runs `read` on the parsed answer. nlohmann::json throws on what it does not find: this is the boundary.
template <typename T, typename Read>
base::Result<T> with_json(std::string_view text, Read read) {
  try {
    return read(Json::parse(text));
  } catch (const nlohmann::json::exception&) {
    return kUnexpected;
  }
}

std::string read_status(const Json& status) {
  MemberRow titles;
  std::copy(kTitles.begin(), kTitles.end(), titles.begin());
  std::vector<MemberRow> rows = {titles};
  std::string held;
  std::size_t active = 0;
  const Json& branches = status.at("branches");
  for (const auto& [name, branch] : branches.items()) {
    add_branch(name, branch, rows);
    if (branch.at("active").get<bool>()) ++active;
    const auto holding = branch.at("holding").get<std::uint64_t>();
    if (holding > 0) held += name + ": " + std::to_string(holding) + (holding == 1 ? " login" : " logins") + " held\n";
    if (branch.value("on_hold", false)) held += name + ": on hold for a planned switch\n";
    if (branch.at("active").get<bool>() && branch.at("primary").is_null()) held += name + ": no primary\n";
  }
  std::string text = "pointsman " + status.at("version").get<std::string>() + ", " + std::to_string(branches.size()) +
                     (branches.size() == 1 ? " branch" : " branches") + ", " + std::to_string(active) + " in use";
  if (status.at("draining").get<bool>()) text += ", DRAINING";
  text += "\n\n" + print(rows);
  return held.empty() ? text : text + "\n" + held;
}

RouteText read_route(const Json& route) {
  RouteText result{.ok = route.at("ok").get<bool>(), .text = {}};
  const auto line = [&](std::string_view title, const char* key) {
    const auto value = route.at(key).get<std::string>();
    if (!value.empty()) result.text += "  " + std::string(title) + value + "\n";
  };
  if (result.ok) {
    result.text = "goes to " + route.at("destination").get<std::string>() + " at " +
                  route.at("address").get<std::string>() + "\n";
  } else {
    result.text = "refused: " + route.at("message").get<std::string>() + "\n";
    line("sqlstate    ", "sqlstate");
    line("detail      ", "detail");
    line("hint        ", "hint");
  }
  line("reason      ", "reason");
  line("role        ", "role");
  line("branch      ", "branch");
  line("target      ", "target");
  std::string title = "  candidates  ";
  for (const Json& candidate : route.at("candidates")) {
    result.text += title + candidate.get<std::string>() + "\n";
    title.assign(title.size(), ' ');
  }
  return result;
}

std::string read_switch(const Json& answer) {
  std::string text = answer.at(answer.value("done", false) ? "message" : "error").get<std::string>() + "\n";
  if (answer.contains("transactions")) {
    std::vector<Line> lines = {{"pid", "user", "age", "state"}};
    for (const Json& entry : answer.at("transactions")) {
      std::array<char, 32> age{};
      std::snprintf(age.data(), age.size(), "%.1f s", entry.at("age_seconds").get<double>());
      lines.push_back({std::to_string(entry.at("pid").get<std::int64_t>()), entry.at("user").get<std::string>(),
                       age.data(), entry.at("state").get<std::string>()});
    }
    text += print_lines(lines);
  }
  if (answer.contains("pgbouncers")) {
    for (const Json& entry : answer.at("pgbouncers")) {
      text += "  " + entry.at("name").get<std::string>() + ": " + entry.at("state").get<std::string>();
      if (entry.contains("error")) text += " (" + entry.at("error").get<std::string>() + ")";
      text += "\n";
    }
  }
  if (answer.contains("warnings")) {
    for (const Json& warning : answer.at("warnings")) text += "warning: " + warning.get<std::string>() + "\n";
  }
  return text;
}

}  // namespace

base::Result<std::string> status_table(std::string_view json) {
  return with_json<std::string>(json, read_status);
}

base::Result<std::string> pretty_json(std::string_view json) {
  return with_json<std::string>(json, [](const Json& parsed) { return parsed.dump(2) + "\n"; });
}

base::Result<RouteText> route_text(std::string_view json) {
  return with_json<RouteText>(json, read_route);
}

std::string switch_text(unsigned status, std::string_view json) {
  const auto told = with_json<std::string>(json, read_switch);
  return told.ok() ? told.value() : error_text(status, json) + "\n";
}

std::string error_text(unsigned status, std::string_view body) {
  const auto told =
      with_json<std::string>(body, [](const Json& parsed) { return parsed.at("error").get<std::string>(); });
  return told.ok() ? told.value() : "the admin endpoint answered with status " + std::to_string(status);
}

}  // namespace pointsman::proxy
