#pragma once
// A text summary of one decode step on the drive: use of each resource, bytes at each stage, page
// latencies, phases.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/traffic.hpp"
#include "instinfer/flash/attend/attend_bounds.hpp"
#include "instinfer/flash/attend/attend_phase.hpp"
#include "instinfer/flash/bottleneck.hpp"
#include "instinfer/ssd/report/chrome_trace.hpp"
#include "instinfer/ssd/report/latencies.hpp"

namespace instinfer::flash {

// Resources of one kind, for example all buses. Busy time is the sum of their bars in the trace.
struct resource_use {
  std::string name;
  std::size_t count = 0;
  double mean_busy_ns = 0;
  double most_busy_ns = 0;  // of the busiest resource
};

struct step_summary {
  double total_ns = 0;
  bottleneck slowest;
  attend_bounds bounds;
  instinfer::traffic traffic;
  // Units of the drive and the link first, then buses and planes.
  std::vector<resource_use> resources;
  std::vector<phase_ns> phases;
  // From the step's first flash command to the last byte of each page on the bus.
  latencies page_ps;
};

namespace detail {

inline std::vector<resource_use> resources_of(const chrome_trace& trace) {
  std::vector<double> busy_ns(trace.rows().size());
  for (const chrome_trace::bar& bar : trace.bars()) {
    busy_ns[bar.row] += bar.duration_ps * 1e-3;
  }
  std::vector<resource_use> units;
  std::vector<resource_use> flash;
  for (std::size_t row = 0; row < busy_ns.size(); ++row) {
    const chrome_trace::track& track = trace.rows()[row];
    const bool on_channel = track.group.starts_with("channel ");
    std::string name = track.row;
    if (on_channel) {
      name = name.starts_with("chip ") ? "planes" : name == "bus" ? "buses" : name + 's';
    }
    std::vector<resource_use>& kind = on_channel ? flash : units;
    auto at = std::ranges::find(kind, name, &resource_use::name);
    if (at == kind.end()) {
      at = kind.insert(kind.end(), {.name = name});
    }
    ++at->count;
    at->mean_busy_ns += busy_ns[row];
    at->most_busy_ns = std::max(at->most_busy_ns, busy_ns[row]);
  }
  units.insert(units.end(), flash.begin(), flash.end());
  for (resource_use& use : units) {
    use.mean_busy_ns /= static_cast<double>(use.count);
  }
  return units;
}

}  // namespace detail

// done: the result of flash::engine::attend (engine.hpp). trace: what the same call wrote into an
// empty trace. Rows of resources that were never used are not counted. Throws bad_argument if the
// trace and the receipt have different numbers of page reads.
template <class Receipt>
step_summary summarize(const Receipt& done, const chrome_trace& trace) {
  step_summary all{.total_ns = done.total_ns(),
                   .slowest = bottleneck_of(done),
                   .bounds = done.bounds,
                   .traffic = done.traffic,
                   .resources = detail::resources_of(trace),
                   .phases = done.phases,
                   .page_ps = {}};
  double begin_ps = std::numeric_limits<double>::infinity();
  std::vector<double> ends_ps;
  for (const chrome_trace::bar& bar : trace.bars()) {
    if (bar.name == "command") {
      begin_ps = std::min(begin_ps, bar.begin_ps);
    } else if (bar.name == "data out") {
      ends_ps.push_back(bar.end_ps());
    }
  }
  require(ends_ps.size() == done.traffic.pages_read, [&] {
    return std::string("step summary: the receipt has ") + std::to_string(done.traffic.pages_read) +
           " page reads, the trace " + std::to_string(ends_ps.size()) +
           "; is it the trace of this call alone?";
  });
  std::vector<std::int64_t> page_ps;
  for (const double end_ps : ends_ps) {
    page_ps.push_back(static_cast<std::int64_t>(end_ps - begin_ps + 0.5));
  }
  all.page_ps = latencies_of(page_ps);
  return all;
}

// A table for terminals and documents; times are in microseconds.
inline std::string to_string(const step_summary& all) {
  std::string text;
  const auto line = [&](const char* format, auto... values) {
    char buffer[160];
    std::snprintf(buffer, sizeof(buffer), format, values...);
    text += buffer;
  };
  const auto share = [&](double ns) { return all.total_ns > 0 ? 100 * ns / all.total_ns : 0.0; };
  line("step %.2f us, %llu pages\n", all.total_ns * 1e-3,
       static_cast<unsigned long long>(all.traffic.pages_read));
  line("bottleneck %s: %.2f us, %.1f%% of the step\n\n", all.slowest.name.c_str(),
       all.slowest.ns * 1e-3, 100 * all.slowest.share);
  line("%-14s", "bound");
  for (std::size_t r = 0; r < resource_count; ++r) {
    line("%10s", resource_name(static_cast<resource>(r)));
  }
  line("\n%-14s", "us");
  for (const double ns : all.bounds.busy_ns) {
    line("%10.2f", ns * 1e-3);
  }
  text += "\n\n";
  line("%-14s%8s%12s%8s%14s%8s\n", "resource", "count", "mean us", "share", "busiest us", "share");
  for (const resource_use& use : all.resources) {
    line("%-14s%8zu%12.2f%7.1f%%%14.2f%7.1f%%\n", use.name.c_str(), use.count,
         use.mean_busy_ns * 1e-3, share(use.mean_busy_ns), use.most_busy_ns * 1e-3,
         share(use.most_busy_ns));
  }
  line("\n%-14s%12s%12s%12s%12s%12s\n", "bytes", "array", "channel", "filter", "buffer", "link");
  line("%-14s%12llu%12llu%12llu%12llu%12llu\n", "",
       static_cast<unsigned long long>(all.traffic.array_bytes),
       static_cast<unsigned long long>(all.traffic.channel_bytes),
       static_cast<unsigned long long>(all.traffic.filtered_bytes),
       static_cast<unsigned long long>(all.traffic.buffer_bytes),
       static_cast<unsigned long long>(all.traffic.link_bytes));
  const auto us = [](std::int64_t ps) { return static_cast<double>(ps) * 1e-6; };
  line("\n%-14s%12s%12s%12s%12s\n", "page latency", "p50 us", "p99 us", "p99.9 us", "most us");
  line("%-14s%12.2f%12.2f%12.2f%12.2f\n", "", us(all.page_ps.p50_ticks), us(all.page_ps.p99_ticks),
       us(all.page_ps.p999_ticks), us(all.page_ps.max_ticks));
  line("\n%-14s%10s%10s%10s%10s%10s%10s%10s%10s\n", "phase, us", "pages", "whole", "flash",
       "filter", "GeMV", "softmax", "top-k", "route");
  for (const phase_ns& phase : all.phases) {
    line("%-14s%10llu", phase.op == attention::operation::fold ? "fold" : "score dims",
         static_cast<unsigned long long>(phase.pages));
    for (const double ns : {phase.total(), phase.reading, phase.filter, phase.gemv, phase.softmax,
                            phase.top_k, phase.route}) {
      line("%10.2f", ns * 1e-3);
    }
    text += "\n";
  }
  return text;
}

}  // namespace instinfer::flash
