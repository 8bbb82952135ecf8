#pragma once
// The reproduction as JSON: the claims, and what the figures show of all runs. bench/charts draws
// it.

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "paper/claims.hpp"

namespace instinfer::paper {

namespace detail {

using ordered_json = nlohmann::ordered_json;

inline ordered_json json_of(const claim& c) {
  ordered_json row{
      {"figure", c.figure}, {"claim", c.what},
      {"unit", c.unit},     {"paper", c.paper},
      {"ours", c.ours},     {"kind", c.how == kind::calibrated ? "calibrated" : "predicted"}};
  if (!c.shown.system.empty()) {
    row["system"] = c.shown.system;
    row["at"] = c.shown.at;
  }
  return row;
}

// A system at one batch; the parts of a step are in seconds, and there are none where memory does
// not suffice.
inline ordered_json json_of(const report& r) {
  const system::step_time& t = r.mean.time;
  return {{"batch", r.job.batch},
          {"fits", r.fits()},
          {"tokens_per_s", r.fits() ? r.tokens_per_s() : 0.0},
          {"step_s",
           {{"KV access", t.kv_access_s()},
            {"weights", t.weights_s},
            {"compute", t.compute_s},
            {"q, k, v, output and commands", t.kv_write_s + t.qo_link_s + t.command_s}}}};
}

inline ordered_json json_of(const panel& p) {
  ordered_json systems = ordered_json::array();
  for (const series* s : p.all()) {
    ordered_json runs = ordered_json::array();
    for (const report& r : s->runs) {
      runs.push_back(json_of(r));
    }
    systems.push_back({{"name", s->system}, {"runs", runs}});
  }
  return {{"figure", p.figure}, {"title", p.title}, {"systems", systems}};
}

// Busy milliseconds of the drive's units, in the order of the paper's Fig. 21.
inline ordered_json busy_ms(const system::kv_load& load) {
  const std::pair<const char*, flash::unit> units[] = {
      {"Logit-0", flash::unit::logit_0}, {"top-k", flash::unit::top_k},
      {"Logit", flash::unit::logit},     {"Attend", flash::unit::attend},
      {"filter", flash::unit::filter},   {"flash", flash::unit::flash}};
  ordered_json all;
  for (const auto& [name, unit] : units) {
    all[name] = load.units[unit] * 1e-6;
  }
  return all;
}

// Fig. 6: the GPU, and the accelerator behind the flash channels. OPT-13B, batch 64, context 1536.
inline ordered_json roofline() {
  const system::gpu_spec gpu = system::rtx_a6000;
  // InstInfer §III: what a Zynq-7045-class part has at most.
  const double accelerator_flops = 650e9;
  const char* const drive = "the drive's accelerator";
  const system::model_spec& m = system::opt_13b;
  const double weights = static_cast<double>(m.layer_matrix_elements());
  const auto operation = [](const char* name, const auto& on, double flops, double bytes) {
    return ordered_json{{"name", name}, {"on", on}, {"flop_per_byte", flops / bytes}};
  };
  return {{"roofs",
           {{{"name", gpu.name},
             {"flops_per_s", gpu.flops_per_s},
             {"bytes_per_s", gpu.memory_bytes_per_s}},
            {{"name", drive},
             {"flops_per_s", accelerator_flops},
             {"bytes_per_s", static_cast<double>(flash::instcsd.bus_bytes_per_s())}}}},
          {"operations",
           {operation("GEMMs, decode", gpu.name, 2 * 64 * weights, 2 * weights),
            operation("GEMMs, prefill", gpu.name, 2 * 1024 * weights, 2 * weights),
            operation("Logit and Attend, decode", drive, m.attention_flops_per_token(1536),
                      1536 * m.kv_bytes_per_token())}}};
}

// Fig. 23: users at 128 K tokens a day that four drives serve for so many years.
inline ordered_json users() {
  flash::endurance relaxed = flash::paper_endurance;
  relaxed.retention_gain = flash::three_weeks_retention_gain;
  ordered_json all = ordered_json::array();
  for (double years = 1; years <= 5; ++years) {
    all.push_back({{"years", years},
                   {"full retention", flash::paper_endurance.users(128'000, years)},
                   {"three weeks", relaxed.users(128'000, years)}});
  }
  return all;
}

}  // namespace detail

inline nlohmann::ordered_json json(const std::vector<claim>& claims) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const claim& c : claims) {
    list.push_back(detail::json_of(c));
  }
  return list;
}

inline nlohmann::ordered_json json(const all_runs& runs, const std::vector<claim>& claims) {
  using detail::json_of;
  nlohmann::ordered_json drives = nlohmann::ordered_json::array();
  for (const by_drives& d : runs.drives) {
    drives.push_back({{"drives", d.drives},
                      {"InstA", d.dense.tokens_per_s()},
                      {"InstA-SparF", d.sparse.tokens_per_s()}});
  }
  nlohmann::ordered_json compressions = nlohmann::ordered_json::array();
  for (const by_compression& c : runs.compressions) {
    compressions.push_back(
        {{"compression", c.compression}, {"tokens_per_s", c.run.tokens_per_s()}});
  }
  return {{"kind", "paper"},
          {"claims", json(claims)},
          {"panels",
           {json_of(runs.opt_13b), json_of(runs.two_drives), json_of(runs.opt_30b),
            json_of(runs.llama2_13b)}},
          {"roofline", detail::roofline()},
          {"drives", drives},
          {"compressions", compressions},
          {"busy_ms",
           {{"InstA", detail::busy_ms(runs.dense_layer)},
            {"InstA-SparF", detail::busy_ms(runs.sparse_layer)}}},
          {"retry_per_mille",
           {{"InstA", 1e3 * runs.dense_retry}, {"InstA-SparF", 1e3 * runs.sparse_retry}}},
          {"users", detail::users()}};
}

}  // namespace instinfer::paper
