#pragma once
// What each path of the admin endpoint does. Knows no socket: a request goes in, one answer comes out, at once or
// later. Control thread.

#include <functional>

#include "base/clock.h"
#include "base/secret.h"
#include "proxy/admin/control_view.h"
#include "proxy/admin/http_message.h"
#include "proxy/admin/metrics_page.h"
#include "proxy/admin/overview_json.h"

namespace pointsman::proxy {

/// What an endpoint lets its callers do.
struct EndpointRules {
  bool metrics_only = false;        ///< /metrics, /healthz and /readyz alone
  const base::SecretString& token;  ///< for writes; empty: writes from loopback only
};

class Routes {
 public:
  using Reply = std::function<void(HttpResponse)>;

  explicit Routes(ControlView& control) : control_(control), metrics_(control) {}
  Routes(const Routes&) = delete;
  Routes& operator=(const Routes&) = delete;

  /// Calls `reply` once: before it returns, or later from the control's loop.
  void handle(const HttpRequest& request, const EndpointRules& rules, base::Instant now, Reply reply);

 private:
  struct Route;
  void metrics(const RequestTarget& target, base::Instant now, const Reply& reply);
  void healthz(const RequestTarget& target, base::Instant now, const Reply& reply);
  void readyz(const RequestTarget& target, base::Instant now, const Reply& reply);
  void page(const RequestTarget& target, base::Instant now, const Reply& reply);
  void overview(const RequestTarget& target, base::Instant now, const Reply& reply);
  void events(const RequestTarget& target, base::Instant now, const Reply& reply);
  void status(const RequestTarget& target, base::Instant now, const Reply& reply);
  void sessions(const RequestTarget& target, base::Instant now, const Reply& reply);
  void explain_route(const RequestTarget& target, base::Instant now, const Reply& reply);
  void reload(const RequestTarget& target, base::Instant now, const Reply& reply);
  void hold(const RequestTarget& target, base::Instant now, const Reply& reply);
  void release(const RequestTarget& target, base::Instant now, const Reply& reply);
  void adopt(const RequestTarget& target, base::Instant now, const Reply& reply);
  void branches(const RequestTarget& target, base::Instant now, const Reply& reply);
  void branch(const HttpRequest& request, const EndpointRules& rules, const RequestTarget& target, const Reply& reply);

  ControlView& control_;
  MetricsPage metrics_;
  SearchIndex search_index_;
};

/// May this caller write? nullopt: yes; else the answer that says why not. The token is compared in constant time.
std::optional<HttpResponse> refuse_write(const HttpRequest& request, const base::SecretString& token);

}  // namespace pointsman::proxy
