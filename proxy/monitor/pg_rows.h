#pragma once
// The rows of one answer, in text format. Wiped when it goes: they may hold verifiers. Filled by SqlClient. One thread.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/monitor/wiped_buffer.h"

namespace pointsman::proxy {

class PgRows {
 public:
  int rows() const { return static_cast<int>(rows_); }
  /// 0 when the statement has no result.
  int columns() const { return static_cast<int>(names_.size()); }
  /// The first column of that name, -1: none.
  int column(std::string_view name) const {
    for (std::size_t i = 0; i < names_.size(); ++i) {
      if (names_[i] == name) return static_cast<int>(i);
    }
    return -1;
  }
  /// nullopt for NULL and for what is not there.
  std::optional<std::string_view> value(int row, int column) const {
    if (row < 0 || row >= rows() || column < 0 || column >= columns()) return std::nullopt;
    const Cell& cell = cells_[static_cast<std::size_t>(row) * names_.size() + static_cast<std::size_t>(column)];
    if (cell.is_null) return std::nullopt;
    return text_.view().substr(cell.begin, cell.size);
  }

  void add_column(std::string_view name) { names_.emplace_back(name); }
  /// Cells are added row by row, end_row() behind each row's last.
  void add_cell(std::string_view value) {
    cells_.push_back({static_cast<std::uint32_t>(text_.size()), static_cast<std::uint32_t>(value.size()), false});
    text_.append(value);
  }
  void add_null() { cells_.push_back({0, 0, true}); }
  void end_row() { ++rows_; }

 private:
  struct Cell {
    std::uint32_t begin;
    std::uint32_t size;
    bool is_null;
  };
  std::vector<std::string> names_;
  std::vector<Cell> cells_;
  WipedBuffer text_;
  std::size_t rows_ = 0;
};

}  // namespace pointsman::proxy
