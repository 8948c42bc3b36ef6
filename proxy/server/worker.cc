#include "proxy/server/worker.h"

#include <malloc.h>
#include <openssl/rand.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "protocol/cancel_key.h"
#include "proxy/log.h"

namespace pointsman::proxy {

using base::Instant;

namespace {

constexpr std::size_t kMaxCachedVerifiers = 20'000;
constexpr base::Duration kWantAgainAfter = std::chrono::seconds(5);
constexpr std::uint64_t kQuietSweepMs = 2'000;
constexpr std::uint64_t kLastCancelsMs = 1'000;
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
      guesses_(1024),
      block_(directory_->config().listeners.size(), routing::kReasonCount),
      spare_dimensions_(spare_dimensions(directory_->config().listeners.size())),
      spare_slot_(spare_dimensions_) {
  POINTSMAN_CHECK(uv_loop_init(&loop_) == 0);
  mailbox_.open(&loop_, this,
                [](void* self, ToWorker&& message) { static_cast<Worker*>(self)->handle(std::move(message)); });
  wheel_.open(&loop_);
  POINTSMAN_CHECK(uv_idle_init(&loop_, &burial_) == 0);
  burial_.data = this;
  POINTSMAN_CHECK(uv_timer_init(&loop_, &quiet_timer_) == 0);
  quiet_timer_.data = this;
}

Worker::~Worker() = default;

void Worker::set_up(const std::vector<int>& listening, const std::vector<Worker*>& all) {
  workers_ = all;
  for (std::size_t i = 0; i < listening.size(); ++i) {
    listeners_.push_back(std::make_unique<Listener>(*this, i, listening[i]));
  }
}

void Worker::run() {
  for (auto& listener : listeners_) listener->open(&loop_);
  uv_run(&loop_, UV_RUN_DEFAULT);
  bury();
  // Every handle must be closed by now: this is our leak check.
  POINTSMAN_CHECK(uv_loop_close(&loop_) == 0);
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

void Worker::random_bytes(base::MutableBytes out) {
  POINTSMAN_CHECK(RAND_bytes(out.data(), static_cast<int>(out.size())) == 1);
}

const metrics::Dimensions& Worker::dimensions_of(const routing::BranchView& view) const {
  return view.block != nullptr ? view.block->dimensions() : spare_dimensions_;
}

bool Worker::take_handshake_turn() {
  const std::uint64_t now = uv_now(&loop_);
  if (now != handshake_ms_) {
    handshake_ms_ = now;
    handshakes_this_ms_ = 0;
  }
  if (handshakes_this_ms_ >= kHandshakesPerMs) return false;
  ++handshakes_this_ms_;
  return true;
}

// ---- accepting and ending
// ---------------------------------------------------------------------------------------------

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
  if (logins_.size() >= cap) {
    block_.refusals[listener * routing::kReasonCount + static_cast<std::size_t>(routing::Reason::kLimit)].add();
    logins_.begin()->second->drop_before_login();
  }

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
  uv_idle_start(&burial_, [](uv_idle_t* idle) { static_cast<Worker*>(idle->data)->bury(); });
}

void Worker::forget(CancelDial& dial) {
  const auto found = dials_.find(&dial);
  if (found == dials_.end()) return;
  dead_dials_.push_back(std::move(found->second));
  dials_.erase(found);
  uv_idle_start(&burial_, [](uv_idle_t* idle) { static_cast<Worker*>(idle->data)->bury(); });
}

void Worker::bury() {
  if (uv_is_active(reinterpret_cast<uv_handle_t*>(&burial_)) != 0) uv_idle_stop(&burial_);
  for (Session* session : dead_sessions_) delete session;
  dead_sessions_.clear();
  dead_dials_.clear();
  start_waiting_cancels();
  if (stopping_ && sessions_.empty() && dials_.empty() && waiting_cancels_.empty()) close_handles();
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
  for (Worker* worker : workers_) {
    if (worker != this) worker->post(VerifierStale{ask.branch, ask.role});
  }
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
  if (const auto found = sessions_.find(message.query.token); found != sessions_.end())
    found->second->on_verifier(answer);
}

void Worker::report_dial_failure(const std::string& branch, int member) {
  control_.post(DialFailed{branch, member});
}

// ---- views ----------------------------------------------------------------------------------------------------------

void Worker::apply(NewDirectory&& message) {
  directory_ = std::move(message.directory);
  views_ = std::move(message.views);
  tls_ = std::move(message.tls);
  verifiers_.clear();
  wanted_.clear();
  wake_held({});
}

void Worker::apply(NewView&& message) {
  if (message.directory != directory_.get() || message.index >= views_.size()) return;
  views_[message.index] = std::move(message.view);
  wake_held(directory_->name(message.index));
}

/// In order of arrival. Empty: all.
void Worker::wake_held(std::string_view branch) {
  std::vector<std::uint64_t> waiting;
  for (const auto& [id, session] : logins_) {
    const auto name = session->waiting_for_branch();
    if (!name.empty() && (branch.empty() || name == branch)) waiting.push_back(id);
  }
  for (const std::uint64_t id : waiting) {
    if (const auto found = sessions_.find(id); found != sessions_.end()) found->second->on_new_view();
  }
}

// ---- cancel ---------------------------------------------------------------------------------------------------------

void Worker::add_cancel_key(Session& session) {
  cancel_keys_.emplace(session.backend_key().pid, &session);
}

void Worker::remove_cancel_key(Session& session) {
  const auto [begin, end] = cancel_keys_.equal_range(session.backend_key().pid);
  for (auto it = begin; it != end; ++it) {
    if (it->second == &session) {
      cancel_keys_.erase(it);
      return;
    }
  }
}

Session* Worker::find_by_cancel_key(const protocol::CancelRequest& request) {
  const auto [begin, end] = cancel_keys_.equal_range(request.pid);
  for (auto it = begin; it != end; ++it) {
    if (protocol::secrets_equal(it->second->client_secret(), request.secret)) return it->second;
  }
  return nullptr;
}

namespace {
constexpr base::TokenRate kWrongGuesses{10, 50};
constexpr std::size_t kCancelDialsAtOnce = 32;
constexpr std::size_t kCancelDialsPerBackend = 8;
constexpr std::size_t kCancelsWaiting = 512;
}  // namespace

base::TokenBucket& Worker::guesses_of(const std::uint8_t (&source)[16]) {
  // The network of the source: /24 of IPv4 (mapped), /64 of IPv6.
  const bool v4 = std::all_of(source, source + 10, [](std::uint8_t b) { return b == 0; });
  const std::string_view network(reinterpret_cast<const char*>(source), v4 ? 15 : 8);
  return guesses_[std::hash<std::string_view>{}(network) % guesses_.size()];
}

void Worker::serve_cancel(Session& session, const protocol::CancelRequest& request) {
  PendingCancel pending;
  session.source_ip(pending.source);
  auto bucket = guesses_of(pending.source);  // a copy: only wrong keys cost a token
  if (!bucket.take(kWrongGuesses, now_instant())) {
    finish_cancel(session.id(), metrics::CancelOutcome::kThrottled);
    return;
  }
  if (const Session* target = find_by_cancel_key(request)) {
    begin_cancel(*target, index_, session.id());
    return;
  }
  pending.answers_missing = worker_count_ - 1;
  pending_cancels_[session.id()] = pending;
  for (Worker* worker : workers_) {
    if (worker != this) worker->post(CancelSearch{request, index_, session.id()});
  }
  if (worker_count_ == 1) apply(CancelAnswer{session.id(), false, false});
}

void Worker::apply(CancelSearch&& message) {
  if (const Session* target = find_by_cancel_key(message.request)) {
    begin_cancel(*target, message.origin_worker, message.origin_session);
  } else {
    workers_[message.origin_worker]->post(CancelAnswer{message.origin_session, false, false});
  }
}

void Worker::apply(CancelAnswer&& message) {
  const auto found = pending_cancels_.find(message.origin_session);
  if (found == pending_cancels_.end()) return;
  if (message.found) {
    pending_cancels_.erase(found);
    finish_cancel(message.origin_session,
                  message.sent ? metrics::CancelOutcome::kSent : metrics::CancelOutcome::kFailed);
    return;
  }
  if (found->second.answers_missing > 1) {
    --found->second.answers_missing;
    return;
  }
  (void)guesses_of(found->second.source).take(kWrongGuesses, now_instant());
  pending_cancels_.erase(found);
  finish_cancel(message.origin_session, metrics::CancelOutcome::kUnknownKey);
}

void Worker::finish_cancel(std::uint64_t origin_session, metrics::CancelOutcome outcome) {
  block_.cancels[static_cast<std::size_t>(outcome)].add();
  if (const auto found = sessions_.find(origin_session); found != sessions_.end()) found->second->on_cancel_served();
}

void Worker::cancel_of(const Session& session) {
  if (!session.backend_key().secret.empty()) begin_cancel(session, index_, 0);
}

void Worker::begin_cancel(const Session& session, std::uint32_t origin_worker, std::uint64_t origin_session) {
  const auto& identity = session.identity();
  CancelTarget target;
  target.address = identity.decision->address;
  target.pid = session.backend_key().pid;
  target.secret = session.backend_key().secret;
  target.origin_worker = origin_worker;
  target.origin_session = origin_session;
  const auto& settings = routing::tls_for(*identity.view->config, *identity.decision);
  bool possible = waiting_cancels_.size() < kCancelsWaiting && !stopping_;
  if (settings.mode != routing::TlsMode::kDisable) {
    const auto context = tls_->clients.find(settings.context_key());
    possible = possible && context != tls_->clients.end();
    if (possible) target.tls = context->second;
    target.server_name = routing::server_name_for(*identity.view, *identity.decision);
  }
  if (possible) {
    waiting_cancels_.push_back(std::move(target));
    start_waiting_cancels();
    return;
  }
  if (origin_session == 0) {
    block_.cancels[static_cast<std::size_t>(metrics::CancelOutcome::kThrottled)].add();
  } else if (origin_worker == index_) {
    finish_cancel(origin_session, metrics::CancelOutcome::kThrottled);
  } else {
    workers_[origin_worker]->post(CancelAnswer{origin_session, true, false});
  }
}

void Worker::start_waiting_cancels() {
  // In order of arrival, but a backend that does not answer holds up only its own.
  for (auto it = waiting_cancels_.begin(); it != waiting_cancels_.end() && dials_running_ < kCancelDialsAtOnce;) {
    const auto same = std::count_if(dials_.begin(), dials_.end(),
                                    [&it](const auto& dial) { return dial.first->target().address == it->address; });
    if (static_cast<std::size_t>(same) >= kCancelDialsPerBackend) {
      ++it;
      continue;
    }
    auto dial = std::make_unique<CancelDial>(*this, std::move(*it));
    it = waiting_cancels_.erase(it);
    CancelDial* raw = dial.get();
    dials_.emplace(raw, std::move(dial));
    ++dials_running_;
    raw->start();
  }
}

void Worker::cancel_dial_done(CancelDial& dial, bool sent) {
  --dials_running_;  // those that wait start at the burial, outside of this dial's own calls
  const auto& target = dial.target();
  if (target.origin_session == 0) {
    block_.cancels[static_cast<std::size_t>(sent ? metrics::CancelOutcome::kSent : metrics::CancelOutcome::kFailed)]
        .add();
  } else if (target.origin_worker == index_) {
    finish_cancel(target.origin_session, sent ? metrics::CancelOutcome::kSent : metrics::CancelOutcome::kFailed);
  } else {
    workers_[target.origin_worker]->post(CancelAnswer{target.origin_session, true, sent});
  }
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

void Worker::apply(BeginDrain&&) {
  draining_ = true;
  for (Session* session : all_sessions()) session->drain();
  if (sessions_.empty()) bury();
}

void Worker::apply(StopNow&&) {
  if (stopping_) return;
  for (auto& listener : listeners_) listener->close();
  for (Session* session : all_sessions()) session->stop(draining_ ? EndReason::kDrained : EndReason::kStopped);
  stopping_ = true;
  // Requests that were cut off are cancelled at their backends, but the end does not wait long for that.
  active_tls_.clear();
  uv_timer_start(
      &quiet_timer_, [](uv_timer_t* timer) { static_cast<Worker*>(timer->data)->drop_cancels(); }, kLastCancelsMs, 0);
  uv_idle_start(&burial_, [](uv_idle_t* idle) { static_cast<Worker*>(idle->data)->bury(); });
}

void Worker::drop_cancels() {
  waiting_cancels_.clear();
  std::vector<CancelDial*> dials;
  for (const auto& [raw, dial] : dials_) dials.push_back(raw);
  for (CancelDial* dial : dials) dial->stop();
  uv_idle_start(&burial_, [](uv_idle_t* idle) { static_cast<Worker*>(idle->data)->bury(); });
}

void Worker::close_handles() {
  const auto close = [](auto& handle) {
    auto* raw = reinterpret_cast<uv_handle_t*>(&handle);
    if (uv_is_closing(raw) == 0) uv_close(raw, nullptr);
  };
  if (uv_is_closing(reinterpret_cast<uv_handle_t*>(&burial_)) != 0) return;
  close(burial_);
  close(quiet_timer_);
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

}  // namespace pointsman::proxy
