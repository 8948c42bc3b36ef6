#include "proxy/discovery/kubernetes_source.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <random>
#include <utility>

#include "routing/config_files.h"

namespace pointsman::proxy {
namespace {

constexpr base::Duration kFirstPause = std::chrono::milliseconds(250);
constexpr base::Duration kLongestPause = std::chrono::seconds(30);
/// A watch that lasted so long was a good one: the next pause is a short one again.
constexpr base::Duration kGoodWatch = std::chrono::seconds(5);
constexpr base::Duration kSlicesAnswerTimeout = std::chrono::seconds(10);
/// The server ends a watch after this, between once and twice: routers that began together drift apart.
constexpr unsigned kWatchSeconds = 240;
constexpr base::Duration kWatchGrace = std::chrono::seconds(30);

/// Where a pod finds its API server, by the environment that every pod has.
std::optional<routing::HttpUrl> api_of_environment() {
  const char* host = std::getenv("KUBERNETES_SERVICE_HOST");
  const char* port = std::getenv("KUBERNETES_SERVICE_PORT");
  if (host == nullptr || port == nullptr) return std::nullopt;
  const bool ipv6 = std::string_view(host).find(':') != std::string_view::npos;
  const std::string name = ipv6 ? "[" + std::string(host) + "]" : std::string(host);
  return routing::HttpUrl::parse("https://" + name + ":" + port);
}

}  // namespace

KubernetesSource::KubernetesSource(DiscoveryContext& context, DiscoverySource::Owner& owner,
                                   routing::KubernetesDiscovery config)
    : DiscoverySource(context),
      owner_(owner),
      config_(std::move(config)),
      slices_(config_),
      ask_(context, *this, config_.ca),
      timer_(context.http.loop->uv(), context.http.handles, this,
             [](void* self) { static_cast<KubernetesSource*>(self)->on_timer(); }),
      backoff_(kFirstPause) {
  timer_.start(loop_clock());
}

void KubernetesSource::on_timer() {
  watch_next_ ? watch() : list();
}

/// Fills in where, and as whom. False: it failed, and was told.
bool KubernetesSource::prepare(HttpQuery& query) {
  const auto api = config_.api ? config_.api : api_of_environment();
  if (!api) {
    fail("no \"api\" is given, and the environment has no KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT");
    return false;
  }
  auto token = routing::read_file(config_.token_file, routing::kMaxSecretBytes);
  if (!token.ok()) {
    fail("the service account's token: " + token.error());
    return false;
  }
  std::string& text = token.value();
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
  const bool lawful =
      !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
  query.bearer = base::SecretString(std::move(text));
  if (!lawful) {
    fail("the service account's token: " + config_.token_file + " holds none");
    return false;
  }
  query.url = *api;
  std::string services = config_.service;
  if (!config_.leader_service.empty()) services += "," + config_.leader_service;
  // kubernetes.io/service-name in (…); the names are checked to need no escape.
  query.target = "/apis/discovery.k8s.io/v1/namespaces/" + config_.namespace_name +
                 "/endpointslices?labelSelector=kubernetes.io%2Fservice-name%20in%20%28" + services + "%29";
  began_ = loop_clock();
  query.answer_by = began_ + kSlicesAnswerTimeout;
  return true;
}

void KubernetesSource::list() {
  phase_ = Phase::kListing;
  watch_next_ = false;
  HttpQuery query;
  if (!prepare(query)) return;
  query.most_body = routing::kMaxSliceList;
  ask_.start(std::move(query));
}

void KubernetesSource::watch() {
  phase_ = Phase::kWatching;
  watch_next_ = false;
  line_.clear();
  HttpQuery query;
  if (!prepare(query)) return;
  std::uniform_int_distribution<unsigned> seconds(kWatchSeconds, 2 * kWatchSeconds);
  const unsigned length = seconds(*context_.random);
  query.target += "&watch=1&allowWatchBookmarks=true&resourceVersion=" + slices_.resource_version() +
                  "&timeoutSeconds=" + std::to_string(length);
  query.stream = true;
  query.stream_until = began_ + std::chrono::seconds(length) + kWatchGrace;
  ask_.start(std::move(query));
}

void KubernetesSource::on_http_piece(std::string_view piece) {
  bool news = false;
  while (!piece.empty()) {
    const std::size_t end = piece.find('\n');
    line_.append(piece.substr(0, end));
    if (line_.size() > routing::kMaxWatchEvent) {
      ask_.cancel();
      return fail("an event is longer than " + std::to_string(routing::kMaxWatchEvent) + " bytes");
    }
    if (end == std::string_view::npos) break;
    piece.remove_prefix(end + 1);
    const std::string line = std::exchange(line_, {});
    if (line.empty()) continue;
    const auto applied = slices_.apply(line);
    switch (applied.event) {
      case routing::EndpointSlices::Event::kChanged:
      case routing::EndpointSlices::Event::kBookmark:
        news = true;
        break;
      case routing::EndpointSlices::Event::kExpired:
        ask_.cancel();
        return list_anew();
      case routing::EndpointSlices::Event::kFailed:
        ask_.cancel();
        return fail(applied.error);
    }
  }
  if (news) tell();
}

void KubernetesSource::on_http_done(const HttpCall::Outcome& outcome) {
  if (phase_ == Phase::kListing) return listed(outcome);
  watch_ended(outcome);
}

void KubernetesSource::listed(const HttpCall::Outcome& outcome) {
  if (!outcome.error.empty() || outcome.status != 200) return fail(said(outcome));
  if (const auto fault = slices_.load_list(outcome.body)) return fail(*fault);
  tell();
  watch();
}

void KubernetesSource::watch_ended(const HttpCall::Outcome& outcome) {
  if (outcome.status == 410) return list_anew();
  if (outcome.status != 200) return fail(said(outcome));
  // The server ends every watch one day, and a connection breaks: what came until then counts.
  watch_next_ = true;
  pause();
}

/// What was missed cannot be told any more. Not a failure: what is known stays in force until the list is here.
void KubernetesSource::list_anew() {
  watch_next_ = false;
  pause();
}

void KubernetesSource::pause() {
  phase_ = Phase::kPausing;
  const auto now = loop_clock();
  if (now - began_ >= kGoodWatch) backoff_ = kFirstPause;
  std::uniform_real_distribution<double> jitter(0.5, 1.5);
  timer_.start(now + std::chrono::duration_cast<base::Duration>(backoff_ * jitter(*context_.random)));
  backoff_ = std::min(backoff_ * 2, kLongestPause);
}

void KubernetesSource::fail(const std::string& why) {
  watch_next_ = false;
  pause();
  owner_.on_discovery_failed("Kubernetes: " + why);
}

void KubernetesSource::tell() {
  const auto found = slices_.discovered();
  if (!found.ok()) return owner_.on_discovery_failed("Kubernetes: " + found.error());
  owner_.on_discovered(found.value());
}

std::string KubernetesSource::said(const HttpCall::Outcome& outcome) const {
  if (!outcome.error.empty()) return outcome.error;
  const std::string message = routing::kubernetes_status_message(outcome.body);
  return "the API server answers with status " + std::to_string(outcome.status) +
         (message.empty() ? "" : ": " + message);
}

}  // namespace pointsman::proxy
