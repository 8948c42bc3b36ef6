#include "proxy/monitor/pg_connection.h"

#include <openssl/x509.h>
#include <sys/stat.h>

#include <array>

#include "base/check.h"
#include "routing/username.h"

namespace pointsman::proxy {
namespace {

// libpq takes an empty value for "not given" and then asks the environment and the home folder. A path that cannot
// exist (ENOTDIR) says "none".
constexpr const char* kNoFile = "/dev/null/none";
constexpr std::size_t kMaxLogText = 256;

std::string system_authorities() {
  if (PQlibVersion() >= 160'000) return "system";
  // libpq before 16 knows no system store, only files.
  const std::array<const char*, 2> candidates = {X509_get_default_cert_file(), "/etc/ssl/certs/ca-certificates.crt"};
  for (const char* path : candidates) {
    struct stat status {};
    if (stat(path, &status) == 0 && S_ISREG(status.st_mode)) return path;
  }
  return kNoFile;  // verification then fails, saying so
}

const char* sslmode_of(routing::TlsMode mode) {
  switch (mode) {
    case routing::TlsMode::kDisable:
      return "disable";
    case routing::TlsMode::kRequire:
      return "require";
    case routing::TlsMode::kVerifyCa:
      return "verify-ca";
    case routing::TlsMode::kVerifyFull:
      return "verify-full";
  }
  POINTSMAN_CHECK(false);
}

/// The address without its port, as hostaddr wants it.
std::string numeric_host(const routing::SocketAddress& address) {
  std::array<char, INET6_ADDRSTRLEN + 1> text{};
  if (address.base.sa_family == AF_INET) {
    uv_ip4_name(&address.v4, text.data(), text.size());
  } else {
    uv_ip6_name(&address.v6, text.data(), text.size());
  }
  std::string host = text.data();
  if (address.base.sa_family == AF_INET6 && address.v6.sin6_scope_id != 0)
    host += '%' + std::to_string(address.v6.sin6_scope_id);
  return host;
}

bool is_sqlstate(std::string_view text) {
  if (text.size() != 5) return false;
  for (const char c : text) {
    if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'))) return false;
  }
  return true;
}

/// What libpq says when TLS is the trouble (fe-connect.c, fe-secure-common.c, fe-secure-openssl.c). It has no codes for
/// this, and its texts are not translated here because this process sets no locale.
bool speaks_of_tls(std::string_view message) {
  constexpr std::array<std::string_view, 7> kWords = {
      "but SSL was required",  "certificate verify failed",       "server certificate for",
      "root certificate file", "could not read certificate file", "could not load private key file",
      "private key file \""};
  for (const auto words : kWords) {
    if (message.find(words) != std::string_view::npos) return true;
  }
  return false;
}

std::string one_line(std::string_view message) {
  const auto end = message.find('\n');
  return routing::escape_for_log(message.substr(0, end), kMaxLogText);
}

bool is_copy(ExecStatusType status) {
  return status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
}

}  // namespace

std::vector<std::pair<const char*, std::string>> connection_keywords(const PgTarget& target) {
  const auto& tls = target.tls;
  const bool verifies = tls.mode == routing::TlsMode::kVerifyCa || tls.mode == routing::TlsMode::kVerifyFull;
  std::vector<std::pair<const char*, std::string>> words = {
      {"host", tls.server_name.empty() ? target.host : tls.server_name},
      {"hostaddr", numeric_host(target.address)},
      {"port", std::to_string(ntohs(target.address.base.sa_family == AF_INET ? target.address.v4.sin_port
                                                                             : target.address.v6.sin6_port))},
      {"user", target.user},
      {"password", target.password.reveal()},
      {"passfile", "/dev/null"},
      {"dbname", target.database},
      {"application_name", target.application_name},
      {"options", target.options},
      // A role's name is compared byte for byte, as in a startup packet; other encodings would be converted on the way.
      {"client_encoding", "SQL_ASCII"},
      {"target_session_attrs", "any"},
      {"gssencmode", "disable"},
      {"sslmode", sslmode_of(tls.mode)},
      // `require` with a CA would verify all the same (libpq, "backwards compatibility").
      {"sslrootcert", !verifies        ? kNoFile
                      : tls.ca.empty() ? system_authorities()
                                       : tls.ca},
      {"sslcert", tls.certificate.empty() ? kNoFile : tls.certificate},
      {"sslkey", tls.key.empty() ? kNoFile : tls.key},
      {"sslcrl", kNoFile},
      {"ssl_min_protocol_version", "TLSv1.2"},
  };
  // A server that asks for the password in clear or as MD5 gets neither (T17). libpq before 16 cannot be told.
  if (PQlibVersion() >= 160'000) words.emplace_back("require_auth", "!password,!md5");
  return words;
}

std::string_view sqlstate_in(std::string_view message) {
  // fe-protocol3.c, pqBuildErrorMessage3: severity, colon, two blanks, code, colon, blank. The severity may be
  // translated.
  constexpr std::string_view kBefore = ":  ";
  for (auto at = message.find(kBefore); at != std::string_view::npos; at = message.find(kBefore, at + 1)) {
    const auto rest = message.substr(at + kBefore.size());
    if (rest.size() > 6 && is_sqlstate(rest.substr(0, 5)) && rest.substr(5, 2) == ": ") return rest.substr(0, 5);
  }
  return {};
}

std::optional<std::string_view> PgRows::value(int row, int column) const {
  if (row < 0 || row >= rows() || column < 0 || column >= columns() || PQgetisnull(result_.get(), row, column) != 0)
    return std::nullopt;
  return std::string_view(PQgetvalue(result_.get(), row, column),
                          static_cast<std::size_t>(PQgetlength(result_.get(), row, column)));
}

void PgRows::Wipe::operator()(PGresult* result) const {
  for (int row = 0; row < PQntuples(result); ++row) {
    for (int column = 0; column < PQnfields(result); ++column) {
      base::wipe(PQgetvalue(result, row, column), static_cast<std::size_t>(PQgetlength(result, row, column)));
    }
  }
  PQclear(result);
}

PgConnection::PgConnection(uv_loop_t* loop, const HandleCount& count, Owner& owner)
    : loop_(loop),
      count_(count),
      owner_(owner),
      deadline_(loop, count, this, [](void* self) { static_cast<PgConnection*>(self)->on_timer(); }) {}

PgConnection::~PgConnection() {
  close();
}

void PgConnection::close() {
  deadline_.stop();
  poll_.reset();  // before PQfinish closes the descriptor
  PQclear(answer_);
  answer_ = nullptr;
  PQfinish(connection_);
  connection_ = nullptr;
  phase_ = Phase::kClosed;
}

void PgConnection::connect(const PgTarget& target, base::Instant deadline) {
  POINTSMAN_CHECK(phase_ == Phase::kClosed && target.address.known());
  const auto words = connection_keywords(target);
  std::vector<const char*> names;
  std::vector<const char*> values;
  for (const auto& [name, value] : words) {
    names.push_back(name);
    values.push_back(value.c_str());
  }
  names.push_back(nullptr);
  values.push_back(nullptr);
  connection_ = PQconnectStartParams(names.data(), values.data(), 0);
  POINTSMAN_CHECK(connection_ != nullptr);  // out of memory
  PQsetErrorVerbosity(connection_, PQERRORS_VERBOSE);
  PQsetErrorContextVisibility(connection_, PQSHOW_CONTEXT_NEVER);
  PQsetNoticeReceiver(
      connection_, [](void*, const PGresult*) {}, nullptr);
  phase_ = Phase::kConnecting;
  if (PQstatus(connection_) == CONNECTION_BAD) return fail_later(connection_failure());
  deadline_.start(deadline);
  // "behave as if PQconnectPoll had last returned PGRES_POLLING_WRITING" (libpq, PQconnectPoll)
  if (!watch(UV_WRITABLE)) fail_later({PgFailure::Kind::kNetwork, {}, "the loop does not take the socket"});
}

void PgConnection::query(const char* sql, std::span<const std::string> parameters, base::Instant deadline) {
  POINTSMAN_CHECK(phase_ == Phase::kIdle);
  std::vector<const char*> values;
  for (const auto& parameter : parameters) values.push_back(parameter.c_str());
  phase_ = Phase::kQuerying;
  if (PQsendQueryParams(connection_, sql, static_cast<int>(values.size()), nullptr, values.data(), nullptr, nullptr,
                        0) == 0) {
    return fail_later(connection_failure());
  }
  const int flushed = PQflush(connection_);
  if (flushed < 0) return fail_later(connection_failure());
  flushed_ = flushed == 0;
  deadline_.start(deadline);
  if (!watch(flushed_ ? UV_READABLE : UV_READABLE | UV_WRITABLE)) {
    fail_later({PgFailure::Kind::kNetwork, {}, "the loop does not take the socket"});
  }
}

std::string_view PgConnection::parameter(const char* name) const {
  const char* value = PQparameterStatus(connection_, name);
  return value == nullptr ? std::string_view() : value;
}

bool PgConnection::watch(int events) {
  const int fd = PQsocket(connection_);
  if (fd < 0) return false;
  if (poll_ == nullptr || poll_->fd() != fd) {
    poll_.reset();
    poll_ = std::make_unique<LoopPoll>(loop_, count_, fd, this,
                                       [](void* self) { static_cast<PgConnection*>(self)->on_readiness(); });
    if (!poll_->ok()) {
      poll_.reset();
      return false;
    }
  }
  return poll_->start(events);
}

void PgConnection::on_readiness() {
  switch (phase_) {
    case Phase::kConnecting:
      return step_connect();
    case Phase::kQuerying:
      return step_query();
    case Phase::kIdle:
      return step_idle();
    case Phase::kClosed:
    case Phase::kFailing:
      return;
  }
}

void PgConnection::on_timer() {
  if (phase_ == Phase::kFailing) return fail(std::move(pending_failure_));
  PgFailure failure{PgFailure::Kind::kTimeout,
                    {},
                    phase_ == Phase::kConnecting ? "no login within the deadline" : "no answer within the deadline"};
  fail(std::move(failure));
}

void PgConnection::step_connect() {
  // libpq may close its socket and open another one in here: no watch may stand on a number that is given away.
  poll_.reset();
  switch (PQconnectPoll(connection_)) {
    case PGRES_POLLING_READING:
      if (!watch(UV_READABLE)) fail(connection_failure());
      return;
    case PGRES_POLLING_WRITING:
      if (!watch(UV_WRITABLE)) fail(connection_failure());
      return;
    case PGRES_POLLING_OK:
      // Non-blocking, so that not even the Terminate of PQfinish waits for a peer that does not read.
      if (PQsetnonblocking(connection_, 1) != 0 || !watch(UV_READABLE)) return fail(connection_failure());
      deadline_.stop();
      phase_ = Phase::kIdle;
      owner_.on_pg_connected();
      return;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
      return fail(connection_failure());
  }
}

void PgConnection::step_query() {
  if (PQconsumeInput(connection_) == 0) return fail(connection_failure());
  if (!flushed_) {
    const int flushed = PQflush(connection_);
    if (flushed < 0) return fail(connection_failure());
    flushed_ = flushed == 0;
    if (flushed_ && !watch(UV_READABLE)) return fail(connection_failure());
  }
  while (PQisBusy(connection_) == 0) {
    PGresult* result = PQgetResult(connection_);
    if (result == nullptr) return finish_query();
    if (is_copy(PQresultStatus(result))) {
      // PQgetResult would say so for ever; no statement of ours copies.
      PQclear(result);
      return fail({PgFailure::Kind::kNetwork, {}, "the server answered with COPY"});
    }
    if (answer_ == nullptr) {
      answer_ = result;
    } else {
      PQclear(result);
    }
  }
}

void PgConnection::finish_query() {
  PGresult* answer = std::exchange(answer_, nullptr);
  const auto status = answer == nullptr ? PGRES_EMPTY_QUERY : PQresultStatus(answer);
  if (status == PGRES_TUPLES_OK && PQstatus(connection_) == CONNECTION_OK) {
    deadline_.stop();
    phase_ = Phase::kIdle;
    const PgRows rows(answer);
    owner_.on_pg_rows(rows);
    return;
  }
  PgFailure failure{PgFailure::Kind::kNetwork, {}, "the server answered without rows"};
  if (answer != nullptr) {
    const char* code = PQresultErrorField(answer, PG_DIAG_SQLSTATE);
    if (code != nullptr && is_sqlstate(code)) {
      failure.kind = PgFailure::Kind::kServer;
      failure.sqlstate = code;
    }
    const std::string_view text = PQresultErrorMessage(answer);
    if (!text.empty()) failure.text = one_line(text);
    PQclear(answer);
  }
  if (failure.kind != PgFailure::Kind::kServer || PQstatus(connection_) != CONNECTION_OK)
    return fail(std::move(failure));
  deadline_.stop();
  phase_ = Phase::kIdle;
  owner_.on_pg_failure(failure);
}

void PgConnection::step_idle() {
  // Nothing was asked: a parameter's change, a notice, or the end of the server.
  if (PQconsumeInput(connection_) == 0) return fail(connection_failure());
  if (PQisBusy(connection_) == 0) {
    // Lets libpq take what has come; between queries there is no result.
    PQclear(PQgetResult(connection_));
  }
  if (PQstatus(connection_) != CONNECTION_OK) fail(connection_failure());
}

PgFailure PgConnection::connection_failure() const {
  const std::string_view message = PQerrorMessage(connection_);
  PgFailure failure{PgFailure::Kind::kNetwork, std::string(sqlstate_in(message)), one_line(message)};
  if (!failure.sqlstate.empty()) {
    failure.kind = PgFailure::Kind::kServer;
  } else if (speaks_of_tls(message)) {
    failure.kind = PgFailure::Kind::kTls;
  }
  if (failure.text.empty()) failure.text = "the connection was lost";
  return failure;
}

void PgConnection::fail(PgFailure failure) {
  close();
  owner_.on_pg_failure(failure);  // may destroy this
}

void PgConnection::fail_later(PgFailure failure) {
  poll_.reset();
  phase_ = Phase::kFailing;
  pending_failure_ = std::move(failure);
  deadline_.start(loop_clock());
}

}  // namespace pointsman::proxy
