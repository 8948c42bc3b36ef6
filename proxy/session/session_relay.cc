// The relay and the ends of a session. The hot path is Session::relay.
#include <cstring>

#include "base/check.h"
#include "metrics/blocks.h"
#include "protocol/messages.h"
#include "proxy/log.h"
#include "proxy/server/worker.h"
#include "proxy/session/session.h"
#include "routing/refusals.h"

namespace pointsman::proxy {

using base::Instant;

namespace {

/// Reads per wake-up of one socket: a fast sender may not keep the loop from the others for longer than a quarter of a
/// megabyte.
constexpr int kReadsPerTurn = 4;
/// How long a client that got its last word may take to hang up, and to read what still waits for it.
constexpr base::Duration kLinger = std::chrono::seconds(1);
constexpr base::Duration kLastFlush = std::chrono::seconds(30);
/// How long a backend may go on with a request whose client has closed its side.
constexpr base::Duration kClientGoneGrace = std::chrono::seconds(2);
constexpr std::uint32_t kMaxLingeredBytes = 1024 * 1024;

std::string milliseconds_between(Instant from, Instant to) {
  if (from == Instant{} || to == Instant{} || to < from) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", base::to_seconds(to - from) * 1e3);
  return text;
}

}  // namespace

void Session::relay(Side& from, Side& to, protocol::MessageScanner& scanner, std::uint64_t& bytes,
                    metrics::Counter* counter) {
  for (int turn = 0; turn < kReadsPerTurn; ++turn) {
    const Side::Read read = from.read(worker_.scratch(), worker_.pool());
    if (!read.plain.empty()) [[likely]] {
      const std::uint32_t answers = from_backend_.ready_count();
      scanner.observe(read.plain);
      if (request_began_ns_ == 0) {
        if (&from == &client_) request_began_ns_ = uv_hrtime();
      } else if (from_backend_.ready_count() != answers) {
        note_answer();
      }
      bytes += read.plain.size();
      counter->add(read.plain.size());
      traffic_ = true;
      if (!listed_as_active && (from.tls != nullptr || to.tls != nullptr)) worker_.note_active(*this);
      if (to.socket.open()) {
        const auto written = to.write(read.plain, worker_.scratch(), worker_.pool());
        if (written == Side::Write::kError) {
          if (&to == &client_) {
            client_ended(true);
          } else {
            backend_write_failed();
          }
          return;
        }
        if (written == Side::Write::kPending) {
          from.socket.want_read(false);
          if (!read.eof && !read.failed) return;
        }
      }
    }
    if (read.eof || read.failed) [[unlikely]] {
      if (&from == &client_) {
        client_ended(read.failed);
      } else {
        backend_ended(read.failed);
      }
      return;
    }
    if (ends_when_idle_) [[unlikely]] {
      if (idle()) {
        end_at_boundary();
        return;
      }
    }
    if (!read.full) return;
  }
}

/// One clock reading when a request begins and one at its ReadyForQuery: what a transaction of any length costs here.
void Session::note_answer() {
  const std::uint64_t now_ns = uv_hrtime();
  roundtrip_->observe_ns(now_ns - request_began_ns_);
  // In a pipeline the next answer is waited for from here on.
  request_began_ns_ = from_client_.ready_count() == from_backend_.ready_count() ? 0 : now_ns;
}

namespace {
/// Extended-protocol messages behind the last Sync: the backend works, or is within an implicit transaction, though no
/// ReadyForQuery is owed.
bool awaits_sync(char tag) {
  return tag == 'P' || tag == 'B' || tag == 'E' || tag == 'D' || tag == 'C' || tag == 'H';
}
}  // namespace

bool Session::idle() const {
  const char status = from_backend_.transaction_status();
  return !awaits_sync(from_client_.last_tag()) && from_client_.at_boundary() && from_backend_.at_boundary() &&
         from_client_.ready_count() == from_backend_.ready_count() && (status == 'I' || status == 0) &&
         !client_.pending() && !backend_.pending();
}

/// The client has gone, or closed its sending half: what it sent goes out, the backend gets its FIN so that locks go,
/// and its answers are still delivered as long as somebody can take them.
void Session::client_ended(bool by_error) {
  if (stage_ == Stage::kClosing || stage_ == Stage::kLingering) return;
  const bool was_idle = idle();
  const bool orderly = was_idle || (from_client_.at_boundary() && from_client_.last_tag() == 'X');
  if (!ended_) {
    ended_ = true;
    end_reason_ = by_error && !orderly ? EndReason::kClientError : EndReason::kClientClosed;
  }
  if (by_error) {
    if (!orderly) worker_.cancels().cancel(*this);
    client_.socket.close();
  } else {
    client_.socket.want_read(false);
  }
  if (stage_ == Stage::kClientGone) {
    if (by_error) backend_.socket.want_read(true);  // its bytes go nowhere now, but its end must be seen
    return;
  }
  stage_ = Stage::kClientGone;
  // A close_notify that the backend never reads would turn its end into a reset, and a reset throws away what it has
  // not sent yet: while an answer may still come, a bare FIN has to do.
  if (was_idle) backend_.say_goodbye(worker_.scratch(), worker_.pool());
  if (!backend_.pending()) backend_.socket.shutdown_write();
  if (!client_.pending() || by_error) backend_.socket.want_read(true);
  worker_.wheel().arm(*this, now() + (orderly ? kLastFlush : kClientGoneGrace));
}

/// The backend takes no more bytes: what it said before that, a FATAL mostly, still goes to the client.
void Session::backend_write_failed() {
  if (stage_ == Stage::kClosing || stage_ == Stage::kLingering) return;
  if (!client_.pending() && backend_.socket.open())
    relay(backend_, client_, from_backend_, bytes_to_client_, relayed_to_client_);
  backend_ended(true);  // without effect when the relay saw its end
}

/// The backend has ended the session: what it sent is flushed to the client, nothing is invented.
void Session::backend_ended(bool by_error) {
  if (stage_ == Stage::kClosing || stage_ == Stage::kLingering) return;
  backend_.socket.close();
  const bool asked_to = !by_error && from_client_.at_boundary() && from_client_.last_tag() == 'X';
  linger(by_error ? EndReason::kBackendError : asked_to ? EndReason::kClientClosed : EndReason::kBackendClosed);
}

/// Last words have been written: close_notify, FIN, and a moment for the client to hang up itself. A close with unread
/// input would send a reset, and a reset may overtake the last words.
void Session::linger(EndReason reason) {
  if (!ended_) {
    ended_ = true;
    end_reason_ = reason;
  }
  if (in_cancel_table_) worker_.cancels().remove(*this);  // a dead session's key dials nobody
  in_cancel_table_ = false;
  if (!client_.socket.open()) {
    begin_close(reason);
    return;
  }
  stage_ = Stage::kLingering;
  report_end();  // before the FIN: who has seen the end of the connection finds it counted
  client_.say_goodbye(worker_.scratch(), worker_.pool());
  if (client_.pending()) {
    worker_.wheel().arm(*this, now() + kLastFlush);
    client_.socket.want_read(false);
    return;
  }
  client_.socket.shutdown_write();
  client_.socket.want_read(true);
  worker_.wheel().arm(*this, now() + kLinger);
}

void Session::linger_readable() {
  const auto io = client_.socket.receive(worker_.scratch().read);
  lingered_bytes_ += static_cast<std::uint32_t>(io.bytes);
  if (io.eof || io.error != 0 || lingered_bytes_ > kMaxLingeredBytes) begin_close(end_reason_);
}

// ---- drain and farewell ---------------------------------------------------------------------------------------------

void Session::drain() {
  if (stage_ == Stage::kLogin) {
    core_->on_drain(now());
    run_actions();
  } else if (stage_ == Stage::kRelay) {
    ends_when_idle_ = true;
    if (idle()) end_at_boundary();
  }
}

void Session::reconsider(const routing::BranchView& present) {
  if (stage_ != Stage::kRelay) return;
  const auto& known = identity();
  auto standing = routing::standing_of(*known.view, *known.decision, present);
  if (standing == routing::Standing::kPromoted && !present.config->replicas.end_on_promotion)
    standing = routing::Standing::kStays;
  if (standing == standing_) return;
  standing_ = standing;
  if (standing == routing::Standing::kStays) {  // the old primary is it again
    farewell_.reset();
    ends_when_idle_ = worker_.draining();
    worker_.wheel().disarm(*this);
    return;
  }
  farewell_ = std::make_unique<routing::Farewell>(routing::farewell(standing, *known.view, *known.decision, present));
  worker_.wheel().arm(*this, now() + farewell_->grace);
  ends_when_idle_ = worker_.draining() || farewell_->at_boundary;
  if (ends_when_idle_ && idle()) end_at_boundary();
}

/// The time that reconsider() gave is over: at once, whatever the session does.
void Session::end_by_farewell() {
  if (farewell_ == nullptr) return;
  if (!idle()) worker_.cancels().cancel(*this);
  end_at_boundary();
}

namespace {
EndReason end_reason_of(routing::Standing standing) {
  switch (standing) {
    case routing::Standing::kStays:
      return EndReason::kDrained;
    case routing::Standing::kDemoted:
      return EndReason::kDemoted;
    case routing::Standing::kPromoted:
      return EndReason::kPromoted;
    case routing::Standing::kRemoved:
      return EndReason::kRemoved;
    case routing::Standing::kDraining:
      return EndReason::kPoolDrained;
  }
  POINTSMAN_CHECK(false);
  return EndReason::kDrained;
}
}  // namespace

/// Ends the session with 57P01, which a client may be told between any two messages of its server; in the middle of
/// one, or with bytes that still wait for the client's socket, the connection just ends.
void Session::end_at_boundary() {
  const bool between_messages = from_backend_.at_boundary() && !client_.pending();
  if (between_messages) say_last_words(farewell_ != nullptr ? farewell_->refusal : routing::drained());
  std::string terminate;
  protocol::append_terminate(terminate);
  if (from_client_.at_boundary() && !backend_.pending()) {
    (void)backend_.write(base::as_bytes(terminate), worker_.scratch(), worker_.pool());
    backend_.say_goodbye(worker_.scratch(), worker_.pool());
  }
  backend_.socket.close();
  const auto reason = end_reason_of(standing_);
  if (between_messages) {
    linger(reason);
  } else {
    begin_close(reason);
  }
}

void Session::say_last_words(const routing::Refusal& refusal) {
  protocol::ErrorFields fields;
  fields.sqlstate = refusal.sqlstate;
  fields.message = refusal.message;
  fields.detail = refusal.detail;
  fields.hint = refusal.hint;
  fields.routine = routing::to_word(refusal.reason);
  std::string bytes;
  protocol::append_error_response(bytes, fields);
  (void)client_.write(base::as_bytes(bytes), worker_.scratch(), worker_.pool());
}

void Session::stop(EndReason reason) {
  if (stage_ == Stage::kRelay) {
    if (!idle()) worker_.cancels().cancel(*this);  // nobody will read the answer, and the backend would go on
    ended_ = true;
    end_reason_ = reason;
    end_at_boundary();
  }
  begin_close(reason);
}

void Session::kill() {
  if (stage_ == Stage::kClosing) return;
  if (stage_ != Stage::kLogin && stage_ != Stage::kRelay) return begin_close(EndReason::kKilled);  // it was ending
  ended_ = true;
  end_reason_ = EndReason::kKilled;
  if (stage_ == Stage::kRelay) {
    if (!idle()) worker_.cancels().cancel(*this);
    farewell_ = std::make_unique<routing::Farewell>(routing::Farewell{.refusal = routing::killed()});
    return end_at_boundary();
  }
  // A client that has sent its startup packet can be told; before it, the connection just ends.
  const bool can_be_told = record().times.startup_done != Instant{} && !client_.pending();
  core_->on_client_eof(now());  // leaves a hold; what it says is not heard
  drop_backend();
  worker_.login_ended(*this);
  if (!can_be_told) return begin_close(EndReason::kKilled);
  say_last_words(routing::killed());
  linger(EndReason::kKilled);
}

bool Session::release_if_quiet() {
  if (traffic_) {
    traffic_ = false;
    return false;
  }
  release_tls_buffers();
  return true;
}

void Session::release_tls_buffers() {
  if (client_.tls != nullptr) client_.tls->release_buffers();
  if (backend_.tls != nullptr) backend_.tls->release_buffers();
}

// ---- the end --------------------------------------------------------------------------------------------------------

void Session::begin_close(EndReason reason) {
  if (stage_ == Stage::kClosing) return;
  if (!ended_) {
    ended_ = true;
    end_reason_ = reason;
  }
  const bool was_login = stage_ == Stage::kLogin;
  stage_ = Stage::kClosing;
  if (was_login) core_->on_client_eof(now());  // leaves a hold, whatever else it says is not heard
  worker_.wheel().disarm(*this);
  if (in_cancel_table_) worker_.cancels().remove(*this);  // before the backend's PID can be another's
  in_cancel_table_ = false;
  client_.socket.close();
  backend_.socket.close();
  reopen_backend_ = false;
  report_end();
  release_memory_when_done();
}

void Session::release_memory_when_done() {
  if (stage_ != Stage::kClosing || retired_ || client_.socket.busy() || backend_.socket.busy()) return;
  retired_ = true;
  worker_.retire(*this);
}

/// Where the decision's destination stands in the block of its view (metrics::Dimensions). Nothing: the session is
/// counted elsewhere, or nowhere.
std::optional<std::size_t> Session::destination_of(const routing::Decision& decision) const {
  const auto& view = *identity().view;
  const std::size_t members = view.members.size();
  std::size_t destination = 0;
  switch (decision.route) {
    case routing::RouteClass::kPrimary:
    case routing::RouteClass::kReplica:
      destination = static_cast<std::size_t>(decision.member);
      break;
    case routing::RouteClass::kLocalPool:
      destination = members + static_cast<std::size_t>(decision.member);
      break;
    case routing::RouteClass::kPool:
      destination = 2 * members + static_cast<std::size_t>(decision.endpoint);
      for (int p = 0; p < decision.pool; ++p) destination += view.pools[static_cast<std::size_t>(p)].endpoints.size();
      break;
  }
  const bool counted = block_ != nullptr && block_ == view.block;
  return counted && destination < block_->dimensions().destinations ? std::optional(destination) : std::nullopt;
}

void Session::count_dial_failure(const routing::Decision& failed) {
  const auto destination = destination_of(failed);
  if (!destination) return;
  slot_->dial_failures[*destination].add();
  slot_->missed_ns[*destination].set(uv_hrtime());
}

void Session::count_decision() {
  const auto& known = identity();
  const auto& decision = *known.decision;
  const auto& view = *known.view;
  count_admission(view);
  if (slot_ == nullptr) {  // a view without counters cannot have led here; a session must not fail for want of them
    slot_ = &worker_.spare_slot();
  }
  if (const auto destination = destination_of(decision)) {
    destination_ = static_cast<int>(*destination);
    slot_->active[*destination].add();
    slot_->reached_ns[*destination].set(uv_hrtime());
    slot_->decisions[*destination * block_->dimensions().reasons + static_cast<std::size_t>(decision.reason)].add();
  }
  const auto route = static_cast<std::size_t>(decision.route);
  roundtrip_ = slot_->roundtrip.empty() ? &worker_.roundtrip(route) : &slot_->roundtrip[route];
  relayed_from_client_ = &slot_->bytes[route * 2];
  relayed_to_client_ = &slot_->bytes[route * 2 + 1];
}

void Session::report_end() {
  if (reported_) return;
  reported_ = true;
  if (admitted_) block_->admitted.fetch_sub(1, std::memory_order_relaxed);
  admitted_ = false;
  if (destination_ >= 0) slot_->active[static_cast<std::size_t>(destination_)].subtract();
  worker_.login_ended(*this);
  worker_.count_end(*this, listener_index_, slot_, end_reason_, refusal_.get());

  const auto& known = identity();
  const auto& times = record().times;
  // A connection that never said who it is may be a health check: not worth a line at info.
  const bool anonymous = times.startup_done == Instant{} && end_reason_ == EndReason::kClientClosed;
  const LogLevel level = anonymous || end_reason_ == EndReason::kCancelServed ? LogLevel::kDebug : LogLevel::kInfo;
  if (!log_enabled(level)) return;
  std::vector<LogField> fields;
  fields.push_back({"session", std::to_string(worker_.index()) + "-" + std::to_string(id_)});
  fields.push_back({"client", client_address().to_string()});
  fields.push_back({"listener", std::string(worker_.listener_name(listener_index_))});
  fields.push_back({"user", known.user});
  fields.push_back({"branch", known.branch});
  if (!known.target.empty()) fields.push_back({"target", known.target});
  if (known.decision) {
    fields.push_back({"member", known.destination});
    fields.push_back({"decision", std::string(routing::to_word(known.decision->reason))});
  }
  fields.push_back({"end", std::string(to_word(end_reason_))});
  if (refusal_) {
    fields.push_back({"reason", std::string(routing::to_word(refusal_->reason))});
    fields.push_back({"sqlstate", std::string(refusal_->sqlstate)});
    fields.push_back({"message", refusal_->message});
    if (!refusal_->log_detail.empty()) fields.push_back({"detail", refusal_->log_detail});
  }
  if (*client_tls_version_ != '\0') fields.push_back({"tls", client_tls_version_});
  if (backend_key_.pid != 0) fields.push_back({"backend_pid", std::to_string(backend_key_.pid)});
  const Instant before_startup = times.tls_done == Instant{} ? times.accepted : times.tls_done;
  fields.push_back({"tls_ms", milliseconds_between(times.accepted, times.tls_done)});
  fields.push_back({"startup_ms", milliseconds_between(before_startup, times.startup_done)});
  fields.push_back({"auth_ms", milliseconds_between(times.startup_done, times.auth_done)});
  if (times.held.count() > 0)
    fields.push_back(
        {"hold_ms", milliseconds_between(Instant(base::Duration(1)), Instant(times.held + base::Duration(1)))});
  fields.push_back({"connect_ms", milliseconds_between(times.routed, times.ready)});
  fields.push_back({"total_ms", milliseconds_between(times.accepted, now())});
  fields.push_back({"bytes_from_client", std::to_string(bytes_from_client_)});
  fields.push_back({"bytes_to_client", std::to_string(bytes_to_client_)});
  log_record(level, "session ended", fields);
}

SessionRow Session::row(Instant at) const {
  const auto& known = identity();
  SessionRow row;
  row.id = id_;
  row.worker = worker_.index();
  row.client = client_address().to_string();
  row.listener = std::string(worker_.listener_name(listener_index_));
  row.user = known.user;
  row.branch = known.branch;
  row.target = known.target;
  row.destination = known.destination;
  row.database = known.database;
  row.application = known.application;
  row.phase = stage_ == Stage::kLogin   ? std::string(core_->phase_name())
              : stage_ == Stage::kRelay ? (ends_when_idle_ || farewell_ != nullptr ? "draining" : "relaying")
                                        : "closing";
  if (known.decision) row.reason = std::string(routing::to_word(known.decision->reason));
  row.tls = client_tls_version_;
  row.idle = stage_ == Stage::kRelay && idle();
  row.backend_pid = backend_key_.pid;
  row.age_seconds = base::to_seconds(at - record().times.accepted);
  row.bytes_from_client = bytes_from_client_;
  row.bytes_to_client = bytes_to_client_;
  return row;
}

}  // namespace pointsman::proxy
