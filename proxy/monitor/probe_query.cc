#include "proxy/monitor/probe_query.h"

#include <charconv>

namespace pointsman::proxy {
namespace {

std::optional<bool> parse_bool(const std::optional<std::string_view>& text) {
  if (text == "t") return true;
  if (text == "f") return false;
  return std::nullopt;
}

std::optional<std::uint32_t> parse_u32(std::string_view text, int base) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

constexpr std::size_t kWalFileName = 24;    // timeline, log, segment: eight hexadecimal digits each (xlog_internal.h)
constexpr std::size_t kMaxIdentifier = 20;  // a 64-bit number

}  // namespace

// The timeline is the WAL file's: pg_control_checkpoint() keeps the old one for a while after a promotion. The
// functions about replay raise outside recovery (and the other way round), hence the CASEs over one evaluation of
// pg_is_in_recovery().
const char* const kProbeQuery =
    "SELECT r.in_recovery,"
    " CASE WHEN NOT r.in_recovery THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END,"
    " CASE WHEN NOT r.in_recovery THEN pg_catalog.pg_current_wal_lsn() END,"
    " CASE WHEN r.in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() END,"
    " CASE WHEN r.in_recovery THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END,"
    " w.received_tli, w.status, w.pid, c.system_identifier"
    " FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery) AS r"
    " CROSS JOIN pg_catalog.pg_control_system() AS c"
    " LEFT JOIN pg_catalog.pg_stat_wal_receiver AS w ON true";

std::string safe_session_options(base::Duration statement_timeout) {
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(statement_timeout).count();
  return "-c search_path= -c default_transaction_read_only=on -c statement_timeout=" + std::to_string(milliseconds);
}

std::optional<ProbeAnswer> parse_probe_row(const ProbeRow& row) {
  const auto& [in_recovery, wal_file, current, replayed, paused, received_timeline, receiver_status, receiver_pid,
               identifier] = row;
  const auto recovering = parse_bool(in_recovery);
  const auto replay_paused = parse_bool(paused);
  if (!recovering || !replay_paused || !identifier || !is_digits(*identifier) || identifier->size() > kMaxIdentifier)
    return std::nullopt;

  ProbeAnswer answer;
  answer.sample.in_recovery = *recovering;
  answer.sample.replay_paused = *replay_paused;
  answer.sample.system_identifier = *identifier;
  if (!*recovering) {
    if (!wal_file || wal_file->size() != kWalFileName || !current) return std::nullopt;
    const auto timeline = parse_u32(wal_file->substr(0, 8), 16);
    answer.sample.current_lsn = routing::parse_lsn(*current);
    if (!timeline || *timeline == 0 || !answer.sample.current_lsn) return std::nullopt;
    answer.sample.timeline = *timeline;
    return answer;
  }
  if (replayed) {  // NULL before the first record of a fresh base backup
    answer.sample.replay_lsn = routing::parse_lsn(*replayed);
    if (!answer.sample.replay_lsn) return std::nullopt;
  }
  if (received_timeline) {
    const auto timeline = parse_u32(*received_timeline, 10);
    if (!timeline) return std::nullopt;
    answer.sample.timeline = *timeline;
  }
  answer.sample.receiver_streaming = receiver_status == "streaming";
  answer.receiver_hidden = receiver_pid.has_value() && !receiver_status.has_value();
  return answer;
}

routing::ProbeFailure classify_probe_failure(const PgFailure& failure, bool connected) {
  switch (failure.kind) {
    case PgFailure::Kind::kTimeout:
    case PgFailure::Kind::kNetwork:
      return routing::ProbeFailure::kUnreachable;
    case PgFailure::Kind::kTls:
    case PgFailure::Kind::kCredentials:
      return routing::ProbeFailure::kCredentials;
    case PgFailure::Kind::kServer:
      break;
  }
  // 57P03 cannot_connect_now; 57P01 and 57P02: it goes down and, after a restart, will not be ready for a while.
  if (failure.in_class("57") && failure.sqlstate != "57014") return routing::ProbeFailure::kNotReady;
  if (failure.in_class("53")) return routing::ProbeFailure::kBusy;
  if (connected) return routing::ProbeFailure::kQuery;
  // A refused login (28…), a database that is not there (3D000) or may not be entered (42501): all the operator's to
  // mend.
  if (failure.in_class("28") || failure.sqlstate == "3D000" || failure.sqlstate == "42501")
    return routing::ProbeFailure::kCredentials;
  return routing::ProbeFailure::kUnreachable;
}

}  // namespace pointsman::proxy
