#include "proxy/admin/routes.h"

#include <doctest/doctest.h>

#include <optional>

#include "tests/unit/proxy/admin_fake_control.h"

using namespace pointsman;
using proxy::EndpointRules;
using proxy::FakeControl;
using proxy::HttpMethod;
using proxy::HttpRequest;
using proxy::HttpResponse;
using proxy::Routes;

namespace {

struct World {
  FakeControl control;
  Routes routes{control};
  base::SecretString token;
  bool metrics_only = false;
  int replies = 0;
  std::optional<HttpResponse> last;

  void send(const HttpRequest& request) {
    last.reset();
    routes.handle(request, EndpointRules{.metrics_only = metrics_only, .token = token}, proxy::fake_now(),
                  [this](HttpResponse response) {
                    ++replies;
                    last = std::move(response);
                  });
  }
  const HttpResponse& get(std::string target) {
    send({.method = HttpMethod::kGet,
          .target = std::move(target),
          .authorization = {},
          .has_origin = false,
          .from_loopback = true});
    REQUIRE(last.has_value());
    return *last;
  }
  const HttpResponse& post(std::string authorization, bool from_loopback = true, bool has_origin = false,
                           std::string target = "/api/reload") {
    send({.method = HttpMethod::kPost,
          .target = std::move(target),
          .authorization = std::move(authorization),
          .has_origin = has_origin,
          .from_loopback = from_loopback});
    REQUIRE(last.has_value());
    return *last;
  }
};

}  // namespace

TEST_CASE("healthz answers whatever the router does; readyz follows listening and draining") {
  World world;
  CHECK(world.get("/healthz").body == "ok\n");
  CHECK(world.get("/readyz").status == 200);
  world.control.is_listening = false;
  CHECK(world.get("/readyz").status == 503);
  CHECK(world.get("/readyz").body == "not ready: not listening yet\n");
  CHECK(world.get("/healthz").status == 200);
  world.control.is_listening = true;
  world.control.is_draining = true;
  CHECK(world.get("/readyz").body == "not ready: draining\n");
}

TEST_CASE("an unknown path is 404, a wrong method 405 that says which is right") {
  World world;
  for (const auto* path : {"/index.html", "/assets", "/assets/", "/assets/none.js", "/api", "/metrics/", "/METRICS",
                           "/api/reload/x", "/../metrics"})
    CHECK(world.get(path).status == 404);
  CHECK(world.get("/api/reload").status == 405);
  CHECK(world.last->headers.front() == std::pair<std::string, std::string>("Allow", "POST"));
  world.send({.method = HttpMethod::kPost,
              .target = "/metrics",
              .authorization = {},
              .has_origin = false,
              .from_loopback = true});
  CHECK(world.last->status == 405);
  CHECK(world.last->headers.front() == std::pair<std::string, std::string>("Allow", "GET, HEAD"));
  world.send({.method = HttpMethod::kOther,
              .target = "/api/status",
              .authorization = {},
              .has_origin = false,
              .from_loopback = true});
  CHECK(world.last->status == 405);
  world.send({.method = HttpMethod::kHead,
              .target = "/healthz",
              .authorization = {},
              .has_origin = false,
              .from_loopback = true});
  CHECK(world.last->status == 200);
}

TEST_CASE("the metrics endpoint has metrics and health and nothing else") {
  World world;
  world.metrics_only = true;
  CHECK(world.get("/metrics").status == 200);
  CHECK(world.last->content_type == "text/plain; version=0.0.4; charset=utf-8");
  CHECK(world.get("/healthz").status == 200);
  CHECK(world.get("/readyz").status == 200);
  for (const auto* path :
       {"/", "/assets/app.js", "/api/overview", "/api/events", "/api/status", "/api/sessions", "/api/route?user=a.b"})
    CHECK(world.get(path).status == 404);
  CHECK(world.post("").status == 404);
  CHECK(world.control.reloads_asked == 0);
}

TEST_CASE("a malformed query or one too many parameter is 400") {
  World world;
  CHECK(world.get("/api/status?branch=%4").status == 400);
  CHECK(world.get("/api/status?branches=orders").status == 400);
  CHECK(world.last->body == "{\"error\":\"no such query parameter here: branches\"}\n");
  CHECK(world.get("/metrics?x=1").status == 400);
  CHECK(world.get("/api/route").status == 400);
  CHECK(world.get("/api/route?user=a&user=b").status == 400);
}

TEST_CASE("status lists all branches or the one asked for") {
  World world;
  CHECK(world.get("/api/status").status == 200);
  CHECK(world.last->body.find("\"spare\"") != std::string::npos);
  CHECK(world.get("/api/status?branch=orders").body.find("\"spare\"") == std::string::npos);
  CHECK(world.get("/api/status?branch=none").status == 404);
  CHECK(world.last->body == "{\"error\":\"no branch \\\"none\\\" is configured\"}\n");
}

TEST_CASE("sessions are answered when the workers have told theirs") {
  World world;
  world.send({.method = HttpMethod::kGet,
              .target = "/api/sessions",
              .authorization = {},
              .has_origin = false,
              .from_loopback = false});
  CHECK_FALSE(world.last.has_value());
  REQUIRE(world.control.waiting_sessions);
  proxy::SessionRow row;
  row.user = "alice.orders";
  world.control.waiting_sessions({row});
  REQUIRE(world.last.has_value());
  CHECK(world.last->body.find("\"user\":\"alice.orders\"") != std::string::npos);
  CHECK(world.replies == 1);
}

TEST_CASE("route asks for the listener named, or leaves the choice to the control") {
  World world;
  world.control.route_answer.ok = true;
  CHECK(world.get("/api/route?listener=pooled&user=alice.orders%7Creads").status == 200);
  CHECK(world.control.asked_listener == "pooled");
  CHECK(world.control.asked_user == "alice.orders|reads");
  CHECK(world.get("/api/route?user=bob.orders").status == 200);
  CHECK(world.control.asked_listener == "");
  CHECK(world.get("/api/route?user=bob.orders&listener=").status == 404);
  CHECK(world.get("/api/route?user=bob.orders&listener=x").status == 404);
  CHECK(world.last->body.find("there are: direct, pooled") != std::string::npos);
}

TEST_CASE("without a token writes are taken from loopback only") {
  World world;
  CHECK(world.post("", true).status == 200);
  CHECK(world.last->body == "{\"applied\":true,\"errors\":[]}\n");
  CHECK(world.control.reloads_asked == 1);
  CHECK(world.post("", false).status == 403);
  CHECK(world.post("Bearer ", false).status == 403);
  CHECK(world.control.reloads_asked == 1);
}

TEST_CASE("with a token everybody needs exactly that token") {
  World world;
  world.token = base::SecretString("s3cret");
  for (const auto* wrong : {"", "s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crets", "Bearer S3cret",
                            "Basic s3cret", "Bearer s3cret "}) {
    CAPTURE(wrong);
    CHECK(world.post(wrong, true).status == 401);
    CHECK(world.last->headers.front().first == "WWW-Authenticate");
  }
  CHECK(world.control.reloads_asked == 0);
  CHECK(world.post("Bearer s3cret", false).status == 200);
  CHECK(world.post("bEARER   s3cret", false).status == 200);
  CHECK(world.control.reloads_asked == 2);
}

TEST_CASE("a request that a web page sent changes nothing, token or not") {
  World world;
  CHECK(world.post("", true, true).status == 403);
  world.token = base::SecretString("s3cret");
  CHECK(world.post("Bearer s3cret", true, true).status == 403);
  CHECK(world.control.reloads_asked == 0);
}

TEST_CASE("hold, release and adopt are writes: they need the token, and POST") {
  World world;
  world.token = base::SecretString("s3cret");
  for (const auto* target : {"/api/hold?branch=orders", "/api/release?branch=orders", "/api/adopt?branch=orders"}) {
    CAPTURE(target);
    CHECK(world.get(target).status == 405);
    CHECK(world.post("", true, false, target).status == 401);
    CHECK(world.post("Bearer wrong", true, false, target).status == 401);
    CHECK(world.post("Bearer s3cret", true, true, target).status == 403);
  }
  CHECK(world.control.switches_asked.empty());
  CHECK(world.post("Bearer s3cret", false, false, "/api/hold?branch=orders").status == 200);
  CHECK(world.post("Bearer s3cret", false, false, "/api/hold?branch=orders&timeout=5m&force=true").status == 200);
  CHECK(world.post("Bearer s3cret", false, false, "/api/hold?force=false&branch=orders&timeout=1s").status == 200);
  CHECK(world.post("Bearer s3cret", false, false, "/api/release?branch=orders").status == 200);
  CHECK(world.post("Bearer s3cret", false, false, "/api/adopt?branch=orders").status == 200);
  CHECK(world.control.switches_asked == std::vector<std::string>{"hold orders 30s", "hold orders 300s force",
                                                                 "hold orders 1s", "release orders", "adopt orders"});
}

TEST_CASE("a hold is at most five minutes, and what is no lease or no flag is 400") {
  World world;
  for (const auto* query : {"timeout=0s", "timeout=999ms", "timeout=301s", "timeout=6m", "timeout=", "timeout=30",
                            "force=1", "force=", "lease=30s"}) {
    CAPTURE(query);
    CHECK(world.post("", true, false, std::string("/api/hold?branch=orders&") + query).status == 400);
  }
  for (const auto* path : {"/api/hold", "/api/release", "/api/adopt"})
    CHECK(world.post("", true, false, path).status == 400);
  CHECK(world.post("", true, false, "/api/release?branch=orders&force=true").status == 400);
  CHECK(world.control.switches_asked.empty());
}

TEST_CASE("a step of a switch is told by status and text") {
  using Outcome = proxy::SwitchAnswer::Outcome;
  World world;
  world.control.switch_answer.message = "m";
  for (const auto& [outcome, status] :
       {std::pair(Outcome::kDone, 200u), std::pair(Outcome::kUnknownBranch, 404u), std::pair(Outcome::kNotOnHold, 404u),
        std::pair(Outcome::kRefused, 409u), std::pair(Outcome::kFailed, 503u)}) {
    world.control.switch_answer.outcome = outcome;
    CHECK(world.post("", true, false, "/api/hold?branch=orders").status == status);
    CHECK(world.last->body ==
          (status == 200 ? "{\"done\":true,\"message\":\"m\"}\n" : "{\"done\":false,\"error\":\"m\"}\n"));
  }
  world.control.switch_answer = {
      .outcome = Outcome::kRefused,
      .message = "no",
      .warnings = {"w"},
      .transactions = {{.pid = 7, .user = "app", .state = "idle in transaction", .age_seconds = 12.3456}},
      .pgbouncers = {{.name = "app/10.0.0.21:6432", .state = "running", .error = "e"}},
      .primary = "pg-0",
      .system_identifier = {},
      .held_seconds = 1.5,
      .ends_in_seconds = 2.0};
  CHECK(world.post("", true, false, "/api/hold?branch=orders").body ==
        R"({"done":false,"error":"no","primary":"pg-0","held_seconds":1.5,"ends_in_seconds":2.0,)"
        R"("transactions":[{"pid":7,"user":"app","state":"idle in transaction","age_seconds":12.346}],)"
        R"("pgbouncers":[{"name":"app/10.0.0.21:6432","state":"running","error":"e"}],"warnings":["w"]})"
        "\n");
}

TEST_CASE("a reload that changed nothing is 422 and says why") {
  World world;
  world.control.reload_result = {.applied = false, .errors = {"/etc/p.json: /listeners: missing"}};
  CHECK(world.post("").status == 422);
  CHECK(world.last->body == "{\"applied\":false,\"errors\":[\"/etc/p.json: /listeners: missing\"]}\n");
}

TEST_CASE("the status page is read with a policy that lets it do nothing else") {
  World world;
  const auto header = [&](std::string_view name) {
    for (const auto& [key, value] : world.last->headers) {
      if (key == name) return value;
    }
    return std::string();
  };
  CHECK(world.get("/").status == 200);
  CHECK(world.last->content_type == "text/html; charset=utf-8");
  CHECK(world.last->body.starts_with("<!doctype html>"));
  CHECK(header("Content-Security-Policy").starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
  CHECK(header("Content-Security-Policy").find("frame-ancestors 'none'") != std::string::npos);
  CHECK(header("Referrer-Policy") == "no-referrer");
  CHECK(world.get("/assets/app.js").content_type == "text/javascript; charset=utf-8");
  CHECK(world.get("/assets/page.css").content_type == "text/css; charset=utf-8");
  CHECK(world.get("/?theme=dark").status == 400);
  CHECK(world.post("", true, false, "/").status == 405);
}

TEST_CASE("an overview that has not changed is not sent again") {
  World world;
  const auto etag_of = [](const HttpResponse& response) {
    for (const auto& [key, value] : response.headers) {
      if (key == "ETag") return value;
    }
    return std::string();
  };
  const std::string etag = etag_of(world.get("/api/overview"));
  CHECK(etag.size() == 18);
  CHECK(world.last->body.find("\"orders\"") != std::string::npos);
  const auto again = [&](const std::string& known) {
    world.send({.method = HttpMethod::kGet,
                .target = "/api/overview",
                .authorization = {},
                .has_origin = false,
                .from_loopback = false,
                .if_none_match = known});
    return world.last->status;
  };
  CHECK(again(etag) == 304);
  CHECK(world.last->body.empty());
  CHECK(etag_of(*world.last) == etag);
  CHECK(again("W/\"x\", " + etag) == 304);
  CHECK(again("\"0000000000000000\"") == 200);
  world.control.in_use->on_hold = true;
  CHECK(again(etag) == 200);
}

TEST_CASE("numbers and words of the page's questions are bounded") {
  World world;
  CHECK(world.get("/api/overview?limit=500&offset=9007199254740991").status == 200);
  for (const auto* target :
       {"/api/overview?limit=501", "/api/overview?limit=-1", "/api/overview?limit=", "/api/overview?offset=1x",
        "/api/overview?offset=99999999999999999999", "/api/overview?rows=1",
        "/api/overview?search=a%20b%20c%20d%20e%20f%20g%20h%20i", "/api/events?after=x", "/api/events?limit=501"})
    CHECK(world.get(target).status == 400);
  CHECK(world.get("/api/overview?search=" + std::string(128, 'x')).status == 200);
  CHECK(world.get("/api/overview?search=" + std::string(129, 'x')).status == 400);
  CHECK(world.last->body == "{\"error\":\"search is longer than 128 bytes\"}\n");
}
