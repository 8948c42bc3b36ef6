// Our own SQL connection against a hostile server. First byte: bit 0 asks for TLS, bit 1 has a certificate hash to bind
// to, bit 2 has no password, bit 3 asks by the simple protocol. Then segments, each with a 16-bit length: the client is
// given one, then what its event asks for is done. No crash, the password never leaves, nothing but SSLRequest leaves
// before TLS, and a segment may be cut anywhere: the whole and single bytes come to the same.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "protocol/startup.h"
#include "proxy/monitor/sql_client.h"
#include "tests/fuzz/scram_fuzz_support.h"

namespace {

using namespace pointsman;
using proxy::SqlClient;
using Event = SqlClient::Event;

constexpr char kPassword[] = "pencil-pencil-pencil";
constexpr std::size_t kMaxSegments = 16;

struct Input {
  bool tls, binds, no_password, simple;
  std::vector<std::string_view> segments;
};

Input read_input(const std::uint8_t* data, std::size_t size) {
  fuzz::Choices choices(data, size);
  const auto flags = choices.byte();
  Input input{(flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0, (flags & 8) != 0, {}};
  while (!choices.empty() && input.segments.size() < kMaxSegments) {
    const std::size_t high = choices.byte();
    input.segments.push_back(choices.text(high << 8 | choices.byte()));
  }
  return input;
}

class Run {
 public:
  Run(const Input& input, bool byte_by_byte)
      : input_(input), byte_by_byte_(byte_by_byte), client_(login(input), fuzz::kClientNonce) {}

  /// What came of it, comparable.
  std::string report() {
    note(client_.start());
    for (const auto segment : input_.segments) {
      note(act_on(give(segment)));
      if (failed_) break;
    }
    return report_;
  }

 private:
  static proxy::SqlLogin login(const Input& input) {
    proxy::SqlLogin login;
    login.user = "pointsman";
    login.password = base::SecretString(input.no_password ? "" : kPassword);
    login.database = "postgres";
    login.tls = input.tls;
    return login;
  }

  Event give(std::string_view segment) {
    if (!byte_by_byte_) return give_exactly(segment);
    Event event = Event::kNothing;
    for (std::size_t i = 0; i < segment.size(); ++i) {
      const Event next = give_exactly(segment.substr(i, 1));
      // An event is never lost: only the end can follow one that was not acted on.
      POINTSMAN_CHECK(next == Event::kNothing || event == Event::kNothing || next == Event::kFailed);
      if (next != Event::kNothing) event = next;
    }
    return event;
  }
  Event give_exactly(std::string_view bytes) {
    const std::vector<char> exact(bytes.begin(), bytes.end());
    return client_.on_bytes(base::as_bytes({exact.data(), exact.size()}));
  }

  Event act_on(Event event) {
    note(event);
    switch (event) {
      case Event::kNothing:
      case Event::kFailed:
        return Event::kNothing;
      case Event::kStartTls:
        encrypted_ = true;
        return client_.on_tls(input_.binds ? fuzz::kEndpointHash : "");
      case Event::kDeriveKeys:
        POINTSMAN_CHECK(client_.password().reveal() == kPassword);
        POINTSMAN_CHECK(client_.iterations() >= 1 && client_.iterations() <= protocol::kMaxScramIterations);
        return client_.on_keys(fuzz::role_keys());
      case Event::kAnswer:
        note_rows(client_.take_rows());
        ask();
        return Event::kNothing;
      case Event::kStatementFailed:
        report_ += client_.failure().text;
        ask();
        return Event::kNothing;
      case Event::kReady:
        POINTSMAN_CHECK(client_.idle());
        ask();
        return Event::kNothing;
    }
    POINTSMAN_CHECK(false);
  }

  void ask() {
    if (input_.simple) {
      client_.command("SHOW LISTS");
    } else {
      const std::string role = "a role";
      client_.query("SELECT $1", std::span(&role, 1));
    }
  }

  void note_rows(const proxy::PgRows& rows) {
    for (int i = 0; i < rows.rows(); ++i) {
      for (int j = 0; j < rows.columns(); ++j) report_.append(rows.value(i, j).value_or("NULL")).append("|");
    }
  }

  void note(Event event) {
    report_ += static_cast<char>('0' + static_cast<int>(event));
    const auto output = client_.output().view();
    POINTSMAN_CHECK(output.find(kPassword) == std::string_view::npos);
    if (input_.tls && !encrypted_) POINTSMAN_CHECK(output.empty() || output == protocol::build_ssl_request());
    report_.append(output);
    client_.output().consume(output.size());
    if (event != Event::kFailed) return;
    failed_ = true;
    POINTSMAN_CHECK(!client_.failure().text.empty() && client_.password().empty());
    report_ += client_.failure().text;
  }

  const Input& input_;
  bool byte_by_byte_;
  SqlClient client_;
  std::string report_;
  bool encrypted_ = false;
  bool failed_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = read_input(data, size);
  POINTSMAN_CHECK(Run(input, false).report() == Run(input, true).report());
  return 0;
}
