#pragma once
// docs/beyond.md: the numbers and tables that fill beyond.md.in.

#include <string>
#include <string_view>

#include "beyond/tables.hpp"
#include "support/page_template.hpp"

namespace instinfer::beyond {

inline page::values page_values(const results& r) {
  page::values values{{"tokens, 8B", text::table(r.small, text::per_second)},
                      {"tokens, 70B", text::table(r.large, text::per_second)},
                      {"widths", text::widths(r)},
                      {"by drives", text::by_drives(r)},
                      {"GPU room", text::gpu_room()},
                      {"tokens a dollar, 8B", text::table(r.small, text::per_dollar)},
                      {"joules, 8B", text::table(r.small, text::joules)},
                      {"break-even, 8B", text::break_even(r.small)},
                      {"break-even, 70B", text::break_even(r.large)},
                      {"dollars an hour, 8B", text::table(r.small, text::usd_an_hour)},
                      {"saturation, fabric", text::saturation(r.on_fabric)},
                      {"saturation, ethernet", text::saturation(r.on_ethernet)},
                      {"saturation, homes", text::saturation(r.at_home)},
                      {"one sequence", text::by_split(r.long_sequence)},
                      {"parts", text::parts()}};
  const auto put = [&](const char* name, const char* format, double value) {
    values[name] = text::formatted(format, value);
  };
  // Where holding the longest context costs more than computing.
  const std::vector<answer>& longest = r.small.rungs.back();
  const answer& gpu = longest[text::index_of(r.small, "HBM")];
  const answer& ours = longest[text::index_of(r.small, "InstA-SparF, wide")];
  put("GPUs of the longest", "%.0f", gpu.gpus);
  put("seconds a token of the longest", "%.0f", static_cast<double>(sequences) / ours.tokens_per_s);
  put("idle gain", "%.1f", text::usd_an_hour(gpu) / text::usd_an_hour(ours));
  put("busy loss", "%.0f", text::per_dollar(gpu) / text::per_dollar(ours));
  const system::running_costs costs;
  put("service years", "%.0f", costs.service_years);
  put("dollars a kWh", "%.2f", costs.usd_per_kwh);
  put("facility", "%.1f", costs.facility);
  return values;
}

// page: the text of beyond.md.in.
inline std::string document(std::string_view page, const results& r) {
  return page::filled(page, page_values(r));
}

}  // namespace instinfer::beyond
