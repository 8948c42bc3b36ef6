#include "proxy/fleet/peer_answerer.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "proxy/log.h"
#include "proxy/monitor/uv_handles.h"

namespace pointsman::proxy {

namespace {

constexpr std::size_t kMostLinks = 1024;
constexpr std::size_t kMostStrangers = 64;
constexpr std::size_t kMostSearches = 1024;
constexpr base::TokenRate kAcceptRate{.per_second = 200, .burst = 400};
/// Of one peer. It has its own limits on what clients make it ask.
constexpr base::TokenRate kAskRate{.per_second = 100, .burst = 400};
constexpr base::TokenRate kStrangerLogRate{.per_second = 1, .burst = 3};
constexpr base::Duration kPatience = std::chrono::minutes(5);
/// Workers answer a search when their dial has ended; one that stops may not.
constexpr base::Duration kForget = std::chrono::seconds(10);
constexpr unsigned kListenerKeepalive = 15;
constexpr unsigned kListenerUserTimeoutMs = 5'000;

PeerVerdict verdict_of(metrics::CancelOutcome outcome) {
  switch (outcome) {
    case metrics::CancelOutcome::kSent:
      return PeerVerdict::kSent;
    case metrics::CancelOutcome::kThrottled:
      return PeerVerdict::kThrottled;
    case metrics::CancelOutcome::kUnknownKey:
      return PeerVerdict::kUnknown;
    case metrics::CancelOutcome::kFailed:
    case metrics::CancelOutcome::kSentByPeer:
    case metrics::CancelOutcome::kPeerFailed:
      break;
  }
  return PeerVerdict::kFailed;
}

}  // namespace

PeerAnswerer::PeerAnswerer(PeerContext& context, std::size_t workers, Search search)
    : context_(context), workers_(workers), search_(std::move(search)) {}

base::Result<bool> PeerAnswerer::listen(const std::string& address, std::uint16_t port) {
  POINTSMAN_CHECK(listener_ == nullptr);
  auto opened = open_listening_socket(address, port, false, kListenerKeepalive, kListenerUserTimeoutMs, nullptr);
  if (!opened.ok()) return base::Error{opened.error()};
  listener_ = std::make_unique<Listener>(static_cast<AcceptSink&>(*this), 0, opened.value());
  listener_->open(*context_.loop);
  return true;
}

void PeerAnswerer::on_accepted(std::size_t, int fd, const routing::SocketAddress& peer) {
  if (tls_ == nullptr || closing_ || links_.size() >= kMostLinks || !accepts_.take(kAcceptRate, loop_clock())) {
    ::close(fd);
    return;
  }
  const auto stranger = [](const auto& entry) {
    return !entry.second.channel->ready() && !entry.second.channel->ended();
  };
  if (std::count_if(links_.begin(), links_.end(), stranger) >= static_cast<std::ptrdiff_t>(kMostStrangers))
    std::find_if(links_.begin(), links_.end(), stranger)->second.channel->close("too many strangers: the oldest goes");
  const std::uint64_t id = next_channel_++;
  Link link;
  link.channel =
      std::make_unique<PeerChannel>(context_, static_cast<PeerChannel::Owner&>(*this), id, peer, loop_clock());
  if (!link.channel->accept(fd, tls_)) return;
  links_.emplace(id, std::move(link));
  context_.wake();
}

void PeerAnswerer::on_accept_paused(std::size_t, int error) {
  log_record(LogLevel::kWarning, "peers cannot be accepted, they wait", {{"error", std::strerror(error)}});
}

void PeerAnswerer::on_peer_hello(PeerChannel& channel, const PeerHello&) {
  log_record(LogLevel::kDebug, "a peer has connected", {{"peer", channel.peer().to_string()}});
}

void PeerAnswerer::on_peer_ask(PeerChannel& channel, const PeerAsk& ask) {
  const auto link = links_.find(channel.id());
  POINTSMAN_CHECK(link != links_.end());
  const auto now = loop_clock();
  if (closing_ || searches_.size() >= kMostSearches || !link->second.asks.take(kAskRate, now))
    return answer(channel, ask.number, PeerVerdict::kThrottled);
  const std::uint64_t number = next_search_++;
  searches_.emplace(number, Running{channel.id(), ask.number, workers_, now + kForget});
  search_(ask.request, number);
}

void PeerAnswerer::on_found(std::uint64_t number, metrics::CancelOutcome outcome) {
  const auto found = searches_.find(number);
  if (found == searches_.end()) return;
  const bool here = outcome != metrics::CancelOutcome::kUnknownKey;
  if (!here && --found->second.answers_missing > 0) return;
  const Running search = found->second;
  searches_.erase(found);
  const auto link = links_.find(search.channel);
  if (link != links_.end() && link->second.channel->ready())
    return answer(*link->second.channel, search.ask, verdict_of(outcome));
  ++answers_[static_cast<std::size_t>(verdict_of(outcome))];  // nobody is left to hear it
}

void PeerAnswerer::answer(PeerChannel& channel, std::uint32_t ask, PeerVerdict verdict) {
  ++answers_[static_cast<std::size_t>(verdict)];
  channel.send(PeerAnswer{ask, verdict});
}

void PeerAnswerer::on_peer_answer(PeerChannel& channel, const PeerAnswer&) {
  channel.close("it answers where it is to ask");
}

/// Somebody who does not get as far as Hello has another secret, or is no router of ours.
void PeerAnswerer::on_peer_lost(PeerChannel& channel, std::string_view why) {
  const bool stranger = why.starts_with("TLS:");
  if (stranger && !complaints_.take(kStrangerLogRate, loop_clock())) return;
  log_record(stranger ? LogLevel::kWarning : LogLevel::kDebug, "a peer's connection has ended",
             {{"peer", channel.peer().to_string()}, {"reason", std::string(why), 512}});
}

void PeerAnswerer::on_peer_gone(PeerChannel& channel) {
  links_.erase(channel.id());
}

void PeerAnswerer::on_tick(base::Instant now) {
  for (auto& [id, link] : links_) {
    PeerChannel& channel = *link.channel;
    if (channel.ready() && now >= channel.used_at() + kPatience) {
      channel.close("idle");
    } else {
      channel.check_deadline(now);
    }
  }
  std::erase_if(searches_, [now](const auto& entry) { return now >= entry.second.forget_at; });
}

void PeerAnswerer::shut_down() {
  closing_ = true;
  if (listener_ != nullptr) listener_->close();
  for (auto& [id, link] : links_) link.channel->close("this router stops");
}

}  // namespace pointsman::proxy
