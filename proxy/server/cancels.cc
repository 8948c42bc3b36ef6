#include "proxy/server/cancels.h"

#include <uv.h>

#include <algorithm>
#include <functional>
#include <string_view>
#include <utility>

#include "protocol/cancel_key.h"
#include "proxy/server/worker.h"

namespace pointsman::proxy {

namespace {

constexpr base::TokenRate kWrongGuesses{10, 50};
constexpr std::size_t kGuessBuckets = 1'024;
constexpr std::size_t kDialsAtOnce = 32;
constexpr std::size_t kDialsPerBackend = 8;
constexpr std::size_t kWaiting = 512;

base::Instant now_instant() {
  return base::from_hrtime(uv_hrtime());
}

}  // namespace

Cancels::Cancels(Worker& worker) : worker_(worker), guesses_(kGuessBuckets) {}

void Cancels::add(Session& session) {
  keys_.emplace(session.backend_key().pid, &session);
}

void Cancels::remove(Session& session) {
  const auto [begin, end] = keys_.equal_range(session.backend_key().pid);
  const auto found = std::find_if(begin, end, [&session](const auto& entry) { return entry.second == &session; });
  if (found != end) keys_.erase(found);
}

Session* Cancels::find(const protocol::CancelRequest& request) {
  const auto [begin, end] = keys_.equal_range(request.pid);
  for (auto it = begin; it != end; ++it) {
    if (protocol::secrets_equal(it->second->client_secret(), request.secret)) return it->second;
  }
  return nullptr;
}

base::TokenBucket& Cancels::guesses_of(const std::uint8_t (&source)[16]) {
  // The network of the source: /24 of IPv4 (mapped), /64 of IPv6.
  const bool v4 = std::all_of(source, source + 10, [](std::uint8_t b) { return b == 0; });
  const std::string_view network(reinterpret_cast<const char*>(source), v4 ? 15 : 8);
  return guesses_[std::hash<std::string_view>{}(network) % guesses_.size()];
}

void Cancels::serve(Session& session, const protocol::CancelRequest& request) {
  Search search;
  session.source_ip(search.source);
  auto bucket = guesses_of(search.source);  // a copy: only wrong keys cost a token
  if (!bucket.take(kWrongGuesses, now_instant())) {
    finish(session.id(), metrics::CancelOutcome::kThrottled);
    return;
  }
  if (const Session* target = find(request)) {
    begin(*target, worker_.index(), session.id());
    return;
  }
  search.answers_missing = worker_.worker_count() - 1;
  searches_[session.id()] = search;
  worker_.post_to_others(CancelSearch{request, worker_.index(), session.id()});
  if (search.answers_missing == 0) apply(CancelAnswer{session.id(), false, false});
}

void Cancels::apply(const CancelSearch& message) {
  if (const Session* target = find(message.request)) {
    begin(*target, message.origin_worker, message.origin_session);
  } else {
    worker_.post_to(message.origin_worker, CancelAnswer{message.origin_session, false, false});
  }
}

void Cancels::apply(const CancelAnswer& message) {
  const auto found = searches_.find(message.origin_session);
  if (found == searches_.end()) return;
  if (message.found) {
    searches_.erase(found);
    finish(message.origin_session, message.sent ? metrics::CancelOutcome::kSent : metrics::CancelOutcome::kFailed);
    return;
  }
  if (found->second.answers_missing > 1) {
    --found->second.answers_missing;
    return;
  }
  (void)guesses_of(found->second.source).take(kWrongGuesses, now_instant());
  searches_.erase(found);
  finish(message.origin_session, metrics::CancelOutcome::kUnknownKey);
}

void Cancels::finish(std::uint64_t origin_session, metrics::CancelOutcome outcome) {
  worker_.count_cancel(outcome);
  if (Session* session = worker_.find_session(origin_session)) session->on_cancel_served();
}

void Cancels::tell(std::uint32_t origin_worker, std::uint64_t origin_session, metrics::CancelOutcome outcome) {
  if (origin_session == 0) {
    worker_.count_cancel(outcome);
  } else if (origin_worker == worker_.index()) {
    finish(origin_session, outcome);
  } else {
    worker_.post_to(origin_worker, CancelAnswer{origin_session, true, outcome == metrics::CancelOutcome::kSent});
  }
}

void Cancels::cancel(const Session& session) {
  if (!session.backend_key().secret.empty()) begin(session, worker_.index(), 0);
}

void Cancels::begin(const Session& session, std::uint32_t origin_worker, std::uint64_t origin_session) {
  const auto& identity = session.identity();
  CancelTarget target;
  target.address = identity.decision->address;
  target.pid = session.backend_key().pid;
  target.secret = session.backend_key().secret;
  target.origin_worker = origin_worker;
  target.origin_session = origin_session;
  const auto& settings = routing::tls_for(*identity.view->config, *identity.decision);
  bool possible = waiting_.size() < kWaiting && !stopping_;
  if (settings.mode != routing::TlsMode::kDisable) {
    const auto& contexts = worker_.tls().clients;
    const auto context = contexts.find(settings.context_key());
    possible = possible && context != contexts.end();
    if (possible) target.tls = context->second;
    target.server_name = routing::server_name_for(*identity.view, *identity.decision);
  }
  if (!possible) return tell(origin_worker, origin_session, metrics::CancelOutcome::kThrottled);
  waiting_.push_back(std::move(target));
  start_waiting();
}

void Cancels::start_waiting() {
  // In order of arrival, but a backend that does not answer holds up only its own.
  for (auto it = waiting_.begin(); it != waiting_.end() && dials_running_ < kDialsAtOnce;) {
    const auto same = std::count_if(dials_.begin(), dials_.end(),
                                    [&it](const auto& dial) { return dial.first->target().address == it->address; });
    if (static_cast<std::size_t>(same) >= kDialsPerBackend) {
      ++it;
      continue;
    }
    auto dial = std::make_unique<CancelDial>(worker_, std::move(*it));
    it = waiting_.erase(it);
    CancelDial* raw = dial.get();
    dials_.emplace(raw, std::move(dial));
    ++dials_running_;
    raw->start();
  }
}

void Cancels::dial_done(CancelDial& dial, bool sent) {
  --dials_running_;  // those that wait start at the burial, outside of this dial's own calls
  const auto& target = dial.target();
  tell(target.origin_worker, target.origin_session,
       sent ? metrics::CancelOutcome::kSent : metrics::CancelOutcome::kFailed);
}

void Cancels::forget(CancelDial& dial) {
  const auto found = dials_.find(&dial);
  if (found == dials_.end()) return;
  dead_dials_.push_back(std::move(found->second));
  dials_.erase(found);
  worker_.bury_soon();
}

void Cancels::bury() {
  dead_dials_.clear();
  start_waiting();
}

void Cancels::drop() {
  waiting_.clear();
  std::vector<CancelDial*> dials;
  for (const auto& [raw, dial] : dials_) dials.push_back(raw);
  for (CancelDial* dial : dials) dial->stop();
}

}  // namespace pointsman::proxy
