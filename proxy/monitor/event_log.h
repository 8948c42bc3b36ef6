#pragma once
// What happened lately: the few things an operator asks about first, kept for the status page. One writer and reader:
// the control thread. Whoever has such news tells an EventSink; that it also stands in the log is the sink's affair.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

#include "proxy/log.h"

namespace pointsman::proxy {

enum class EventKind : std::uint8_t {
  kFailover,   ///< another member is the primary
  kMember,     ///< a member's role or state, of a branch that was settled
  kAlarm,      ///< a person is needed: two writers, a foreign cluster, a refused probe login
  kProbe,      ///< a probe fails or answers again
  kHold,       ///< planned switches and adoptions
  kDiscovery,  ///< the source of members
  kVerifiers,  ///< reading verifiers fails or works again
  kRefusals,   ///< refusals rise or are over
  kReload,
  kRouter,  ///< start and drain
};
std::string_view to_text(EventKind kind);

class EventSink {
 public:
  virtual ~EventSink() = default;
  /// `branch` may be empty. `text` is one line with foreign parts escaped; it may begin with "branch NAME" itself, as
  /// answers to commands do.
  virtual void tell(LogLevel level, EventKind kind, std::string_view branch, std::string_view text) = 0;
};

struct Event {
  std::uint64_t id = 0;      ///< 1, 2, 3 …, in a process's life
  std::int64_t unix_ms = 0;  ///< when
  LogLevel level = LogLevel::kInfo;
  EventKind kind = EventKind::kRouter;
  std::string branch;  ///< empty: of the whole router
  std::string text;    ///< at most EventRing::kTextBytes
};

/// The last events. Bounded: so many in all, and so many of one branch, so that one that flaps does not push out the
/// others' news. Time is an argument.
class EventRing {
 public:
  static constexpr std::size_t kEvents = 500;
  static constexpr std::size_t kEventsOfOneBranch = 100;
  static constexpr std::size_t kTextBytes = 600;

  /// The id it got.
  std::uint64_t add(std::int64_t unix_ms, LogLevel level, EventKind kind, std::string_view branch,
                    std::string_view text);
  /// Oldest first; ids grow, with gaps.
  const std::deque<Event>& events() const { return events_; }
  std::uint64_t last_id() const { return last_id_; }

 private:
  std::deque<Event> events_;
  std::uint64_t last_id_ = 0;
};

/// Logs what it is told ("branch NAME: text") and keeps it.
class EventLog final : public EventSink {
 public:
  using Clock = std::function<std::int64_t()>;  ///< milliseconds since 1970
  explicit EventLog(Clock clock) : clock_(std::move(clock)) {}

  void tell(LogLevel level, EventKind kind, std::string_view branch, std::string_view text) override;
  /// Without a line in the log: whoever calls has written one with fields of its own.
  void keep(LogLevel level, EventKind kind, std::string_view branch, std::string_view text);
  const EventRing& ring() const { return ring_; }

 private:
  Clock clock_;
  EventRing ring_;
};

}  // namespace pointsman::proxy
