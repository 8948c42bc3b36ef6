#include "proxy/monitor/probe_query.h"

#include <doctest/doctest.h>

namespace pointsman::proxy {
namespace {

using routing::ProbeFailure;
using namespace std::string_view_literals;

ProbeRow primary() {
  return {"f"sv,        "0000000200000000000000A1"sv, "16/B374D848"sv, std::nullopt, "f"sv, std::nullopt, std::nullopt,
          std::nullopt, "7711012653531968928"sv};
}
ProbeRow replica() {
  return {"t"sv, std::nullopt,  std::nullopt, "16/B374D000"sv,        "f"sv,
          "2"sv, "streaming"sv, "4711"sv,     "7711012653531968928"sv};
}

}  // namespace

TEST_CASE("a primary's answer: timeline from the WAL file's name, in hexadecimal") {
  auto row = primary();
  const auto answer = parse_probe_row(row);
  REQUIRE(answer);
  CHECK_FALSE(answer->sample.in_recovery);
  CHECK(answer->sample.timeline == 2);
  CHECK(answer->sample.current_lsn == 0x16'B374'D848ULL);
  CHECK_FALSE(answer->sample.replay_lsn);
  CHECK(answer->sample.system_identifier == "7711012653531968928");
  row[1] = "0000001F0000000000000001"sv;
  CHECK(parse_probe_row(row)->sample.timeline == 31);
}

TEST_CASE("a replica's answer, with and without a receiver") {
  auto row = replica();
  auto answer = parse_probe_row(row);
  REQUIRE(answer);
  CHECK(answer->sample.in_recovery);
  CHECK(answer->sample.timeline == 2);
  CHECK(answer->sample.replay_lsn == 0x16'B374'D000ULL);
  CHECK(answer->sample.receiver_streaming);
  CHECK_FALSE(answer->receiver_hidden);

  row[6] = "waiting"sv;
  CHECK_FALSE(parse_probe_row(row)->sample.receiver_streaming);
  row[5] = row[6] = row[7] = std::nullopt;
  answer = parse_probe_row(row);
  REQUIRE(answer);
  CHECK(answer->sample.timeline == 0);
  CHECK_FALSE(answer->sample.receiver_streaming);
  CHECK_FALSE(answer->receiver_hidden);
  row[7] = "4711"sv;  // the process is seen, its state is not
  CHECK(parse_probe_row(row)->receiver_hidden);
  row = replica();
  row[4] = "t"sv;
  CHECK(parse_probe_row(row)->sample.replay_paused);
  row[3] = std::nullopt;
  CHECK(parse_probe_row(row));
}

TEST_CASE("an answer that is not what was asked for is none") {
  for (std::size_t column : {0U, 1U, 2U, 4U, 8U}) {
    auto row = primary();
    CAPTURE(column);
    row[column] = std::nullopt;
    CHECK_FALSE(parse_probe_row(row));
    row[column] = "x"sv;
    CHECK_FALSE(parse_probe_row(row));
    row[column] = ""sv;
    CHECK_FALSE(parse_probe_row(row));
  }
  auto row = primary();
  row[1] = "0000000000000000000000A1"sv;  // timeline 0
  CHECK_FALSE(parse_probe_row(row));
  row = primary();
  row[8] = "123456789012345678901"sv;  // 21 digits
  CHECK_FALSE(parse_probe_row(row));
  row = replica();
  row[3] = "16"sv;
  CHECK_FALSE(parse_probe_row(row));
  row = replica();
  row[5] = "-1"sv;
  CHECK_FALSE(parse_probe_row(row));
}

TEST_CASE("failures are told apart by their SQLSTATE") {
  const auto server = [](const char* code) { return PgFailure{PgFailure::Kind::kServer, code, ""}; };
  CHECK(classify_probe_failure({PgFailure::Kind::kTimeout, "", ""}, false) == ProbeFailure::kUnreachable);
  CHECK(classify_probe_failure({PgFailure::Kind::kNetwork, "", ""}, true) == ProbeFailure::kUnreachable);
  CHECK(classify_probe_failure({PgFailure::Kind::kTls, "", ""}, false) == ProbeFailure::kCredentials);
  CHECK(classify_probe_failure({PgFailure::Kind::kCredentials, "", ""}, false) == ProbeFailure::kCredentials);
  CHECK(classify_probe_failure(server(""), false) == ProbeFailure::kUnreachable);
  CHECK(classify_probe_failure(server(""), true) == ProbeFailure::kQuery);
  CHECK(classify_probe_failure(server("57P03"), false) == ProbeFailure::kNotReady);
  CHECK(classify_probe_failure(server("57P01"), true) == ProbeFailure::kNotReady);
  CHECK(classify_probe_failure(server("53300"), false) == ProbeFailure::kBusy);
  CHECK(classify_probe_failure(server("28P01"), false) == ProbeFailure::kCredentials);
  CHECK(classify_probe_failure(server("28000"), false) == ProbeFailure::kCredentials);
  CHECK(classify_probe_failure(server("3D000"), false) == ProbeFailure::kCredentials);
  CHECK(classify_probe_failure(server("42501"), false) == ProbeFailure::kCredentials);
  CHECK(classify_probe_failure(server("42501"), true) == ProbeFailure::kQuery);
  CHECK(classify_probe_failure(server("57014"), true) == ProbeFailure::kQuery);
  CHECK(classify_probe_failure(server("08P01"), false) == ProbeFailure::kUnreachable);
}

TEST_CASE("the settings of every connection of ours") {
  const auto options = safe_session_options(std::chrono::milliseconds(1'500));
  CHECK(options.find("-c search_path= ") != std::string::npos);
  CHECK(options.find("-c default_transaction_read_only=on") != std::string::npos);
  CHECK(options.find("-c statement_timeout=1500") != std::string::npos);
}

}  // namespace pointsman::proxy
