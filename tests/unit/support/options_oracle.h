#pragma once
// What a PostgreSQL backend makes of an `options` text, by another road than ours: the words are cut as pg_split_opts()
// documents it and then given to this machine's own getopt() with the switches of process_postgres_switches(). The
// judge for protocol::extract_options().

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

namespace pointsman::test {

struct OptionsReading {
  /// getopt() met no unknown switch and no missing argument, and no word was left over. The backend refuses otherwise.
  bool accepted = false;
  /// "c=name=value" for a setting (its name in lower case, with underscores), else the switch and its argument: "E",
  /// "f=s".
  std::vector<std::string> switches;
};

inline std::vector<std::string> split_options(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  for (std::size_t at = 0; at <= text.size(); ++at) {
    if (at == text.size() || std::isspace(static_cast<unsigned char>(text[at])) != 0) {
      if (in_word) words.push_back(word);
      word.clear();
      in_word = false;
      continue;
    }
    in_word = true;
    if (text[at] != '\\') {
      word.push_back(text[at]);
    } else if (at + 1 < text.size()) {
      word.push_back(text[++at]);
    }
  }
  return words;
}

/// "name=value" as ParseLongOption() reads it.
inline std::string normal_setting(std::string_view setting) {
  std::string text(setting);
  const auto name_end = text.begin() + static_cast<std::ptrdiff_t>(std::min(text.find('='), text.size()));
  std::transform(text.begin(), name_end, text.begin(), [](char c) {
    if (c == '-') return '_';
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

/// Requires: no zero bytes in `text` (a startup parameter cannot hold one). Uses getopt()'s global state.
inline OptionsReading read_options(std::string_view text) {
  std::vector<std::string> words = split_options(text);
  words.insert(words.begin(), "postgres");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int argc = static_cast<int>(words.size());

  OptionsReading reading;
  bool failed = false;
  optind = 0;  // glibc: start afresh
  opterr = 0;
  for (int flag = 0; (flag = getopt(argc, argv.data(), "B:bC:c:D:d:EeFf:h:ijk:lN:nOo:Pp:r:S:sTt:v:W:-:")) != -1;) {
    if (flag == '?') {
      failed = true;
      break;
    }
    if (flag == 'c' || flag == '-') {
      reading.switches.push_back("c=" + normal_setting(optarg));
    } else {
      reading.switches.push_back(std::string(1, static_cast<char>(flag)) +
                                 (optarg != nullptr ? "=" + std::string(optarg) : ""));
    }
  }
  reading.accepted = !failed && optind == argc;
  return reading;
}

/// "" when `rest` and `extracted` ("name=value" each, without `prefix`) are a right answer for `options`; else what is
/// wrong.
inline std::string judge_extraction(std::string_view options, std::string_view prefix, std::string_view rest,
                                    const std::vector<std::string>& extracted) {
  const OptionsReading before = read_options(options);
  const OptionsReading after = read_options(rest);
  if (before.accepted != after.accepted) return "the backend accepts one and refuses the other";
  if (extracted.empty() && rest != options) return "nothing extracted, yet the text changed";
  if (!before.accepted) return {};
  std::vector<std::string> ours;
  std::vector<std::string> others;
  const std::string mark = "c=" + std::string(prefix);
  for (const std::string& each : before.switches) {
    if (each.starts_with(mark)) {
      const std::string setting = each.substr(mark.size());
      ours.push_back(setting.find('=') == std::string::npos ? setting + "=" : setting);
    } else {
      others.push_back(each);
    }
  }
  if (after.switches != others) return "other switches changed";
  std::vector<std::string> normal;
  std::transform(extracted.begin(), extracted.end(), std::back_inserter(normal),
                 [](const auto& each) { return normal_setting(each); });
  if (normal != ours) return "extracted others than ours";
  return {};
}

}  // namespace pointsman::test
