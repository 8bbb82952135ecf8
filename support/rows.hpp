#pragma once
// Rows of named values as CSV and JSON.

#include <ostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace instinfer::examples {

using row_list = std::vector<nlohmann::ordered_json>;

// RFC 4180: a head line with the names of the first row, then a line a row; null is an empty field.
inline void write_csv(const row_list& rows, std::ostream& out) {
  if (rows.empty()) {
    return;
  }
  const auto field = [](const std::string& text) {
    if (text.find_first_of(",\"\n") == std::string::npos) {
      return text;
    }
    std::string quoted = "\"";
    for (const char c : text) {
      quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    }
    return quoted + '"';
  };
  const char* separator = "";
  for (const auto& [name, unused] : rows.front().items()) {
    out << separator << field(name);
    separator = ",";
  }
  out << "\r\n";
  for (const auto& row : rows) {
    separator = "";
    for (const auto& [name, x] : row.items()) {
      out << separator
          << (x.is_null()     ? std::string{}
              : x.is_string() ? field(x.get<std::string>())
                              : x.dump());
      separator = ",";
    }
    out << "\r\n";
  }
}

// A list of objects, one a line.
inline void write_json(const row_list& rows, std::ostream& out) {
  out << '[';
  const char* separator = "\n";
  for (const auto& row : rows) {
    out << separator << row.dump();
    separator = ",\n";
  }
  out << "\n]\n";
}

}  // namespace instinfer::examples
