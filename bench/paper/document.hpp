#pragma once
// docs/reproduction.md: the numbers and tables that fill reproduction.md.in.

#include <cmath>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "paper/claims.hpp"
#include "support/page_template.hpp"

namespace instinfer::paper {

namespace detail {

template <class... Args>
std::string formatted(const char* format, Args... args) {
  char text[256];
  std::snprintf(text, sizeof text, format, args...);
  return text;
}

// Three digits that matter; whole numbers in full.
inline std::string number(double x) {
  if (std::abs(x) >= 1000) {
    const std::string digits = formatted("%.0f", x);
    std::string grouped;
    for (std::size_t i = 0; i < digits.size(); ++i) {
      grouped += digits[i];
      const std::size_t left = digits.size() - 1 - i;
      grouped += left > 0 && left % 3 == 0 ? "," : "";
    }
    return grouped;
  }
  return formatted(std::abs(x) >= 100 ? "%.0f" : std::abs(x) >= 10 ? "%.1f" : "%.2f", x);
}

inline std::string error_of(const claim& c) {
  if (c.is_ordering()) {
    return c.ours == c.paper ? "yes" : "no";
  }
  const std::string text = formatted("%+.1f %%", 100 * c.error());
  return text == "-0.0 %" ? "+0.0 %" : text;
}

inline const char* name_of(kind k) { return k == kind::calibrated ? "calibrated" : "predicted"; }

}  // namespace detail

inline std::string table(const std::vector<claim>& claims) {
  std::string text = "| where | claim | paper | ours | error | kind |\n|---|---|---|---|---|---|\n";
  for (const claim& c : claims) {
    if (!c.is_ordering()) {
      text += "| " + c.figure + " | " + c.what + " | " + detail::number(c.paper) + " " + c.unit +
              " | " + detail::number(c.ours) + " | " + detail::error_of(c) + " | " +
              detail::name_of(c.how) + " |\n";
    }
  }
  text += "\n| where | who leads, and what fits | paper | ours | same |\n|---|---|---|---|---|\n";
  for (const claim& c : claims) {
    if (c.is_ordering()) {
      const bool holds = c.unit == "holds";
      text += "| " + c.figure + " | " + c.what + " | " +
              (holds ? "yes" : detail::formatted("%.0f", c.paper)) + " | " +
              (holds ? (c.ours == 1 ? "yes" : "no") : detail::formatted("%.0f", c.ours).c_str()) +
              " | " + detail::error_of(c) + " |\n";
    }
  }
  return text;
}

// A claim as the page's notes name it: where, what and how far off.
inline std::string row_name(const claim& c) {
  return c.figure + ", " + c.what + " (" + detail::error_of(c) + ")";
}

inline std::string accuracies(const all_runs& runs) {
  std::string text =
      "| compression | SparF | SparQ | H2O | StreamingLLM | window |\n|---|---|---|---|---|---|\n";
  for (const double of : {2.0, 4.0, 8.0, 16.0}) {
    text += detail::formatted("| 1/%.0f |", of);
    for (const char* method : {"SparF", "SparQ", "H2O", "StreamingLLM", "window"}) {
      const accuracy& a = runs.accuracy_of("trace", method, of);
      text += detail::formatted(" %.3f (%.3f) |", a.mass, a.rel_error);
    }
    text += "\n";
  }
  return text;
}

// What the template's gaps stand for; "row FIGURE, WHAT" is a claim's row_name.
inline page::values page_values(const all_runs& runs, const std::vector<claim>& claims) {
  page::values values;
  for (const claim& c : claims) {
    values["row " + c.figure + ", " + c.what] = row_name(c);
  }
  const auto put = [&](const char* name, const char* format, double value) {
    values[name] = detail::formatted(format, value);
  };
  const auto count = [&](const char* name, const auto& which) {
    put(name, "%.0f", static_cast<double>(std::ranges::count_if(claims, which)));
  };
  count("numbers", [](const claim& c) { return !c.is_ordering(); });
  count("predicted", [](const claim& c) { return c.how == kind::predicted && !c.is_ordering(); });
  count("calibrated", [](const claim& c) { return c.how == kind::calibrated && !c.is_ordering(); });
  count("orderings", [](const claim& c) { return c.is_ordering(); });
  count("orderings that hold", [](const claim& c) { return c.is_ordering() && c.ours == c.paper; });
  put("median error", "%.1f", 100 * median_error(claims));

  const system::host_software constants;
  put("cached request", "%.1f", constants.cached_request_ns / 1e3);
  put("pageable rate", "%.2f", constants.pageable_bytes_per_s / 1e9);
  put("swapped page", "%.1f", constants.swapped_page_ns / 1e3);
  put("recomputed tokens", "%.0f", constants.recomputed_tokens);

  put("H2O mass", "%.2f", runs.accuracy_of("trace", "H2O", 8).mass);
  put("SparF mass", "%.2f", runs.accuracy_of("trace", "SparF", 8).mass);
  put("H2O mass, switching", "%.2f", runs.accuracy_of("switching", "H2O", 8).mass);
  put("SparF mass, switching", "%.2f", runs.accuracy_of("switching", "SparF", 8).mass);

  const auto flash_rate = [](const system::kv_load& load) {
    return load.page_bytes / load.flash_s / 1e9;
  };
  const double page_share = runs.sparse_layer.page_bytes / runs.dense_layer.page_bytes;
  put("SparF page share", "%.2f", page_share);
  put("SparF page gain", "%.1f", 1 / page_share);
  put("SparF flash rate", "%.1f", flash_rate(runs.sparse_layer));
  put("dense flash rate", "%.1f", flash_rate(runs.dense_layer));
  put("dense retry", "%.2f", 1000 * runs.dense_retry);
  put("SparF retry", "%.2f", 1000 * runs.sparse_retry);
  put("Llama SparF rate", "%.1f", runs.llama_layer.page_bytes / runs.llama_layer.drive_s / 1e9);

  // At which time of a command 20 drives would be 7.29 times as fast as one: all else stays.
  const system::step_time& step = runs.drives.back().sparse.mean.time;
  const double command_s =
      runs.drives.front().sparse.mean.time.total_s() / 7.29 - (step.total_s() - step.command_s);
  put("step on 20 drives", "%.1f", step.total_s());
  put("commands on 20 drives", "%.1f", step.command_s);
  put("command of the paper's ratio", "%.1f", 10 * command_s / step.command_s);
  put("drive DRAM", "%.0f", runs.opt_13b.sparf.at(64).memory.drive_dram.needed_bytes / 1e9);

  values["claims"] = table(claims);
  values["accuracies"] = accuracies(runs);
  return values;
}

// page: the text of reproduction.md.in.
inline std::string document(std::string_view page, const all_runs& runs,
                            const std::vector<claim>& claims) {
  return page::filled(page, page_values(runs, claims));
}

}  // namespace instinfer::paper
