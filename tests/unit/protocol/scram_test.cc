#include "protocol/scram.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "base/bytes.h"

namespace pointsman::protocol {
namespace {

std::string hex(const ScramKey& key) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const auto byte : key.span()) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

std::string_view view(const ScramKey& key) {
  return base::as_text(key.span());
}

// RFC 7677, section 3: user "user", password "pencil".
constexpr char kRfcSalt[] = "W22ZaJ0SNY7soEsUEjb6gQ==";
constexpr char kRfcClientNonce[] = "rOprNGfwEbeRWgbNEkqO";
constexpr char kRfcServerNonce[] = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
constexpr char kRfcClientFirst[] = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
constexpr char kRfcServerFirst[] =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
constexpr char kRfcFinalHead[] = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
constexpr char kRfcProof[] = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
constexpr char kRfcServerFinal[] = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

const DerivedScram& rfc_role() {
  static const DerivedScram derived = derive_scram("pencil", *base64_decode(kRfcSalt), 4'096);
  return derived;
}

constexpr char kEndpointHash[] = "0123456789abcdef0123456789abcdef";

ScramServer rfc_server(bool is_mock = false, bool offer_plus = false) {
  return {rfc_role().verifier, is_mock, kRfcServerNonce, offer_plus, offer_plus ? kEndpointHash : ""};
}

ScramLoginKeys rfc_login_keys() {
  return {rfc_role().client_key, rfc_role().verifier.stored_key, rfc_role().verifier.server_key};
}

std::string rfc_final() {
  return std::string(kRfcFinalHead) + ",p=" + kRfcProof;
}

/// The outcome of a client-final-message behind RFC 7677's first.
ScramServer::Outcome final_outcome(std::string_view final_message, bool is_mock = false) {
  auto server = rfc_server(is_mock);
  REQUIRE(server.on_initial("SCRAM-SHA-256", kRfcClientFirst) == ScramServer::Outcome::kContinue);
  const auto outcome = server.on_final(final_message);
  CHECK((outcome == ScramServer::Outcome::kSuccess) == server.reason().empty());
  return outcome;
}

ScramServer::Outcome first_outcome(std::string_view first_message, std::string_view mechanism = "SCRAM-SHA-256",
                                   bool offer_plus = false) {
  auto server = rfc_server(false, offer_plus);
  return server.on_initial(mechanism, first_message);
}

using Server = ScramServer::Outcome;
using Client = ScramClient::Outcome;

// ---- server ------------------------------------------------------------------------------------------------------

TEST_CASE("the server speaks RFC 7677's example and recovers the ClientKey") {
  auto server = rfc_server();
  CHECK(server.mechanisms() == std::vector<std::string_view>{"SCRAM-SHA-256"});
  REQUIRE(server.on_initial("SCRAM-SHA-256", kRfcClientFirst) == Server::kContinue);
  CHECK(server.message() == kRfcServerFirst);
  REQUIRE(server.on_final(rfc_final()) == Server::kSuccess);
  CHECK(server.message() == kRfcServerFinal);
  CHECK(hex(server.login_keys().client_key) == hex(rfc_role().client_key));
  CHECK(hex(server.login_keys().stored_key) == hex(rfc_role().verifier.stored_key));
  CHECK(hex(server.login_keys().server_key) == hex(rfc_role().verifier.server_key));
}

TEST_CASE("a wrong password and a role that does not exist end alike") {
  const auto wrong_proof = std::string(kRfcFinalHead) + ",p=" + base64_encode(std::string(32, 'x'));
  CHECK(final_outcome(wrong_proof) == Server::kWrongPassword);
  CHECK(final_outcome(wrong_proof, true) == Server::kWrongPassword);
  // A mock is doomed even with a proof that fits.
  auto mock = rfc_server(true);
  REQUIRE(mock.on_initial("SCRAM-SHA-256", kRfcClientFirst) == Server::kContinue);
  CHECK(mock.message() == kRfcServerFirst);
  CHECK(mock.on_final(rfc_final()) == Server::kWrongPassword);
  CHECK(hex(mock.login_keys().client_key) == hex(ScramKey()));
  CHECK(mock.message() == kRfcServerFirst);  // no server signature goes out

  auto real = rfc_server();
  REQUIRE(real.on_initial("SCRAM-SHA-256", kRfcClientFirst) == Server::kContinue);
  CHECK(real.on_final(wrong_proof) == Server::kWrongPassword);
  CHECK(real.reason() == mock.reason());
}

TEST_CASE("every single changed byte of a final message is refused") {
  const auto good = rfc_final();
  REQUIRE(final_outcome(good) == Server::kSuccess);
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const char change : {'\x01', '\x20', '\x7f'}) {
      auto bad = good;
      bad[at] = static_cast<char>(bad[at] ^ change);
      CAPTURE(bad);
      CHECK(final_outcome(bad) != Server::kSuccess);
    }
    CHECK(final_outcome(good.substr(0, at)) == Server::kMalformed);
  }
}

TEST_CASE("client-first-messages that must be refused") {
  CHECK(first_outcome("n,,n=,r=abc") == Server::kContinue);
  CHECK(first_outcome("y,,n=,r=abc") == Server::kContinue);  // no PLUS was offered: lawful
  CHECK(first_outcome("n,,n=,r=abc,x=any,Y=ok") == Server::kContinue);
  CHECK(first_outcome("n,,n=a=2Cb,r=abc") == Server::kContinue);
  for (const char* bad : {"",
                          "n",
                          "n,",
                          "n,,",
                          "n,,n=",
                          "n,,n=x",
                          "n,,n=x,",
                          "n,,n=x,r",
                          "n,,n=x,r=",
                          "n,,r=abc",
                          "n,,n=x,r=abc,",
                          "n,,n=x,r=abc,x",
                          "n,,n=x,r=abc,=x",
                          "n,,n=x,r=abc,1=x",
                          "n,,n=x,r=a b",
                          "n,,n=x,r=a\x7f",
                          "n,,n=x,r=a\xc3\xa4",
                          "n,,n=x,r=a\tb",
                          "x,,n=,r=abc",
                          "N,,n=,r=abc",
                          "nn,n=,r=abc",
                          "n,b=c,n=,r=abc",
                          "n n,,n=,r=abc",
                          "n,,x=y,n=,r=abc",
                          "p=tls-server-end-point,,n=,r=abc",
                          "p,,n=,r=abc"}) {
    CAPTURE(bad);
    CHECK(first_outcome(bad) == Server::kMalformed);
  }
  CHECK(first_outcome(std::string_view("n,,n=\0,r=abc", 12)) == Server::kMalformed);
  CHECK(first_outcome("n,,n=,r=" + std::string(1'024, 'r')) == Server::kMalformed);
  CHECK(first_outcome("n,a=admin,n=,r=abc") == Server::kUnsupported);
  CHECK(first_outcome("n,,m=ext,n=,r=abc") == Server::kUnsupported);
  CHECK(first_outcome("n,,n=,r=abc,m=ext") == Server::kUnsupported);
  for (const char* mechanism : {"", "SCRAM-SHA-1", "scram-sha-256", "SCRAM-SHA-256 ", "PLAIN", "SCRAM-SHA-256-PLUS"}) {
    CAPTURE(mechanism);
    CHECK(first_outcome("n,,n=,r=abc", mechanism) == Server::kMalformed);
  }
}

TEST_CASE("client-final-messages that must be refused") {
  const std::string head(kRfcFinalHead);
  const std::string proof = std::string(",p=") + kRfcProof;
  CHECK(final_outcome("") == Server::kMalformed);
  CHECK(final_outcome(head) == Server::kMalformed);
  CHECK(final_outcome(head + proof + ",") == Server::kMalformed);
  CHECK(final_outcome(head + proof + ",x=y") == Server::kMalformed);
  CHECK(final_outcome(head + proof + proof) == Server::kMalformed);
  CHECK(final_outcome(head + proof + '\0') == Server::kMalformed);
  CHECK(final_outcome(head + ",p=") == Server::kMalformed);
  CHECK(final_outcome(head + ",p=" + base64_encode(std::string(31, 'x'))) == Server::kMalformed);
  CHECK(final_outcome(head + ",p=" + base64_encode(std::string(33, 'x'))) == Server::kMalformed);
  CHECK(final_outcome(head + ",m=ext" + proof) == Server::kUnsupported);
  CHECK(final_outcome(head + ",x=y" + proof) == Server::kWrongPassword);  // lawful, but signed over another message
  CHECK(final_outcome(head + "A" + proof) == Server::kMalformed);         // nonce
  CHECK(final_outcome("c=biws,r=rOprNGfwEbeRWgbNEkqO" + proof) == Server::kMalformed);
  CHECK(final_outcome("c=eSws" + head.substr(6) + proof) == Server::kMalformed);  // not what was sent first
  CHECK(final_outcome(head.substr(7) + proof) == Server::kMalformed);
  CHECK(final_outcome(std::string(2'000, 'c')) == Server::kMalformed);
}

TEST_CASE("client-final-message with an ignored extension succeeds when it is signed") {
  auto server = rfc_server();
  REQUIRE(server.on_initial("SCRAM-SHA-256", kRfcClientFirst) == Server::kContinue);
  const auto without_proof = std::string(kRfcFinalHead) + ",x=y";
  const auto auth_message = std::string(kRfcClientFirst).substr(3) + "," + kRfcServerFirst + "," + without_proof;
  const auto signature = hmac_sha256(view(rfc_role().verifier.stored_key), auth_message);
  std::string proof(view(rfc_role().client_key));
  for (std::size_t i = 0; i < proof.size(); ++i)
    proof[i] = static_cast<char>(proof[i] ^ static_cast<char>(signature.data()[i]));
  CHECK(server.on_final(without_proof + ",p=" + base64_encode(proof)) == Server::kSuccess);
}

TEST_CASE("channel binding: what each flag and mechanism come to") {
  auto server = rfc_server(false, true);
  CHECK(server.mechanisms() == std::vector<std::string_view>{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"});
  CHECK(first_outcome("n,,n=,r=abc", "SCRAM-SHA-256", true) == Server::kContinue);
  CHECK(first_outcome("y,,n=,r=abc", "SCRAM-SHA-256", true) == Server::kBindingNegotiation);
  CHECK(first_outcome("p=tls-server-end-point,,n=,r=abc", "SCRAM-SHA-256", true) == Server::kMalformed);
  CHECK(first_outcome("p=tls-server-end-point,,n=,r=abc", "SCRAM-SHA-256-PLUS", true) == Server::kContinue);
  CHECK(first_outcome("n,,n=,r=abc", "SCRAM-SHA-256-PLUS", true) == Server::kMalformed);
  CHECK(first_outcome("y,,n=,r=abc", "SCRAM-SHA-256-PLUS", true) == Server::kMalformed);
  CHECK(first_outcome("p=tls-unique,,n=,r=abc", "SCRAM-SHA-256-PLUS", true) == Server::kMalformed);
  CHECK(first_outcome("p=tls-server-end-pointer,,n=,r=abc", "SCRAM-SHA-256-PLUS", true) == Server::kMalformed);
  CHECK(first_outcome("p=tls-server-end-point", "SCRAM-SHA-256-PLUS", true) == Server::kMalformed);
  CHECK(first_outcome("p=tls-server-end-point,a=x,n=,r=abc", "SCRAM-SHA-256-PLUS", true) == Server::kUnsupported);
}

// ---- both sides --------------------------------------------------------------------------------------------------

struct Pairing {
  Server server = Server::kMalformed;
  Client client = Client::kMalformed;
};

/// A whole login of `client` at `server`, as far as it goes.
Pairing run(ScramServer& server, ScramClient& client) {
  Pairing result;
  const auto first = client.first_message();
  result.server = server.on_initial(client.mechanism(), first);
  if (result.server != Server::kContinue) return result;
  result.client = client.on_continue(server.message());
  if (result.client != Client::kContinue) return result;
  result.server = server.on_final(client.message());
  if (result.server != Server::kSuccess) return result;
  result.client = client.on_final(server.message());
  return result;
}

TEST_CASE("a recovered ClientKey logs in elsewhere, and again from there") {
  // Client with the password, router one, router two, PostgreSQL: two hops of keys recovered from proofs.
  ScramServer first_hop(rfc_role().verifier, false, "nonce-of-hop-one", false, "");
  ScramClient origin(rfc_login_keys(), "nonce-of-client", false, true, "");
  const auto outer = run(first_hop, origin);
  REQUIRE(outer.server == Server::kSuccess);
  REQUIRE(outer.client == Client::kDone);

  ScramServer second_hop(rfc_role().verifier, false, "nonce-of-hop-two", true, kEndpointHash);
  ScramClient router(first_hop.login_keys(), "nonce-of-router", true, false, kEndpointHash);
  CHECK(router.mechanism() == "SCRAM-SHA-256-PLUS");
  const auto inner = run(second_hop, router);
  REQUIRE(inner.server == Server::kSuccess);
  REQUIRE(inner.client == Client::kDone);

  ScramServer postgres(rfc_role().verifier, false, "nonce-of-postgres", false, "");
  ScramClient last(second_hop.login_keys(), "nonce-of-hop", false, false, "");
  const auto innermost = run(postgres, last);
  CHECK(innermost.server == Server::kSuccess);
  CHECK(innermost.client == Client::kDone);
  CHECK(hex(postgres.login_keys().client_key) == hex(rfc_role().client_key));
}

TEST_CASE("the GS2 flag says what the connection can do") {
  CHECK(ScramClient(rfc_login_keys(), "abc", false, false, "").first_message() == "n,,n=,r=abc");
  CHECK(ScramClient(rfc_login_keys(), "abc", false, true, "").first_message() == "y,,n=,r=abc");
  CHECK(ScramClient(rfc_login_keys(), "abc", true, false, kEndpointHash).first_message() ==
        "p=tls-server-end-point,,n=,r=abc");
}

TEST_CASE("a man in the middle with another certificate fails the binding") {
  auto server = rfc_server(false, true);
  ScramClient client(rfc_login_keys(), "abc", true, false, "another certificate's hash......");
  CHECK(run(server, client).server == Server::kBindingMismatch);
  // He strips PLUS from the list: the client says `y`, and the server knows better.
  auto stripped = rfc_server(false, true);
  ScramClient honest(rfc_login_keys(), "abc", false, true, "");
  CHECK(run(stripped, honest).server == Server::kBindingNegotiation);
}

TEST_CASE("binding mismatch of every size of hash") {
  for (const std::size_t size : {std::size_t{1}, std::size_t{32}, std::size_t{48}, std::size_t{64}}) {
    CAPTURE(size);
    const std::string hash(size, 'h');
    ScramServer server(rfc_role().verifier, false, "server-nonce", true, hash);
    ScramClient client(rfc_login_keys(), "client-nonce", true, false, hash);
    CHECK(run(server, client).client == Client::kDone);
    ScramServer other(rfc_role().verifier, false, "server-nonce", true, hash + "x");
    ScramClient same(rfc_login_keys(), "client-nonce", true, false, hash);
    CHECK(run(other, same).server == Server::kBindingMismatch);
  }
}

TEST_CASE("keys of another password do not log in") {
  const auto other = derive_scram("pencils", rfc_role().verifier.salt, 4'096);
  auto server = rfc_server();
  ScramClient client({other.client_key, other.verifier.stored_key, other.verifier.server_key}, "abc", false, false, "");
  CHECK(run(server, client).server == Server::kWrongPassword);
}

TEST_CASE("keys may be given after the server has named salt and iterations") {
  auto server = rfc_server(false, true);
  ScramClient client("abc", true, false, kEndpointHash);
  REQUIRE(server.on_initial(client.mechanism(), client.first_message()) == Server::kContinue);
  REQUIRE(client.on_continue(server.message()) == Client::kNeedsKeys);
  CHECK(client.message().empty());
  CHECK(client.salt() == rfc_role().verifier.salt);
  CHECK(client.iterations() == rfc_role().verifier.iterations);
  REQUIRE(client.on_keys(rfc_login_keys()) == Client::kContinue);
  REQUIRE(server.on_final(client.message()) == Server::kSuccess);
  CHECK(client.on_final(server.message()) == Client::kDone);

  // The same messages as from who has the keys at once.
  auto early_server = rfc_server(false, true);
  ScramClient early(rfc_login_keys(), "abc", true, false, kEndpointHash);
  REQUIRE(early_server.on_initial(early.mechanism(), early.first_message()) == Server::kContinue);
  REQUIRE(early.on_continue(early_server.message()) == Client::kContinue);
  CHECK(early.message() == client.message());

  ScramClient other("abc", false, false, "");
  (void)other.first_message();
  CHECK(other.on_continue("r=abcT,s=AA==,i=1000001") == Client::kMalformed);
}

// ---- hostile backends --------------------------------------------------------------------------------------------

Client continue_outcome(std::string_view server_first) {
  ScramClient client(rfc_login_keys(), "ours", false, false, "");
  (void)client.first_message();
  const auto outcome = client.on_continue(server_first);
  CHECK((outcome == Client::kContinue) == client.reason().empty());
  CHECK((outcome == Client::kContinue) == !client.message().empty());
  return outcome;
}

TEST_CASE("server-first-messages that must be refused") {
  const std::string tail = ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
  CHECK(continue_outcome("r=oursTHEIRS" + tail) == Client::kContinue);
  CHECK(continue_outcome("r=oursT,s=AA==,i=1") == Client::kContinue);
  CHECK(continue_outcome("r=oursT,s=AA==,i=1000000") == Client::kContinue);
  CHECK(continue_outcome("r=ours" + std::string(kMaxScramNonce - 4, 'x') + tail) == Client::kContinue);
  CHECK(continue_outcome("r=ours" + std::string(kMaxScramNonce - 3, 'x') + tail) == Client::kMalformed);
  CHECK(continue_outcome("r=oursT,s=" + base64_encode(std::string(kMaxScramSalt, 's')) + ",i=4096") ==
        Client::kContinue);
  CHECK(continue_outcome("r=oursT,s=" + base64_encode(std::string(kMaxScramSalt + 1, 's')) + ",i=4096") ==
        Client::kMalformed);
  for (const auto& bad : {std::string(),
                          std::string("r"),
                          std::string("r="),
                          "r=ours" + tail,
                          "r=our" + tail,
                          "r=theirs" + tail,
                          "r=OURSx" + tail,
                          "r=xours" + tail,
                          "r=oursa b" + tail,
                          std::string("r=oursT"),
                          std::string("r=oursT,"),
                          std::string("r=oursT,i=4096,s=AA=="),
                          std::string("r=oursT,s=AA=="),
                          std::string("r=oursT,s=,i=4096"),
                          std::string("r=oursT,s=A,i=4096"),
                          std::string("r=oursT,s=AA==,i=0"),
                          std::string("r=oursT,s=AA==,i=-1"),
                          std::string("r=oursT,s=AA==,i=1000001"),
                          std::string("r=oursT,s=AA==,i=2147483648"),
                          std::string("r=oursT,s=AA==,i=4096x"),
                          std::string("r=oursT,s=AA==,i="),
                          "r=oursT" + tail + ",",
                          "r=oursT" + tail + ",x=y",
                          "m=ext,r=oursT" + tail,
                          std::string("e=other-error"),
                          "r=oursT" + tail + std::string(5'000, '9'),
                          std::string(100'000, 'r')}) {
    CAPTURE(bad);
    CHECK(continue_outcome(bad) == Client::kMalformed);
  }
}

TEST_CASE("the server must prove itself too") {
  const auto final_outcome_of = [](std::string_view final_message) {
    auto server = rfc_server();
    ScramClient client(rfc_login_keys(), "abc", false, false, "");
    REQUIRE(server.on_initial(client.mechanism(), client.first_message()) == Server::kContinue);
    REQUIRE(client.on_continue(server.message()) == Client::kContinue);
    REQUIRE(server.on_final(client.message()) == Server::kSuccess);
    const std::string right = server.message();
    return client.on_final(final_message.empty() ? right : final_message);
  };
  CHECK(final_outcome_of("") == Client::kDone);
  CHECK(final_outcome_of(kRfcServerFinal) == Client::kBadServerSignature);  // of another exchange
  CHECK(final_outcome_of("v=" + base64_encode(std::string(32, '\0'))) == Client::kBadServerSignature);
  for (const auto& bad :
       {std::string("v"), std::string("v="), std::string("v=AAAA"), std::string("e=invalid-proof"), std::string("x=y"),
        std::string(kRfcServerFinal) + ",x=y", std::string(kRfcServerFinal) + ",", std::string(100'000, 'v')}) {
    CAPTURE(bad);
    CHECK(final_outcome_of(bad) == Client::kMalformed);
  }
}

TEST_CASE("a server without the verifier cannot pretend to hold it") {
  // It accepts any proof, but has no ServerKey to sign with.
  ScramClient client(rfc_login_keys(), "abc", false, false, "");
  (void)client.first_message();
  REQUIRE(client.on_continue("r=abcdef,s=AA==,i=1") == Client::kContinue);
  CHECK(client.on_final("v=" + base64_encode(std::string(32, 'z'))) == Client::kBadServerSignature);
}

}  // namespace
}  // namespace pointsman::protocol
