#pragma once
// What a statement of the console answers with, and how it goes over the wire. Pure.
// Sources: protocol-message-formats (RowDescription, DataRow, CommandComplete), src/include/catalog/pg_type.dat.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pointsman::proxy {

enum class ColumnType : std::uint8_t { kText, kInt8, kFloat8, kBool };
struct Column {
  std::string_view name;  ///< a literal
  ColumnType type = ColumnType::kText;
};

/// No value is NULL. A text is valid UTF-8 without zero bytes; what a client typed has been escaped
/// (routing::escape_for_log).
using Cell = std::variant<std::monostate, std::string, std::int64_t, double, bool>;
using Row = std::vector<Cell>;

/// A cell's text beyond it is cut: bounds a row, and with it what is put into one write.
inline constexpr std::size_t kMaxCellBytes = 1024;
inline constexpr std::size_t kMaxColumns = 24;

/// Rows on demand, so that a long answer is never whole in memory.
struct Table {
  std::vector<Column> columns;  ///< at most kMaxColumns
  /// The next few rows (up to some hundreds); nothing when there are no more. Called on the console's thread, until it
  /// says that or the client is gone.
  std::function<std::optional<std::vector<Row>>()> more;
};

/// An error or a notice. Severity and SQLSTATE are literals.
struct Report {
  std::string_view severity = "ERROR";
  std::string_view sqlstate{};
  std::string message{};
  std::string detail{};
  std::string hint{};
  std::size_t position = 0;
};

struct StatementResult {
  std::vector<Report> notices;  ///< NOTICE or WARNING, sent first
  std::optional<Report> error;  ///< then nothing else is sent
  std::optional<Table> table;
};

void append_row_description(std::string& out, const std::vector<Column>& columns);
/// Requires: a cell for each column, NULL or of the column's type.
void append_data_row(std::string& out, const std::vector<Column>& columns, const Row& row);
void append_command_complete(std::string& out, std::string_view tag);
void append_empty_query(std::string& out);
void append_ready_for_query(std::string& out);
void append_parameter_status(std::string& out, std::string_view name, std::string_view value);
/// ErrorResponse or NoticeResponse, by its severity. Texts are cut to 8 KiB each.
void append_report(std::string& out, const Report& report);

}  // namespace pointsman::proxy
