#include "proxy/session/session_core.h"

#include <doctest/doctest.h>

#include "tests/unit/support/session_driver.h"

using namespace pointsman;
using namespace pointsman::test;

namespace {

const TestRole& role() {
  static const TestRole kRole("secret");
  return kRole;
}

/// A whole login; returns what decides a session's life: its actions and what each side was sent.
std::string whole_login(std::size_t chunk) {
  Drive drive(plain_listener(), chunk);
  client_login(drive, role(), role(), "app.b1", {{"application_name", "test"}});
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  backend_login(drive, role());
  std::string all;
  for (const auto& line : drive.log) all += line + "\n";
  return all + drive.take_to_client();
}

std::string refusal_of(Drive& drive) {
  REQUIRE(drive.finished);
  REQUIRE(drive.finished->refusal);
  return std::string(routing::to_word(drive.finished->refusal->reason)) + " " +
         std::string(drive.finished->refusal->sqlstate);
}

}  // namespace

TEST_CASE("a login gives the same actions in chunks of any size") {
  const std::string expected = whole_login(0);
  CHECK(expected.find("relay pid=4242 key=4") != std::string::npos);
  for (const std::size_t chunk : {1U, 2U, 3U, 5U, 7U, 64U}) CHECK(whole_login(chunk) == expected);
}

TEST_CASE("the client hears AuthenticationOk only when the backend said ReadyForQuery") {
  Drive drive;
  client_login(drive, role(), role());
  CHECK(drive.connected_to == "127.0.0.1:6000");
  CHECK(drive.take_to_client().empty());
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  const auto startup = drive.to_backend;
  CHECK(startup.find("app.b1") == std::string::npos);
  CHECK(startup.find(std::string("user\0app\0database\0shop\0", 23)) != std::string::npos);
  backend_login(drive, role());
  CHECK(tags(drive.take_to_client()) == "RRSKZ");
  CHECK(drive.core->relaying());
}

TEST_CASE("what the backend sends behind its ReadyForQuery is relayed as its own") {
  Drive drive;
  client_login(drive, role(), role());
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  const auto notice = typed_message('N', "later");
  backend_login(drive, role(), notice);
  REQUIRE(drive.relay);
  CHECK(drive.relay->backend_bytes_after_ready == notice.size());
  CHECK(drive.relay->to_client.ends_with(notice));
}

TEST_CASE("a pool that does not know the role is the operator's fault, told without a detail") {
  Drive drive(plain_listener(routing::ListenerMode::kPooled));
  client_login(drive, role(), role(), "app.b1|app");
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  std::string sasl;
  protocol::append_authentication_sasl(sasl, {protocol::kScramSha256});
  drive.backend(sasl);
  drive.backend(server_error("08P01", "SASL authentication failed"));
  CHECK_FALSE(drive.finished);
  drive.event([&](proxy::SessionCore& core) { core.on_verifier(role().answer(), drive.now); });
  CHECK(refusal_of(drive) == "backend_fault 58000");
  CHECK(drive.take_to_client().find("127.0.0.1") == std::string::npos);
}

TEST_CASE("the backend's PID reaches the client with a secret of ours") {
  Drive drive;
  client_login(drive, role(), role());
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  backend_login(drive, role());
  for (const auto& [tag, body] : split_messages(drive.take_to_client())) {
    if (tag != 'K') continue;
    protocol::BackendKey key;
    REQUIRE(protocol::parse_backend_key_data(base::as_bytes(body), key));
    CHECK(key.pid == 4242);
    CHECK(key.secret != std::string("\x01\x02\x03\x04"));
    CHECK(key.secret == drive.relay->client_secret);
  }
  CHECK(drive.relay->backend_key.secret == std::string("\x01\x02\x03\x04"));
}

TEST_CASE("a 3.2 client gets a long cancel key, a newer one exactly one NegotiateProtocolVersion") {
  for (const auto& [minor, expected] :
       std::vector<std::pair<std::uint32_t, std::size_t>>{{0, 4}, {2, 32}, {9999, 32}}) {
    Drive drive;
    std::vector<std::pair<std::string, std::string>> more;
    if (minor == 9999) more.emplace_back("_pq_.test_protocol_negotiation", "");
    client_login(drive, role(), role(), "app.b1", more, (3U << 16) | minor);
    drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
    CHECK(drive.to_backend.find("_pq_") == std::string::npos);
    backend_login(drive, role());
    REQUIRE(drive.relay);
    CHECK(drive.relay->client_secret.size() == expected);
  }
  Drive drive;
  drive.client(startup_packet({{"user", "app.b1"}, {"_pq_.grease", "1"}}, (3U << 16) | 9999));
  const auto messages = split_messages(drive.take_to_client());
  REQUIRE(messages.size() == 1);
  CHECK(messages[0].first == 'v');
  std::string expected;
  base::append_be32(expected,
                    (3U << 16) | 2);  // SendNegotiateProtocolVersion() sends the whole version, major included
  base::append_be32(expected, 1);
  base::append_c_string(expected, "_pq_.grease");
  CHECK(messages[0].second == expected);
}

TEST_CASE("in a fleet a 3.2 client's key tells where it belongs, a 3.0 client's has no room for it") {
  for (const std::uint32_t minor : {0U, 2U}) {
    Drive drive;
    drive.services.seal = "sealed:";
    client_login(drive, role(), role(), "app.b1", {}, (3U << 16) | minor);
    drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
    backend_login(drive, role());
    REQUIRE(drive.relay);
    const auto& secret = drive.relay->client_secret;
    if (minor == 0) {
      CHECK(secret.size() == 4);
    } else {
      CHECK(secret == "sealed:b1/" + drive.core->record().identity.decision->address.to_string() + "/4242");
    }
  }
}

TEST_CASE("bytes in clear behind an encryption request are refused") {
  auto listener = plain_listener();
  listener.tls = routing::ListenerTls::kRequired;
  for (const bool gss : {false, true}) {
    Drive drive(listener);
    std::string request;
    base::append_be32(request, 8);
    base::append_be32(request, gss ? protocol::kGssEncRequestCode : protocol::kSslRequestCode);
    drive.client(request + startup_packet({{"user", "app.b1"}}));
    CHECK(refusal_of(drive) == "protocol_violation 08P01");
    CHECK_FALSE(drive.logged("start_client_tls"));
  }
}

TEST_CASE("GSSENCRequest is answered N and SSLRequest still works behind it, each once") {
  auto listener = plain_listener();
  listener.tls = routing::ListenerTls::kRequired;
  std::string gss;
  base::append_be32(gss, 8);
  base::append_be32(gss, protocol::kGssEncRequestCode);
  Drive drive(listener, 1);
  drive.client(gss);
  CHECK(drive.take_to_client() == "N");
  drive.client(protocol::build_ssl_request());
  CHECK(drive.take_to_client() == "S");
  CHECK(drive.logged("start_client_tls"));

  Drive twice(listener);
  twice.client(gss);
  twice.client(gss);
  CHECK(refusal_of(twice) == "protocol_violation 08P01");
}

TEST_CASE("a startup packet in clear is refused where TLS is required, a cancel is not") {
  auto listener = plain_listener();
  listener.tls = routing::ListenerTls::kRequired;
  Drive drive(listener);
  drive.client(startup_packet({{"user", "app.b1"}}));
  CHECK(refusal_of(drive) == "tls_required 28000");
  Drive cancel(listener);
  cancel.client(protocol::build_cancel_request(77, "abcd"));
  CHECK(cancel.logged("cancel pid=77 secret=4"));
  cancel.event([&](proxy::SessionCore& core) { core.on_cancel_served(cancel.now); });
  CHECK(cancel.logged("finish cancel"));
}

TEST_CASE("direct TLS needs ALPN postgresql") {
  auto listener = plain_listener();
  listener.tls = routing::ListenerTls::kRequired;
  for (const bool alpn : {true, false}) {
    Drive drive(listener);
    drive.client("\x16\x03\x01");
    CHECK(drive.logged("start_client_tls early=3"));
    drive.event([&](proxy::SessionCore& core) { core.on_client_tls({"TLSv1.3", "", alpn}, drive.now); });
    if (alpn) {
      CHECK_FALSE(drive.finished);
      CHECK(drive.core->phase_name() == "startup");
    } else {
      CHECK(refusal_of(drive) == "protocol_violation 08P01");
    }
  }
}

TEST_CASE("a wrong password and an unknown role meet the same exchange and the same words") {
  std::vector<std::string> said;
  for (const bool known : {true, false}) {
    Drive drive;
    const TestRole wrong("other");
    if (known) {
      client_login(drive, role(), wrong);
    } else {
      drive.client(startup_packet({{"user", "app.b1"}, {"database", "shop"}}));
      proxy::VerifierAnswer nobody;
      nobody.kind = proxy::VerifierAnswer::Kind::kNoRole;
      drive.event([&](proxy::SessionCore& core) { core.on_verifier(nobody, drive.now); });
      protocol::ScramClient scram(wrong.keys(), "clientnonce", false, false, {});
      std::string first;
      protocol::append_sasl_initial_response(first, protocol::kScramSha256, scram.first_message());
      CHECK(tags(drive.take_to_client()) == "R");
      drive.client(first);
      const auto messages = split_messages(drive.take_to_client());
      REQUIRE(messages.size() == 1);
      REQUIRE(scram.on_continue(std::string_view(messages[0].second).substr(4)) ==
              protocol::ScramClient::Outcome::kContinue);
      std::string last;
      protocol::append_sasl_response(last, scram.message());
      drive.client(last);
    }
    CHECK(refusal_of(drive) == "auth_failed 28P01");
    CHECK(drive.logged("ask_verifier app@b1 refresh fresh"));
    said.push_back(drive.take_to_client());
    CHECK_FALSE(drive.logged("connect"));
  }
  CHECK(said[0] == said[1]);
}

TEST_CASE("an unknown branch is told, or hidden behind the exchange of a wrong password") {
  Drive open;
  open.client(startup_packet({{"user", "app.nowhere"}}));
  CHECK(refusal_of(open) == "unknown_branch 28000");
  Drive hidden;
  hidden.services.settings.hide_unknown_branches = true;
  hidden.client(startup_packet({{"user", "app.nowhere"}}));
  CHECK_FALSE(hidden.finished);
  CHECK(tags(hidden.take_to_client()) == "R");
}

TEST_CASE("only a SASL response is lawful while the client authenticates, judged by its type") {
  Drive drive;
  drive.client(startup_packet({{"user", "app.b1"}}));
  drive.event([&](proxy::SessionCore& core) { core.on_verifier(role().answer(), drive.now); });
  drive.client("Q");  // the length is not awaited
  CHECK(refusal_of(drive) == "protocol_violation 08P01");
}

TEST_CASE("a SASL initial response without data or with a false length is refused and reaches nobody") {
  for (const std::int32_t length : {-1, 5, 4000}) {
    Drive drive;
    drive.client(startup_packet({{"user", "app.b1"}}));
    drive.event([&](proxy::SessionCore& core) { core.on_verifier(role().answer(), drive.now); });
    std::string body;
    base::append_c_string(body, protocol::kScramSha256);
    base::append_be32(body, static_cast<std::uint32_t>(length));
    drive.client(typed_message('p', body));
    CHECK(refusal_of(drive) == "protocol_violation 08P01");
    CHECK(drive.to_backend.empty());
  }
}

TEST_CASE("session options of ours are taken out, the rest of options stays byte for byte") {
  Drive drive;
  client_login(drive, role(), role(), "app.b1",
               {{"options", "-c work_mem=1MB -c pointsman.explain=on  -c x='a\\ b'"}, {"pointsman.explain", "on"}});
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  CHECK(drive.to_backend.find("pointsman") == std::string::npos);
  CHECK(drive.to_backend.find("-c work_mem=1MB") != std::string::npos);
  CHECK(drive.to_backend.find("-c x='a\\ b'") != std::string::npos);
  backend_login(drive, role());
  CHECK(tags(drive.take_to_client()) == "RRSKNZ");  // explain: a NOTICE before ReadyForQuery

  Drive bad;
  bad.client(startup_packet({{"user", "app.b1"}, {"options", "-c pointsman.nonsense=1"}}));
  CHECK(refusal_of(bad).ends_with("22023"));
}

TEST_CASE("replication passes on direct routes and is refused on pools") {
  Drive direct;
  client_login(direct, role(), role(), "app.b1", {{"replication", "true"}});
  direct.event([&](proxy::SessionCore& core) { core.on_connected(direct.now); });
  CHECK(direct.to_backend.find(std::string("replication\0true\0", 17)) != std::string::npos);
  Drive pooled(plain_listener(routing::ListenerMode::kPooled));
  pooled.client(startup_packet({{"user", "app.b1"}, {"replication", "database"}}));
  CHECK(refusal_of(pooled).ends_with("0A000"));
  Drive bad;
  bad.client(startup_packet({{"user", "app.b1"}, {"replication", "maybe"}}));
  CHECK(refusal_of(bad).ends_with("22023"));
}

TEST_CASE("a replica that cannot be dialled is reported and the next one is tried") {
  Drive drive;
  client_login(drive, role(), role(), "app.b1|replica");
  const auto first = drive.connected_to;
  drive.event([&](proxy::SessionCore& core) { core.on_connect_failed("refused", drive.now); });
  CHECK(drive.logged("report_dial_failure"));
  CHECK(drive.connected_to != first);
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  backend_login(drive, role());
  CHECK(drive.core->relaying());
}

TEST_CASE("without a primary the login is held, bounded, and goes on when one is known") {
  Drive drive;
  auto headless = std::make_shared<routing::BranchView>(*drive.branch.view);
  headless->primary = -1;
  headless->members[0].role = routing::MemberRole::kUnknown;
  headless->members[0].state = routing::MemberState::kDown;
  drive.services.known = headless;
  client_login(drive, role(), role());
  CHECK(drive.core->phase_name() == "holding");
  CHECK(drive.services.held == 1);
  CHECK(drive.core->waiting_for_branch() == "b1");
  SUBCASE("a view with a primary releases it") {
    drive.services.known = drive.branch.view;
    drive.event([&](proxy::SessionCore& core) { core.on_snapshot(drive.now); });
    CHECK(drive.services.held == 0);
    CHECK(drive.connected_to == "127.0.0.1:6000");
    CHECK(drive.core->record().identity.decision->reason == routing::Reason::kHeld);
  }
  SUBCASE("the hold expires with 57P03") {
    drive.advance_to(9.9);
    CHECK_FALSE(drive.finished);
    drive.advance_to(10.1);
    CHECK(refusal_of(drive).ends_with("57P03"));
    CHECK(drive.services.held == 0);
  }
  SUBCASE("the client leaves") {
    drive.event([&](proxy::SessionCore& core) { core.on_client_eof(drive.now); });
    CHECK(drive.services.held == 0);
    CHECK(drive.logged("finish client_closed"));
  }
  SUBCASE("the router drains") {
    drive.event([&](proxy::SessionCore& core) { core.on_drain(drive.now); });
    CHECK(refusal_of(drive) == "draining 57P03");
    CHECK(drive.services.held == 0);
  }
}

TEST_CASE("min_lsn: the branch is probed afresh, once, and the session goes on when a replica has it") {
  Drive drive;
  auto behind = std::make_shared<routing::BranchView>(*drive.branch.view);
  for (auto& member : behind->members) member.position = 0x1000;
  drive.services.known = behind;
  client_login(drive, role(), role(), "app.b1|replica", {{"options", "-c pointsman.min_lsn=0/2000"}});
  CHECK(drive.core->phase_name() == "holding");
  CHECK(drive.logged("probe_afresh b1"));
  const auto probed = [&](routing::Lsn position) {
    auto view = std::make_shared<routing::BranchView>(*behind);
    for (auto& member : view->members) {
      member.probed_at = drive.now;
      member.position = position;
    }
    drive.services.known = view;
    drive.event([&](proxy::SessionCore& core) { core.on_snapshot(drive.now); });
  };
  SUBCASE("there") {
    probed(0x2000);
    CHECK(drive.core->phase_name() == "connecting");
    CHECK(drive.core->record().identity.decision->reason == routing::Reason::kReplicaMinLsn);
  }
  SUBCASE("still behind after a fresh look") {
    probed(0x1fff);
    CHECK(refusal_of(drive) == "min_lsn_not_reached 57P03");
  }
}

TEST_CASE("57P03 of the server is retried while the hold lasts, then its own text is passed on") {
  Drive drive;
  client_login(drive, role(), role());
  const auto starting = server_error("57P03", "the database system is starting up");
  for (double second = 0; second < 11 && !drive.finished; second += 0.5) {
    drive.now = at(second);
    if (drive.core->phase_name() == "connecting") {
      drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
      drive.backend(starting);
    }
    drive.advance_to(second + 0.25);
  }
  REQUIRE(drive.finished);
  CHECK(drive.count("connect ") > 3);
  CHECK(drive.take_to_client().ends_with(starting));
  CHECK(drive.finished->reason == proxy::EndReason::kBackendRefused);
}

TEST_CASE("a password the replica has not replayed yet moves on, an outdated one of the client does not") {
  const auto rejected = server_error("28P01", "password authentication failed for user \"app\"");
  SUBCASE("the fresh verifier is the one that was proved: the replica is behind") {
    Drive drive;
    client_login(drive, role(), role(), "app.b1|replica");
    drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
    const auto first = drive.connected_to;
    drive.backend(rejected);
    CHECK(drive.logged("ask_verifier app@b1 fresh"));
    drive.event([&](proxy::SessionCore& core) { core.on_backend_eof("closed", drive.now); });
    drive.event([&](proxy::SessionCore& core) { core.on_verifier(role().answer(), drive.now); });
    CHECK_FALSE(drive.finished);
    CHECK(drive.connected_to != first);
  }
  SUBCASE("the verifier has changed: the client's password is the old one") {
    Drive drive;
    client_login(drive, role(), role());
    drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
    drive.backend(rejected);
    const TestRole rotated("new", "fedcba9876543210");
    drive.event([&](proxy::SessionCore& core) { core.on_verifier(rotated.answer(), drive.now); });
    REQUIRE(drive.finished);
    CHECK(drive.take_to_client() == rejected);
  }
}

TEST_CASE("an error of the server in the login is passed on untouched") {
  Drive drive;
  client_login(drive, role(), role());
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  const auto error = server_error("3D000", "database \"shop\" does not exist");
  drive.backend(error);
  CHECK(drive.take_to_client() == error);
  CHECK(drive.finished->reason == proxy::EndReason::kBackendRefused);
}

TEST_CASE("a hostile backend is not believed") {
  const auto expect_fault = [](const std::string& bytes) {
    Drive drive;
    client_login(drive, role(), role());
    drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
    drive.take_to_client();
    drive.backend(bytes);
    REQUIRE(drive.finished);
    CHECK(refusal_of(drive) == "backend_fault 58000");
    CHECK(tags(drive.take_to_client()) == "E");
  };
  std::string cleartext;
  base::append_be32(cleartext, protocol::kAuthCleartextPassword);
  expect_fault(typed_message('R', cleartext));
  std::string md5;
  base::append_be32(md5, protocol::kAuthMd5Password);
  expect_fault(typed_message('R', md5 + "salt"));
  expect_fault(typed_message('Z', "I"));
  expect_fault(std::string("R\x7f\xff\xff\xff", 5));
  expect_fault(std::string("R\0\0\0\3", 5));
  std::string plus_only;
  protocol::append_authentication_sasl(plus_only, {"SCRAM-SHA-1"});
  expect_fault(plus_only);
  // AuthenticationOk in the middle of SCRAM, without the server's signature.
  Drive drive;
  client_login(drive, role(), role());
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  std::string sasl;
  protocol::append_authentication_sasl(sasl, {protocol::kScramSha256});
  drive.backend(sasl);
  std::string ok;
  protocol::append_authentication_ok(ok);
  drive.backend(ok);
  CHECK(refusal_of(drive) == "backend_fault 58000");
}

TEST_CASE("a backend that must do TLS and does not is refused, never spoken to in clear") {
  for (const std::string answer : {"N", "E", "SX"}) {
    Drive drive;
    drive.branch.config->backend_tls.mode = routing::TlsMode::kRequire;
    client_login(drive, role(), role());
    drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
    CHECK(drive.take_to_backend() == protocol::build_ssl_request());
    drive.event([&](proxy::SessionCore& core) { core.on_backend_bytes(base::as_bytes(answer), drive.now); });
    CHECK(refusal_of(drive) == "backend_fault 58000");
    CHECK(drive.take_to_backend().empty());
  }
}

TEST_CASE("passthrough relays the exchange, checked, and strips PLUS") {
  Drive drive;
  drive.branch.config->auth.method = routing::AuthMethod::kPassthrough;
  drive.client(startup_packet({{"user", "app.b1"}}));
  CHECK_FALSE(drive.asked);
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  drive.take_to_backend();
  std::string sasl;
  protocol::append_authentication_sasl(sasl, {protocol::kScramSha256Plus, protocol::kScramSha256});
  drive.backend(sasl);
  auto messages = split_messages(drive.take_to_client());
  REQUIRE(messages.size() == 1);
  CHECK(messages[0].second.find("PLUS") == std::string::npos);
  protocol::ScramServer server(role().derived.verifier, false, "servernonce", false, {});
  protocol::ScramClient client(role().keys(), "clientnonce", false, false, {});
  std::string first;
  const auto client_first = client.first_message();
  protocol::append_sasl_initial_response(first, protocol::kScramSha256, client_first);
  drive.client(first);
  CHECK(drive.take_to_backend() == first);
  REQUIRE(server.on_initial(protocol::kScramSha256, client_first) == protocol::ScramServer::Outcome::kContinue);
  std::string bytes;
  protocol::append_authentication_sasl_continue(bytes, server.message());
  drive.backend(bytes);
  CHECK(drive.take_to_client() == bytes);
  REQUIRE(client.on_continue(server.message()) == protocol::ScramClient::Outcome::kContinue);
  std::string last;
  protocol::append_sasl_response(last, client.message());
  drive.client(last);
  CHECK(drive.take_to_backend() == last);
  REQUIRE(server.on_final(client.message()) == protocol::ScramServer::Outcome::kSuccess);
  bytes.clear();
  protocol::append_authentication_sasl_final(bytes, server.message());
  protocol::append_authentication_ok(bytes);
  bytes += greeting();
  drive.backend(bytes);
  CHECK(tags(drive.take_to_client()) == "RRSKZ");
  CHECK(drive.core->relaying());
}

TEST_CASE("the login deadline is absolute: dripped bytes do not move it") {
  Drive drive(plain_listener(), 1);
  const auto packet = startup_packet({{"user", "app.b1"}});
  for (int i = 0; i < 14; ++i) {
    drive.now = at(i);
    drive.client(packet.substr(static_cast<std::size_t>(i), 1));
    CHECK_FALSE(drive.finished);
  }
  CHECK(*drive.core->deadline() == at(15));
  drive.advance_to(15);
  CHECK(drive.finished);
  CHECK(drive.finished->refusal->reason == routing::Reason::kTimeout);
  CHECK(drive.take_to_client().empty());  // in clear and before a startup packet: a plain close
}

TEST_CASE("what a client says before its login is complete is bounded, kept and relayed once") {
  Drive drive;
  client_login(drive, role(), role());
  const auto query = typed_message('Q', std::string("SELECT 1\0", 9));
  drive.client(query);
  drive.event([&](proxy::SessionCore& core) { core.on_connected(drive.now); });
  backend_login(drive, role());
  REQUIRE(drive.relay);
  CHECK(drive.relay->to_backend == query);
  Drive flood;
  client_login(flood, role(), role());
  flood.client(std::string(40 * 1024, 'Q'));
  CHECK(refusal_of(flood) == "protocol_violation 08P01");
}

TEST_CASE("a full branch, a draining router and a foreign address are refused before any exchange") {
  Drive full;
  full.services.admit_refusal = routing::Refusal{routing::Reason::kLimit, "53300", "too many", "", "", ""};
  full.client(startup_packet({{"user", "app.b1"}}));
  CHECK(refusal_of(full) == "limit 53300");
  Drive draining;
  draining.services.is_draining = true;
  draining.client(startup_packet({{"user", "app.b1"}}));
  CHECK(refusal_of(draining) == "draining 57P03");
  Drive foreign;
  foreign.branch.config->allow.push_back(*routing::Cidr::parse("10.0.0.0/8"));
  foreign.client(startup_packet({{"user", "app.b1"}}));
  CHECK(refusal_of(foreign) == "not_allowed 28000");
  CHECK_FALSE(foreign.asked);
}

TEST_CASE("a PROXY header is required where configured, and only from trusted peers") {
  auto listener = plain_listener();
  listener.proxy_protocol = true;
  listener.trusted_proxies.push_back(*routing::Cidr::parse("127.0.0.0/8"));
  Drive drive(listener, 1);
  drive.branch.config->allow.push_back(*routing::Cidr::parse("192.0.2.0/24"));
  drive.client("PROXY TCP4 192.0.2.7 127.0.0.1 5000 5432\r\n");
  drive.client(startup_packet({{"user", "app.b1"}}));
  CHECK(drive.asked);
  REQUIRE(drive.core->record().proxied_source);
  CHECK(drive.core->record().proxied_source->to_string() == "192.0.2.7:5000");
  Drive missing(listener);
  missing.client(startup_packet({{"user", "app.b1"}}));
  REQUIRE(missing.finished);
  CHECK(missing.take_to_client().empty());
  listener.trusted_proxies = {*routing::Cidr::parse("10.0.0.0/8")};
  Drive stranger(listener);
  stranger.client("PROXY TCP4 192.0.2.7 127.0.0.1 5000 5432\r\n");
  CHECK(refusal_of(stranger).starts_with("not_allowed"));
}
