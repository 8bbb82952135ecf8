#pragma once
// The study as JSON, all of it predicted; bench/charts draws it.

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "beyond/tables.hpp"

namespace instinfer::beyond {

namespace detail {

using ordered_json = nlohmann::ordered_json;

// A way to keep the cache at one context; 0 tokens/s where it does not fit.
inline ordered_json json_of(const answer& a) {
  ordered_json row{{"name", a.name}, {"context", a.context}, {"tokens_per_s", a.tokens_per_s}};
  if (a.tokens_per_s > 0) {
    row["tokens_per_usd"] = text::per_dollar(a);
    row["joules_per_token"] = text::joules(a);
  }
  return row;
}
inline ordered_json json_of(const ladder& l) {
  ordered_json answers = ordered_json::array();
  for (const std::vector<answer>& rung : l.rungs) {
    for (const answer& a : rung) {
      answers.push_back(json_of(a));
    }
  }
  return {{"model", l.model.name}, {"sequences", sequences}, {"answers", answers}};
}

inline ordered_json json_of(const char* network, const std::vector<pool>& pools) {
  ordered_json runs = ordered_json::array();
  for (const pool& p : pools) {
    ordered_json step_s;
    for (std::size_t i = 0; i < shares::names.size(); ++i) {
      step_s[shares::names[i]] = p.step.seconds[i];
    }
    runs.push_back({{"drives", p.drives},
                    {"sequences", p.batch},
                    {"fits", p.verdict.empty()},
                    {"tokens_per_s", p.tokens_per_s()},
                    {"step_s", step_s}});
  }
  return {{"network", network}, {"runs", runs}};
}

}  // namespace detail

inline nlohmann::ordered_json json(const results& r) {
  using detail::json_of;
  using detail::ordered_json;
  ordered_json widths = ordered_json::array();
  for (const results::width& w : r.widths) {
    for (const answer* a : {&w.dense, &w.sparse, &w.dense_int8, &w.sparse_int8}) {
      ordered_json row = json_of(*a);
      row["drive"] = w.drive;
      widths.push_back(row);
    }
  }
  ordered_json by_drives = ordered_json::array();
  for (std::size_t i = 0; i < more_drives.size(); ++i) {
    ordered_json row = json_of(r.by_drives[i]);
    row["drives"] = more_drives[i];
    by_drives.push_back(row);
  }
  return {{"kind", "beyond"},
          {"ladders", ordered_json::array({json_of(r.small), json_of(r.large)})},
          {"widths", widths},
          {"by_drives", by_drives},
          {"pools", ordered_json::array({json_of("no network", r.on_nothing),
                                         json_of("400 Gb/s fabric", r.on_fabric),
                                         json_of("100 Gb/s Ethernet", r.on_ethernet),
                                         json_of("homes, 1 Gb/s", r.at_home)})}};
}

}  // namespace instinfer::beyond
