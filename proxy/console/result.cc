#include "proxy/console/result.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "base/bytes.h"
#include "base/check.h"
#include "protocol/messages.h"

namespace pointsman::proxy {
namespace {

constexpr std::size_t kMaxReportText = 8 * 1024;
constexpr std::uint32_t kNull = 0xffffffff;  // -1

struct TypeOnTheWire {
  std::uint32_t oid;
  std::uint16_t size;  // 0xffff: varies
};
/// psql aligns by OID: numbers to the right.
constexpr TypeOnTheWire type_of(ColumnType type) {
  switch (type) {
    case ColumnType::kText:
      return {25, 0xffff};
    case ColumnType::kInt8:
      return {20, 8};
    case ColumnType::kFloat8:
      return {701, 8};
    case ColumnType::kBool:
      return {16, 1};
  }
  return {25, 0xffff};
}

/// Writes a message's tag and puts its length in when it goes.
class Message {
 public:
  Message(std::string& out, char tag) : out_(out), length_at_(out.size() + 1) {
    out_.push_back(tag);
    out_.append(4, '\0');
  }
  ~Message() {
    base::store_be32(reinterpret_cast<base::Byte*>(out_.data() + length_at_),
                     static_cast<std::uint32_t>(out_.size() - length_at_));
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

 private:
  std::string& out_;
  std::size_t length_at_;
};

/// At most `most` bytes, no character cut in two.
std::string_view cut(std::string_view text, std::size_t most) {
  if (text.size() <= most) return text;
  std::size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

struct CellWriter {
  std::string& out;
  ColumnType type;

  void put(ColumnType given, std::string_view text) const {
    POINTSMAN_CHECK(given == type);
    base::append_be32(out, static_cast<std::uint32_t>(text.size()));
    out.append(text);
  }
  void operator()(std::monostate) const { base::append_be32(out, kNull); }
  void operator()(const std::string& text) const { put(ColumnType::kText, cut(text, kMaxCellBytes)); }
  void operator()(std::int64_t number) const { put(ColumnType::kInt8, std::to_string(number)); }
  void operator()(double number) const {
    std::array<char, 64> text{};
    const int size = std::snprintf(text.data(), text.size(), "%.3f", number);
    POINTSMAN_CHECK(size > 0);
    const auto fitting = std::min(static_cast<std::size_t>(size), text.size() - 1);
    put(ColumnType::kFloat8, std::string_view(text.data(), fitting));
  }
  void operator()(bool yes) const { put(ColumnType::kBool, yes ? "t" : "f"); }
};

}  // namespace

void append_row_description(std::string& out, const std::vector<Column>& columns) {
  POINTSMAN_CHECK(columns.size() <= kMaxColumns);
  const Message message(out, 'T');
  base::append_be16(out, static_cast<std::uint16_t>(columns.size()));
  for (const Column& column : columns) {
    const TypeOnTheWire type = type_of(column.type);
    base::append_c_string(out, column.name);
    base::append_be32(out, 0);  // of no table
    base::append_be16(out, 0);
    base::append_be32(out, type.oid);
    base::append_be16(out, type.size);
    base::append_be32(out, kNull);  // no type modifier
    base::append_be16(out, 0);      // as text
  }
}

void append_data_row(std::string& out, const std::vector<Column>& columns, const Row& row) {
  POINTSMAN_CHECK(row.size() == columns.size());
  const Message message(out, 'D');
  base::append_be16(out, static_cast<std::uint16_t>(row.size()));
  for (std::size_t i = 0; i < row.size(); ++i) std::visit(CellWriter{out, columns[i].type}, row[i]);
}

void append_command_complete(std::string& out, std::string_view tag) {
  const Message message(out, 'C');
  base::append_c_string(out, tag);
}

void append_empty_query(std::string& out) {
  const Message message(out, 'I');
}

void append_ready_for_query(std::string& out) {
  const Message message(out, 'Z');
  out.push_back('I');
}

void append_parameter_status(std::string& out, std::string_view name, std::string_view value) {
  const Message message(out, 'S');
  base::append_c_string(out, name);
  base::append_c_string(out, value);
}

void append_report(std::string& out, const Report& report) {
  protocol::ErrorFields fields;
  fields.severity = report.severity;
  fields.sqlstate = report.sqlstate;
  fields.message = cut(report.message, kMaxReportText);
  fields.detail = cut(report.detail, kMaxReportText);
  fields.hint = cut(report.hint, kMaxReportText);
  fields.position = report.position;
  if (report.severity == "ERROR" || report.severity == "FATAL") {
    protocol::append_error_response(out, fields);
  } else {
    protocol::append_notice_response(out, fields);
  }
}

}  // namespace pointsman::proxy
