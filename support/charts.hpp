#pragma once
// Charts that stay readable in black and white: grouped bars, stacked bars and lines, drawn with support/svg.hpp.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "svg.hpp"

namespace instinfer::charts {

// Fills that differ in grey and in hatching; the first is white.
inline const std::vector<std::string>& fills() {
  static const std::vector<std::string> all{"white",   "#d0d0d0", "url(#h)", "#888888",
                                            "url(#x)", "#404040", "black"};
  return all;
}
inline void define_hatching(svg::drawing& on) {
  on.hatching("h", 5, "M0 5L5 0");
  on.hatching("x", 5, "M0 0L5 5M0 5L5 0");
}
inline std::string filled(std::size_t i) {
  return "fill:" + fills()[i % fills().size()] + ";stroke:black";
}
inline std::string short_number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, std::abs(x) >= 1000 && std::abs(x) < 1e7 ? "%.0f" : "%.3g", x);
  return text;
}

// An axis of values, linear from 0 or logarithmic.
struct axis {
  double low = 0;
  double high = 1;
  bool logarithmic = false;

  double share(double value) const {
    if (!logarithmic) {
      return (value - low) / (high - low);
    }
    return std::log(std::max(value, low) / low) / std::log(high / low);
  }
  std::vector<double> ticks() const {
    std::vector<double> all;
    if (logarithmic) {
      for (double t = low; t <= high * 1.001; t *= 10) {
        all.push_back(t);
      }
      return all;
    }
    double step = std::pow(10, std::floor(std::log10(high - low)));
    while ((high - low) / step < 4) {
      step /= 2;
    }
    for (double t = low; t <= high * 1.001; t += step) {
      all.push_back(t);
    }
    return all;
  }
};

// Where a chart's values are drawn.
struct frame {
  double left = 60, top = 40, width = 600, height = 220;
  double y(const axis& a, double value) const {  // outside of the axis: at its end
    return top + height * (1 - std::clamp(a.share(value), 0.0, 1.0));
  }
  double x(const axis& a, double value) const { return left + width * a.share(value); }
};

inline void draw_frame(svg::drawing& on, const frame& f, const axis& values,
                       const std::string& title, const std::string& unit) {
  on.text(f.left, f.top - 20, title, "start", 15);
  on.text(f.left - 45, f.top - 6, unit, "start", 12);
  for (const double t : values.ticks()) {
    on.line(f.left, f.y(values, t), f.left + f.width, f.y(values, t), "stroke:#ccc");
    on.text(f.left - 6, f.y(values, t) + 4, short_number(t), "end", 11);
  }
  on.line(f.left, f.top, f.left, f.top + f.height, "stroke:black");
  on.line(f.left, f.top + f.height, f.left + f.width, f.top + f.height, "stroke:black");
}

inline void draw_legend(svg::drawing& on, const frame& f, double y,
                        const std::vector<std::string>& names) {
  double x = f.left;
  for (std::size_t i = 0; i < names.size(); ++i) {
    on.box(x, y, 12, 12, filled(i));
    on.text(x + 17, y + 11, names[i], "start", 12);
    x += 32 + 7.2 * static_cast<double>(names[i].size());
  }
}

// Bars of several series in groups; a negative value is marked as missing: "x".
struct grouped {
  std::string title, unit;
  std::vector<std::string> groups;
  std::vector<std::string> series;
  std::vector<std::vector<double>> values;  // [series, groups]
  axis scale;
};
inline svg::drawing draw(const grouped& chart) {
  const frame f{.width = 720};
  svg::drawing on(f.left + f.width + 20, f.top + f.height + 60);
  define_hatching(on);
  draw_frame(on, f, chart.scale, chart.title, chart.unit);
  const double group = f.width / static_cast<double>(chart.groups.size());
  const double bar = 0.86 * group / static_cast<double>(chart.series.size());
  for (std::size_t g = 0; g < chart.groups.size(); ++g) {
    const double x = f.left + group * (static_cast<double>(g) + 0.07);
    on.text(x + 0.43 * group, f.top + f.height + 16, chart.groups[g], "middle", 12);
    for (std::size_t s = 0; s < chart.series.size(); ++s) {
      const double value = chart.values[s][g];
      const double left = x + bar * static_cast<double>(s);
      if (value >= 0) {
        const double top = f.y(chart.scale, value);
        on.box(left, top, bar, f.top + f.height - top, filled(s));
      } else {
        on.text(left + bar / 2, f.top + f.height - 3, "x", "middle", 11);
      }
    }
  }
  draw_legend(on, f, f.top + f.height + 30, chart.series);
  return on;
}

// Shares of a whole, one row a bar.
struct stacked {
  std::string title, unit;
  std::vector<std::string> rows;
  std::vector<std::string> parts;
  std::vector<std::vector<double>> values;  // [rows, parts]
  double whole = 100;                       // where the axis ends
};
inline svg::drawing draw(const stacked& chart) {
  const frame f{.left = 190, .width = 560, .height = 34.0 * static_cast<double>(chart.rows.size())};
  const axis scale{0, chart.whole, false};
  svg::drawing on(f.left + f.width + 30, f.top + f.height + 60);
  define_hatching(on);
  on.text(10, f.top - 20, chart.title, "start", 15);
  for (const double t : scale.ticks()) {
    on.line(f.x(scale, t), f.top, f.x(scale, t), f.top + f.height, "stroke:#ccc");
    on.text(f.x(scale, t), f.top + f.height + 16, short_number(t), "middle", 11);
  }
  on.text(f.left + f.width + 8, f.top + f.height + 4, chart.unit, "start", 12);
  for (std::size_t r = 0; r < chart.rows.size(); ++r) {
    const double y = f.top + 34.0 * static_cast<double>(r) + 6;
    on.text(f.left - 8, y + 16, chart.rows[r], "end", 12);
    double at = 0;
    for (std::size_t p = 0; p < chart.parts.size(); ++p) {
      const double value = chart.values[r][p];
      on.box(f.x(scale, at), y, f.width * value / chart.whole, 22, filled(p));
      at += value;
    }
  }
  draw_legend(on, f, f.top + f.height + 30, chart.parts);
  return on;
}

// Curves over a numeric axis.
struct curve {
  std::string name;
  std::vector<std::pair<double, double>> points;
  std::string style = "stroke:black;stroke-width:1.5";
  bool marked = true;
};
struct lines {
  std::string title, unit, below;
  axis x, y;
  std::vector<double> x_ticks;
  std::vector<curve> curves;
  bool spread = false;  // names pushed apart, each with its marker
};
// Where the names of curves stand so that none covers another: beside their ends, or pushed up from the one below.
inline std::vector<double> spread_names(const lines& chart, const frame& f) {
  std::vector<double> y;
  for (const curve& c : chart.curves) {
    y.push_back(f.y(chart.y, c.points.back().second) + 4);
  }
  std::vector<std::size_t> lowest_first(y.size());
  std::iota(lowest_first.begin(), lowest_first.end(), std::size_t{0});
  std::ranges::sort(lowest_first, [&](std::size_t a, std::size_t b) { return y[a] > y[b]; });
  for (std::size_t i = 1; i < y.size(); ++i) {
    y[lowest_first[i]] = std::min(y[lowest_first[i]], y[lowest_first[i - 1]] - 15);
  }
  return y;
}
inline svg::drawing draw(const lines& chart) {
  const frame f{.width = 480};
  svg::drawing on(f.left + f.width + 170, f.top + f.height + 50);
  draw_frame(on, f, chart.y, chart.title, chart.unit);
  for (const double t : chart.x_ticks) {
    on.line(f.x(chart.x, t), f.top + f.height, f.x(chart.x, t), f.top + f.height + 4,
            "stroke:black");
    on.text(f.x(chart.x, t), f.top + f.height + 18, short_number(t), "middle", 11);
  }
  on.text(f.left + f.width / 2, f.top + f.height + 38, chart.below, "middle", 12);
  const svg::marker markers[] = {svg::marker::circle, svg::marker::square, svg::marker::triangle,
                                 svg::marker::cross};
  const std::vector<double> names_y = chart.spread ? spread_names(chart, f) : std::vector<double>{};
  std::size_t i = 0;
  for (const curve& c : chart.curves) {
    std::vector<std::pair<double, double>> at;
    for (const auto& [x, y] : c.points) {
      at.emplace_back(f.x(chart.x, x), f.y(chart.y, y));
    }
    if (at.size() > 1) {
      on.path(at, c.style);
    }
    for (const auto& [x, y] : at) {
      if (c.marked) {
        on.mark(x, y, markers[i % 4], "black");
      }
    }
    // A point's name goes below it, a curve's name beside its end.
    const bool point = at.size() == 1;
    if (chart.spread) {
      const double y = names_y[static_cast<std::size_t>(&c - chart.curves.data())];
      on.mark(f.left + f.width + 20, y - 4, markers[i % 4], "black");
      on.text(f.left + f.width + 32, y, c.name, "start", 12);
    } else {
      on.text(at.back().first + 10, at.back().second + (point ? 18 : 4), c.name, "start", 12);
    }
    i += c.marked ? 1 : 0;
  }
  return on;
}

}  // namespace instinfer::charts
