#include "proxy/monitor/member_probe.h"

#include <utility>

#include "base/check.h"

namespace pointsman::proxy {

PgTarget probe_target(const routing::BranchConfig& branch, const routing::MemberConfig& member,
                      const routing::SocketAddress& address) {
  PgTarget target;
  target.host = member.host;
  target.address = address;
  target.user = branch.probe.user;
  target.password = branch.probe.password;
  target.database = branch.probe.database;
  target.application_name = "pointsman-probe";
  target.options = safe_session_options(branch.probe.timeout);
  target.tls = branch.backend_tls;
  return target;
}

bool same_target(const PgTarget& a, const PgTarget& b) {
  return a.host == b.host && a.address == b.address && a.user == b.user && a.password == b.password &&
         a.database == b.database && a.application_name == b.application_name && a.options == b.options &&
         a.tls.server_name == b.tls.server_name && a.tls.context_key() == b.tls.context_key();
}

MemberProbe::MemberProbe(SqlContext& sql, const HandleCount& count, Owner& owner, std::size_t member)
    : connection_(sql, count, *this), owner_(owner), member_(member) {}

void MemberProbe::set_target(PgTarget target) {
  if (same_target(target, target_)) return;
  target_ = std::move(target);
  connection_.close();
  if (in_flight_) connect();
}

void MemberProbe::start(base::Duration timeout) {
  POINTSMAN_CHECK(!in_flight_ && target_.address.known());
  in_flight_ = true;
  asked_again_ = false;
  timeout_ = timeout;
  if (!connection_.is_open()) return connect();
  new_connection_ = false;
  logged_in_ = true;
  deadline_ = loop_clock() + timeout_;
  connection_.query(kProbeQuery, {}, deadline_);
}

void MemberProbe::connect() {
  new_connection_ = true;
  logged_in_ = false;
  deadline_ = loop_clock() + timeout_;
  connection_.connect(target_, deadline_);
}

void MemberProbe::on_pg_connected() {
  logged_in_ = true;
  connection_.query(kProbeQuery, {}, deadline_);
}

void MemberProbe::on_pg_rows(const PgRows& rows) {
  in_flight_ = false;
  ProbeRow row;
  for (std::size_t column = 0; column < kProbeColumns; ++column) row[column] = rows.value(0, static_cast<int>(column));
  const auto answer = rows.rows() == 1 ? parse_probe_row(row) : std::nullopt;
  if (answer) return owner_.on_probe_answer(member_, *answer);
  connection_.close();
  owner_.on_probe_failure(member_, routing::ProbeFailure::kQuery,
                          {PgFailure::Kind::kNetwork, {}, "the answer is not what was asked for"});
}

void MemberProbe::on_pg_failure(const PgFailure& failure) {
  if (!in_flight_) return owner_.on_probe_lost(member_);
  if (!new_connection_ && !connection_.is_open()) return connect();
  // 55000 "recovery is (not) in progress": promoted between two functions of the same statement.
  if (connection_.is_open() && failure.sqlstate == "55000" && !std::exchange(asked_again_, true)) {
    return connection_.query(kProbeQuery, {}, deadline_);
  }
  in_flight_ = false;
  owner_.on_probe_failure(member_, classify_probe_failure(failure, logged_in_), failure);
}

}  // namespace pointsman::proxy
