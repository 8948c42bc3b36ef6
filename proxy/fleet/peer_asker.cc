#include "proxy/fleet/peer_asker.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "proxy/log.h"
#include "proxy/monitor/uv_handles.h"

namespace pointsman::proxy {

namespace {

using metrics::CancelOutcome;

constexpr std::size_t kMostQuestions = 256;
constexpr base::TokenRate kQuestionRate{.per_second = 50, .burst = 200};
constexpr base::TokenRate kLogRate{.per_second = 1, .burst = 3};
/// Routers come and go: with each question the name is looked up again (one look-up at a time), and who was known
/// before is asked at once.
constexpr base::Duration kFreshAddresses{0};
/// And without a question this often, so that the metric tells how many there are.
constexpr base::Duration kKnownAddresses = std::chrono::seconds(30);
/// Shorter than the other side's patience (peer_answerer.cc): it is this side that hangs up.
constexpr base::Duration kIdle = std::chrono::seconds(30);

}  // namespace

PeerAsker::PeerAsker(PeerContext& context, Done done)
    : context_(context), done_(std::move(done)), resolver_(context.loop->uv(), *this) {}

void PeerAsker::configure(std::optional<routing::PeersConfig> peers,
                          std::shared_ptr<const protocol::ClientTlsContext> tls) {
  if (tls == nullptr) peers.reset();  // the secret was taken away: nobody can be asked, not even for what is under way
  if (peers != peers_) own_.clear();
  peers_ = std::move(peers);
  tls_ = std::move(tls);
  if (peers_ && !closing_) resolver_.refresh(peers_->host, kFreshAddresses, loop_clock());
}

std::size_t PeerAsker::known() const {
  if (!peers_) return 0;
  const auto& addresses = resolver_.addresses_of(peers_->host);
  return static_cast<std::size_t>(std::count_if(addresses.begin(), addresses.end(), [this](const auto& address) {
    return !own_.contains(address.with_port(peers_->port).to_string());
  }));
}

// ---- questions ------------------------------------------------------------------------------------------------------

void PeerAsker::ask(PeersWanted wanted) {
  const auto now = loop_clock();
  if (!peers_ || closing_) return done_(wanted, CancelOutcome::kUnknownKey);
  if (questions_.size() >= kMostQuestions || !asks_.take(kQuestionRate, now))
    return done_(wanted, CancelOutcome::kThrottled);
  const std::uint32_t number = next_question_++;
  Question question;
  question.wanted = std::move(wanted);
  question.deadline = now + kPeerQuestion;
  resolver_.refresh(peers_->host, kFreshAddresses, now);
  question.resolving = resolver_.in_flight(peers_->host);
  questions_.emplace(number, std::move(question));
  context_.wake();
  ask_everybody(number);
}

void PeerAsker::on_resolved(const std::string& host, bool changed) {
  if (closing_ || !peers_ || host != peers_->host) return;
  if (const auto why = resolver_.error_of(host); !why.empty()) complain(host, why);
  if (changed && resolver_.addresses_of(host).size() > kMostPeers) complain(host, "more than 1024 addresses");
  std::vector<std::uint32_t> numbers;
  for (auto& [number, question] : questions_) {
    if (std::exchange(question.resolving, false)) numbers.push_back(number);
  }
  for (const auto number : numbers) ask_everybody(number);
}

void PeerAsker::ask_everybody(std::uint32_t number) {
  Question& question = questions_.at(number);
  const PeerAsk ask{number, question.wanted.request};
  const auto& addresses = resolver_.addresses_of(peers_->host);
  for (std::size_t i = 0; i < std::min(addresses.size(), kMostPeers); ++i) {
    const auto address = addresses[i].with_port(peers_->port);
    if (own_.contains(address.to_string())) continue;
    if (std::find(question.asked.begin(), question.asked.end(), address) != question.asked.end()) continue;
    question.asked.push_back(address);
    Link* const link = link_to(address);
    if (link == nullptr) {
      question.incomplete = true;
      continue;
    }
    ++question.unanswered;
    link->waiting.push_back(number);
    if (link->channel->ready()) link->channel->send(ask);  // a failure settles it
  }
  if (!question.resolving) settle(number, resolver_.error_of(peers_->host).empty());
}

void PeerAsker::settle(std::uint32_t number, bool said_no) {
  const auto found = questions_.find(number);
  if (found == questions_.end()) return;
  Question& question = found->second;
  question.incomplete = question.incomplete || !said_no;
  if (--question.unanswered > 0) return;
  conclude(number, question.incomplete ? CancelOutcome::kPeerFailed : CancelOutcome::kUnknownKey);
}

void PeerAsker::conclude(std::uint32_t number, CancelOutcome outcome) {
  const auto node = questions_.extract(number);
  if (node.empty()) return;
  for (auto& [id, link] : links_) std::erase(link.waiting, number);
  done_(node.mapped().wanted, outcome);
}

// ---- links ----------------------------------------------------------------------------------------------------------

PeerAsker::Link* PeerAsker::link_to(const routing::SocketAddress& address) {
  for (auto& [id, link] : links_) {
    if (link.channel->peer() == address && !link.channel->ended()) return &link;
  }
  const std::uint64_t id = next_channel_++;
  Link link;
  link.channel =
      std::make_unique<PeerChannel>(context_, static_cast<PeerChannel::Owner&>(*this), id, address, loop_clock());
  if (!link.channel->connect(tls_)) {
    complain(address.to_string(), "the connection failed at once");
    return nullptr;
  }
  return &links_.emplace(id, std::move(link)).first->second;
}

PeerAsker::Link& PeerAsker::link_of(const PeerChannel& channel) {
  const auto found = links_.find(channel.id());
  POINTSMAN_CHECK(found != links_.end());
  return found->second;
}

void PeerAsker::on_peer_hello(PeerChannel& channel, const PeerHello& hello) {
  Link& link = link_of(channel);
  if (hello.router == context_.router) {
    link.to_self = true;
    own_.insert(channel.peer().to_string());
    return channel.close("this router itself");
  }
  const auto waiting = link.waiting;
  for (const auto number : waiting) {
    const auto found = questions_.find(number);
    if (found != questions_.end() && channel.ready()) channel.send(PeerAsk{number, found->second.wanted.request});
  }
}

void PeerAsker::on_peer_ask(PeerChannel& channel, const PeerAsk&) {
  channel.close("it asks where it is to answer");
}

void PeerAsker::on_peer_answer(PeerChannel& channel, const PeerAnswer& answer) {
  if (std::erase(link_of(channel).waiting, answer.number) == 0) return;  // the question is over
  switch (answer.verdict) {
    case PeerVerdict::kSent:
      return conclude(answer.number, CancelOutcome::kSentByPeer);
    case PeerVerdict::kFailed:
      return conclude(answer.number, CancelOutcome::kFailed);
    case PeerVerdict::kUnknown:
    case PeerVerdict::kThrottled:
      return settle(answer.number, answer.verdict == PeerVerdict::kUnknown);
  }
}

void PeerAsker::on_peer_lost(PeerChannel& channel, std::string_view why) {
  Link& link = link_of(channel);
  const auto waiting = std::exchange(link.waiting, {});
  const bool to_self = link.to_self;
  if (!waiting.empty() && !to_self) complain(channel.peer().to_string(), why);
  for (const auto number : waiting) settle(number, to_self);
}

void PeerAsker::on_peer_gone(PeerChannel& channel) {
  links_.erase(channel.id());
}

/// A peer that cannot be asked may mean many questions: few lines say so.
void PeerAsker::complain(const std::string& peer, std::string_view why) {
  if (!complaints_.take(kLogRate, loop_clock())) return;
  log_record(LogLevel::kWarning, "a peer cannot be asked about a cancel request",
             {{"peer", peer}, {"error", std::string(why), 512}});
}

// ---- time -----------------------------------------------------------------------------------------------------------

void PeerAsker::on_tick(base::Instant now) {
  if (closing_) return;
  if (peers_) resolver_.refresh(peers_->host, kKnownAddresses, now);
  std::vector<std::uint32_t> late;
  for (const auto& [number, question] : questions_) {
    if (now >= question.deadline) late.push_back(number);
  }
  for (auto& [id, link] : links_) {
    const bool silent = std::any_of(late.begin(), late.end(), [&link = link](std::uint32_t number) {
      return std::find(link.waiting.begin(), link.waiting.end(), number) != link.waiting.end();
    });
    PeerChannel& channel = *link.channel;
    if (silent) {
      channel.close("no answer in time");
    } else if (channel.ready() && link.waiting.empty() && now >= channel.used_at() + kIdle) {
      channel.close("idle");
    } else {
      channel.check_deadline(now);
    }
  }
  for (const auto number : late) conclude(number, CancelOutcome::kPeerFailed);  // its addresses never came
}

void PeerAsker::shut_down() {
  closing_ = true;
  for (auto& [id, link] : links_) link.channel->close("this router stops");
}

}  // namespace pointsman::proxy
