#include "proxy/server/worker.h"

#include <malloc.h>
#include <openssl/rand.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "proxy/log.h"

namespace pointsman::proxy {

using base::Instant;

namespace {

constexpr std::size_t kMaxCachedVerifiers = 20'000;
constexpr base::Duration kWantAgainAfter = std::chrono::seconds(5);
constexpr std::uint64_t kQuietSweepMs = 2'000;
constexpr std::uint64_t kLastCancelsMs = 1'000;
/// A failed dial is remembered so long at most; a member's next good probe, or an endpoint's doubt, ends it sooner.
constexpr base::Duration kDialFailureCounts = std::chrono::seconds(30);
constexpr std::size_t kMaxDialFailures = 1'000;
/// Held logins go on at this pace: 1,600 a second and worker.
constexpr std::size_t kWokenAtOnce = 16;
constexpr std::uint64_t kWakeEveryMs = 10;
constexpr std::uint64_t kDrainStepMs = 100;
constexpr std::size_t kReleasesWorthTrim = 64;  // two megabytes of OpenSSL's record buffers
/// Handshake steps (about 0.3 ms of CPU each) per millisecond of the loop's clock.
constexpr std::uint32_t kHandshakesPerMs = 8;

std::string verifier_key(std::string_view role, std::string_view branch) {
  std::string key;
  key.reserve(role.size() + branch.size() + 1);
  key.append(role).push_back('\0');
  key.append(branch);
  return key;
}

Instant now_instant() {
  return base::from_hrtime(uv_hrtime());
}

metrics::Dimensions spare_dimensions(std::size_t listeners) {
  metrics::Dimensions dimensions;
  dimensions.listeners = listeners;
  dimensions.routes = routing::kRouteClassCount;
  dimensions.reasons = routing::kReasonCount;
  return dimensions;
}

}  // namespace

Worker::Worker(std::uint32_t index, std::uint32_t worker_count, std::uint32_t max_connections, SharedCounts& shared,
               Mailbox<ToControl>& control, NewDirectory first)
    : index_(index),
      worker_count_(worker_count),
      max_connections_(max_connections),
      shared_(shared),
      control_(control),
      scratch_(new Scratch),
      directory_(std::move(first.directory)),
      views_(std::move(first.views)),
      tls_(std::move(first.tls)),
      cancels_(*this),
      block_(directory_->config().listeners.size(), routing::kRouteClassCount, routing::kReasonCount),
      spare_dimensions_(spare_dimensions(directory_->config().listeners.size())),
      spare_slot_(spare_dimensions_) {
  mailbox_.open(loop_.uv(), this,
                [](void* self, ToWorker&& message) { static_cast<Worker*>(self)->handle(std::move(message)); });
  wheel_.open(loop_.uv());
  POINTSMAN_CHECK(uv_idle_init(loop_.uv(), &burial_) == 0);
  burial_.data = this;
  POINTSMAN_CHECK(uv_timer_init(loop_.uv(), &quiet_timer_) == 0);
  quiet_timer_.data = this;
  POINTSMAN_CHECK(uv_timer_init(loop_.uv(), &wake_timer_) == 0);
  wake_timer_.data = this;
  POINTSMAN_CHECK(uv_timer_init(loop_.uv(), &drain_timer_) == 0);
  drain_timer_.data = this;
}

Worker::~Worker() = default;

void Worker::set_up(const std::vector<int>& listening, const std::vector<Worker*>& all) {
  workers_ = all;
  for (std::size_t i = 0; i < listening.size(); ++i) {
    listeners_.push_back(std::make_unique<Listener>(*this, i, listening[i]));
  }
}

void Worker::run() {
  for (auto& listener : listeners_) listener->open(loop_);
  loop_.run();
  bury();
  control_.post(WorkerStopped{index_});
}

std::string_view Worker::listener_name(std::size_t listener) const {
  const auto& listeners = directory_->config().listeners;
  return listener < listeners.size() ? std::string_view(listeners[listener].name) : std::string_view{};
}

std::shared_ptr<const routing::BranchView> Worker::branch(std::string_view name) {
  const int found = directory_->find(name);
  if (found < 0) return nullptr;
  const auto& view = views_[static_cast<std::size_t>(found)];
  // Whoever asks is about to use it: the control thread keeps it probed.
  const Instant now = now_instant();
  auto& told = wanted_[view->config->name];
  if (told == Instant{} || now - told > kWantAgainAfter || !view->active) {
    told = now;
    control_.post(BranchWanted{view->config->name});
  }
  return view;
}

std::shared_ptr<const routing::BranchView> Worker::present_view(std::string_view name) const {
  const int found = directory_->find(name);
  return found < 0 ? nullptr : views_[static_cast<std::size_t>(found)];
}

void Worker::random_bytes(base::MutableBytes out) {
  POINTSMAN_CHECK(RAND_bytes(out.data(), static_cast<int>(out.size())) == 1);
}

bool Worker::take_handshake_turn() {
  const std::uint64_t now = uv_now(loop_.uv());
  if (now != handshake_ms_) {
    handshake_ms_ = now;
    handshakes_this_ms_ = 0;
  }
  if (handshakes_this_ms_ >= kHandshakesPerMs) return false;
  ++handshakes_this_ms_;
  return true;
}

// ---- accepting and ending -------------------------------------------------------------------------------------------

void Worker::on_accepted(std::size_t listener, int fd, const routing::SocketAddress& peer) {
  const std::uint32_t before = shared_.connections.fetch_add(1, std::memory_order_relaxed);
  block_.accepted[listener].add();
  if (before >= max_connections_ + kOverLimitAllowance || stopping_) {
    shared_.connections.fetch_sub(1, std::memory_order_relaxed);
    block_.refusals[listener * routing::kReasonCount + static_cast<std::size_t>(routing::Reason::kLimit)].add();
    ::close(fd);
    return;
  }
  // Connections that have not logged in may fill half of the house; then the oldest goes, it has probably given up
  // (T21).
  const std::size_t cap = std::max<std::size_t>(64, max_connections_ / 2 / worker_count_);
  if (logins_.size() >= cap) logins_.begin()->second->drop_before_login();

  const std::uint64_t id = next_session_++;
  auto* session = new Session(*this, id, listener, peer, before >= max_connections_, now_instant());
  sessions_.emplace(id, session);
  logins_.emplace(id, session);
  block_.sessions.add();
  block_.pre_login.add();
  if (!session->start(fd)) retire(*session);
}

void Worker::on_accept_paused(std::size_t listener, int error) {
  block_.accept_paused.add();
  log_record(LogLevel::kWarning, "out of descriptors or memory, accepting pauses for 100 ms",
             {{"listener", std::string(listener_name(listener))}, {"error", std::strerror(error)}});
}

void Worker::login_ended(Session& session) {
  if (logins_.erase(session.id()) > 0) block_.pre_login.subtract();
}

void Worker::retire(Session& session) {
  login_ended(session);
  sessions_.erase(session.id());
  block_.sessions.subtract();
  shared_.connections.fetch_sub(1, std::memory_order_relaxed);
  dead_sessions_.push_back(&session);
  bury_soon();
}

void Worker::bury_soon() {
  uv_idle_start(&burial_, [](uv_idle_t* idle) { static_cast<Worker*>(idle->data)->bury(); });
}

Session* Worker::find_session(std::uint64_t id) {
  const auto found = sessions_.find(id);
  return found == sessions_.end() ? nullptr : found->second;
}

void Worker::post_to_others(const ToWorker& message) {
  for (Worker* worker : workers_) {
    if (worker != this) worker->post(message);
  }
}

void Worker::bury() {
  if (uv_is_active(reinterpret_cast<uv_handle_t*>(&burial_)) != 0) uv_idle_stop(&burial_);
  for (Session* session : dead_sessions_) delete session;
  dead_sessions_.clear();
  cancels_.bury();
  if (stopping_ && sessions_.empty() && cancels_.idle()) close_handles();
  if (draining_ && sessions_.empty() && !empty_reported_) {
    empty_reported_ = true;
    control_.post(WorkerEmpty{index_});
  }
}

std::vector<Session*> Worker::all_sessions() {
  std::vector<Session*> all;
  all.reserve(sessions_.size());
  for (const auto& [id, session] : sessions_) all.push_back(session);
  return all;
}

// ---- quiet TLS sessions ---------------------------------------------------------------------------------------------

void Worker::answer_cancel(std::uint32_t origin_worker, CancelAnswer answer) {
  if (origin_worker == kPeerOrigin) {
    control_.post(answer);
  } else {
    post_to(origin_worker, answer);
  }
}

void Worker::note_active(Session& session) {
  session.listed_as_active = true;
  active_tls_.push_back(session.id());
  if (active_tls_.size() == 1 && !stopping_) {
    uv_timer_start(
        &quiet_timer_, [](uv_timer_t* timer) { static_cast<Worker*>(timer->data)->sweep_quiet(); }, kQuietSweepMs,
        kQuietSweepMs);
  }
}

void Worker::sweep_quiet() {
  const std::size_t before = active_tls_.size();
  std::erase_if(active_tls_, [this](std::uint64_t id) {
    const auto found = sessions_.find(id);
    if (found == sessions_.end()) return true;
    if (!found->second->release_if_quiet()) return false;
    found->second->listed_as_active = false;
    return true;
  });
  // What a crowd of sessions gave back lies in holes of the heap: the kernel gets it when it is worth a walk.
  released_since_trim_ += before - active_tls_.size();
  if (released_since_trim_ >= kReleasesWorthTrim) {
    released_since_trim_ = 0;
    malloc_trim(0);
  }
  if (active_tls_.empty()) uv_timer_stop(&quiet_timer_);
}

// ---- verifiers ------------------------------------------------------------------------------------------------------

void Worker::ask_verifier(Session& session, const AskVerifier& ask) {
  const std::string key = verifier_key(ask.role, ask.branch);
  if (const auto found = verifiers_.find(key); found != verifiers_.end()) {
    const auto& answer = found->second.answer;
    if (answer.expires_at > now_instant() && answer.fetched_at >= ask.not_before && ask.wait) {
      const VerifierAnswer copy = answer;
      session.on_verifier(copy);
      return;
    }
    verifiers_.erase(found);
  }
  VerifierQuery query;
  query.branch = ask.branch;
  query.role = ask.role;
  query.not_before = ask.not_before;
  query.worker = index_;
  query.token = ask.wait ? session.id() : 0;
  session.source_ip(query.source);
  control_.post(std::move(query));
  // After the question, so that whoever asks next meets it under way: the next attempt may land on any worker.
  if (ask.not_before == Instant{}) return;
  post_to_others(VerifierStale{ask.branch, ask.role});
}

void Worker::apply(VerifierStale&& message) {
  verifiers_.erase(verifier_key(message.role, message.branch));
}

void Worker::apply(VerifierReady&& message) {
  const auto& answer = message.answer;
  const bool lasting = answer.kind == VerifierAnswer::Kind::kFound || answer.kind == VerifierAnswer::Kind::kNoRole ||
                       answer.kind == VerifierAnswer::Kind::kUnusable;
  if (lasting && answer.expires_at > now_instant()) {
    if (verifiers_.size() >= kMaxCachedVerifiers) verifiers_.clear();
    verifiers_[verifier_key(message.query.role, message.query.branch)] = {answer};
  }
  if (message.query.token == 0) return;
  if (Session* session = find_session(message.query.token)) session->on_verifier(answer);
}

void Worker::report_dial_failure(const std::string& branch, int member, const routing::SocketAddress& address) {
  const Instant now = now_instant();
  std::erase_if(dial_failures_, [now](const auto& failure) { return now - failure.second > kDialFailureCounts; });
  if (dial_failures_.size() < kMaxDialFailures) dial_failures_[address.to_string()] = now;
  control_.post(DialFailed{branch, member});
}

Instant Worker::dial_failed_at(const routing::SocketAddress& address) const {
  const auto found = dial_failures_.find(address.to_string());
  return found == dial_failures_.end() ? Instant{} : found->second;
}

void Worker::probe_afresh(const std::string& branch, base::Instant until) {
  control_.post(FreshWanted{branch, until});
}

// ---- views ----------------------------------------------------------------------------------------------------------

void Worker::apply(NewDirectory&& message) {
  const auto former = std::exchange(directory_, std::move(message.directory));
  views_ = std::move(message.views);
  tls_ = std::move(message.tls);
  // Of a branch that stays as it was, what is known stays known.
  const auto changed = [&](std::string_view branch) {
    const auto& before = former->config().branches;
    const auto& after = directory_->config().branches;
    const auto old = before.find(branch);
    const auto now = after.find(branch);
    return old == before.end() || now == after.end() || old->second != now->second;
  };
  std::erase_if(verifiers_, [&](const auto& entry) {
    return changed(std::string_view(entry.first).substr(entry.first.find('\0') + 1));
  });
  std::erase_if(wanted_, [&](const auto& entry) { return changed(entry.first); });
  for (Session* session : all_sessions()) {
    if (const auto view = present_view(session->identity().branch)) session->reconsider(*view);
  }
  wake_held({});
}

void Worker::apply(NewView&& message) {
  if (message.directory != directory_.get() || message.index >= views_.size()) return;
  const auto former = std::exchange(views_[message.index], std::move(message.view));
  const std::string& name = directory_->name(message.index);
  if (routing::may_change_standing(*former, *views_[message.index])) {
    for (Session* session : all_sessions()) {
      if (session->identity().branch == name) session->reconsider(*views_[message.index]);
    }
  }
  wake_held(name);
}

/// In order of arrival, a few at a time: a new primary that has just come up must not meet all who waited for it at
/// once. Empty: all branches.
void Worker::wake_held(std::string_view branch) {
  for (const auto& [id, session] : logins_) {
    const auto name = session->waiting_for_branch();
    if (name.empty() || (!branch.empty() && name != branch)) continue;
    if (std::find(to_wake_.begin(), to_wake_.end(), id) == to_wake_.end()) to_wake_.push_back(id);
  }
  if (uv_is_active(reinterpret_cast<uv_handle_t*>(&wake_timer_)) == 0) wake_some();
}

void Worker::wake_some() {
  for (std::size_t woken = 0; woken < kWokenAtOnce && !to_wake_.empty(); ++woken) {
    const std::uint64_t id = to_wake_.front();
    to_wake_.pop_front();
    if (Session* session = find_session(id)) session->on_new_view();
  }
  if (to_wake_.empty() || stopping_) return;
  uv_timer_start(
      &wake_timer_, [](uv_timer_t* timer) { static_cast<Worker*>(timer->data)->wake_some(); }, kWakeEveryMs, 0);
}

// ---- counting -------------------------------------------------------------------------------------------------------

void Worker::count_handshake(std::string_view version) {
  block_.handshakes[version == "TLSv1.3" ? 1 : version == "TLSv1.2" ? 0 : 2].add();
}

void Worker::log_login(const Session& session, std::size_t listener) {
  const auto& times = session.record().times;
  const auto observe = [this, listener](metrics::LoginPhase phase, Instant from, Instant to) {
    if (from == Instant{} || to == Instant{} || to < from) return;
    block_.login[listener * metrics::kLoginPhases + static_cast<std::size_t>(phase)].observe_ns(
        static_cast<std::uint64_t>((to - from).count()));
  };
  observe(metrics::LoginPhase::kTls, times.accepted, times.tls_done);
  observe(metrics::LoginPhase::kStartup, times.tls_done == Instant{} ? times.accepted : times.tls_done,
          times.startup_done);
  observe(metrics::LoginPhase::kAuth, times.startup_done, times.auth_done);
  if (times.held.count() > 0)
    observe(metrics::LoginPhase::kHold, Instant(base::Duration(1)), Instant(times.held + base::Duration(1)));
  observe(metrics::LoginPhase::kConnect, times.routed, times.ready);
  observe(metrics::LoginPhase::kTotal, times.accepted, times.ready);
  const auto& identity = session.identity();
  if (times.held.count() > 0 && identity.view->block != nullptr) {
    identity.view->block->slot(index_).hold_seconds.observe_ns(static_cast<std::uint64_t>(times.held.count()));
  }
  if (log_enabled(LogLevel::kDebug)) {
    log_record(LogLevel::kDebug, "session begins",
               {{"session", std::to_string(index_) + "-" + std::to_string(session.id())},
                {"user", identity.user},
                {"branch", identity.branch},
                {"member", identity.destination},
                {"decision", std::string(routing::to_word(identity.decision->reason))}});
  }
}

void Worker::count_end(const Session& session, std::size_t listener, metrics::BranchSlot* slot, EndReason reason,
                       const routing::Refusal* refusal) {
  if (refusal != nullptr) {
    const std::size_t cell = listener * routing::kReasonCount + static_cast<std::size_t>(refusal->reason);
    if (slot != nullptr && slot != &spare_slot_ && cell < slot->refusals.size()) {
      slot->refusals[cell].add();
    } else {
      block_.refusals[cell].add();
    }
    const bool authentication =
        refusal->reason == routing::Reason::kAuthFailed || refusal->reason == routing::Reason::kNoVerifier;
    if (authentication && slot != nullptr) slot->auth_failures[static_cast<std::size_t>(refusal->reason)].add();
  }
  if (slot == nullptr || session.identity().view == nullptr || reason == EndReason::kCancelServed) return;
  const auto& identity = session.identity();
  std::size_t route = static_cast<std::size_t>(routing::RouteClass::kPrimary);
  if (identity.decision) {
    route = static_cast<std::size_t>(identity.decision->route);
  } else if (listener < directory_->config().listeners.size() &&
             directory_->config().listeners[listener].mode == routing::ListenerMode::kPooled) {
    const bool named = !identity.target.empty() && identity.target != "primary";
    const bool has_default = !identity.view->config->default_pool.empty();
    route =
        static_cast<std::size_t>(named || has_default ? routing::RouteClass::kPool : routing::RouteClass::kLocalPool);
  } else if (identity.target == "replica") {
    route = static_cast<std::size_t>(routing::RouteClass::kReplica);
  }
  const auto outcome = session.record().times.ready != Instant{} ? metrics::Outcome::kOk
                       : (reason == EndReason::kRefused || reason == EndReason::kBackendRefused)
                           ? metrics::Outcome::kRefused
                           : metrics::Outcome::kFailed;
  const std::size_t cell =
      (listener * routing::kRouteClassCount + route) * metrics::kOutcomes + static_cast<std::size_t>(outcome);
  if (cell < slot->connections.size()) slot->connections[cell].add();
}

// ---- messages -------------------------------------------------------------------------------------------------------

void Worker::handle(ToWorker&& message) {
  std::visit([this](auto&& value) { apply(std::forward<decltype(value)>(value)); }, std::move(message));
}

void Worker::apply(BeginDrain&& message) {
  draining_ = true;
  // Logins go to another router at once; a session that has begun can wait for its turn.
  std::vector<std::uint64_t> begun;
  for (Session* session : all_sessions()) {
    if (logins_.contains(session->id())) {
      session->drain();
    } else {
      begun.push_back(session->id());
    }
  }
  drain_pace_ = DrainPace(std::move(begun), now_instant(), message.pace);
  uv_timer_start(
      &drain_timer_, [](uv_timer_t* timer) { static_cast<Worker*>(timer->data)->drain_some(); }, 0, kDrainStepMs);
  if (sessions_.empty()) bury();
}

void Worker::drain_some() {
  for (const std::uint64_t id : drain_pace_.due(now_instant())) {
    const auto found = sessions_.find(id);
    if (found != sessions_.end()) found->second->drain();
  }
  if (drain_pace_.over()) uv_timer_stop(&drain_timer_);
}

void Worker::apply(StopNow&&) {
  if (stopping_) return;
  for (auto& listener : listeners_) listener->close();
  for (Session* session : all_sessions()) session->stop(draining_ ? EndReason::kDrained : EndReason::kStopped);
  stopping_ = true;
  cancels_.stop();
  // Requests that were cut off are cancelled at their backends, but the end does not wait long for that.
  active_tls_.clear();
  uv_timer_start(
      &quiet_timer_, [](uv_timer_t* timer) { static_cast<Worker*>(timer->data)->drop_cancels(); }, kLastCancelsMs, 0);
  bury_soon();
}

void Worker::drop_cancels() {
  cancels_.drop();
  bury_soon();
}

void Worker::close_handles() {
  const auto close = [](auto& handle) {
    auto* raw = reinterpret_cast<uv_handle_t*>(&handle);
    if (uv_is_closing(raw) == 0) uv_close(raw, nullptr);
  };
  if (uv_is_closing(reinterpret_cast<uv_handle_t*>(&burial_)) != 0) return;
  close(burial_);
  close(quiet_timer_);
  close(wake_timer_);
  close(drain_timer_);
  wheel_.close();
  mailbox_.close();
}

void Worker::apply(CollectSessions&& message) {
  SessionsCollected collected;
  collected.request = message.request;
  const Instant now = now_instant();
  collected.rows.reserve(sessions_.size());
  for (const auto& [id, session] : sessions_) collected.rows.push_back(session->row(now));
  control_.post(std::move(collected));
}

void Worker::apply(KillSession&& message) {
  Session* session = find_session(message.session);
  control_.post(SessionKilled{message.request, session != nullptr});
  if (session != nullptr) session->kill();
}

}  // namespace pointsman::proxy
