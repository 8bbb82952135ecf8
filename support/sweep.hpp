#pragma once
// Evaluates many design points on all cores, and puts the results into rows that do not depend on
// the number of threads.

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "instinfer/flash/bottleneck.hpp"
#include "support/parameters.hpp"

namespace instinfer::examples {

// The results of a point, in the order of their columns. `skipped` says why a point has none.
struct metric {
  const char* name;
  const char* meaning;  // with the unit, for axes and help
};
inline constexpr metric metrics[] = {
    {"step_us", "attention of one decode step, one layer (\u00b5s)"},
    {"tokens_per_s", "tokens/s of the batch, attention of all layers alone"},
    {"read_gb_s", "bytes over the flash channels by step time (GB/s)"},
    {"pages", "pages read in a step"},
    {"array_bytes", "bytes read from the arrays in a step"},
    {"channel_bytes", "bytes over the flash channels in a step"},
    {"filtered_bytes", "bytes that pass the filters in a step"},
    {"link_bytes", "bytes over the link in a step"},
    {"useful_share", "filtered over read bytes"},
    {"logit_0_us", "busy: kernels before the fold (\u00b5s)"},
    {"top_k_us", "busy: arg-top-k (\u00b5s)"},
    {"logit_us", "busy: kernels on folded K (\u00b5s)"},
    {"attend_us", "busy: kernels on V (\u00b5s)"},
    {"filter_us", "busy: busiest channel's filter (\u00b5s)"},
    {"flash_us", "busy: busiest channel's flash, stalls included (\u00b5s)"},
    {"dram_us", "busy: DRAM of the group buffer (\u00b5s)"},
    {"stalled_us", "of flash_us: data waits for the units behind (\u00b5s)"},
    {"array_us", "bound: tR of the busiest die's reads (\u00b5s)"},
    {"bus_us", "bound: commands and data on the busiest channel's bus (\u00b5s)"},
    {"gemv_us", "bound: GeMV of Logit-0, Logit and Attend (\u00b5s)"},
    {"softmax_us", "bound: softmax units (\u00b5s)"},
    {"link_us", "link: q and output, or pages to the GPU with the host's software (\u00b5s)"},
    {"bottleneck_share", "time of the bottleneck over the step's"},
    {"energy_mj_per_token", "energy of a token, all layers (mJ)"},
    {"prompt_ms", "writing the context of a sequence, one layer (ms)"},
};

inline bool is_metric(const std::string& name) {
  return std::ranges::any_of(metrics, [&](const metric& m) { return m.name == name; });
}

inline nlohmann::ordered_json parameters_of(const design_point& p) {
  nlohmann::ordered_json row;
  for (const parameter& what : parameters()) {
    const value v = what.get(p);
    if (const auto* word = std::get_if<std::string>(&v)) {
      row[what.name] = *word;
    } else if (what.whole) {
      row[what.name] = static_cast<std::int64_t>(std::get<double>(v));
    } else {
      row[what.name] = std::get<double>(v);
    }
  }
  return row;
}

// Parameters of a resolved point, then its metrics and its bottleneck (flash/bottleneck.hpp), or
// `skipped`.
inline nlohmann::ordered_json row_of(const design_point& p, const step_cost& cost) {
  nlohmann::ordered_json row = parameters_of(p);
  const flash::receipt& step = cost.step;
  const double step_ns = step.total_ns();
  const traffic& moved = step.traffic;
  const auto count = [](std::uint64_t n) { return static_cast<double>(n); };
  row["step_us"] = step_ns * 1e-3;
  row["tokens_per_s"] = p.batch / (step_ns * 1e-9 * p.layers);
  row["read_gb_s"] = count(moved.channel_bytes) / step_ns;
  row["pages"] = moved.pages_read;
  row["array_bytes"] = moved.array_bytes;
  row["channel_bytes"] = moved.channel_bytes;
  row["filtered_bytes"] = moved.filtered_bytes;
  row["link_bytes"] = moved.link_bytes;
  row["useful_share"] =
      moved.array_bytes > 0 ? count(moved.filtered_bytes) / count(moved.array_bytes) : 0.0;
  constexpr std::array<const char*, flash::unit_count> unit_columns{
      "logit_0_us", "top_k_us", "logit_us", "attend_us", "filter_us", "flash_us", "dram_us"};
  for (std::size_t u = 0; u < flash::unit_count; ++u) {
    row[unit_columns[u]] = step.units.busy_ns[u] * 1e-3;
  }
  row["stalled_us"] = step.stalled_ns * 1e-3;
  row["array_us"] = step.bounds[flash::resource::array] * 1e-3;
  row["bus_us"] = step.bounds[flash::resource::bus] * 1e-3;
  row["gemv_us"] = step.bounds[flash::resource::gemv] * 1e-3;
  row["softmax_us"] = step.bounds[flash::resource::softmax] * 1e-3;
  row["link_us"] = step.bounds[flash::resource::link] * 1e-3;
  const flash::bottleneck slowest = flash::bottleneck_of(step);
  row["bottleneck_share"] = slowest.share;
  row["energy_mj_per_token"] = cost.energy_j * 1e3 * p.layers / p.batch;
  row["prompt_ms"] = cost.prompt.total_ns() * 1e-6;
  row["bottleneck"] = slowest.name;
  row["skipped"] = "";
  return row;
}

inline nlohmann::ordered_json evaluated(const design_point& p) {
  try {
    return row_of(p, cost_of(p));
  } catch (const std::exception& e) {
    nlohmann::ordered_json row = parameters_of(p);
    for (const metric& m : metrics) {
      row[m.name] = nullptr;
    }
    row["bottleneck"] = nullptr;
    row["skipped"] = e.what();
    return row;
  }
}

// Rows of points first, first + stride, ... in that order. done(n) is called from the calling
// thread, now and then.
inline std::vector<nlohmann::ordered_json> evaluate(
    const std::vector<design_point>& points, std::size_t threads, std::size_t first = 0,
    std::size_t stride = 1, const std::function<void(std::size_t)>& done = [](std::size_t) {}) {
  const std::size_t mine = first < points.size() ? (points.size() - first - 1) / stride + 1 : 0;
  std::vector<nlohmann::ordered_json> rows(mine);
  std::atomic<std::size_t> next = 0;
  std::atomic<std::size_t> finished = 0;
  const auto work = [&](bool reports) {
    for (std::size_t i = next++; i < mine; i = next++) {
      rows[i] = evaluated(points[first + i * stride]);
      ++finished;
      if (reports) {
        done(finished);
      }
    }
  };
  std::vector<std::jthread> others;
  for (std::size_t t = 1; t < std::min(threads, mine); ++t) {
    others.emplace_back(work, false);
  }
  work(true);
  others.clear();  // joins
  done(finished);
  return rows;
}

}  // namespace instinfer::examples
