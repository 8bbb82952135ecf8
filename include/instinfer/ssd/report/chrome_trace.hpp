#pragma once
// Collects timed events and writes them in the Chrome trace format, which Perfetto and
// chrome://tracing open.
// For a picture see gantt.hpp, for text step_summary.hpp.

#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer::flash {

class chrome_trace {
 public:
  struct track {
    std::string group;
    std::string row;
    std::size_t group_number;  // in order of first use
  };
  struct bar {
    std::size_t row;  // in rows()
    std::string name;
    double begin_ps;
    double duration_ps;

    double end_ps() const { return begin_ps + duration_ps; }
  };

  // Adds a bar [begin_ps, begin_ps + duration_ps) to the named row of the named group. Rows are in
  // order of first use.
  void add(const std::string& group, const std::string& row, const std::string& name,
           double begin_ps, double duration_ps) {
    auto at = std::ranges::find_if(
        rows_, [&](const track& t) { return t.group == group && t.row == row; });
    if (at == rows_.end()) {
      at = rows_.insert(rows_.end(), track{group, row, group_number(group)});
    }
    bars_.push_back({static_cast<std::size_t>(at - rows_.begin()), name, begin_ps, duration_ps});
  }

  bool empty() const { return bars_.empty(); }
  const std::vector<track>& rows() const { return rows_; }  // in order of first use
  const std::vector<bar>& bars() const { return bars_; }    // in the order they were added

  // One JSON object. Times are in microseconds with picosecond digits, as far as double is exact.
  std::string json() const {
    std::string out = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";
    const char* separator = "";
    const auto event = [&](const char* phase, const std::string& name,
                           std::size_t row) -> std::string& {
      out += separator;
      separator = ",\n";
      return out += std::string("{\"ph\":\"") + phase + "\",\"name\":\"" + escaped(name) +
                    "\",\"pid\":" + std::to_string(rows_[row].group_number) +
                    ",\"tid\":" + std::to_string(row);
    };
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      event("M", "process_name", row) +=
          ",\"args\":{\"name\":\"" + escaped(rows_[row].group) + "\"}}";
      event("M", "thread_name", row) += ",\"args\":{\"name\":\"" + escaped(rows_[row].row) + "\"}}";
    }
    for (const bar& b : bars_) {
      event("X", b.name, b.row) +=
          ",\"ts\":" + microseconds(b.begin_ps) + ",\"dur\":" + microseconds(b.duration_ps) + "}";
    }
    return out += "\n]}\n";
  }

 private:
  std::size_t group_number(const std::string& group) const {
    const auto same = std::ranges::find(rows_, group, &track::group);
    if (same != rows_.end()) {
      return same->group_number;
    }
    std::size_t next = 0;
    for (const track& t : rows_) {
      next = std::max(next, t.group_number + 1);
    }
    return next;
  }

  static std::string microseconds(double ps) {
    char digits[64];
    const auto end =
        std::to_chars(digits, digits + sizeof(digits), ps * 1e-6, std::chars_format::fixed, 6).ptr;
    return {digits, end};
  }

  static std::string escaped(const std::string& text) {
    std::string safe;
    for (const char c : text) {
      if (c == '"' || c == '\\') {
        safe += '\\';
      }
      safe += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    return safe;
  }

  std::vector<track> rows_;
  std::vector<bar> bars_;
};

}  // namespace instinfer::flash
