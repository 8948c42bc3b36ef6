#include "proxy/server/cancels.h"

#include <uv.h>

#include <algorithm>
#include <functional>
#include <string_view>
#include <utility>

#include "protocol/cancel_key.h"
#include "protocol/fleet_keys.h"
#include "proxy/fleet/sealed_destination.h"
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

std::string Cancels::seal(const std::string& branch, const routing::Decision& decision,
                          const protocol::BackendKey& key) {
  const auto& fleet = worker_.tls().fleet_keys;
  if (fleet == nullptr) return {};
  const auto content =
      encode_destination({branch, decision.route, decision.address, key.secret}, protocol::kMaxSealedContent);
  if (content.empty()) return {};
  base::Byte nonce[protocol::kSealNonce];
  worker_.random_bytes(nonce);
  return fleet->seal(key.pid, nonce, content);
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
  if (begin_sealed(request, session.id())) return;
  search.answers_missing = worker_.worker_count() - 1;
  search.request = request;
  searches_[session.id()] = search;
  worker_.post_to_others(CancelSearch{request, worker_.index(), session.id()});
  if (search.answers_missing == 0) nobody_here(session.id());
}

/// A key that another router has sealed, or this one for a session that lives on another worker. Nothing is believed of
/// it but what it leads to at present: a destination that is not known here (any more) is its owner's affair.
bool Cancels::begin_sealed(const protocol::CancelRequest& request, std::uint64_t origin_session) {
  const auto& fleet = worker_.tls().fleet_keys;
  if (fleet == nullptr) return false;
  const auto content = fleet->open(request.pid, request.secret);
  const auto sealed = content ? decode_destination(*content) : std::nullopt;
  const auto view = sealed ? worker_.present_view(sealed->branch) : nullptr;
  const auto decision = view != nullptr ? routing::destination_at(*view, sealed->route, sealed->address) : std::nullopt;
  if (!decision) return false;
  begin(*view, *decision, {request.pid, sealed->secret}, worker_.index(), origin_session);
  return true;
}

void Cancels::apply(const CancelSearch& message) {
  if (const Session* target = find(message.request)) {
    begin(*target, message.origin_worker, message.origin_session);
  } else {
    worker_.answer_cancel(message.origin_worker, {message.origin_session, metrics::CancelOutcome::kUnknownKey});
  }
}

void Cancels::apply(const CancelAnswer& message) {
  const auto found = searches_.find(message.origin_session);
  if (found == searches_.end()) return;
  Search& search = found->second;
  if (search.answers_missing > 0 && message.outcome == metrics::CancelOutcome::kUnknownKey) {
    if (--search.answers_missing == 0) nobody_here(message.origin_session);
    return;
  }
  const bool wrong_key =
      message.outcome == metrics::CancelOutcome::kUnknownKey || message.outcome == metrics::CancelOutcome::kPeerFailed;
  if (wrong_key) (void)guesses_of(search.source).take(kWrongGuesses, now_instant());
  searches_.erase(found);
  finish(message.origin_session, message.outcome);
}

/// No worker of this router knows the key.
void Cancels::nobody_here(std::uint64_t origin_session) {
  if (worker_.directory()->config().cancel.peers) {
    worker_.ask_peers({searches_.at(origin_session).request, worker_.index(), origin_session});
  } else {
    apply(CancelAnswer{origin_session, metrics::CancelOutcome::kUnknownKey});
  }
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
    worker_.answer_cancel(origin_worker, {origin_session, outcome});
  }
}

void Cancels::cancel(const Session& session) {
  if (!session.backend_key().secret.empty()) begin(session, worker_.index(), 0);
}

void Cancels::begin(const Session& session, std::uint32_t origin_worker, std::uint64_t origin_session) {
  const auto& identity = session.identity();
  begin(*identity.view, *identity.decision, session.backend_key(), origin_worker, origin_session);
}

void Cancels::begin(const routing::BranchView& view, const routing::Decision& decision, const protocol::BackendKey& key,
                    std::uint32_t origin_worker, std::uint64_t origin_session) {
  CancelTarget target;
  target.address = decision.address;
  target.pid = key.pid;
  target.secret = key.secret;
  target.origin_worker = origin_worker;
  target.origin_session = origin_session;
  const auto& settings = routing::tls_for(*view.config, decision);
  bool possible = waiting_.size() < kWaiting && !stopping_;
  if (settings.mode != routing::TlsMode::kDisable) {
    const auto& contexts = worker_.tls().clients;
    const auto context = contexts.find(settings.context_key());
    possible = possible && context != contexts.end();
    if (possible) target.tls = context->second;
    target.server_name = routing::server_name_for(view, decision);
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
