#include "proxy/discovery/patroni_source.h"

#include <algorithm>
#include <utility>

namespace pointsman::proxy {
namespace {

/// A node that hangs must not keep the others from being asked for long.
constexpr base::Duration kClusterAnswerTimeout = std::chrono::seconds(2);

}  // namespace

PatroniSource::PatroniSource(DiscoveryContext& context, DiscoverySource::Owner& owner, routing::PatroniDiscovery config)
    : DiscoverySource(context),
      owner_(owner),
      config_(std::move(config)),
      ask_(context, *this, config_.ca),
      timer_(context.http.loop->uv(), context.http.handles, this,
             [](void* self) { static_cast<PatroniSource*>(self)->begin_round(); }) {
  timer_.start(loop_clock());
}

void PatroniSource::begin_round() {
  asked_ = loop_clock();
  tried_ = 0;
  again_ = false;
  ask_one();
}

void PatroniSource::ask_one() {
  HttpQuery query;
  query.url = config_.urls[current_];
  query.target = "/cluster";
  query.most_body = routing::kMaxClusterDocument;
  query.answer_by = loop_clock() + kClusterAnswerTimeout;
  ask_.start(std::move(query));
}

void PatroniSource::ask_soon() {
  if (ask_.busy()) {
    again_ = true;  // the answer under way may have been given before the change
    return;
  }
  const auto now = loop_clock();
  if (asked_ + config_.interval > now + kAskGap) timer_.start(std::max(now, asked_ + kAskGap));
}

void PatroniSource::on_http_done(const HttpCall::Outcome& outcome) {
  const auto next = [this] {
    const auto now = loop_clock();
    timer_.start(std::max(now, asked_ + (again_ ? kAskGap : config_.interval)));
  };
  std::string why = outcome.error;
  if (why.empty() && outcome.status != 200) why = "it answers with status " + std::to_string(outcome.status);
  if (why.empty()) {
    const auto found = routing::discovered_from_patroni(outcome.body);
    if (found.ok()) {
      next();
      return owner_.on_discovered(found.value());
    }
    why = found.error();
  }
  why = "Patroni at " + config_.urls[current_].to_string() + ": " + why;
  current_ = (current_ + 1) % config_.urls.size();
  if (++tried_ < config_.urls.size()) return ask_one();
  next();
  owner_.on_discovery_failed(why);
}

}  // namespace pointsman::proxy
