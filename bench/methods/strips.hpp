#pragma once
// The small picture of a method in docs/methods.md: 64 tokens from oldest to newest, K above V, and what becomes of each.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "support/svg.hpp"

namespace instinfer::methods {

// left: not touched. partly: some dims of K. estimated: by a centroid. read: from the drive. resident: in fast memory.
enum class fate { left, partly, estimated, read, resident };

struct strip_part {
  int first;
  int last;
  fate k;
  fate v;
};

struct strip {
  std::string method;
  std::vector<strip_part> parts;  // later ones over earlier ones
};

inline std::vector<strip> strips() {
  using enum fate;
  const std::vector<std::pair<int, int>> tokens{{3, 5},   {13, 14}, {22, 24}, {29, 30},
                                                {38, 40}, {47, 48}, {55, 57}, {62, 64}};
  const auto scattered = [&](std::vector<strip_part> parts, fate k, fate v) {
    for (const auto& [first, last] : tokens) {
      parts.push_back({first, last, k, v});
    }
    return parts;
  };
  const auto hgca = [&] {
    std::vector<strip_part> parts = scattered({}, read, read);
    parts.push_back({48, 64, resident, resident});
    return parts;
  };
  return {{"dense", {{0, 64, read, read}}},
          {"top_values", scattered({{0, 64, read, left}}, read, read)},
          {"streaming_llm", {{0, 2, resident, resident}, {56, 64, resident, resident}}},
          {"h2o", scattered({{58, 64, resident, resident}}, resident, resident)},
          {"hgca", hgca()},
          {"sparq", scattered({{0, 64, partly, left}}, read, read)},
          {"quest", {{8, 16, read, read}, {36, 40, read, read}, {60, 64, read, read}}},
          {"squeezed", {{6, 16, read, read}, {30, 34, read, read}, {56, 64, resident, resident}}},
          {"retro_infer",
           {{0, 2, resident, resident},
            {2, 20, estimated, estimated},
            {8, 14, read, read},
            {32, 44, estimated, estimated},
            {58, 64, resident, resident}}},
          {"dsa", scattered({}, read, read)}};
}

inline svg::drawing draw(const std::vector<strip_part>& parts) {
  constexpr double cell = 9, height = 14;
  svg::drawing on(64 * cell + 44, 2 * height + 8);
  on.hatching("h", 4, "M0 4L4 0");
  std::vector<fate> k(64, fate::left), v(64, fate::left);
  for (const strip_part& part : parts) {
    for (int t = part.first; t < part.last; ++t) {
      k[static_cast<std::size_t>(t)] = part.k;
      v[static_cast<std::size_t>(t)] = part.v;
    }
  }
  const auto row = [&](const char* name, const std::vector<fate>& fates, double y) {
    on.text(8, y + 11, name, "start", 12);
    for (std::size_t t = 0; t < fates.size(); ++t) {
      const double x = 28 + cell * static_cast<double>(t);
      const fate f = fates[t];
      on.box(x, y, cell, height,
             f == fate::resident ? "fill:#444;stroke:#888"
             : f == fate::read   ? "fill:url(#h);stroke:#888"
             : f == fate::partly ? "fill:#d8d8d8;stroke:#888"
                                 : "fill:white;stroke:#ccc");
      if (f == fate::estimated) {
        on.box(x + 3, y + 5.5, 3, 3, "fill:black;stroke:none");
      }
    }
  };
  row("K", k, 4);
  row("V", v, 4 + height);
  return on;
}

}  // namespace instinfer::methods
