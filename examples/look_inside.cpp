// What happens inside the drive during one decode step of a design, or one batch of page reads: a
// summary in text, a Chrome trace, and a Gantt chart.

#include <cmath>
#include <filesystem>
#include <map>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "instinfer/flash/step_summary.hpp"
#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/report/event_bars.hpp"
#include "instinfer/ssd/report/gantt.hpp"
#include "instinfer/ssd/report/latencies.hpp"
#include "instinfer/ssd/spec/placement.hpp"
#include "support/number_in.hpp"
#include "support/parameters.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;
using namespace instinfer::examples;

struct choices {
  std::map<std::string, std::string> values;  // of the parameters given
  std::int64_t pages = 0;                     // 0: a decode step
  double transfer_ns = 0;                     // 0: from the bus rate
  std::filesystem::path folder = "instinfer-inside";
  flash::gantt_options gantt;
  std::vector<double> window_us;
};

design_point point_of(const choices& chosen) {
  design_point p;
  p.batch = 1;
  p.heads = 4;
  for (const auto& [name, text] : chosen.values) {
    const parameter& what = parameter_of(name);
    const std::vector<value> values = value_list::of(what, text);
    require(values.size() == 1, [&, &name = name] {
      return name + ": one design is looked into, got " + std::to_string(values.size()) +
             " values; examples/sweep.cpp takes many";
    });
    what.set(p, values.front());
  }
  return resolved(p);
}

void step(const design_point& p, flash::chrome_trace& trace) {
  const step_cost cost = cost_of(p, &trace);
  fmt::print(
      "{} attention, {} layout, {} sequence{} of {} tokens, {} KV heads, one layer\n{}, {} KiB each\n\n",
      p.attention, p.layout, p.batch, p.batch == 1 ? "" : "s", p.context, p.heads,
      to_string(cost.drive.geometry), p.page_kib);
  fmt::print("{}", to_string(flash::summarize(cost.step, trace)));
}

// Reads pages 0, 1, 2, ... of the drive, striped over channels, chips, dies, planes: one batch on
// an idle drive.
template <class Arbitration>
void read_pages(const choices& chosen, design_point p, flash::chrome_trace& trace) {
  p.units = "scaled";  // none is used
  flash::drive_spec drive = drive_of(p);
  drive.timing.page_transfer_ps = std::llround(chosen.transfer_ns * 1e3);
  flash::timeline<Arbitration> timeline(drive.geometry, drive.timing,
                                        {.cache_read = p.cache_read == "yes"});
  require(chosen.pages <= drive.geometry.pages_total(),
          [&] { return "pages: the drive has " + std::to_string(drive.geometry.pages_total()); });
  const flash::placement where{drive.geometry};
  std::vector<flash::location> pages;
  for (std::int64_t n = 0; n < chosen.pages; ++n) {
    pages.push_back(where.striped(n));
  }
  std::vector<std::int64_t> finish(pages.size());
  const flash::batch_times times =
      timeline.read(pages, finish, flash::event_bars(trace, timeline.scale().ticks_per_ps));
  const auto us = [&](std::int64_t ticks) {
    return static_cast<double>(ticks) / static_cast<double>(times.ticks_per_ps) * 1e-6;
  };
  const flash::latencies of = flash::latencies_of(finish);
  fmt::print("{} pages of {} KiB on {}\n\n", chosen.pages, p.page_kib, to_string(drive.geometry));
  fmt::print("makespan {:.3f} us, {:.3f} GB/s; {} commands, {} of them multi-plane\n",
             us(times.makespan_ticks),
             static_cast<double>(chosen.pages * drive.geometry.page_bytes) /
                 (us(times.makespan_ticks) * 1e3),
             times.commands, times.multi_plane_commands);
  fmt::print("latency  p50 {:.3f}, p99 {:.3f}, p99.9 {:.3f}, most {:.3f} us\n\n", us(of.p50_ticks),
             us(of.p99_ticks), us(of.p999_ticks), us(of.max_ticks));
  fmt::print("channel   pages  command us    data us     end us\n");
  for (std::size_t c = 0; c < times.channels.size(); ++c) {
    const flash::channel_load& load = times.channels[c];
    fmt::print("{:>7} {:>7} {:>11.3f} {:>10.3f} {:>10.3f}\n", c, load.pages, us(load.command_ticks),
               us(load.data_ticks), us(load.end_ticks));
  }
}

void run(choices chosen) {
  const std::filesystem::path timeline = chosen.folder / "trace.json";
  const std::filesystem::path picture = chosen.folder / "gantt.svg";
  const design_point p = point_of(chosen);
  std::filesystem::create_directories(chosen.folder);
  program::check_writable(timeline);
  program::check_writable(picture);

  flash::chrome_trace trace;
  if (chosen.pages == 0) {
    step(p, trace);
  } else if (p.arbitration == "command_first") {
    read_pages<flash::command_first>(chosen, p, trace);
  } else {
    read_pages<flash::data_out_first>(chosen, p, trace);
  }
  if (chosen.window_us.size() == 2) {
    chosen.gantt.begin_ps = chosen.window_us[0] * 1e6;
    chosen.gantt.end_ps = chosen.window_us[1] * 1e6;
  }
  if (chosen.gantt.groups.empty()) {  // the units of the drive, and one channel for all
    for (const char* group : {"units", "channel 0"}) {
      if (std::ranges::count(trace.rows(), group, &flash::chrome_trace::track::group) > 0) {
        chosen.gantt.groups.emplace_back(group);
      }
    }
  }
  program::write_file(timeline, trace.json());
  program::write_file(picture, flash::gantt(trace, chosen.gantt));
  fmt::print("\nwritten {}  open it at https://ui.perfetto.dev\n        {}\n", timeline.string(),
             picture.string());
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("look_inside", [&] {
    CLI::App app{
        "Looks into the modelled drive during one decode step: attention of one layer for a batch. With --pages, during one\n"
        "batch of page reads and nothing else. Prints a summary; writes trace.json (Perfetto opens it) and gantt.svg."};
    choices chosen;
    for (const parameter& p : parameters()) {
      std::string help = p.meaning;
      for (const std::string& word : p.words) {
        help += (&word == &p.words.front() ? ": " : ", ") + word;
      }
      app.add_option("--" + p.name, chosen.values[p.name], help)->group("Design");
    }
    app.add_option(
           "--pages", chosen.pages,
           "read the drive's first pages, striped, instead of a decode step; a million take 600 MB")
        ->check(CLI::Range(1, 1'000'000))
        ->group("Page reads");
    app.add_option("--transfer_ns", chosen.transfer_ns,
                   "bus time of a page; by default from the bus rate")
        ->check(program::number_in(1e-3, 1e9))
        ->group("Page reads");
    app.add_option("--out", chosen.folder, "folder of the two files")->capture_default_str();
    app.add_option("--title", chosen.gantt.title, "of the Gantt chart");
    app.add_option(
        "--show", chosen.gantt.groups,
        "groups of rows in the Gantt chart, e.g. units \"channel 3\"; by default units and channel 0");
    app.add_option("--window_us", chosen.window_us, "begin and end of the Gantt chart")
        ->check(program::number_in(0, 1e12))
        ->expected(2);
    CLI11_PARSE(app, argc, argv);
    std::erase_if(chosen.values, [](const auto& given) { return given.second.empty(); });
    run(chosen);
    return 0;
  });
}
