#pragma once
// Error over a cost, one line a method, both axes logarithmic. A method's points carry its letter, so that the picture reads
// in black and white.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "support/svg.hpp"

namespace instinfer::methods {

struct curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // cost, error; both > 0
};

class log_axis {
 public:
  // Whole decades around the values.
  explicit log_axis(const std::vector<double>& values)
      : low_{std::floor(std::log10(std::ranges::min(values)))},
        high_{std::max(low_ + 1, std::ceil(std::log10(std::ranges::max(values))))} {}
  double share(double value) const { return (std::log10(value) - low_) / (high_ - low_); }
  std::vector<double> decades() const {
    std::vector<double> all;
    for (double d = low_; d <= high_; ++d) {
      all.push_back(std::pow(10.0, d));
    }
    return all;
  }

 private:
  double low_;
  double high_;
};

inline svg::drawing error_over(const std::string& title, const std::string& cost,
                               const std::vector<curve>& curves) {
  constexpr double left = 80, top = 44, width = 460, height = 380;
  svg::drawing on(left + width + 190, top + height + 60);
  std::vector<double> xs, ys;
  for (const curve& c : curves) {
    for (const auto& [x, y] : c.points) {
      xs.push_back(x);
      ys.push_back(y);
    }
  }
  const log_axis across(xs), up(ys);
  const auto x_of = [&](double x) { return left + width * across.share(x); };
  const auto y_of = [&](double y) { return top + height * (1 - up.share(y)); };
  const auto label = [](double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return std::string(text);
  };
  on.text(left, top - 18, title, "start", 15);
  for (const double d : across.decades()) {
    on.line(x_of(d), top, x_of(d), top + height, "stroke:#ddd");
    on.text(x_of(d), top + height + 18, label(d), "middle", 12);
  }
  for (const double d : up.decades()) {
    on.line(left, y_of(d), left + width, y_of(d), "stroke:#ddd");
    on.text(left - 8, y_of(d) + 4, label(d), "end", 12);
  }
  on.line(left, top, left, top + height, "stroke:black");
  on.line(left, top + height, left + width, top + height, "stroke:black");
  on.text(left + width / 2, top + height + 42, cost, "middle", 13);
  on.text(24, top + height / 2, "relative error", "middle", 13,
          ("transform=\"rotate(-90 24 " + label(top + height / 2) + ")\"").c_str());
  static constexpr const char* dashes[] = {"", ";stroke-dasharray:6 3", ";stroke-dasharray:2 3"};
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const std::string letter(1, static_cast<char>('A' + i));
    std::vector<std::pair<double, double>> at;
    for (const auto& [x, y] : curves[i].points) {
      at.emplace_back(x_of(x), y_of(y));
    }
    on.path(at, (std::string("stroke:#777;stroke-width:1.2") + dashes[i % 3]).c_str());
    for (const auto& [x, y] : at) {
      on.box(x - 6, y - 7, 12, 14, "fill:white;stroke:none");
      on.text(x, y + 5, letter, "middle", 13, "font-weight=\"bold\"");
    }
    const double y = top + 12 + 20 * static_cast<double>(i);
    on.text(left + width + 22, y, letter, "middle", 13, "font-weight=\"bold\"");
    on.text(left + width + 36, y, curves[i].name);
  }
  return on;
}

}  // namespace instinfer::methods
