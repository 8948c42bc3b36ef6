#include "proxy/fleet/peers.h"

#include <openssl/rand.h>

#include <optional>
#include <utility>

#include "base/check.h"
#include "proxy/fleet/peer_answerer.h"
#include "proxy/fleet/peer_asker.h"
#include "proxy/monitor/uv_handles.h"

namespace pointsman::proxy {

namespace {
/// While something has a deadline, and else: for the name's addresses.
constexpr base::Duration kTick = std::chrono::milliseconds(100);
constexpr base::Duration kQuietTick = std::chrono::seconds(10);
}  // namespace

struct Peers::Impl {
  Impl(EventLoop& loop, std::size_t workers, Host& host)
      : context(loop),
        asker(context, [&host](const PeersWanted& wanted,
                               metrics::CancelOutcome outcome) { host.deliver_cancel_answer(wanted, outcome); }),
        answerer(context, workers, [&host](const protocol::CancelRequest& request, std::uint64_t number) {
          host.search_for_peer(request, number);
        }) {
    context.wake = [this] { wake(); };
    POINTSMAN_CHECK(RAND_bytes(context.router.data(), static_cast<int>(context.router.size())) == 1);
  }

  void wake() {
    if (closing) return;
    if (!timer) {
      timer.emplace(context.loop->uv(), handles, this, [](void* self) { static_cast<Impl*>(self)->on_timer(); });
    }
    const auto at = loop_clock() + kTick;
    if (timer->running() && next_tick <= at) return;
    next_tick = at;
    timer->start(at);
  }

  void on_timer() {
    const auto now = loop_clock();
    asker.on_tick(now);
    answerer.on_tick(now);
    next_tick = now + (asker.busy() || answerer.busy() ? kTick : kQuietTick);
    timer->start(next_tick);
  }

  PeerContext context;
  PeerAsker asker;
  PeerAnswerer answerer;
  HandleCount handles = make_handle_count();
  std::optional<LoopTimer> timer;  // from the first need of it on
  base::Instant next_tick{};
  bool closing = false;
};

Peers::Peers(EventLoop& loop, std::size_t workers, Host& host) : impl_(std::make_unique<Impl>(loop, workers, host)) {}

Peers::~Peers() {
  POINTSMAN_CHECK(idle());
}

base::Result<bool> Peers::listen(const routing::PeersConfig& config) {
  return impl_->answerer.listen(config.address, config.listen_port);
}

void Peers::configure(const routing::Config& config, const TlsContexts& tls) {
  impl_->asker.configure(config.cancel.peers, tls.peer_client);
  impl_->answerer.configure(tls.peer_server);
  if (config.cancel.peers) impl_->wake();
}

void Peers::ask(PeersWanted wanted) {
  impl_->asker.ask(std::move(wanted));
}

void Peers::on_found(std::uint64_t number, metrics::CancelOutcome outcome) {
  impl_->answerer.on_found(number, outcome);
}

PeerStats Peers::stats() const {
  return {impl_->asker.known(), impl_->answerer.answers()};
}

void Peers::shut_down() {
  if (std::exchange(impl_->closing, true)) return;
  impl_->asker.shut_down();
  impl_->answerer.shut_down();
  impl_->timer.reset();
}

bool Peers::idle() const {
  return impl_->asker.idle() && impl_->answerer.idle() && *impl_->handles == 0;
}

}  // namespace pointsman::proxy
