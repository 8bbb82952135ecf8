#pragma once
// The figures of the reproduction, in the shape of the paper's: name and drawing.

#include <string>
#include <utility>
#include <vector>

#include "paper/claims.hpp"
#include "support/charts.hpp"

namespace instinfer::paper {

struct figure {
  std::string name;  // of the file, without .svg
  svg::drawing drawing;
};

namespace detail {

inline std::vector<std::string> batch_names(const series& s) {
  std::vector<std::string> names;
  for (const report& r : s.runs) {
    names.push_back("batch " + std::to_string(r.job.batch));
  }
  return names;
}

inline figure throughput(const panel& p, const std::string& name,
                         const std::vector<const series*>& systems) {
  charts::grouped chart{.title = p.figure + ": " + p.title + " (x: does not fit)",
                        .unit = "tokens/s",
                        .groups = batch_names(p.flexgen),
                        .series = {},
                        .values = {},
                        .scale = {0.1, 1000, true}};
  for (const series* s : systems) {
    chart.series.push_back(s->system);
    std::vector<double>& values = chart.values.emplace_back();
    for (const report& r : s->runs) {
      values.push_back(r.fits() ? r.tokens_per_s() : -1);
    }
  }
  return {name, charts::draw(chart)};
}

// Where the time of a step goes, in percent.
inline std::vector<double> shares(const report& r) {
  const system::step_time& t = r.mean.time;
  const double whole = t.total_s() / 100;
  return {t.kv_access_s() / whole, t.weights_s / whole, t.compute_s / whole,
          (t.kv_write_s + t.qo_link_s + t.command_s) / whole};
}
inline const std::vector<std::string> share_names{"KV access", "weights", "compute",
                                                  "q, k, v, output, commands"};

inline charts::stacked breakdown(std::string title,
                                 const std::vector<std::pair<std::string, const report*>>& rows) {
  charts::stacked chart{std::move(title), "%", {}, share_names, {}, 100};
  for (const auto& [name, run] : rows) {
    chart.rows.push_back(name);
    chart.values.push_back(shares(*run));
  }
  return chart;
}

// The units of the paper's Fig. 21, in its order.
inline std::vector<double> by_unit(const system::kv_load& load) {
  using enum flash::unit;
  std::vector<double> ms;
  for (const flash::unit u : {logit_0, top_k, logit, attend, filter, flash}) {
    ms.push_back(load.units[u] * 1e-6);
  }
  return ms;
}

// Attainable GFLOPS over FLOP a byte: the GPU, and the engine behind the flash channels.
inline charts::lines roofline() {
  const system::gpu_spec gpu = system::rtx_a6000;
  const double accelerator_flops =
      650e9;  // InstInfer §III: what a Zynq-7045-class part has at most
  const double flash_bytes = static_cast<double>(flash::instcsd.bus_bytes_per_s());
  const auto roof = [](double flops, double bytes, double intensity) {
    return std::min(flops, bytes * intensity) / 1e9;
  };
  charts::lines chart{.title = "Fig. 6: roofline, OPT-13B, batch 64, context 1536",
                      .unit = "GFLOPS",
                      .below = "FLOP a byte",
                      .x = {0.1, 10'000, true},
                      .y = {1, 1e6, true},
                      .x_ticks = {0.1, 1, 10, 100, 1000, 10'000},
                      .curves = {}};
  charts::curve on_gpu{std::string(gpu.name), {}, "stroke:black;stroke-width:2", false};
  charts::curve on_drive{
      "engine, 8 channels", {}, "stroke:black;stroke-width:2;stroke-dasharray:6 3", false};
  for (double x = 0.1; x <= 10'001; x *= std::pow(10.0, 0.125)) {
    on_gpu.points.emplace_back(x, roof(gpu.flops_per_s, gpu.memory_bytes_per_s, x));
    on_drive.points.emplace_back(x, roof(accelerator_flops, flash_bytes, x));
  }
  const auto operation = [&](const char* name, double flops, double bytes,
                             const charts::curve& where) {
    const bool gpu_side = &where == &on_gpu;
    const double x = flops / bytes;
    chart.curves.push_back({name,
                            {{x, gpu_side ? roof(gpu.flops_per_s, gpu.memory_bytes_per_s, x)
                                          : roof(accelerator_flops, flash_bytes, x)}}});
  };
  const system::model_spec& m = system::opt_13b;
  const double weights = static_cast<double>(m.layer_matrix_elements());
  operation("GEMMs, decode", 2 * 64 * weights, 2 * weights, on_gpu);
  operation("GEMMs, prefill", 2 * 1024 * weights, 2 * weights, on_gpu);
  operation("Logit and Attend, decode", m.attention_flops_per_token(1536),
            1536 * m.kv_bytes_per_token(), on_drive);
  chart.curves.push_back(on_gpu);
  chart.curves.push_back(on_drive);
  return chart;
}

}  // namespace detail

inline std::vector<figure> all_figures(const all_runs& runs) {
  const panel& one = runs.opt_13b;
  const panel& two = runs.two_drives;
  std::vector<figure> all;
  panel motivation = one;
  motivation.figure = "Fig. 4";
  all.push_back(
      detail::throughput(motivation, "fig04", {&motivation.deepspeed, &motivation.flexgen}));
  all.push_back(
      {"fig05", charts::draw(detail::breakdown("Fig. 5: where a step's time goes, OPT-13B",
                                               {{"DeepSpeed, batch 8", &one.deepspeed.at(8)},
                                                {"DeepSpeed, batch 16", &one.deepspeed.at(16)},
                                                {"DeepSpeed, batch 32", &one.deepspeed.at(32)},
                                                {"FlexGen, batch 8", &one.flexgen.at(8)},
                                                {"FlexGen, batch 32", &one.flexgen.at(32)},
                                                {"FlexGen, batch 64", &one.flexgen.at(64)}}))});
  all.push_back({"fig06", charts::draw(detail::roofline())});
  all.push_back(detail::throughput(one, "fig14", one.all()));
  all.push_back(detail::throughput(two, "fig15", two.all()));
  all.push_back(detail::throughput(runs.opt_30b, "fig16", runs.opt_30b.all()));
  all.push_back(detail::throughput(runs.llama2_13b, "fig17", runs.llama2_13b.all()));
  all.push_back(
      {"fig18", charts::draw(detail::breakdown("Fig. 18: dense, OPT-13B, batch 64",
                                               {{"FlexGen", &one.flexgen.at(64)},
                                                {"InstA", &one.insta.at(64)},
                                                {"InstA, two drives", &two.insta.at(64)}}))});
  all.push_back(
      {"fig19", charts::draw(detail::breakdown("Fig. 19: sparse, OPT-13B, batch 64",
                                               {{"FlexGen-SparQ", &one.sparq.at(64)},
                                                {"InstA-SparF", &one.sparf.at(64)},
                                                {"InstA-SparF, two drives", &two.sparf.at(64)}}))});

  charts::lines scaling{
      .title = "Fig. 20a: speed-up over one drive, OPT-13B, batch 256",
      .unit = "x",
      .below = "drives",
      .x = {0, 20, false},
      .y = {0, 20, false},
      .x_ticks = {1, 4, 8, 12, 16, 20},
      .curves = {{"InstA", {}},
                 {"InstA-SparF", {}},
                 {"as many as drives", {}, "stroke:black;stroke-dasharray:4 4", false}}};
  for (const by_drives& d : runs.drives) {
    const auto x = static_cast<double>(d.drives);
    scaling.curves[0].points.emplace_back(
        x, d.dense.tokens_per_s() / runs.drives[0].dense.tokens_per_s());
    scaling.curves[1].points.emplace_back(
        x, d.sparse.tokens_per_s() / runs.drives[0].sparse.tokens_per_s());
    scaling.curves[2].points.emplace_back(x, x);
  }
  all.push_back({"fig20a", charts::draw(scaling)});

  charts::lines sparsity{.title = "Fig. 20b: InstA-SparF by compression, OPT-13B, batch 64",
                         .unit = "tokens/s",
                         .below = "KV entries read: one of so many",
                         .x = {1.5, 40, true},
                         .y = {0, 20, false},
                         .x_ticks = {2, 4, 8, 16, 32},
                         .curves = {{"InstA-SparF", {}}}};
  for (const by_compression& c : runs.compressions) {
    sparsity.curves[0].points.emplace_back(c.compression, c.run.tokens_per_s());
  }
  all.push_back({"fig20b", charts::draw(sparsity)});

  const std::vector<double> dense = detail::by_unit(runs.dense_layer);
  const std::vector<double> sparse = detail::by_unit(runs.sparse_layer);
  charts::grouped units{
      .title = "Fig. 21: the drive's units in one layer, OPT-13B, batch 64, context 1536",
      .unit = "ms busy",
      .groups = {"Logit-0", "top-k", "Logit", "Attend", "filter", "flash"},
      .series = {"InstA", "InstA-SparF"},
      .values = {dense, sparse},
      .scale = {0, 300, false}};
  all.push_back({"fig21", charts::draw(units)});

  all.push_back(
      {"fig22",
       charts::draw(charts::grouped{
           .title = "Fig. 22: what read retries add to flash time (0.003 further reads a page)",
           .unit = "per mille",
           .groups = {"InstA", "InstA-SparF"},
           .series = {"worst retry rate"},
           .values = {{1e3 * std::max(0.0, runs.dense_retry),
                       1e3 * std::max(0.0, runs.sparse_retry)}},
           .scale = {0, 1, false}})});

  charts::lines wear{.title = "Fig. 23: users at 128 K tokens a day, four drives, OPT-13B",
                     .unit = "users",
                     .below = "years",
                     .x = {0, 5, false},
                     .y = {0, 5000, false},
                     .x_ticks = {1, 2, 3, 4, 5},
                     .curves = {{"3,000 cycles", {}}, {"three weeks of retention", {}}}};
  flash::endurance relaxed = flash::paper_endurance;
  relaxed.retention_gain = flash::three_weeks_retention_gain;
  for (double years = 1; years <= 5; ++years) {
    wear.curves[0].points.emplace_back(years, flash::paper_endurance.users(128'000, years));
    wear.curves[1].points.emplace_back(years, relaxed.users(128'000, years));
  }
  all.push_back({"fig23", charts::draw(wear)});
  return all;
}

}  // namespace instinfer::paper
