#pragma once
// Probes one member over one connection that stays. An answer that does not come on the old connection is asked for
// once more on a new one before there is a verdict (F33). Loop thread only.

#include <cstddef>
#include <string>

#include "base/clock.h"
#include "proxy/monitor/pg_connection.h"
#include "proxy/monitor/probe_query.h"
#include "routing/config.h"
#include "routing/snapshot.h"
#include "routing/topology.h"

namespace pointsman::proxy {

/// The probe login's way to a member.
PgTarget probe_target(const routing::BranchConfig& branch, const routing::MemberConfig& member,
                      const routing::SocketAddress& address);
/// The same place, login and TLS: an open connection may stay.
bool same_target(const PgTarget& a, const PgTarget& b);

class MemberProbe final : private PgConnection::Owner {
 public:
  /// Called from the loop. The owner may destroy the probe in each of them.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void on_probe_answer(std::size_t member, const ProbeAnswer& answer) = 0;
    virtual void on_probe_failure(std::size_t member, routing::ProbeFailure failure, const PgFailure& cause) = 0;
    /// The connection was lost between probes: a reason to probe at once.
    virtual void on_probe_lost(std::size_t member) = 0;
  };

  MemberProbe(SqlContext& sql, const HandleCount& count, Owner& owner, std::size_t member);

  /// A reload may move a member.
  void set_member(std::size_t member) { member_ = member; }
  /// Where to probe from now on. Closes a connection that leads elsewhere; a probe under way then starts anew there.
  void set_target(PgTarget target);
  /// Requires: !in_flight(), and a target was set. Ends in on_probe_answer or on_probe_failure within twice the
  /// timeout.
  void start(base::Duration timeout);
  bool in_flight() const { return in_flight_; }
  /// Whether the login is a superuser. Only during on_probe_answer.
  bool is_superuser() const { return connection_.parameter("is_superuser") == "on"; }

 private:
  void on_pg_connected() override;
  void on_pg_rows(const PgRows& rows) override;
  void on_pg_failure(const PgFailure& failure) override;
  void connect();

  PgConnection connection_;
  Owner& owner_;
  std::size_t member_;
  PgTarget target_;
  base::Duration timeout_{};
  base::Instant deadline_{};
  bool in_flight_ = false;
  bool new_connection_ = false;  // this probe has opened its own
  bool logged_in_ = false;       // … or has got past the login
  bool asked_again_ = false;
};

}  // namespace pointsman::proxy
