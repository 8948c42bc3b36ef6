// `pointsman route` and /api/route: what a connection with this user would meet now, and why.
#include <openssl/rand.h>

#include <algorithm>

#include "proxy/server/control.h"
#include "routing/selection.h"
#include "routing/username.h"

namespace pointsman::proxy {

namespace {

constexpr base::Duration kSettleTimeout = std::chrono::seconds(3);

ControlView::RouteAnswer from_refusal(const routing::Refusal& refusal, ControlView::RouteAnswer answer) {
  answer.ok = false;
  answer.text_decision = refusal.message;
  answer.reason = std::string(routing::to_word(refusal.reason));
  answer.sqlstate = std::string(refusal.sqlstate);
  answer.detail = refusal.detail;
  answer.hint = refusal.hint;
  return answer;
}

/// Without a name: the first listener on which the target is lawful.
const routing::ListenerConfig* find_listener(const routing::Config& config, const std::string& name,
                                             std::string_view user) {
  for (const auto& listener : config.listeners) {
    if (listener.name == name) return &listener;
  }
  if (!name.empty() || config.listeners.empty()) return nullptr;
  for (const auto& listener : config.listeners) {
    const auto parsed = routing::parse_user_name(user, listener.fixed);
    const auto* known = std::get_if<routing::UserName>(&parsed);
    if (known == nullptr || !listener.fixed.branch.empty()) continue;
    const auto branch = config.branches.find(known->branch);
    if (branch == config.branches.end()) continue;
    routing::RouteRequest request;
    request.mode = listener.mode;
    request.target = known->target;
    if (!routing::check_static(*branch->second, request)) return &listener;
  }
  return &config.listeners.front();
}

}  // namespace

void Control::explain_route(std::string listener, std::string user, std::function<void(RouteAnswer)> done) {
  PendingRoute route{std::move(listener), std::move(user), base::from_hrtime(uv_hrtime()) + kSettleTimeout,
                     std::move(done)};
  if (try_explain(route, false)) return;
  pending_routes_.push_back(std::move(route));
  uv_timer_start(
      &tick_, [](uv_timer_t* timer) { static_cast<Control*>(timer->data)->on_tick(); }, 100, 100);
}

/// True when the answer was given. `last`: give it whatever is known.
bool Control::try_explain(const PendingRoute& route, bool last) {
  RouteAnswer answer;
  const auto* listener = find_listener(*config_, route.listener, route.user);
  if (listener == nullptr) {
    answer.text_decision = "no listener of this name";
    answer.reason = "bad_user";
    route.done(std::move(answer));
    return true;
  }
  auto parsed = routing::parse_user_name(route.user, listener->fixed);
  if (const auto* refusal = std::get_if<routing::Refusal>(&parsed)) {
    route.done(from_refusal(*refusal, std::move(answer)));
    return true;
  }
  const auto& user = std::get<routing::UserName>(parsed);
  answer.role = user.role;
  answer.branch = user.branch;
  answer.target = std::string(routing::to_text(user.target));
  const auto known = config_->branches.find(user.branch);
  if (known == config_->branches.end()) {
    route.done(from_refusal(routing::unknown_branch_refusal(user), std::move(answer)));
    return true;
  }
  routing::RouteRequest request;
  request.mode = listener->mode;
  request.target = user.target;
  request.zone = config_->zone;
  request.now = base::from_hrtime(uv_hrtime());
  RAND_bytes(reinterpret_cast<unsigned char*>(&request.random), sizeof request.random);
  if (const auto refusal = routing::check_static(*known->second, request)) {
    route.done(from_refusal(*refusal, std::move(answer)));
    return true;
  }
  monitor_->want(user.branch);
  const auto view = monitor_->view(user.branch);
  if (view == nullptr || (!view->settled && !last)) return false;
  const auto result = routing::choose(*view, request, &answer.candidates);
  if (const auto* decision = std::get_if<routing::Decision>(&result)) {
    answer.ok = true;
    answer.text_decision = routing::destination_name(*view, *decision);
    answer.reason = std::string(routing::to_word(decision->reason));
    answer.address = decision->address.to_string();
    route.done(std::move(answer));
  } else if (const auto* not_now = std::get_if<routing::NotNow>(&result)) {
    route.done(from_refusal(not_now->refusal, std::move(answer)));
  } else {
    route.done(from_refusal(std::get<routing::Refusal>(result), std::move(answer)));
  }
  return true;
}

}  // namespace pointsman::proxy
