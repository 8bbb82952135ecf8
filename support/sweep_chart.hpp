#pragma once
// What the picture of a sweep shows, for bench/charts: one result over one parameter, a line for
// each combination of the others that vary.

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "support/rows.hpp"

namespace instinfer::examples {

struct chart_choice {
  std::string x;                         // a column of the rows
  std::string y;                         // a column of numbers
  std::string by;                        // a column; empty: one line
  std::vector<std::string> others = {};  // further columns that vary, in the names of the lines
  std::string x_label, y_label, by_label;
};

// "dense, page_kib 4"
inline std::string name_of(const nlohmann::ordered_json& line, const chart_choice& choice) {
  const auto text = [](const nlohmann::ordered_json& x) {
    return x.is_string() ? x.get<std::string>() : x.dump();
  };
  std::string name = text(line[0]);
  for (std::size_t i = 0; i < choice.others.size(); ++i) {
    name += (name.empty() ? "" : ", ") + choice.others[i] + " " + text(line[i + 1]);
  }
  return name;
}

inline constexpr std::size_t most_lines = 8;     // that differ without colour
inline constexpr std::size_t most_places = 200;  // along x

// Lines in the order of `by`, then of the others; points in the order of x. Rows with the same
// parameters are one point, with their median, least and greatest. Throws bad_argument for no row
// with results, more than most_lines lines, or more than most_places of x.
inline nlohmann::ordered_json sweep_chart(const row_list& rows, const chart_choice& choice) {
  using json = nlohmann::ordered_json;
  std::map<json, std::map<json, std::vector<double>>> lines;  // by, then x
  std::map<json, bool> places;
  for (const auto& row : rows) {
    if (!row.at(choice.y).is_null()) {
      json line = choice.by.empty() ? json("") : row.at(choice.by);
      if (!choice.others.empty()) {
        line = json::array({line});
        for (const std::string& other : choice.others) {
          line.push_back(row.at(other));
        }
      }
      lines[line][row.at(choice.x)].push_back(row.at(choice.y).get<double>());
      places[row.at(choice.x)] = true;
    }
  }
  const auto at_most = [](const std::string& column, std::size_t found, std::size_t most) {
    return "chart: " + column + " has " + std::to_string(found) +
           " values, of which a picture shows at most " + std::to_string(most);
  };
  require(!lines.empty(), [] { return std::string("chart: no point has a result"); });
  require(lines.size() <= most_lines, [&] {
    std::string columns = choice.by;
    for (const std::string& other : choice.others) {
      columns += (columns.empty() ? "" : " x ") + other;
    }
    return at_most(columns, lines.size(), most_lines) +
           "; choose another with --by, or let fewer parameters vary";
  });
  require(places.size() <= most_places,
          [&] { return at_most(choice.x, places.size(), most_places); });
  json chart{{"kind", "sweep"},
             {"x_label", choice.x_label},
             {"y_label", choice.y_label},
             {"by_label", choice.by_label},
             {"lines", json::array()}};
  for (auto& [by, points] : lines) {
    json line{{"name", choice.others.empty() ? by : json(name_of(by, choice))},
              {"points", json::array()}};
    for (auto& [x, ys] : points) {
      std::ranges::sort(ys);
      line["points"].push_back({{"x", x},
                                {"median", (ys[(ys.size() - 1) / 2] + ys[ys.size() / 2]) / 2},
                                {"least", ys.front()},
                                {"greatest", ys.back()}});
    }
    chart["lines"].push_back(std::move(line));
  }
  return chart;
}

}  // namespace instinfer::examples
