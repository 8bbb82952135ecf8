#pragma once
// The study's results as tables.

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "beyond/scale.hpp"
#include "beyond/study.hpp"

namespace instinfer::beyond {

inline const std::vector<int> more_drives{4, 8, 16, 32, 64, 128};

// Everything that the page says. Five seconds on one core.
struct results {
  ladder small, large;  // Llama-3-8B, Llama-3-70B
  struct width {
    std::string drive;
    answer dense, sparse, dense_int8, sparse_int8;
  };
  std::vector<width> widths;      // Llama-3-8B, 128 K
  std::vector<answer> by_drives;  // of more_drives, the same
  std::vector<pool> on_fabric, on_ethernet, on_nothing, at_home, long_sequence;
};

inline results run_everything() {
  results r{climb(system::llama3_8b),
            climb(system::llama3_70b),
            {},
            {},
            pools_over(system::fabric_400g),
            pools_over(system::ethernet_100g),
            pools_over(system::no_network),
            homes(),
            one_long_sequence()};
  const model_spec& wide_kv = system::llama3_8b;
  model_spec narrow_kv = wide_kv;
  narrow_kv.kv_element_bytes = 1;
  const system::workload job{sequences, 128 << 10, output_tokens};
  const auto add = [&](std::string name, const flash::drive_spec& d, const system::priced& price) {
    r.widths.push_back(
        {std::move(name), in_drives<insta>("InstA", wide_kv, job, d, price),
         in_drives<insta_sparf>("InstA-SparF", wide_kv, job, d, price),
         in_drives<insta, kv_format<int8_pages<fp16>>>("InstA, int8", narrow_kv, job, d, price),
         in_drives<insta_sparf, kv_format<int8_pages<fp16>>>("InstA-SparF, int8", narrow_kv, job, d,
                                                             price)});
  };
  add("8 channels, PCIe 4 (the paper's)", flash::instcsd, system::csd_pcie4);
  add("the same, accelerator x 4", with_accelerator(flash::instcsd, 4), system::csd_pcie4);
  add("16 channels, PCIe 5", flash::pcie5_16ch, system::csd_pcie5);
  add("the same, accelerator x 4", with_accelerator(flash::pcie5_16ch, 4), system::csd_pcie5);
  add("the same, accelerator x 8", with_accelerator(flash::pcie5_16ch, 8), system::csd_pcie5);
  for (const int count : more_drives) {
    r.by_drives.push_back(in_drives<insta_sparf>("InstA-SparF, wide", wide_kv, job,
                                                 with_accelerator(flash::pcie5_16ch, 4),
                                                 system::csd_pcie5, count));
  }
  return r;
}

namespace text {

template <class... Args>
std::string formatted(const char* format, Args... args) {
  char line[512];
  std::snprintf(line, sizeof line, format, args...);
  return line;
}
// Three digits that matter.
inline std::string number(double x) {
  if (x >= 1e4) {
    return x >= 1e6 ? number(x / 1e6) + " M" : formatted("%.1f k", x / 1e3);
  }
  return formatted(x >= 100 ? "%.0f" : x >= 10 ? "%.1f" : x >= 1 ? "%.2f" : "%.3f", x);
}
// One cell of a table's row.
inline std::string cell(const std::string& content) {
  std::string c = " ";
  c += content;
  return c += " |";
}
inline std::string tokens(double context) { return formatted("%.0f K", context / 1024); }

template <class Value>
std::string table(const ladder& l, const Value& value) {
  std::string out = "| context |";
  std::string rule = "|---|";
  for (const answer& a : l.rungs.front()) {
    out += cell(a.name);
    rule += "---|";
  }
  out += "\n" + rule + "\n";
  for (const std::vector<answer>& rung : l.rungs) {
    out += "|";
    out += cell(tokens(rung.front().context));
    for (const answer& a : rung) {
      out += cell(a.tokens_per_s > 0 ? number(value(a)) : "does not fit");
    }
    out += "\n";
  }
  return out;
}
inline double per_second(const answer& a) { return a.tokens_per_s; }
inline double per_dollar(const answer& a) { return a.cost.tokens_per_usd(a.tokens_per_s); }
inline double per_joule(const answer& a) { return 1 / a.cost.joules_per_token(a.tokens_per_s); }
inline double joules(const answer& a) { return a.cost.joules_per_token(a.tokens_per_s); }

inline double usd_an_hour(const answer& a) { return 3'600 * a.cost.usd_per_s(); }

inline std::size_t index_of(const ladder& l, const std::string& name) {
  const auto& rung = l.rungs.front();
  const auto found = std::ranges::find(rung, name, &answer::name);
  require(found != rung.end(), [&] { return "beyond: there is no tier called " + name; });
  return static_cast<std::size_t>(found - rung.begin());
}

inline std::string parts() {
  std::string out = "| part | dollars | watts | source |\n|---|---|---|---|\n";
  const auto add = [&](const system::priced& p) {
    out += "|";
    out += cell(std::string(p.part)) + formatted(" %.0f | %.1f |", p.usd, p.watts) +
           cell(std::string(p.source)) + "\n";
  };
  add(system::price_of(system::h100_sxm));
  for (const system::priced& p : system::other_parts) {
    add(p);
  }
  return out;
}

inline std::string break_even(const ladder& l) {
  std::string out =
      "| against | ahead in tokens a dollar | ahead in tokens a joule | a drive may cost, 128 K | a drive may cost, 1,024 K |\n|---|---|---|---|---|\n";
  const std::size_t ours = index_of(l, "InstA-SparF, wide");
  const auto from = [&](const std::optional<double>& context) {
    return !context              ? std::string("nowhere")
           : *context <= 8 << 10 ? std::string("everywhere")
                                 : tokens(*context) + " on";
  };
  const auto price = [](double usd) {
    return usd <= 0 ? std::string("nothing") : formatted("%.0f dollars", usd);
  };
  for (std::size_t other = 0; other < 7; ++other) {
    out += "|";
    out += cell(l.rungs.front()[other].name) + cell(from(ahead_from(l, ours, other, per_dollar))) +
           cell(from(ahead_from(l, ours, other, per_joule))) +
           cell(price(break_even_drive_usd(l.rungs[2][ours], l.rungs[2][other]))) +
           cell(price(break_even_drive_usd(l.rungs[4][ours], l.rungs[4][other]))) + "\n";
  }
  return out;
}

// Sequences that GPU memory holds beside the weights.
inline std::string gpu_room() {
  std::string out =
      "| model | GPUs | KV a token | GPU memory left for KV | 8 K | 32 K | 128 K | 1,024 K | longest context of 16 sequences |\n|---|---|---|---|---|---|---|---|---|\n";
  for (const model_spec* model :
       {&system::opt_13b, &system::llama3_8b, &system::qwen2_5_32b, &system::llama3_70b}) {
    const int gpus = gpus_for(*model);
    const double room =
        system::recomp_system::usable_gpu_share * gpus * system::h100_sxm.memory_bytes -
        model->weight_bytes();
    out += "|";
    out +=
        cell(std::string(model->name)) + formatted(" %d | %.0f KiB | %.1f GB |", gpus,
                                                   model->kv_bytes_per_token() / 1024, room / 1e9);
    for (const double context : {8.0, 32.0, 128.0, 1024.0}) {
      out +=
          formatted(" %.0f |", std::floor(room / (context * 1024 * model->kv_bytes_per_token())));
    }
    out += formatted(" %.0f |\n", std::floor(room / (16 * model->kv_bytes_per_token())));
  }
  return out;
}

inline std::string widths(const results& r) {
  std::string out =
      "| drive | InstA | InstA-SparF | InstA, int8 | InstA-SparF, int8 |\n|---|---|---|---|---|\n";
  for (const results::width& w : r.widths) {
    out += "| " + w.drive + " |";
    for (const answer* a : {&w.dense, &w.sparse, &w.dense_int8, &w.sparse_int8}) {
      out += cell(number(a->tokens_per_s) + " (" + a->bottleneck + ")");
    }
    out += "\n";
  }
  return out;
}

// More drives against what a GPU's link lets through.
inline std::string by_drives(const results& r) {
  std::string out =
      "| cache in | tokens/s | tokens a dollar | joules a token |\n|---|---|---|---|\n";
  const auto add = [&](const std::string& name, const answer& a) {
    out += "|";
    out += cell(name) + cell(number(a.tokens_per_s)) + cell(number(per_dollar(a))) +
           cell(number(joules(a))) + "\n";
  };
  for (std::size_t i = 0; i < more_drives.size(); ++i) {
    add(formatted("%d wide drives, InstA-SparF", more_drives[i]), r.by_drives[i]);
  }
  for (const char* name : {"HBM", "DRAM", "DRAM, 1/8", "SSD, 1/8"}) {
    add(name, r.small.rungs[2][index_of(r.small, name)]);
  }
  return out;
}

inline std::string saturation(const std::vector<pool>& pools) {
  std::string out =
      "| drives | hosts | with work | sequences | s a token | tokens/s | tokens a dollar |";
  for (const char* name : shares::names) {
    out += cell(name);
  }
  out += " first to saturate |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const pool& p : pools) {
    out += formatted("| %.0f | %.0f | %.0f | %lld |", p.drives, p.hosts, p.drives_used,
                     static_cast<long long>(p.batch));
    if (!p.verdict.empty()) {
      out += " | | | | | | | |" + cell("capacity: " + p.verdict) + "\n";
      continue;
    }
    out += cell(number(p.step.total_s())) + cell(number(p.tokens_per_s())) +
           cell(number(p.cost.tokens_per_usd(p.tokens_per_s())));
    for (const double s : p.step.seconds) {
      out += formatted(" %.0f %% |", 100 * s / p.step.total_s());
    }
    out += cell(shares::names[p.step.largest()]) + "\n";
  }
  return out;
}

// One sequence, by split. The first row is one drive.
inline std::string by_split(const std::vector<pool>& pools) {
  std::string out = "| split | drives | hosts | ms a token | speed-up |";
  for (const char* name : shares::names) {
    out += cell(name);
  }
  out += "\n|---|---|---|---|---|---|---|---|---|---|\n";
  for (const pool& p : pools) {
    out += "|";
    out += cell(p.split) + formatted(" %.0f | %.0f |", p.drives, p.hosts) +
           cell(number(1e3 * p.step.total_s())) +
           cell(number(pools.front().step.total_s() / p.step.total_s()));
    for (const double s : p.step.seconds) {
      out += formatted(" %.0f %% |", 100 * s / p.step.total_s());
    }
    out += "\n";
  }
  return out;
}

}  // namespace text

}  // namespace instinfer::beyond
