#pragma once
// Drives a ConsoleCore as its shell does: bytes go in while it wants them, in pieces of any size; what it sends and
// does is a log. Statements are answered by `answer`. Knows no test framework.

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "protocol/messages.h"
#include "protocol/scram.h"
#include "protocol/startup.h"
#include "proxy/console/console_core.h"

namespace pointsman::test {

inline const protocol::DerivedScram& console_password() {
  static const auto derived = protocol::derive_scram("pencil", "sixteen bytes...", 1);
  return derived;
}

class FakeConsoleServices final : public proxy::ConsoleServices {
 public:
  FakeConsoleServices() {
    const auto verifier = protocol::format_scram_verifier(console_password().verifier);
    config.users["admin"] = {base::SecretString(verifier), routing::ConsoleRole::kAdmin};
    config.users["reader"] = {base::SecretString(verifier), routing::ConsoleRole::kRead};
  }
  routing::ConsoleConfig config;
  bool has_room = true;

  const routing::ConsoleConfig& console() override { return config; }
  base::Duration login_timeout() override { return std::chrono::seconds(15); }
  std::string_view version() override { return "1.2.3"; }
  void random_bytes(base::MutableBytes out) override { std::fill(out.begin(), out.end(), base::Byte{7}); }
  std::string_view mock_secret() override { return "mock"; }
  bool admit() override { return has_room; }
};

inline std::string typed_message(char tag, std::string_view body) {
  std::string out(1, tag);
  base::append_be32(out, static_cast<std::uint32_t>(body.size() + 4));
  return out.append(body);
}
inline std::string query_message(std::string_view text) {
  return typed_message('Q', std::string(text) + '\0');
}
inline std::string startup_packet(std::string_view user, std::string_view database = "pointsman") {
  std::vector<protocol::StartupParameter> parameters = {{"user", std::string(user)}};
  if (!database.empty()) parameters.push_back({"database", std::string(database)});
  return protocol::build_startup_message(parameters);
}

class ConsoleDrive {
 public:
  explicit ConsoleDrive(std::size_t chunk = 0, routing::ListenerTls tls = routing::ListenerTls::kOptional)
      : chunk_(chunk), core_(services, tls, now) {
    answer = [](const proxy::Statement& statement) {
      proxy::StatementResult result;
      if (statement.kind == proxy::StatementKind::kShowVersion) {
        result.table =
            proxy::Table{.columns = {{"version"},
                                     {"number", proxy::ColumnType::kInt8},
                                     {"share", proxy::ColumnType::kFloat8},
                                     {"good", proxy::ColumnType::kBool}},
                         .more = [given = false]() mutable -> std::optional<std::vector<proxy::Row>> {
                           if (std::exchange(given, true)) return std::nullopt;
                           return std::vector<proxy::Row>{{std::string("one"), std::int64_t{-7}, 0.5, true},
                                                          {proxy::Cell(), proxy::Cell(), proxy::Cell(), false}};
                         }};
      } else if (statement.kind == proxy::StatementKind::kHold) {
        result.error = proxy::Report{.sqlstate = "55000", .message = "no"};
      } else {
        result.notices.push_back({.severity = "NOTICE", .sqlstate = "00000", .message = "done"});
      }
      return result;
    };
  }

  /// In pieces, as fast as the core takes them.
  void client(std::string_view bytes) {
    while (!bytes.empty() && !finished && core_.wants_input()) {
      const std::size_t size = chunk_ == 0 ? bytes.size() : std::min(chunk_, bytes.size());
      // Each piece is a block of its own, so that AddressSanitizer finds a read beyond it.
      const std::vector<base::Byte> piece(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
      bytes.remove_prefix(size);
      core_.on_bytes(piece);
      pump();
    }
    unread_ += bytes.size();
  }
  /// True when the client has read that it is in.
  bool login(std::string_view user, std::string_view database = "pointsman") {
    client(startup_packet(user, database));
    const auto& derived = console_password();
    protocol::ScramClient scram({derived.client_key, derived.verifier.stored_key, derived.verifier.server_key},
                                "clientnonce", false, false, {});
    std::string bytes;
    protocol::append_sasl_initial_response(bytes, "SCRAM-SHA-256", scram.first_message());
    const std::size_t before = sent.size();
    client(bytes);
    const auto answer_frame = protocol::next_message(base::as_bytes(std::string_view(sent).substr(before)), 4096);
    if (answer_frame.status != protocol::FrameStatus::kMessage || answer_frame.message.body.size() < 4) return false;
    const std::string server_first(base::as_text(answer_frame.message.body).substr(4));
    if (scram.on_continue(server_first) != protocol::ScramClient::Outcome::kContinue) return false;
    bytes.clear();
    protocol::append_sasl_response(bytes, scram.message());
    client(bytes);
    return core_.logged_in();
  }
  void pump() {
    while (auto action = core_.poll_action(now)) perform(*action);
  }
  /// A deadline passes when it is due.
  void advance(base::Duration by) {
    now += by;
    core_.on_deadline(now);
    pump();
  }

  proxy::ConsoleCore& core() { return core_; }
  std::size_t unread() const { return unread_; }
  /// What was sent, as "tag:text" of each message; of errors and notices severity, SQLSTATE and message.
  std::vector<std::string> messages() const {
    std::vector<std::string> out;
    std::string_view rest = sent;
    while (!rest.empty()) {
      if (rest.front() == 'S' && rest.size() == 1) break;  // the answer to an SSLRequest
      const auto frame = protocol::next_message(base::as_bytes(rest), 1 << 20);
      POINTSMAN_CHECK(frame.status == protocol::FrameStatus::kMessage);
      std::string text(1, frame.message.tag);
      if (frame.message.tag == 'E' || frame.message.tag == 'N') {
        const auto fields = protocol::parse_error_fields(frame.message.body);
        text +=
            ":" + std::string(fields.severity) + " " + std::string(fields.sqlstate) + " " + std::string(fields.message);
      } else if (frame.message.tag == 'C') {
        text += ":" + std::string(base::as_text(frame.message.body.first(frame.message.body.size() - 1)));
      }
      out.push_back(std::move(text));
      rest.remove_prefix(frame.message.total);
    }
    return out;
  }

  FakeConsoleServices services;
  base::Instant now{std::chrono::seconds(100)};
  std::function<proxy::StatementResult(const proxy::Statement&)> answer;
  std::string sent;
  std::vector<std::string> log;  // what was done beside sending
  std::size_t largest_piece = 0;
  bool finished = false;

 private:
  void perform(proxy::ConsoleAction& action) {
    POINTSMAN_CHECK(!finished);
    struct Visitor {
      ConsoleDrive& self;
      void operator()(proxy::ConsoleSend& send) const {
        self.largest_piece = std::max(self.largest_piece, send.bytes.size());
        self.sent += send.bytes;
      }
      void operator()(proxy::ConsoleStartTls& start) const {
        self.log.push_back("tls " + std::to_string(start.early.size()));
      }
      void operator()(proxy::ConsoleLoggedIn&) const { self.log.push_back("login"); }
      void operator()(proxy::ConsoleExecute& execute) const {
        self.log.push_back("execute " + std::string(execute.statement.tag()));
        self.core_.on_result(self.answer(execute.statement));
      }
      void operator()(proxy::ConsoleCount& count) const {
        self.log.push_back("count " + std::to_string(static_cast<int>(count.outcome)));
      }
      void operator()(proxy::ConsoleFinish& finish) const {
        self.log.push_back("finish " + std::string(to_word(finish.end)) + ": " + finish.reason);
        self.finished = true;
      }
    };
    std::visit(Visitor{*this}, action);
  }

  std::size_t chunk_;
  std::size_t unread_ = 0;
  proxy::ConsoleCore core_;
};

}  // namespace pointsman::test
