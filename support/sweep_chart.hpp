#pragma once
// The picture of a sweep: one result over one parameter, a line for each value of a second one, that reads in black and
// white. Over all other parameters that vary, the median is drawn, with a bar from the least to the greatest.
// Axes of numbers are logarithmic where those span much: a factor 4 to the right, 30 upwards.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/report/svg.hpp"
#include "support/rows.hpp"

namespace instinfer::examples {

struct chart_choice {
  std::string x;   // a column of the rows
  std::string y;   // a column of numbers
  std::string by;  // a column; empty: one line
  std::string x_label, y_label, by_label;
};

class sweep_chart {
 public:
  static constexpr std::size_t most_lines = 8;

  // Throws bad_argument for no row with results, more than most_lines values of `by`, or more than 200 of x.
  sweep_chart(const row_list& rows, const chart_choice& choice) : choice_{choice} {
    std::map<nlohmann::ordered_json, std::map<nlohmann::ordered_json, std::vector<double>>> lines;
    std::map<nlohmann::ordered_json, std::size_t> xs;
    for (const auto& row : rows) {
      if (!row.at(choice.y).is_null()) {
        const nlohmann::ordered_json of_line =
            choice.by.empty() ? nlohmann::ordered_json("") : row.at(choice.by);
        lines[of_line][row.at(choice.x)].push_back(row.at(choice.y).get<double>());
        xs[row.at(choice.x)] = 0;
      }
    }
    require(!lines.empty(), [] { return std::string("chart: no point has a result"); });
    require(lines.size() <= most_lines, [&] {
      return "chart: " + choice.by + " has " + std::to_string(lines.size()) +
             " values, of which a picture shows at most " + std::to_string(most_lines) +
             "; choose another with --by";
    });
    require(xs.size() <= 200, [&] {
      return "chart: " + choice.x + " has " + std::to_string(xs.size()) +
             " values, of which a picture shows at most 200";
    });
    for (auto& [x, place] : xs) {
      place = x_values_.size();
      x_values_.push_back(x);
    }
    for (auto& [by, points] : lines) {
      line& to = lines_.emplace_back(line{text_of(by), {}});
      for (auto& [x, ys] : points) {
        std::ranges::sort(ys);
        to.points.push_back(
            {xs.at(x), (ys[(ys.size() - 1) / 2] + ys[ys.size() / 2]) / 2, ys.front(), ys.back()});
        least_ = std::min(least_, ys.front());
        most_ = std::max(most_, ys.back());
        spread_ = spread_ || ys.front() < ys.back();
      }
    }
    ticks_ = ticks();
  }

  std::string svg() const {
    flash::drawing figure(width_px, height_px);
    figure.text(left, 26, choice_.y_label + " over " + choice_.x_label, "start", 15,
                "font-weight=\"bold\"");
    axes(figure);
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      draw(figure, lines_[i], i);
    }
    legend(figure);
    return figure.svg();
  }

 private:
  struct point {
    std::size_t x;
    double y, least, greatest;
  };
  struct line {
    std::string name;
    std::vector<point> points;
  };

  static constexpr double width_px = 900, height_px = 440;
  static constexpr double left = 90, right = 660, top = 50, bottom = 370;

  static std::string number(double x) {
    char digits[32];
    const auto end =
        std::to_chars(digits, digits + sizeof(digits), x, std::chars_format::general, 6).ptr;
    return {digits, end};
  }
  static std::string text_of(const nlohmann::ordered_json& x) {
    return x.is_string() ? x.get<std::string>() : number(x.get<double>());
  }

  // In [0, 1]; words at equal distances.
  double place_of(std::size_t i) const {
    if (!x_values_.front().is_number() || x_values_.size() == 1) {
      return (static_cast<double>(i) + 0.5) / static_cast<double>(x_values_.size());
    }
    const double first = x_values_.front().get<double>();
    const double last = x_values_.back().get<double>();
    const double x = x_values_[i].get<double>();
    const double share = first > 0 && last >= 4 * first
                             ? std::log(x / first) / std::log(last / first)
                             : (x - first) / (last - first);
    return 0.04 + 0.92 * share;
  }
  double x_of(std::size_t i) const { return left + place_of(i) * (right - left); }
  bool logarithmic() const { return least_ > 0 && most_ >= 30 * least_; }
  double y_of(double y) const {
    const double low = ticks_.front();
    const double high = ticks_.back();
    const double share =
        logarithmic() ? std::log(y / low) / std::log(high / low) : (y - low) / (high - low);
    return bottom - share * (bottom - top);
  }

  // From below the least (0 on a linear axis) to above the most: 1, 2 and 5 of each decade, or round steps.
  std::vector<double> ticks() const {
    std::vector<double> all;
    if (logarithmic()) {
      const double decade = std::floor(std::log10(least_) + 1e-9);
      for (int i = 0; all.empty() || all.back() < most_ * (1 - 1e-9); ++i) {
        constexpr double digits[] = {1, 2, 5};
        const double tick = digits[i % 3] * std::pow(10.0, decade + static_cast<double>(i / 3));
        if (!all.empty() && tick <= least_) {
          all.clear();  // a later one is below the least, too
        }
        all.push_back(tick);
      }
      return all;
    }
    const double most = most_ > 0 ? most_ : 1;
    double by = std::pow(10.0, std::floor(std::log10(most)));
    while (most / by < 4) {
      by /= most / by < 2 ? 5 : 2;
    }
    for (double i = 0; i < most / by + 1 - 1e-9; ++i) {
      all.push_back(i * by);
    }
    return all;
  }

  void axes(flash::drawing& figure) const {
    for (const double tick : ticks_) {
      figure.line(left, y_of(tick), right, y_of(tick), "stroke:#ddd");
      figure.text(left - 8, y_of(tick) + 4, number(tick), "end", 12);
    }
    figure.line(left, bottom, right, bottom, "stroke:#222");
    figure.line(left, top, left, bottom, "stroke:#222");
    double last_label = -1e9;
    for (std::size_t i = 0; i < x_values_.size(); ++i) {
      const std::string label = text_of(x_values_[i]);
      const double half = 3.7 * static_cast<double>(label.size());
      figure.line(x_of(i), bottom, x_of(i), bottom + 5, "stroke:#222");
      if (x_of(i) - half > last_label + 6) {
        figure.text(x_of(i), bottom + 20, label, "middle", 12);
        last_label = x_of(i) + half;
      }
    }
    figure.text((left + right) / 2, bottom + 46, choice_.x_label, "middle", 13);
    const std::string turn = "transform=\"rotate(-90 24 " + number((top + bottom) / 2) + ")\"";
    figure.text(24, (top + bottom) / 2, choice_.y_label, "middle", 13, turn);
  }

  // Four markers, solid and dashed: eight lines that need no colour.
  static flash::marker marker_of(std::size_t i) {
    constexpr flash::marker all[] = {flash::marker::circle, flash::marker::square,
                                     flash::marker::triangle, flash::marker::cross};
    return all[i % 4];
  }
  static std::string style_of(std::size_t i) {
    return std::string("stroke:#222;stroke-width:1.6") + (i < 4 ? "" : ";stroke-dasharray:7 4");
  }

  void draw(flash::drawing& figure, const line& drawn, std::size_t i) const {
    std::vector<std::pair<double, double>> path;
    for (const point& p : drawn.points) {
      path.emplace_back(x_of(p.x), y_of(p.y));
      if (p.least < p.greatest) {
        figure.line(x_of(p.x), y_of(p.least), x_of(p.x), y_of(p.greatest), "stroke:#888");
        for (const double end : {p.least, p.greatest}) {
          figure.line(x_of(p.x) - 4, y_of(end), x_of(p.x) + 4, y_of(end), "stroke:#888");
        }
      }
    }
    figure.path(path, style_of(i));
    for (const auto& [x, y] : path) {
      figure.mark(x, y, marker_of(i), "#222");
    }
  }

  void legend(flash::drawing& figure) const {
    double y = top + 4;
    if (!choice_.by.empty()) {
      figure.text(right + 24, y, choice_.by_label, "start", 12, "font-weight=\"bold\"");
      for (std::size_t i = 0; i < lines_.size(); ++i) {
        y += 24;
        figure.path({{right + 24, y - 4}, {right + 68, y - 4}}, style_of(i));
        figure.mark(right + 46, y - 4, marker_of(i), "#222");
        figure.text(right + 78, y, lines_[i].name, "start", 12);
      }
      y += 40;
    }
    if (spread_) {
      figure.text(right + 24, y, "line: median, bar: least to", "start", 12);
      figure.text(right + 24, y + 17, "greatest, over what else varies", "start", 12);
    }
  }

  chart_choice choice_;
  std::vector<nlohmann::ordered_json> x_values_;
  std::vector<line> lines_;
  double least_ = std::numeric_limits<double>::infinity();
  double most_ = 0;
  std::vector<double> ticks_;
  bool spread_ = false;
};

}  // namespace instinfer::examples
