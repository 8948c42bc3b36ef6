#include "proxy/admin/routes.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include <openssl/crypto.h>

#include "proxy/admin/overview_json.h"
#include "proxy/admin/page_files.h"
#include "proxy/admin/process_stats.h"
#include "proxy/admin/status_json.h"
#include "routing/session_options.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

constexpr std::string_view kAssets = "/assets/";
constexpr std::string_view kJson = "application/json";
constexpr std::string_view kText = "text/plain; charset=utf-8";
/// Prometheus exposition format.
constexpr std::string_view kExposition = "text/plain; version=0.0.4; charset=utf-8";

HttpResponse answer(unsigned status, std::string_view type, std::string body) {
  return {.status = status, .content_type = std::string(type), .body = std::move(body), .headers = {}};
}

constexpr std::string_view kBranchPath = "/api/branches/";
constexpr std::string_view kNeedsBranch = "the query needs branch=NAME";

HttpResponse switch_response(const SwitchAnswer& done) {
  using Outcome = SwitchAnswer::Outcome;
  unsigned status = 200;
  switch (done.outcome) {
    case Outcome::kDone:
      break;
    case Outcome::kUnknownBranch:
    case Outcome::kNotOnHold:
      status = 404;
      break;
    case Outcome::kRefused:
      status = 409;
      break;
    case Outcome::kFailed:
      status = 503;
      break;
  }
  return answer(status, kJson, switch_json(done));
}

HttpResponse edit_response(const BranchEditAnswer& done) {
  using Outcome = BranchEditAnswer::Outcome;
  unsigned status = 200;
  switch (done.outcome) {
    case Outcome::kRead:
    case Outcome::kReplaced:
    case Outcome::kRemoved:
      break;
    case Outcome::kCreated:
      status = 201;
      break;
    case Outcome::kNotFound:
      status = 404;
      break;
    case Outcome::kConflict:
      status = 409;
      break;
    case Outcome::kPrecondition:
      status = 412;
      break;
    case Outcome::kInvalid:
      status = 422;
      break;
    case Outcome::kFailed:
      status = 500;
      break;
    case Outcome::kBusy:
      status = 503;
      break;
  }
  HttpResponse response = answer(status, kJson, done.outcome == Outcome::kRead ? done.text : edit_json(done));
  if (!done.etag.empty()) response.headers.emplace_back("ETag", done.etag);
  return response;
}

/// A parameter that is a number, `fallback` without it; nullopt: it is none, or above `most`.
std::optional<std::uint64_t> number_in(const RequestTarget& target, std::string_view name, std::uint64_t fallback,
                                       std::uint64_t most) {
  const std::string* text = target.find(name);
  if (text == nullptr) return fallback;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value > most) return std::nullopt;
  return value;
}

HttpResponse not_a_number(std::string_view name, std::uint64_t most) {
  return json_error(400, std::string(name) + " must be a number from 0 to " + std::to_string(most));
}

/// Beyond it a JavaScript number is not exact.
constexpr std::uint64_t kMostNumber = 9'007'199'254'740'991;

/// Compares without telling by its time how much was right. The length is no secret.
bool same_secret(std::string_view given, const std::string& wanted) {
  return given.size() == wanted.size() && CRYPTO_memcmp(given.data(), wanted.data(), wanted.size()) == 0;
}

std::string_view bearer_token(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";  // case-insensitive: RFC 9110 section 11.1
  if (authorization.size() < kScheme.size()) return {};
  const bool matches = std::equal(kScheme.begin(), kScheme.end(), authorization.begin(), [](char wanted, char c) {
    return wanted == (c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
  });
  if (!matches) return {};
  authorization.remove_prefix(kScheme.size());
  while (authorization.starts_with(' ')) authorization.remove_prefix(1);
  return authorization;
}

}  // namespace

struct Routes::Route {
  std::string_view path;
  bool writes;
  bool on_metrics_endpoint;
  /// The only query parameters it takes.
  std::array<std::string_view, 3> parameters;
  void (Routes::*handler)(const RequestTarget&, base::Instant, const Reply&);
  bool tagged = false;  ///< asked for over and over: with an ETag
};

std::optional<HttpResponse> refuse_write(const HttpRequest& request, const base::SecretString& token) {
  // The status page only reads, so an Origin is always a foreign one: a browser was talked into this.
  if (request.has_origin) return json_error(403, "requests from web pages (with an Origin header) are refused");
  if (token.empty()) {
    if (request.from_loopback) return std::nullopt;
    return json_error(403,
                      "without admin.token_file in the configuration, writes are taken from loopback addresses only");
  }
  if (same_secret(bearer_token(request.authorization), token.reveal())) return std::nullopt;
  HttpResponse refused = json_error(401, request.authorization.empty()
                                             ? "this needs the token of admin.token_file: Authorization: Bearer TOKEN"
                                             : "the token is wrong");
  refused.headers.emplace_back("WWW-Authenticate", "Bearer realm=\"pointsman\"");
  return refused;
}

void Routes::handle(const HttpRequest& request, const EndpointRules& rules, base::Instant now, Reply reply) {
  static constexpr std::array<Route, 15> kRoutes = {{
      {"/", false, false, {}, &Routes::page},
      {kAssets, false, false, {}, &Routes::page},
      {"/metrics", false, true, {}, &Routes::metrics},
      {"/healthz", false, true, {}, &Routes::healthz},
      {"/readyz", false, true, {}, &Routes::readyz},
      {"/api/status", false, false, {"branch"}, &Routes::status},
      {"/api/overview", false, false, {"search", "offset", "limit"}, &Routes::overview, true},
      {"/api/events", false, false, {"after", "branch", "limit"}, &Routes::events},
      {"/api/sessions", false, false, {}, &Routes::sessions},
      {"/api/route", false, false, {"listener", "user"}, &Routes::explain_route},
      {"/api/reload", true, false, {}, &Routes::reload},
      {"/api/hold", true, false, {"branch", "timeout", "force"}, &Routes::hold},
      {"/api/release", true, false, {"branch"}, &Routes::release},
      {"/api/adopt", true, false, {"branch"}, &Routes::adopt},
      {"/api/branches", false, false, {}, &Routes::branches},
  }};
  const auto target = parse_target(request.target);
  if (!target.ok()) return reply(json_error(400, target.error()));
  if (!rules.metrics_only && target.value().path.starts_with(kBranchPath))
    return branch(request, rules, target.value(), reply);
  const auto* route = std::find_if(kRoutes.begin(), kRoutes.end(), [&](const Route& r) {
    const bool meant = r.path == kAssets ? target.value().path.starts_with(kAssets) : r.path == target.value().path;
    return meant && (!rules.metrics_only || r.on_metrics_endpoint);
  });
  if (route == kRoutes.end()) return reply(json_error(404, "no such path"));

  const bool reads = request.method == HttpMethod::kGet || request.method == HttpMethod::kHead;
  if (route->writes ? request.method != HttpMethod::kPost : !reads) {
    HttpResponse refused = json_error(405, route->writes ? "use POST" : "use GET");
    refused.headers.emplace_back("Allow", route->writes ? "POST" : "GET, HEAD");
    return reply(std::move(refused));
  }
  if (route->writes) {
    if (auto refused = refuse_write(request, rules.token)) return reply(std::move(*refused));
  }
  for (const auto& [name, value] : target.value().query) {
    if (name.empty() ||
        std::find(route->parameters.begin(), route->parameters.end(), name) == route->parameters.end()) {
      return reply(json_error(400, "no such query parameter here: " + routing::escape_for_log(name)));
    }
  }
  if (!route->tagged) return (this->*route->handler)(target.value(), now, reply);
  (this->*route->handler)(target.value(), now, [&](HttpResponse response) {
    tag(response, request.if_none_match);
    reply(std::move(response));
  });
}

void Routes::page(const RequestTarget& target, base::Instant, const Reply& reply) {
  reply(page_response(target.path));
}

void Routes::overview(const RequestTarget& target, base::Instant, const Reply& reply) {
  const std::string* search = target.find("search");
  auto query = OverviewQuery::parse(search == nullptr ? std::string_view() : *search);
  if (!query.ok()) return reply(json_error(400, query.error()));
  const auto offset = number_in(target, "offset", 0, kMostNumber);
  if (!offset) return reply(not_a_number("offset", kMostNumber));
  const auto limit = number_in(target, "limit", OverviewQuery::kDefaultRows, OverviewQuery::kRows);
  if (!limit) return reply(not_a_number("limit", OverviewQuery::kRows));
  query.value().offset = *offset;
  query.value().limit = *limit;
  reply(answer(200, kJson, overview_json(control_, query.value(), search_index_)));
}

void Routes::events(const RequestTarget& target, base::Instant, const Reply& reply) {
  EventsQuery query;
  const auto after = number_in(target, "after", 0, kMostNumber);
  if (!after) return reply(not_a_number("after", kMostNumber));
  const auto limit = number_in(target, "limit", EventsQuery::kDefaultRows, EventRing::kEvents);
  if (!limit) return reply(not_a_number("limit", EventRing::kEvents));
  query.after = *after;
  query.limit = *limit;
  if (const std::string* branch = target.find("branch")) query.branch = *branch;
  reply(answer(200, kJson, events_json(control_, query)));
}

void Routes::metrics(const RequestTarget&, base::Instant now, const Reply& reply) {
  reply(answer(200, kExposition, metrics_.render(now, read_process_stats())));
}

void Routes::healthz(const RequestTarget&, base::Instant, const Reply& reply) {
  reply(answer(200, kText, "ok\n"));
}

void Routes::readyz(const RequestTarget&, base::Instant, const Reply& reply) {
  if (control_.draining()) return reply(answer(503, kText, "not ready: draining\n"));
  if (!control_.listening()) return reply(answer(503, kText, "not ready: not listening yet\n"));
  reply(answer(200, kText, "ready\n"));
}

void Routes::status(const RequestTarget& target, base::Instant now, const Reply& reply) {
  const std::string* branch = target.find("branch");
  auto body = status_json(control_, branch == nullptr ? std::nullopt : std::optional<std::string_view>(*branch), now);
  if (!body) return reply(json_error(404, "no branch \"" + routing::escape_for_log(*branch) + "\" is configured"));
  reply(answer(200, kJson, std::move(*body)));
}

void Routes::sessions(const RequestTarget&, base::Instant, const Reply& reply) {
  control_.collect_sessions(
      [reply](std::vector<SessionRow> rows) { reply(answer(200, kJson, sessions_json(std::move(rows)))); });
}

void Routes::explain_route(const RequestTarget& target, base::Instant, const Reply& reply) {
  const std::string* user = target.find("user");
  if (user == nullptr) return reply(json_error(400, "the query needs user=ROLE.BRANCH or user=ROLE.BRANCH%7CTARGET"));
  const auto directory = control_.directory();
  const auto& listeners = directory->config().listeners;
  const std::string* listener = target.find("listener");
  const bool known = listener == nullptr || std::any_of(listeners.begin(), listeners.end(),
                                                        [&](const auto& l) { return l.name == *listener; });
  if (!known) {
    std::string names;
    for (const auto& l : listeners) names += (names.empty() ? "" : ", ") + l.name;
    return reply(json_error(
        404, "no listener \"" + routing::escape_for_log(*listener) + "\" is configured; there are: " + names));
  }
  control_.explain_route(listener == nullptr ? "" : *listener, *user,
                         [reply](ControlView::RouteAnswer found) { reply(answer(200, kJson, route_json(found))); });
}

void Routes::reload(const RequestTarget&, base::Instant, const Reply& reply) {
  const ReloadResult result = control_.reload();
  reply(answer(result.applied ? 200 : 422, kJson, reload_json(result)));
}

void Routes::hold(const RequestTarget& target, base::Instant, const Reply& reply) {
  const std::string* branch = target.find("branch");
  if (branch == nullptr) return reply(json_error(400, kNeedsBranch));
  HoldOptions options;
  if (const std::string* timeout = target.find("timeout")) {
    const auto lease = routing::parse_duration(*timeout);
    if (!lease || *lease < std::chrono::seconds(1) || *lease > kLongestLease) {
      return reply(json_error(400, "timeout=" + routing::escape_for_log(*timeout) + " is not allowed; 1s to " +
                                       routing::format_duration(kLongestLease) + " is, as 30s or 2m"));
    }
    options.lease = *lease;
  }
  if (const std::string* force = target.find("force")) {
    if (*force != "true" && *force != "false") return reply(json_error(400, "force must be true or false"));
    options.force = *force == "true";
  }
  control_.hold(*branch, options, [reply](const SwitchAnswer& done) { reply(switch_response(done)); });
}

void Routes::release(const RequestTarget& target, base::Instant, const Reply& reply) {
  const std::string* branch = target.find("branch");
  if (branch == nullptr) return reply(json_error(400, kNeedsBranch));
  control_.release(*branch, [reply](const SwitchAnswer& done) { reply(switch_response(done)); });
}

void Routes::adopt(const RequestTarget& target, base::Instant, const Reply& reply) {
  const std::string* branch = target.find("branch");
  if (branch == nullptr) return reply(json_error(400, kNeedsBranch));
  control_.adopt_cluster(*branch, [reply](const SwitchAnswer& done) { reply(switch_response(done)); });
}

void Routes::branches(const RequestTarget&, base::Instant, const Reply& reply) {
  reply(answer(200, kJson, branch_names_json(*control_.directory())));
}

/// What is stored may hold secrets: reading it needs what writing needs.
void Routes::branch(const HttpRequest& request, const EndpointRules& rules, const RequestTarget& target,
                    const Reply& reply) {
  BranchEdit edit;
  switch (request.method) {
    case HttpMethod::kGet:
    case HttpMethod::kHead:
      edit.kind = BranchEdit::Kind::kRead;
      break;
    case HttpMethod::kPut:
      edit.kind = BranchEdit::Kind::kWrite;
      break;
    case HttpMethod::kDelete:
      edit.kind = BranchEdit::Kind::kRemove;
      break;
    case HttpMethod::kPost:
    case HttpMethod::kOther: {
      HttpResponse refused = json_error(405, "use GET, PUT or DELETE");
      refused.headers.emplace_back("Allow", "GET, HEAD, PUT, DELETE");
      return reply(std::move(refused));
    }
  }
  if (auto refused = refuse_write(request, rules.token)) return reply(std::move(*refused));
  if (!target.query.empty())
    return reply(
        json_error(400, "no such query parameter here: " + routing::escape_for_log(target.query.front().first)));
  if (!request.if_none_match.empty() && (request.if_none_match != "*" || edit.kind != BranchEdit::Kind::kWrite))
    return reply(json_error(400, "If-None-Match is taken with PUT only, and only as *"));
  edit.branch = target.path.substr(kBranchPath.size());
  edit.text = request.body;
  edit.if_match = request.if_match;
  edit.only_new = !request.if_none_match.empty();
  control_.edit_branch(std::move(edit), [reply](const BranchEditAnswer& done) { reply(edit_response(done)); });
}

}  // namespace pointsman::proxy
