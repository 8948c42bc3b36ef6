#include "proxy/monitor/sql_client.h"

#include <doctest/doctest.h>

#include <optional>
#include <vector>

#include "protocol/postgres_format.h"
#include "protocol/startup.h"
#include "tests/unit/support/chunker.h"

namespace pointsman::proxy {
namespace {

using Event = SqlClient::Event;
using Kind = PgFailure::Kind;
using protocol::ScramServer;

constexpr char kPassword[] = "a password, with comma";
constexpr char kClientNonce[] = "client-nonce-of-24-bytes";
constexpr char kEndpointHash[] = "0123456789abcdef0123456789abcdef";

// ---- what a server says ----------------------------------------------------------------------------------------

std::string message(char tag, std::string_view body = {}) {
  std::string out(1, tag);
  base::append_be32(out, static_cast<std::uint32_t>(body.size() + 4));
  return out.append(body);
}
std::string header_only(char tag, std::uint32_t length) {
  std::string out(1, tag);
  base::append_be32(out, length);
  return out;
}
std::string authentication(std::uint32_t code, std::string_view data = {}) {
  std::string body;
  base::append_be32(body, code);
  return message('R', body.append(data));
}
std::string ok() {
  return authentication(protocol::kAuthOk);
}
std::string sasl(const std::vector<std::string_view>& mechanisms) {
  std::string out;
  protocol::append_authentication_sasl(out, mechanisms);
  return out;
}
std::string ready(char status = 'I') {
  return message('Z', std::string(1, status));
}
std::string parameter_status(std::string_view name, std::string_view value) {
  std::string body;
  base::append_c_string(body, name);
  base::append_c_string(body, value);
  return message('S', body);
}
std::string key_data() {
  std::string out;
  protocol::append_backend_key_data(out, 4711, "1234");
  return out;
}
std::string error(std::string_view severity, std::string_view sqlstate, std::string_view text, char tag = 'E') {
  std::string body;
  const auto field = [&](char type, std::string_view value) {
    if (value.empty()) return;
    body.push_back(type);
    base::append_c_string(body, value);
  };
  field('V', severity);
  field('C', sqlstate);
  field('M', text);
  body.push_back('\0');
  return message(tag, body);
}
std::string description(const std::vector<std::string_view>& names, std::uint16_t format = 0) {
  std::string body;
  base::append_be16(body, static_cast<std::uint16_t>(names.size()));
  for (const auto name : names) {
    base::append_c_string(body, name);
    body.append(16, '\0');
    base::append_be16(body, format);
  }
  return message('T', body);
}
std::string row(const std::vector<std::optional<std::string>>& values) {
  std::string body;
  base::append_be16(body, static_cast<std::uint16_t>(values.size()));
  for (const auto& value : values) {
    base::append_be32(body, value ? static_cast<std::uint32_t>(value->size()) : 0xffff'ffff);
    if (value) body.append(*value);
  }
  return message('D', body);
}
std::string complete() {
  return message('C', std::string_view("SELECT 1\0", 9));
}
std::string bound() {
  return message('1') + message('2');
}

// ---- the client under test -------------------------------------------------------------------------------------

SqlLogin login(bool tls = false, std::string password = kPassword) {
  SqlLogin made;
  made.user = "pointsman";
  made.password = base::SecretString(std::move(password));
  made.database = "postgres";
  made.application_name = "unit test";
  made.options = "-c search_path=";
  made.tls = tls;
  return made;
}

std::string taken(SqlClient& client) {
  std::string bytes(client.output().view());
  client.output().consume(bytes.size());
  return bytes;
}

Event feed(SqlClient& client, std::string_view bytes) {
  return client.on_bytes(base::as_bytes(bytes));
}

protocol::ScramLoginKeys keys_of(const SqlClient& client) {
  auto derived = protocol::derive_scram(client.password().reveal(), client.salt(), client.iterations());
  return {derived.client_key, derived.verifier.stored_key, derived.verifier.server_key};
}

/// A client that has sent its StartupMessage.
struct Started : SqlClient {
  explicit Started(SqlLogin its_login = login()) : SqlClient(std::move(its_login), kClientNonce) {
    REQUIRE(start() == Event::kNothing);
    startup = taken(*this);
  }
  std::string startup;
};

/// A client that may be given a statement.
struct Ready : Started {
  Ready() {
    REQUIRE(feed(*this, ok() + parameter_status("is_superuser", "off") + key_data() + ready()) == Event::kReady);
    REQUIRE(output().empty());
  }
  Event ask(std::string_view answer) {
    query("SELECT 1", {});
    (void)taken(*this);
    return feed(*this, answer);
  }
  Event tell(std::string_view answer) {
    command("SHOW LISTS");
    (void)taken(*this);
    return feed(*this, answer);
  }
};

/// The data of the SASL message of ours in `bytes`.
std::string sasl_data(const std::string& bytes) {
  const auto frame = protocol::next_message(base::as_bytes(bytes), 1 << 16);
  REQUIRE(frame.status == protocol::FrameStatus::kMessage);
  CHECK(frame.message.tag == 'p');
  CHECK(frame.message.total == bytes.size());
  return std::string(base::as_text(frame.message.body));
}

struct FirstResponse {
  std::string mechanism;
  std::string data;
};
FirstResponse first_response(const std::string& bytes) {
  const auto body = sasl_data(bytes);
  protocol::SaslInitialResponse parsed;
  REQUIRE(protocol::parse_sasl_initial_response(base::as_bytes(body), parsed));
  return {std::string(parsed.mechanism), std::string(parsed.data)};
}

/// A server that holds the role's verifier.
struct Server : ScramServer {
  explicit Server(bool plus = false, std::uint32_t iterations = 2)
      : ScramServer(protocol::derive_scram(kPassword, "sixteen bytes...", iterations).verifier, false,
                    "server-nonce-of-24-bytes", plus, plus ? kEndpointHash : "") {}
  std::string first(const FirstResponse& response) {
    REQUIRE(on_initial(response.mechanism, response.data) == Outcome::kContinue);
    return authentication(protocol::kAuthSaslContinue, message());
  }
  std::string last(const std::string& response) {
    REQUIRE(on_final(response) == Outcome::kSuccess);
    return authentication(protocol::kAuthSaslFinal, message());
  }
};

std::string text_of(const PgRows& rows) {
  std::string text;
  for (int i = 0; i < rows.rows(); ++i) {
    for (int j = 0; j < rows.columns(); ++j)
      text.append(rows.value(i, j) ? "[" + std::string(*rows.value(i, j)) + "]" : "[NULL]");
    text.push_back('\n');
  }
  return text;
}

/// What a client said and reported while it went through `segments`, doing what each event asks for behind each
/// segment. One segment comes in `chunks`.
std::string converse(const std::vector<std::string>& segments, std::size_t chunked, const test::Chunks& chunks) {
  Started client;
  std::string report;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    Event event = Event::kNothing;
    for (const auto chunk : i == chunked ? chunks : test::Chunks{base::as_bytes(segments[i])}) {
      const std::vector<base::Byte> exact(chunk.begin(), chunk.end());
      const Event next = client.on_bytes(base::Bytes(exact));
      if (next != Event::kNothing) event = next;
    }
    report += "event " + std::to_string(static_cast<int>(event)) + "\n";
    if (event == Event::kDeriveKeys) CHECK(client.on_keys(keys_of(client)) == Event::kNothing);
    if (event == Event::kReady) client.query("SELECT $1", std::vector<std::string>{"x"});
    if (event == Event::kAnswer) {
      report += text_of(client.take_rows());
      client.command("SHOW POOLS");
    }
    if (event == Event::kStatementFailed) report += client.failure().text;
    report += taken(client);
    if (event == Event::kFailed) return report + client.failure().text;
  }
  return report;
}

/// A whole life: SCRAM, greeting, a query, a command that fails.
std::vector<std::string> honest_segments() {
  Started client;
  Server server;
  std::vector<std::string> segments = {sasl({"SCRAM-SHA-256"})};
  CHECK(feed(client, segments.back()) == Event::kNothing);
  segments.push_back(server.first(first_response(taken(client))));
  CHECK(feed(client, segments.back()) == Event::kDeriveKeys);
  CHECK(client.on_keys(keys_of(client)) == Event::kNothing);
  segments.push_back(server.last(sasl_data(taken(client))) + ok() + parameter_status("is_superuser", "on") +
                     parameter_status("server_version", "15.4") + error("NOTICE", "00000", "hello", 'N') + key_data() +
                     ready());
  segments.push_back(bound() + description({"a", "b"}) + row({"1", std::nullopt}) + row({"", "two"}) + complete() +
                     ready() + parameter_status("is_superuser", "off"));
  segments.push_back(error("ERROR", "42601", "no such command") + ready());
  return segments;
}

}  // namespace

TEST_CASE("a login by SCRAM, a query and a command, received in every way") {
  const auto segments = honest_segments();
  const auto whole = converse(segments, segments.size(), {});
  CHECK(whole.find("[1][NULL]\n[][two]\n") != std::string::npos);
  CHECK(whole.ends_with("ERROR 42601: no such command"));
  CHECK(whole.find(kPassword) == std::string::npos);
  for (std::size_t i = 0; i < segments.size(); ++i) {
    CAPTURE(i);
    CHECK(test::chunking_difference(base::as_bytes(segments[i]),
                                    [&](const test::Chunks& chunks) { return converse(segments, i, chunks); }) == "");
  }
}

TEST_CASE("the startup packet says who we are, in version 3.0") {
  Started client;
  const auto parsed = protocol::parse_first_packet(base::as_bytes(client.startup));
  const auto* packet = std::get_if<protocol::ParsedFirstPacket>(&parsed);
  REQUIRE(packet != nullptr);
  const auto& startup = std::get<protocol::StartupMessage>(packet->packet);
  CHECK(startup.minor == 0);
  CHECK(*startup.find("user") == "pointsman");
  CHECK(*startup.find("database") == "postgres");
  CHECK(*startup.find("application_name") == "unit test");
  CHECK(*startup.find("options") == "-c search_path=");
  CHECK(*startup.find("client_encoding") == "SQL_ASCII");
  CHECK(startup.protocol_options.empty());
}

TEST_CASE("a zero byte in the login is refused before it could cut the packet") {
  auto bad = login();
  bad.user = std::string("point\0sman", 10);
  SqlClient client(std::move(bad), kClientNonce);
  CHECK(client.start() == Event::kFailed);
  CHECK(client.failure().kind == Kind::kCredentials);
  CHECK(client.output().empty());
}

TEST_CASE("AuthenticationOk at once is a login: trust, or a client certificate") {
  Ready client;
  CHECK(client.idle());
  CHECK(client.parameter("is_superuser") == "off");
  CHECK(client.parameter("nothing") == "");
}

TEST_CASE("what would give the password away is refused, and nothing is sent") {
  struct Case {
    std::string request;
    const char* words;
  };
  const std::vector<Case> cases = {
      {authentication(3), "the server asks for the password in clear; only SCRAM-SHA-256 is answered"},
      {authentication(5, "salt"), "the server asks for the password as MD5; only SCRAM-SHA-256 is answered"},
      {authentication(7), "GSSAPI"},
      {authentication(9), "SSPI"},
      {authentication(2), "code 2"},
      {authentication(4'000'000'000U), "code 4000000000"},
      {sasl({"SCRAM-SHA-1", "PLAIN", "OAUTHBEARER"}), "offers no SASL mechanism"},
      {sasl({"SCRAM-SHA-256-PLUS"}), "offers no SASL mechanism"},  // there is nothing to bind to
  };
  for (const auto& [request, words] : cases) {
    CAPTURE(words);
    Started client;
    CHECK(feed(client, request) == Event::kFailed);
    CHECK(client.failure().kind == Kind::kCredentials);
    CHECK(client.failure().text.find(words) != std::string::npos);
    CHECK(client.output().empty());
    CHECK(client.password().empty());
    CHECK(feed(client, ok() + ready()) == Event::kFailed);
  }
  Started in_between;
  REQUIRE(feed(in_between, sasl({"SCRAM-SHA-256"})) == Event::kNothing);
  (void)taken(in_between);
  CHECK(feed(in_between, authentication(3)) == Event::kFailed);
  CHECK(in_between.failure().kind == Kind::kCredentials);
  CHECK(in_between.output().empty());
}

TEST_CASE("a password is asked for and none is configured") {
  Started client(login(false, ""));
  CHECK(feed(client, sasl({"SCRAM-SHA-256"})) == Event::kFailed);
  CHECK(client.failure().kind == Kind::kCredentials);
  CHECK(client.failure().text == "the server asks for a password and none is configured");
  CHECK(client.output().empty());
}

TEST_CASE("AuthenticationOk in the middle of SCRAM does not make up for the server's signature") {
  const auto refused = [](SqlClient& client) {
    (void)taken(client);
    CHECK(feed(client, ok()) == Event::kFailed);
    CHECK(client.failure().kind == Kind::kNetwork);
    CHECK(client.output().empty());
    return client.failure().text;
  };
  constexpr char kWords[] = "AuthenticationOk without the server's signature";
  Started first;
  REQUIRE(feed(first, sasl({"SCRAM-SHA-256"})) == Event::kNothing);
  CHECK(refused(first) == kWords);

  Server server;
  Started last;
  REQUIRE(feed(last, sasl({"SCRAM-SHA-256"})) == Event::kNothing);
  REQUIRE(feed(last, server.first(first_response(taken(last)))) == Event::kDeriveKeys);
  REQUIRE(last.on_keys(keys_of(last)) == Event::kNothing);
  CHECK(refused(last) == kWords);

  Server other;
  Started deriving;
  REQUIRE(feed(deriving, sasl({"SCRAM-SHA-256"})) == Event::kNothing);
  REQUIRE(feed(deriving, other.first(first_response(taken(deriving)))) == Event::kDeriveKeys);
  CHECK(refused(deriving) == "the server sent a message out of place (type R) during the login");
}

TEST_CASE("a wrong server signature, and messages of SASL out of order") {
  Server server;
  Started client;
  REQUIRE(feed(client, sasl({"SCRAM-SHA-256"})) == Event::kNothing);
  REQUIRE(feed(client, server.first(first_response(taken(client)))) == Event::kDeriveKeys);
  REQUIRE(client.on_keys(keys_of(client)) == Event::kNothing);
  CHECK(feed(client, authentication(12, "v=" + protocol::base64_encode(std::string(32, 'x')))) == Event::kFailed);
  CHECK(client.failure().kind == Kind::kNetwork);
  CHECK(client.failure().text.find("server signature does not fit") != std::string::npos);

  for (const auto& bytes : {authentication(11, "r=x"), authentication(12, "v=x")}) {
    Started early;
    CHECK(feed(early, bytes) == Event::kFailed);
    CHECK(early.failure().text == "SASL message out of order");
  }
  Started twice;
  CHECK(feed(twice, sasl({"SCRAM-SHA-256"}) + sasl({"SCRAM-SHA-256"})) == Event::kFailed);
  CHECK(twice.failure().text == "a second SASL exchange");
}

TEST_CASE("the number of rounds and the salt are bounded before anything is derived") {
  const auto offered = [](const std::string& iterations, std::size_t salt) {
    Started client;
    REQUIRE(feed(client, sasl({"SCRAM-SHA-256"})) == Event::kNothing);
    (void)taken(client);
    const auto event = feed(client, authentication(11, std::string("r=") + kClientNonce +
                                                           "more,s=" + protocol::base64_encode(std::string(salt, 's')) +
                                                           ",i=" + iterations));
    CHECK((event == Event::kDeriveKeys) != (event == Event::kFailed));
    if (event == Event::kFailed) CHECK(client.failure().text.starts_with("SCRAM: "));
    if (event == Event::kDeriveKeys) CHECK(std::to_string(client.iterations()) == iterations);
    CHECK(client.output().empty());
    return event;
  };
  CHECK(offered("1", 16) == Event::kDeriveKeys);
  CHECK(offered("1000000", 16) == Event::kDeriveKeys);
  CHECK(offered("1000001", 16) == Event::kFailed);
  CHECK(offered("2147483648", 16) == Event::kFailed);
  CHECK(offered("99999999999999999999", 16) == Event::kFailed);
  CHECK(offered("0", 16) == Event::kFailed);
  CHECK(offered("-1", 16) == Event::kFailed);
  CHECK(offered("4096", 1'024) == Event::kDeriveKeys);
  CHECK(offered("4096", 1'025) == Event::kFailed);
  CHECK(offered("4096", 0) == Event::kFailed);
}

TEST_CASE("TLS is asked for first, and nothing else leaves before it is up") {
  const auto answered = [](std::string_view bytes) {
    SqlClient client(login(true), kClientNonce);
    REQUIRE(client.start() == Event::kNothing);
    CHECK(taken(client) == protocol::build_ssl_request());
    const auto event = feed(client, bytes);
    CHECK(client.output().empty());
    return event == Event::kFailed ? std::pair(client.failure().kind, client.failure().text)
                                   : std::pair(Kind::kServer, std::string());
  };
  CHECK(answered("S").second.empty());
  CHECK(answered("N") == std::pair(Kind::kTls, std::string("the server does not offer TLS, backend_tls requires it")));
  CHECK(answered("E").second == "the server answered the request for TLS with an error");
  CHECK(answered(error("FATAL", "53300", "too many")).second ==
        "the server answered the request for TLS with an error");
  CHECK(answered("R").second == "no lawful answer to the request for TLS");
  CHECK(answered(std::string_view("\0", 1)).second == "no lawful answer to the request for TLS");
  CHECK(answered("SR").second == "unencrypted bytes behind the answer to SSLRequest");

  SqlClient apart(login(true), kClientNonce);
  REQUIRE(apart.start() == Event::kNothing);
  REQUIRE(feed(apart, "S") == Event::kStartTls);
  CHECK(feed(apart, "R") == Event::kFailed);
}

TEST_CASE("the mechanism and the flag follow from TLS, the certificate and the offer") {
  const auto begun = [](std::optional<std::string_view> endpoint_hash, const std::vector<std::string_view>& offer) {
    SqlClient client(login(endpoint_hash.has_value()), kClientNonce);
    REQUIRE(client.start() == Event::kNothing);
    if (endpoint_hash) {
      REQUIRE(feed(client, "S") == Event::kStartTls);
      REQUIRE(client.on_tls(*endpoint_hash) == Event::kNothing);
    }
    (void)taken(client);
    REQUIRE(feed(client, sasl(offer)) == Event::kNothing);
    const auto response = first_response(taken(client));
    return response.mechanism + " " + response.data.substr(0, response.data.find(",n="));
  };
  const std::vector<std::string_view> both = {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"};
  CHECK(begun(kEndpointHash, both) == "SCRAM-SHA-256-PLUS p=tls-server-end-point,");
  CHECK(begun(kEndpointHash, {"SCRAM-SHA-256-PLUS"}) == "SCRAM-SHA-256-PLUS p=tls-server-end-point,");
  CHECK(begun(kEndpointHash, {"SCRAM-SHA-256"}) == "SCRAM-SHA-256 y,");
  CHECK(begun("", both) == "SCRAM-SHA-256 n,");  // a certificate that has no hash to bind to
  CHECK(begun(std::nullopt, both) == "SCRAM-SHA-256 n,");
}

TEST_CASE("a login over TLS binds the channel") {
  SqlClient client(login(true), kClientNonce);
  Server server(true);
  REQUIRE(client.start() == Event::kNothing);
  REQUIRE(feed(client, "S") == Event::kStartTls);
  REQUIRE(client.on_tls(kEndpointHash) == Event::kNothing);
  (void)taken(client);
  REQUIRE(feed(client, sasl({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"})) == Event::kNothing);
  REQUIRE(feed(client, server.first(first_response(taken(client)))) == Event::kDeriveKeys);
  REQUIRE(client.on_keys(keys_of(client)) == Event::kNothing);
  CHECK(feed(client, server.last(sasl_data(taken(client))) + ok() + ready()) == Event::kReady);
}

TEST_CASE("a refused login carries the server's own code and words") {
  Started client;
  CHECK(feed(client, error("FATAL", "28P01", "password authentication failed\nfor \x1b[1mx")) == Event::kFailed);
  CHECK(client.failure().kind == Kind::kServer);
  CHECK(client.failure().sqlstate == "28P01");
  CHECK(client.failure().text == "FATAL 28P01: password authentication failed");

  Started odd;
  CHECK(feed(odd, error("\nFATAL", "", "\n")) == Event::kFailed);
  CHECK(odd.failure().text == "\\x0aFATAL: no message");

  Started bare;
  CHECK(feed(bare, message('E', std::string_view("\0", 1))) == Event::kFailed);
  CHECK(bare.failure().kind == Kind::kServer);
  CHECK(bare.failure().sqlstate.empty());
  CHECK(bare.failure().text == "ERROR: no message");
}

TEST_CASE("NegotiateProtocolVersion is taken when it changes nothing") {
  const auto negotiated = [](std::uint32_t version, std::uint32_t unknown, std::string_view rest = {}) {
    std::string body;
    base::append_be32(body, version);
    base::append_be32(body, unknown);
    Started client;
    return feed(client, message('v', body.append(rest)) + ok() + ready());
  };
  CHECK(negotiated(3 << 16, 0) == Event::kReady);
  CHECK(negotiated(0, 0) == Event::kReady);
  CHECK(negotiated(4 << 16, 0) == Event::kFailed);
  CHECK(negotiated(3 << 16, 1, std::string_view("_pq_.x\0", 7)) == Event::kFailed);
  CHECK(negotiated(3 << 16, 0, "x") == Event::kFailed);
  Ready late;
  CHECK(feed(late, message('v', std::string(8, '\0'))) == Event::kFailed);
}

TEST_CASE("a query leaves in one send: Parse, Bind, Describe, Execute, Sync, all as text") {
  Ready client;
  client.query("SELECT $1", std::vector<std::string>{"it's", ""});
  const std::string expected = message('P', std::string_view("\0SELECT $1\0\0\0", 13)) +
                               message('B', std::string_view("\0\0\0\0\0\2\0\0\0\4it's\0\0\0\0\0\0", 20)) +
                               message('D', std::string_view("P\0", 2)) +
                               message('E', std::string_view("\0\0\0\0\0", 5)) + message('S');
  CHECK(taken(client) == expected);
  CHECK_FALSE(client.idle());
}

TEST_CASE("rows, NULLs and names of a query's result") {
  Ready client;
  REQUIRE(client.ask(bound() + description({"name", "n"}) + row({"a", std::nullopt}) +
                     row({std::string("\0b", 2), "2"}) + complete() + ready('T')) == Event::kAnswer);
  const auto rows = client.take_rows();
  CHECK(rows.rows() == 2);
  CHECK(rows.columns() == 2);
  CHECK(rows.column("n") == 1);
  CHECK(rows.column("x") == -1);
  CHECK(rows.value(0, 0) == "a");
  CHECK_FALSE(rows.value(0, 1));
  CHECK(rows.value(1, 0) == std::string_view("\0b", 2));
  CHECK_FALSE(rows.value(2, 0));
  CHECK_FALSE(rows.value(0, 2));
  CHECK_FALSE(rows.value(-1, 0));
  CHECK(client.ask(bound() + description({"a"}) + complete() + ready()) == Event::kAnswer);
  CHECK(client.take_rows().rows() == 0);
}

TEST_CASE("a query that has no result ends the connection") {
  Ready command;
  CHECK(command.ask(bound() + message('n') + complete() + ready()) == Event::kFailed);
  CHECK(command.failure().text == "the server answered without rows");
  Ready empty;
  CHECK(empty.ask(bound() + message('n') + message('I') + ready()) == Event::kFailed);
}

TEST_CASE("a command gives the first result that there is") {
  Ready client;
  REQUIRE(client.tell(complete() + description({"a"}) + row({"1"}) + complete() + description({"b", "c"}) +
                      row({"2", "3"}) + complete() + ready()) == Event::kAnswer);
  CHECK(text_of(client.take_rows()) == "[1]\n");
  REQUIRE(client.tell(complete() + ready()) == Event::kAnswer);  // PAUSE
  CHECK(client.take_rows().columns() == 0);
  REQUIRE(client.tell(message('I') + ready()) == Event::kAnswer);
  REQUIRE(client.tell(error("ERROR", "", "invalid command 'X', use SHOW HELP;") + ready()) == Event::kStatementFailed);
  CHECK(client.failure().kind == Kind::kServer);
  CHECK(client.failure().sqlstate.empty());
  REQUIRE(client.tell(description({"a"}) + row({"1"}) + error("ERROR", "57014", "enough") + ready()) ==
          Event::kStatementFailed);
  CHECK(client.take_rows().rows() == 0);
}

TEST_CASE("an error ends the statement, a FATAL one the connection") {
  for (const auto& before : {std::string(), message('1'), bound(), bound() + description({"a"}) + row({"1"}),
                             bound() + description({"a"}) + complete()}) {
    Ready client;
    CHECK(client.ask(before + error("ERROR", "42601", "syntax")) == Event::kNothing);
    CHECK(feed(client, ready()) == Event::kStatementFailed);
    CHECK(client.failure().sqlstate == "42601");
    CHECK(client.idle());
    CHECK(client.ask(bound() + description({"a"}) + row({"1"}) + complete() + ready()) == Event::kAnswer);
    CHECK(client.ask(before + error("FATAL", "57P01", "terminating connection")) == Event::kFailed);
    CHECK(client.failure().sqlstate == "57P01");
  }
}

TEST_CASE("between statements: parameters, notices and notifications pass, an error is the end") {
  Ready client;
  CHECK(feed(client, parameter_status("is_superuser", "on") + error("NOTICE", "00000", "x", 'N') +
                         message('A', std::string_view("\0\0\0\1a\0b\0", 8))) == Event::kNothing);
  CHECK(client.parameter("is_superuser") == "on");
  CHECK(feed(client, error("FATAL", "57P01", "terminating connection")) == Event::kFailed);
  CHECK(client.failure().sqlstate == "57P01");
}

TEST_CASE("COPY is refused in each direction, whichever protocol asked") {
  for (const char tag : {'G', 'H', 'W'}) {
    CAPTURE(tag);
    Ready extended;
    CHECK(extended.ask(bound() + header_only(tag, 7)) == Event::kFailed);
    CHECK(extended.failure().text == "the server answered with COPY");
    Ready simple;
    CHECK(simple.tell(header_only(tag, 7)) == Event::kFailed);
    CHECK(simple.failure().text == "the server answered with COPY");
  }
}

TEST_CASE("a message out of place is refused by its first byte") {
  const auto all_but = [](std::string_view lawful, auto make) {
    for (int tag = 0; tag < 256; ++tag) {
      const char byte = static_cast<char>(tag);
      CAPTURE(tag);
      auto client = make();
      CHECK((feed(*client, std::string_view(&byte, 1)) == Event::kFailed) ==
            (lawful.find(byte) == std::string_view::npos));
    }
  };
  all_but("RENv", [] { return std::make_unique<Started>(); });
  all_but("SKZEN", [] {
    auto client = std::make_unique<Started>();
    REQUIRE(feed(*client, ok()) == Event::kNothing);
    return client;
  });
  all_but("SNAE", [] { return std::make_unique<Ready>(); });
  const auto asked = [&](std::string_view lawful, const std::string& before) {
    all_but(lawful, [&] {
      auto client = std::make_unique<Ready>();
      REQUIRE(client->ask(before) == Event::kNothing);
      return client;
    });
  };
  asked("1ESNA", {});
  asked("2ESNA", message('1'));
  asked("TnESNA", bound());
  asked("DCESNA", bound() + description({"a"}));
  asked("CIESNA", bound() + message('n'));
  asked("ZESNA", bound() + description({"a"}) + complete());
  asked("ZSNA", error("ERROR", "42601", "syntax"));
}

TEST_CASE("malformed answers") {
  std::string long_row;
  base::append_be16(long_row, 1);
  base::append_be32(long_row, 5);
  std::string huge_row;
  base::append_be16(huge_row, 1);
  base::append_be32(huge_row, 0x7fff'ffff);
  std::string no_end;
  base::append_be16(no_end, 1);
  no_end += "name without its end";
  const auto one = bound() + description({"a"});
  for (const auto& answer :
       {message('1', "x"), message('1') + message('2', "x"), bound() + message('n', "x"),
        bound() + description({"a"}, 1), bound() + message('T', no_end), bound() + message('T'),
        bound() + message('T', std::string(3, '\0')), one + row({"1", "2"}), one + row({}),
        one + message('D', long_row + "four"), one + message('D', long_row + "beyond"), one + message('D', huge_row),
        one + message('D'), one + complete() + message('Z'), one + complete() + message('Z', "X"),
        one + complete() + message('Z', "II"), one + header_only('D', 3), one + header_only('D', 0xffff'ffff)}) {
    Ready client;
    CHECK(client.ask(answer) == Event::kFailed);
    CHECK(client.failure().kind == Kind::kNetwork);
    CHECK_FALSE(client.failure().text.empty());
  }
  for (const auto& greeting : {message('S'), message('S', "a"), message('S', std::string_view("\0\0", 2)),
                               message('S', std::string_view("a\0b\0c", 5)), message('K', "short")}) {
    Started client;
    CHECK(feed(client, ok() + greeting) == Event::kFailed);
  }
  for (const auto& request : {message('R'), message('R', "abc"), authentication(0, "x"), authentication(5, "abc"),
                              authentication(10, "no end")}) {
    Started client;
    CHECK(feed(client, request) == Event::kFailed);
    CHECK(client.failure().text == "malformed authentication request");
  }
}

TEST_CASE("one message: refused by its header when it is announced longer than we take") {
  Ready client;
  CHECK(client.ask(bound() + description({"a"}) + header_only('D', kMaxSqlMessage + 4)) == Event::kNothing);
  Ready beyond;
  CHECK(beyond.ask(bound() + description({"a"}) + header_only('D', kMaxSqlMessage + 5)) == Event::kFailed);
  CHECK(beyond.failure().text == "the server sent a message of impossible length");
  Started login_too;
  CHECK(feed(login_too, header_only('E', kMaxSqlMessage + 5)) == Event::kFailed);
}

TEST_CASE("an answer, a login and a pause: each is bounded as a whole") {
  const std::string notice = message('N', std::string(kMaxSqlMessage, 'x'));
  const std::size_t whole = kMaxSqlAnswer / notice.size();
  const std::size_t rest = kMaxSqlAnswer - whole * notice.size();
  const auto flood = [&](SqlClient& client, std::size_t last) {
    for (std::size_t i = 0; i < whole; ++i) REQUIRE(feed(client, notice) == Event::kNothing);
    return feed(client, header_only('N', static_cast<std::uint32_t>(last - 1)));
  };
  Ready pausing;
  CHECK(flood(pausing, rest) == Event::kNothing);
  Ready flooding;
  CHECK(flood(flooding, rest + 1) == Event::kFailed);
  CHECK(flooding.failure().text == "the server sent more than we take");
  Started logging_in;
  CHECK(flood(logging_in, rest + 1) == Event::kFailed);
  Ready answering;
  answering.query("SELECT 1", {});
  CHECK(flood(answering, rest) == Event::kNothing);
  Ready again;  // a statement begins anew
  for (std::size_t i = 0; i < whole; ++i) REQUIRE(feed(again, notice) == Event::kNothing);
  again.query("SELECT 1", {});
  CHECK(feed(again, notice + notice) == Event::kNothing);
}

TEST_CASE("columns, rows and parameters are counted") {
  const auto with_columns = [](std::size_t count) {
    Ready client;
    const std::vector<std::string_view> names(count, "c");
    const std::vector<std::optional<std::string>> values(count, "v");
    return client.ask(bound() + description(names) + row(values) + complete() + ready());
  };
  CHECK(with_columns(kMaxSqlColumns) == Event::kAnswer);
  CHECK(with_columns(kMaxSqlColumns + 1) == Event::kFailed);

  const auto with_rows = [](std::size_t count) {
    Ready client;
    std::string answer = bound() + description({"c"});
    for (std::size_t i = 0; i < count; ++i) answer += row({"v"});
    const auto event = client.ask(answer + complete() + ready());
    if (event == Event::kAnswer) CHECK(client.take_rows().rows() == static_cast<int>(count));
    return event;
  };
  CHECK(with_rows(kMaxSqlRows) == Event::kAnswer);
  CHECK(with_rows(kMaxSqlRows + 1) == Event::kFailed);

  const auto with_parameters = [](std::size_t count) {
    Started client;
    std::string greeting = ok();
    for (std::size_t i = 0; i < count; ++i) greeting += parameter_status("p" + std::to_string(i), "v");
    return feed(client, greeting + parameter_status("p0", "again") + ready());
  };
  CHECK(with_parameters(kMaxSqlParameters) == Event::kReady);
  CHECK(with_parameters(kMaxSqlParameters + 1) == Event::kFailed);
  Started long_value;
  CHECK(feed(long_value, ok() + parameter_status("p", std::string(kMaxSqlParameterText - 1, 'v'))) == Event::kNothing);
  CHECK(feed(long_value, parameter_status("p", std::string(kMaxSqlParameterText, 'v'))) == Event::kFailed);
}

TEST_CASE("a session is taken leave of, a login is not") {
  Ready client;
  client.terminate();
  CHECK(taken(client) == message('X'));
  Started early;
  early.terminate();
  CHECK(early.output().empty());
}

}  // namespace pointsman::proxy
