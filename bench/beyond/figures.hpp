#pragma once
// The figures of docs/beyond.md: name and drawing.

#include <string>
#include <vector>

#include "beyond/tables.hpp"
#include "support/charts.hpp"

namespace instinfer::beyond {

struct figure {
  std::string name;
  svg::drawing drawing;
};

inline std::vector<figure> all_figures(const results& r) {
  const auto over_context = [&](std::string title, std::string unit, charts::axis y, auto value) {
    charts::lines chart{.title = std::move(title),
                        .unit = std::move(unit),
                        .below = "context, thousands of tokens",
                        .x = {8, 1024, true},
                        .y = y,
                        .x_ticks = {8, 32, 128, 512, 1024},
                        .curves = {}};
    for (const char* name :
         {"HBM", "DRAM", "SSD", "DRAM, 1/8", "SSD, 1/8", "InstA-SparF", "InstA-SparF, wide"}) {
      charts::curve line{.name = name, .points = {}};
      const std::size_t at = text::index_of(r.small, name);
      for (const auto& rung : r.small.rungs) {
        line.points.emplace_back(rung[at].context / 1024, value(rung[at]));
      }
      if (line.name.ends_with("1/8")) {
        line.style = "stroke:black;stroke-width:1.5;stroke-dasharray:6 4";
      } else if (line.name.starts_with("InstA")) {
        line.style = "stroke:black;stroke-width:3";
      }
      chart.curves.push_back(line);
    }
    chart.spread = true;
    return charts::draw(chart);
  };
  charts::lines pools{.title = "Llama-3-70B, contexts of 128 K, 8 H100: predicted",
                      .unit = "tokens/s",
                      .below = "drives: 16 a host and 1,024 sequences; at home, a sequence each",
                      .x = {10, 1'000'000, true},
                      .y = {10, 100'000, true},
                      .x_ticks = {10, 100, 1'000, 10'000, 100'000, 1'000'000},
                      .curves = {}};
  const auto add = [&](const char* name, const std::vector<pool>& of, const char* style) {
    charts::curve line{.name = name, .points = {}, .style = style};
    for (const pool& p : of) {
      if (p.verdict.empty()) {
        line.points.emplace_back(p.drives, p.tokens_per_s());
      }
    }
    pools.curves.push_back(line);
  };
  add("no network", r.on_nothing, "stroke:black;stroke-width:1;stroke-dasharray:3 3");
  add("400 Gb/s", r.on_fabric, "stroke:black;stroke-width:2");
  add("100 Gb/s", r.on_ethernet, "stroke:black;stroke-width:1.5;stroke-dasharray:8 4");
  add("at home, 1 Gb/s", r.at_home, "stroke:black;stroke-width:1.5");
  pools.spread = true;
  std::vector<figure> all;
  all.push_back({"beyond_tokens", over_context("Llama-3-8B, 16 sequences: predicted", "tokens/s",
                                               {0.1, 10'000, true}, text::per_second)});
  all.push_back(
      {"beyond_dollars", over_context("Llama-3-8B, 16 sequences: predicted", "tokens a dollar",
                                      {100, 10'000'000, true}, text::per_dollar)});
  all.push_back(
      {"beyond_joules", over_context("Llama-3-8B, 16 sequences: predicted", "joules a token",
                                     {0.1, 10'000, true}, text::joules)});
  all.push_back({"beyond_drives", charts::draw(pools)});
  return all;
}

}  // namespace instinfer::beyond
