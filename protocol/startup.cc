#include "protocol/startup.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "protocol/postgres_format.h"

namespace pointsman::protocol {
namespace {

constexpr std::size_t kFirstPacketHeader = 8;  // length, then a version or a request code
constexpr std::string_view kProtocolOptionPrefix = "_pq_.";

using FirstPacketResult = std::variant<NeedMore, ParsedFirstPacket, StartupRejected>;

/// Parameters of which a second one would leave it open which of the two was judged.
bool must_be_single(std::string_view name) {
  return name == "user" || name == "database" || name == "replication" || name == "options";
}

// The list behind the version: name, value, name, value, …, each ended by a zero byte, and one zero byte more.
std::optional<StartupFault> parse_parameters(base::Bytes body, StartupMessage& message) {
  base::Cursor cursor(body);
  std::size_t listed = 0;
  for (std::string_view name = cursor.c_string(); !name.empty(); name = cursor.c_string(), ++listed) {
    const std::string_view value = cursor.c_string();
    if (!cursor.ok()) return StartupFault::kBadLayout;
    if (name.starts_with(kProtocolOptionPrefix)) {
      message.protocol_options.emplace_back(name);
      continue;
    }
    if (must_be_single(name) && message.find(name) != nullptr) return StartupFault::kDuplicateParameter;
    message.parameters.push_back({std::string(name), std::string(value)});
  }
  if (!cursor.ok() || cursor.remaining() != 0 || listed == 0) return StartupFault::kBadLayout;
  const std::string* const user = message.find("user");
  if (user == nullptr || user->empty()) return StartupFault::kNoUser;
  return std::nullopt;
}

FirstPacketResult parse_startup_message(base::Bytes body, std::uint16_t major, std::uint16_t minor, std::size_t total) {
  StartupMessage message;
  message.major = major;
  message.minor = minor;
  if (const auto fault = parse_parameters(body, message)) return StartupRejected{*fault, major, minor};
  return ParsedFirstPacket{std::move(message), total};
}

FirstPacketResult parse_cancel_request(base::Bytes body, std::size_t total) {
  base::Cursor cursor(body);
  CancelRequest request;
  request.pid = cursor.u32();
  request.secret = base::as_text(cursor.rest());
  return ParsedFirstPacket{std::move(request), total};
}

bool is_cancel_size(std::size_t total) {
  constexpr std::size_t kFixed = kFirstPacketHeader + sizeof(std::uint32_t);
  return total >= kFixed + kMinCancelSecret && total <= kFixed + kMaxCancelSecret;
}

void append_parameter_text(std::string& out, std::string_view text) {
  POINTSMAN_CHECK(text.find('\0') == std::string_view::npos);
  base::append_c_string(out, text);
}

std::string finish_packet(std::string packet) {
  base::store_be32(reinterpret_cast<base::Byte*>(packet.data()), static_cast<std::uint32_t>(packet.size()));
  return packet;
}

}  // namespace

const std::string* StartupMessage::find(std::string_view name) const {
  const auto found = std::find_if(parameters.rbegin(), parameters.rend(),
                                  [name](const StartupParameter& each) { return each.name == name; });
  return found == parameters.rend() ? nullptr : &found->value;
}

std::string_view to_message(StartupFault fault) {
  switch (fault) {
    case StartupFault::kBadLength:
      return "invalid length of startup packet";
    case StartupFault::kBadCancelLength:
      return "invalid length of cancel request";
    case StartupFault::kUnsupportedMajor:
      return "unsupported frontend protocol";
    case StartupFault::kBadLayout:
      return "invalid startup packet layout";
    case StartupFault::kDuplicateParameter:
      return "startup packet names user, database, replication or options twice";
    case StartupFault::kNoUser:
      return "no PostgreSQL user name specified in startup packet";
  }
  POINTSMAN_CHECK(false);
}

std::variant<NeedMore, ParsedFirstPacket, StartupRejected> parse_first_packet(base::Bytes input) {
  if (input.size() < kLengthWord) return NeedMore{};
  const std::size_t total = base::load_be32(input.data());
  if (total < kFirstPacketHeader || total > kMaxStartupPacket) return StartupRejected{StartupFault::kBadLength, 0, 0};
  if (input.size() < kFirstPacketHeader) return NeedMore{};

  const std::uint32_t code = base::load_be32(input.data() + kLengthWord);
  const auto major = static_cast<std::uint16_t>(code >> 16);
  const auto minor = static_cast<std::uint16_t>(code & 0xffff);
  if (code == kSslRequestCode || code == kGssEncRequestCode) {
    if (total != kFirstPacketHeader) return StartupRejected{StartupFault::kBadLength, major, minor};
    if (code == kSslRequestCode) return ParsedFirstPacket{SslRequest{}, total};
    return ParsedFirstPacket{GssEncRequest{}, total};
  }
  if (code == kCancelRequestCode) {
    if (!is_cancel_size(total)) return StartupRejected{StartupFault::kBadCancelLength, major, minor};
  } else if (major != kProtocolMajor) {
    return StartupRejected{StartupFault::kUnsupportedMajor, major, minor};
  }
  if (input.size() < total) return NeedMore{};

  const base::Bytes body = input.subspan(kFirstPacketHeader, total - kFirstPacketHeader);
  if (code == kCancelRequestCode) return parse_cancel_request(body, total);
  return parse_startup_message(body, major, minor, total);
}

std::string build_startup_message(const std::vector<StartupParameter>& parameters) {
  std::string packet(kLengthWord, '\0');
  base::append_be32(packet, kBackendProtocolVersion);
  for (const auto& [name, value] : parameters) {
    POINTSMAN_CHECK(!name.empty());
    append_parameter_text(packet, name);
    append_parameter_text(packet, value);
  }
  packet.push_back('\0');
  return finish_packet(std::move(packet));
}

std::string build_ssl_request() {
  std::string packet(kLengthWord, '\0');
  base::append_be32(packet, kSslRequestCode);
  return finish_packet(std::move(packet));
}

std::string build_cancel_request(std::uint32_t pid, std::string_view secret) {
  POINTSMAN_CHECK(secret.size() >= kMinCancelSecret && secret.size() <= kMaxCancelSecret);
  std::string packet(kLengthWord, '\0');
  base::append_be32(packet, kCancelRequestCode);
  base::append_be32(packet, pid);
  packet.append(secret);
  return finish_packet(std::move(packet));
}

// How PostgreSQL reads an `options` text: pg_split_opts() (src/backend/utils/init/postinit.c) cuts it into words,
// getopt() walks over the words with the switches of process_postgres_switches() (src/backend/tcop/postgres.c),
// ParseLongOption() (src/backend/utils/misc/guc.c) cuts name from value. We walk the same way, because in `-f -cx.y=1`
// nothing is set and in `-Ecx.y=1` x.y is.
//
//   options   -E -c pointsman.wait=1s  -c a.b=c\ d     a word: its bytes in the text, and cooked, without backslashes
//             kept└───── removed ────┘└─── kept ──┘    white space belongs to the word behind it

namespace {

/// The switches that take an argument, in PostgreSQL 9.6 to 18 ('o' until 13). 'c' and '-' take settings.
constexpr std::string_view kSwitchesWithArgument = "BCDNSWcdfhkoprtv-";

/// isspace() of the C locale. A database in a single-byte locale can know one more (0xA0); in UTF-8 no byte above ASCII
/// is one.
bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

char to_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

struct Word {
  std::size_t gap = 0;  ///< where the white space in front begins
  std::size_t begin = 0;
  std::size_t end = 0;
  std::string cooked;
};

/// pg_split_opts(), one word at a time. Moves `at` behind the word.
std::optional<Word> next_word(std::string_view text, std::size_t& at) {
  Word word;
  word.gap = at;
  while (at < text.size() && is_space(text[at])) ++at;
  if (at == text.size()) return std::nullopt;
  word.begin = at;
  for (bool escaped = false; at < text.size() && (escaped || !is_space(text[at])); ++at) {
    escaped = !escaped && text[at] == '\\';
    if (!escaped) word.cooked.push_back(text[at]);
  }
  word.end = at;
  return word;
}

/// Where byte `index` of the cooked word comes from: its backslash's position, when it has one.
std::size_t position_of(std::string_view text, const Word& word, std::size_t index) {
  std::size_t at = word.begin;
  for (; index > 0; --index) at += text[at] == '\\' ? 2U : 1U;
  return at;
}

/// The first switch with an argument in a word of switches (`-c`, `-Ec`, `-cname=value`, `--name=value`).
struct Switch {
  std::size_t index = 0;  ///< of its letter in the cooked word
  bool takes_setting = false;
};
std::optional<Switch> switch_with_argument(std::string_view cooked) {
  if (cooked.size() < 2 || cooked[0] != '-') return std::nullopt;
  const std::size_t index = cooked.find_first_of(kSwitchesWithArgument, 1);
  if (index == std::string_view::npos) return std::nullopt;
  return Switch{index, cooked[index] == 'c' || cooked[index] == '-'};
}

/// ParseLongOption(): the name ends at the first '=', and its dashes mean underscores (for `-c` as for `--`).
std::optional<ExtractedOption> match_setting(std::string_view setting, std::string_view prefix) {
  const std::size_t equals = std::min(setting.find('='), setting.size());
  std::string name(setting.substr(0, equals));
  std::replace(name.begin(), name.end(), '-', '_');
  const auto same = [](char a, char b) { return to_lower(a) == to_lower(b); };
  if (name.size() < prefix.size() || !std::equal(prefix.begin(), prefix.end(), name.begin(), same)) return std::nullopt;
  name.erase(0, prefix.size());
  return ExtractedOption{std::move(name), std::string(setting.substr(std::min(equals + 1, setting.size())))};
}

class Extraction {
 public:
  Extraction(std::string_view text, std::string_view prefix) : text_(text), prefix_(prefix) {}

  SplitOptions run() {
    std::size_t at = 0;
    while (const auto word = next_word(text_, at)) {
      if (word->cooked == "--") {  // getopt() reads no further
        keep(word->gap, word->begin, text_.size());
        return std::move(split_);
      }
      const auto found = switch_with_argument(word->cooked);
      if (!found) {
        keep(*word);
      } else if (found->index + 1 < word->cooked.size()) {
        if (!found->takes_setting || !extract(*word, *found, std::string_view(word->cooked).substr(found->index + 1)))
          keep(*word);
      } else {
        const auto argument = next_word(text_, at);
        if (found->takes_setting && argument && extract(*word, *found, argument->cooked)) continue;
        keep(*word);
        if (argument) keep(*argument);
      }
    }
    if (!last_was_extracted_) split_.rest.append(text_.substr(kept_to_));  // white space at the end
    return std::move(split_);
  }

 private:
  bool extract(const Word& word, const Switch& found, std::string_view setting) {
    auto option = match_setting(setting, prefix_);
    if (!option) return false;
    split_.extracted.push_back(std::move(*option));
    if (found.index > 1) keep(word.gap, word.begin, position_of(text_, word, found.index));  // `-E` of `-Ecname=value`
    last_was_extracted_ = true;
    return true;
  }
  void keep(const Word& word) { keep(word.gap, word.begin, word.end); }
  void keep(std::size_t gap, std::size_t begin, std::size_t end) {
    // At the start of what is left, the white space here belonged to what was removed.
    const bool leads = split_.rest.empty() && !split_.extracted.empty();
    const std::size_t from = leads ? begin : gap;
    split_.rest.append(text_.substr(from, end - from));
    kept_to_ = end;
    last_was_extracted_ = false;
  }

  std::string_view text_;
  std::string_view prefix_;
  SplitOptions split_;
  std::size_t kept_to_ = 0;
  bool last_was_extracted_ = false;
};

}  // namespace

SplitOptions extract_options(std::string_view options, std::string_view prefix) {
  return Extraction(options, prefix).run();
}

}  // namespace pointsman::protocol
