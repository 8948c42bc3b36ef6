#include "proxy/monitor/event_log.h"

#include <algorithm>
#include <iterator>

namespace pointsman::proxy {
namespace {

std::string prefix_of(std::string_view branch) {
  return branch.empty() ? std::string() : "branch " + std::string(branch);
}

/// The branch stands beside the text where events are shown.
std::string_view without_prefix(std::string_view text, std::string_view prefix) {
  if (prefix.empty() || !text.starts_with(prefix)) return text;
  std::string_view rest = text.substr(prefix.size());
  for (const std::string_view joint : {"'s ", ": ", " "}) {
    if (rest.starts_with(joint)) return rest.substr(joint.size());
  }
  return text;  // another branch's name that only begins alike
}

/// Cuts between characters of UTF-8.
std::string_view cut(std::string_view text, std::size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

}  // namespace

std::string_view to_text(EventKind kind) {
  switch (kind) {
    case EventKind::kFailover:
      return "failover";
    case EventKind::kMember:
      return "member";
    case EventKind::kAlarm:
      return "alarm";
    case EventKind::kProbe:
      return "probe";
    case EventKind::kHold:
      return "hold";
    case EventKind::kDiscovery:
      return "discovery";
    case EventKind::kVerifiers:
      return "verifiers";
    case EventKind::kRefusals:
      return "refusals";
    case EventKind::kReload:
      return "reload";
    case EventKind::kRouter:
      return "router";
  }
  return "?";
}

std::uint64_t EventRing::add(std::int64_t unix_ms, LogLevel level, EventKind kind, std::string_view branch,
                             std::string_view text) {
  const auto is_of_branch = [&](const Event& event) { return event.branch == branch; };
  if (!branch.empty() &&
      std::count_if(events_.begin(), events_.end(), is_of_branch) >= std::ptrdiff_t{kEventsOfOneBranch}) {
    events_.erase(std::find_if(events_.begin(), events_.end(), is_of_branch));
  } else if (events_.size() >= kEvents) {
    events_.pop_front();
  }
  events_.push_back({.id = ++last_id_,
                     .unix_ms = unix_ms,
                     .level = level,
                     .kind = kind,
                     .branch = std::string(branch),
                     .text = std::string(cut(text, kTextBytes))});
  return last_id_;
}

void EventLog::tell(LogLevel level, EventKind kind, std::string_view branch, std::string_view text) {
  const std::string prefix = prefix_of(branch);
  const std::string_view news = without_prefix(text, prefix);
  if (prefix.empty() || news.size() != text.size()) {
    log_record(level, text, {});
  } else {
    log_record(level, prefix + ": " + std::string(text), {});
  }
  keep(level, kind, branch, news);
}

void EventLog::keep(LogLevel level, EventKind kind, std::string_view branch, std::string_view text) {
  ring_.add(clock_(), level, kind, branch, text);
}

}  // namespace pointsman::proxy
