#include "proxy/discovery/http_ask.h"

#include <utility>

#include "base/check.h"

namespace pointsman::proxy {

base::Result<std::shared_ptr<const protocol::ClientTlsContext>> HttpTls::context() {
  struct stat found {};
  const bool seen = !ca_file_.empty() && ::stat(ca_file_.c_str(), &found) == 0;
  const bool same = seen ? found.st_ino == inode_ && found.st_mtim.tv_sec == changed_.tv_sec &&
                               found.st_mtim.tv_nsec == changed_.tv_nsec
                         : ca_file_.empty();
  if (made_ != nullptr && same) return made_;
  protocol::ClientTlsSettings settings;
  settings.mode = protocol::BackendTlsMode::kVerifyFull;
  settings.ca_file = ca_file_;
  settings.alpn = "http/1.1";
  auto made = protocol::ClientTlsContext::create(settings);
  if (!made.ok()) return base::Error{made.error()};
  made_ = std::move(made.value());
  changed_ = found.st_mtim;
  inode_ = found.st_ino;
  return made_;
}

HttpAsk::HttpAsk(DiscoveryContext& context, HttpCall::Owner& owner, std::string ca_file)
    : context_(context),
      owner_(owner),
      tls_(std::move(ca_file)),
      timer_(context.http.loop->uv(), context.http.handles, this,
             [](void* self) { static_cast<HttpAsk*>(self)->on_timer(); }) {}

void HttpAsk::start(HttpQuery query) {
  POINTSMAN_CHECK(!busy());
  const std::string host = query.url.host;
  waiting_ = std::move(query);
  failure_.clear();
  if (waiting_->url.tls) {
    auto made = tls_.context();
    if (!made.ok()) return fail_later(made.error());
    waiting_->tls = std::move(made.value());
  }
  context_.resolver->refresh(host, std::chrono::seconds(5), loop_clock());
  if (dial()) return;
  if (!context_.resolver->in_flight(host))
    return fail_later("the name does not resolve: " + std::string(context_.resolver->error_of(host)));
  timer_.start(waiting_->answer_by);
}

bool HttpAsk::dial() {
  const auto& found = context_.resolver->addresses_of(waiting_->url.host);
  if (found.empty()) return false;
  HttpQuery query = *std::exchange(waiting_, std::nullopt);
  query.address = found[turn_ % found.size()].with_port(query.url.port);
  timer_.stop();
  HttpCall::Owner& owner = *this;
  call_ = std::make_unique<HttpCall>(context_.http, owner, std::move(query));
  return true;
}

void HttpAsk::on_looked_up(const std::string& host) {
  if (!waiting_ || !failure_.empty() || waiting_->url.host != host || dial()) return;
  fail_later("the name does not resolve: " + std::string(context_.resolver->error_of(host)));
}

void HttpAsk::fail_later(std::string why) {
  failure_ = std::move(why);
  timer_.start(loop_clock());
}

void HttpAsk::on_timer() {
  HttpCall::Outcome outcome;
  outcome.error = failure_.empty() ? "the name has not been resolved in time" : std::exchange(failure_, {});
  waiting_.reset();
  owner_.on_http_done(outcome);
}

void HttpAsk::on_http_done(const HttpCall::Outcome& outcome) {
  if (outcome.status == 0) ++turn_;    // the host may have another address that answers
  const auto over = std::move(call_);  // lives to the end of this call, and the owner may start another
  owner_.on_http_done(outcome);
}

void HttpAsk::cancel() {
  timer_.stop();
  waiting_.reset();
  failure_.clear();
  call_.reset();
}

}  // namespace pointsman::proxy
