// In-storage attention at work on the KV cache of a real language model: what four designs read of it, how close they
// come to the exact answer, and how long the accesses take on the paper's drive and over FlexGen's route.

#include <filesystem>
#include <fstream>
#include <iostream>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "support/replay.hpp"
#include "support/svg.hpp"

namespace {

using namespace instinfer;
using trace::measurement;

const std::vector<double> compressions{2, 4, 8, 16};

// The four designs at one head size; sparse ones at each compression.
template <int HeadDim>
std::vector<measurement> compare(const trace::kv_trace& trace, std::size_t queries,
                                 std::size_t batch, flash::chrome_trace& timeline) {
  const trace::exact_answers exact = trace::solve_exactly(trace, queries);
  std::vector<measurement> rows;
  rows.push_back(trace::replay<flexgen, HeadDim>("flexgen", 1, {}, trace, exact, batch));
  for (const double c : compressions) {
    rows.push_back(trace::replay<flexgen_sparq, HeadDim>(
        "flexgen_sparq", c, attention::sparq::at_compression(c), trace, exact, batch));
  }
  rows.push_back(trace::replay<insta, HeadDim>("insta", 1, {}, trace, exact, batch));
  for (const double c : compressions) {
    rows.push_back(trace::replay<insta_sparf, HeadDim>("insta_sparf", c,
                                                       attention::sparf::at_compression(c), trace,
                                                       exact, batch, c == 8 ? &timeline : nullptr));
  }
  return rows;
}

std::vector<measurement> compare(const trace::kv_trace& trace, std::size_t queries,
                                 std::size_t batch, flash::chrome_trace& timeline) {
  switch (trace.head_dim()) {
    case 64:
      return compare<64>(trace, queries, batch, timeline);
    case 80:
      return compare<80>(trace, queries, batch, timeline);
    case 96:
      return compare<96>(trace, queries, batch, timeline);
    case 128:
      return compare<128>(trace, queries, batch, timeline);
    default:
      throw bad_argument(
          fmt::format("the demo is built for head sizes 64, 80, 96 and 128, the trace has {}",
                      trace.head_dim()));
  }
}

const measurement& find(const std::vector<measurement>& rows, const std::string& design,
                        double compression) {
  return *std::ranges::find_if(rows, [&](const measurement& m) {
    return m.design == design && m.compression == compression;
  });
}

void print_table(const std::vector<measurement>& rows) {
  const measurement& flexgen_row = rows.front();
  fmt::print(
      "                          error       mass found              MB a step, by stage             ms a step       modelled: paper's     engine that\n");
  fmt::print(
      "design         asked   mean    max    mean  worst  pages  array channel filter   link  CPU, measured  drive    x FlexGen    keeps up    x FlexGen\n");
  for (const measurement& m : rows) {
    fmt::print(
        "{:<14} 1/{:<3.0f} {:>7.1e} {:>6.1e} {:>6.3f} {:>6.3f} {:>6.0f} {:>6.1f} {:>7.1f} {:>6.1f} {:>6.2f} {:>14.1f} {:>6.1f} {:>12.1f} {:>11.1f} {:>12.1f}\n",
        m.design, m.compression, m.rel_error_mean, m.rel_error_max, m.mass_mean, m.mass_min,
        m.pages, m.array_bytes / 1e6, m.channel_bytes / 1e6, m.filtered_bytes / 1e6,
        m.link_bytes / 1e6, m.cpu_us / 1e3, m.model_us / 1e3, flexgen_row.model_us / m.model_us,
        m.flash_us / 1e3, flexgen_row.flash_us / m.flash_us);
  }
}

nlohmann::json as_json(const std::vector<measurement>& rows) {
  nlohmann::json list = nlohmann::json::array();
  for (const measurement& m : rows) {
    list.push_back({{"design", m.design},
                    {"compression", m.compression},
                    {"rel_error_mean", m.rel_error_mean},
                    {"rel_error_max", m.rel_error_max},
                    {"mass_mean", m.mass_mean},
                    {"mass_min", m.mass_min},
                    {"pages", m.pages},
                    {"bytes_array", m.array_bytes},
                    {"bytes_channel", m.channel_bytes},
                    {"bytes_filtered", m.filtered_bytes},
                    {"bytes_link", m.link_bytes},
                    {"cpu_us", m.cpu_us},
                    {"modelled_us", m.model_us},
                    {"modelled_ample_engine_us", m.flash_us},
                    {"speed_up_over_flexgen", rows.front().model_us / m.model_us}});
  }
  return list;
}

// Left: error over compression. Right: modelled time a call.
void draw(const std::vector<measurement>& rows, std::ostream& out) {
  svg::drawing figure(1000, 400);
  const auto x_of = [](double c) { return 90 + 90 * std::log2(c); };
  const auto y_of = [](double error) { return 330 - 95 * (std::log10(error) + 2.5); };
  figure.text(40, 28, "Output error over compression", "start", 16);
  for (const double error : {0.01, 0.1, 1.0}) {
    figure.line(90, y_of(error), 460, y_of(error), "stroke:#ddd");
    figure.text(82, y_of(error) + 4, fmt::format("{:g}", error), "end");
  }
  for (const double c : compressions) {
    figure.text(x_of(c), 350, fmt::format("1/{:.0f}", c), "middle");
  }
  figure.line(90, 330, 460, 330);
  figure.text(270, 378, "KV traffic of dense attention that the method asks for", "middle");
  const auto curve = [&](const char* design, const char* label, svg::marker marker,
                         const char* style, double legend_y) {
    std::vector<std::pair<double, double>> points;
    for (const double c : compressions) {
      points.emplace_back(x_of(c),
                          y_of(std::clamp(find(rows, design, c).rel_error_mean, 0.0032, 2.0)));
    }
    figure.path(points, style);
    for (const auto& [x, y] : points) {
      figure.mark(x, y, marker, "#222");
    }
    figure.mark(120, legend_y - 4, marker, "#222");
    figure.text(135, legend_y, label);
  };
  curve("insta_sparf", "SparF", svg::marker::circle, "stroke:#222;stroke-width:2", 60);
  curve("flexgen_sparq", "SparQ", svg::marker::square,
        "stroke:#222;stroke-width:2;stroke-dasharray:6 4", 82);

  figure.text(540, 28, "Modelled time of a step", "start", 16);
  const double longest = std::ranges::max(rows, {}, &measurement::model_us).model_us;
  double y = 48;
  for (const measurement& m : rows) {
    const auto width = [&](double us) { return 230 * us / longest; };
    figure.box(690, y, width(m.model_us), 20, "fill:#ccc;stroke:#222");
    figure.box(690, y, width(m.flash_us), 20,
               m.design.starts_with("insta") ? "fill:#222" : "fill:#ccc;stroke:#222");
    figure.text(682, y + 15,
                m.compression == 1 ? m.design : fmt::format("{} 1/{:.0f}", m.design, m.compression),
                "end");
    figure.text(698 + width(m.model_us), y + 15, fmt::format("{:.1f} ms", m.model_us / 1e3));
    y += 31;
  }
  figure.text(540, 372, "black: flash and link; grey: what the paper's engine adds in the drive,");
  figure.text(540, 390, "or the way of the pages to the GPU");
  figure.write(out);
}

// The paragraph that says what the reader sees, from this run's figures.
void explain(const trace::kv_trace& trace, std::size_t batch,
             const std::vector<measurement>& rows) {
  const measurement& host = rows.front();
  const measurement& dense = find(rows, "insta", 1);
  const measurement& sparf = find(rows, "insta_sparf", 8);
  const measurement& sparq = find(rows, "flexgen_sparq", 8);
  fmt::print(
      "\nWhat you see. A step answers {} query heads over {} KV heads of head size {} for each of {} sequences of about {} tokens. Dense\n"
      "attention reads every page, {:.0f} a step. FlexGen moves them all to the GPU, {:.1f} MB; in InstInfer the drive computes, and only\n"
      "queries and outputs cross the link, {:.0f} KB. SparF at 1/8 asks for an eighth of the entries: its page filter leaves {:.0f} % of the pages\n"
      "unread, and its entry filter passes {:.0f} % of the dense bytes. The tokens that it folds carry {:.0f} % of the exact attention weight;\n"
      "its output is off by {:.0f} % in the mean (SparQ, which adds a local window: {:.0f} %). Sparse attention has a hard time here: the model\n"
      "is small, and {} query heads must share one choice. Errors and CPU time are measured; drive and route are modelled, FlexGen's host\n"
      "software calibrated on the paper. The paper's softmax units were made for heads of size 128 that share nothing; this model asks\n"
      "them for {:.0f} times the scores a byte, so they, not the flash, set the pace of the paper's drive: the last columns show the same drive\n"
      "with an engine that keeps up.\n",
      trace.q_heads(), trace.kv_heads(), trace.head_dim(), batch, trace.tokens(), dense.pages,
      host.link_bytes / 1e6, dense.link_bytes / 1e3, 100 * (1 - sparf.pages / dense.pages),
      100 * sparf.filtered_bytes / dense.filtered_bytes, 100 * sparf.mass_mean,
      100 * sparf.rel_error_mean, 100 * sparq.rel_error_mean, trace.q_heads() / trace.kv_heads(),
      128.0 / static_cast<double>(trace.head_dim()) * static_cast<double>(trace.q_heads()) /
          static_cast<double>(trace.kv_heads()));
}

template <class Write>
void write_file(const std::filesystem::path& path, Write&& write) {
  std::ofstream out(path);
  write(out);
  out.flush();
  require<bad_file>(out.good(), [&] { return path.string() + ": cannot be written"; });
}

void run(const std::string& trace_file, const std::string& json_file,
         const std::filesystem::path& folder, std::size_t max_queries, std::size_t max_batch) {
  const trace::kv_trace trace = trace::read(trace_file);
  const std::size_t batch = std::min({max_batch, max_queries, trace.queries()});
  const std::size_t queries = std::min(max_queries, trace.queries()) / batch * batch;
  const auto about = [&](const char* key) {
    const auto at = trace.metadata.find(key);
    return at == trace.metadata.end() ? std::string("not stated") : at->second;
  };
  fmt::print(
      "trace      {}\nmodel      {}\ntext       {}\nshape      {} layers, {} query heads over {} KV heads, head size {}, {} tokens\n",
      trace_file, about("model"), about("text"), trace.layers.size(), trace.q_heads(),
      trace.kv_heads(), trace.head_dim(), trace.tokens());
  fmt::print(
      "replayed   the last {} positions of each layer, split over {} sequences; K and V stored as fp16; CPU path on {}\n\n",
      queries, batch, cpu::target_name());
  std::cout.flush();

  flash::chrome_trace timeline;
  const std::vector<measurement> rows = compare(trace, queries, batch, timeline);
  print_table(rows);
  explain(trace, batch, rows);

  std::filesystem::create_directories(folder);
  write_file(folder / "demo.svg", [&](std::ostream& out) { draw(rows, out); });
  write_file(folder / "timeline.json", [&](std::ostream& out) { out << timeline.json(); });
  fmt::print(
      "\nwritten    {}  the figure\n           {}  one SparF step on the drive; open it at https://ui.perfetto.dev\n",
      (folder / "demo.svg").string(), (folder / "timeline.json").string());
  if (!json_file.empty()) {
    write_file(json_file, [&](std::ostream& out) { out << as_json(rows).dump(2) << '\n'; });
    fmt::print("           {}  the table\n", json_file);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Decode attention over a KV cache in flash: four designs on the KV trace of a real model.\n"
      "Designs: flexgen (dense, pages go to the GPU), flexgen_sparq (sparse, pages go to the GPU),\n"
      "insta (dense, in the drive), insta_sparf (sparse, in the drive)."};
  std::string trace_file = INSTINFER_DEFAULT_TRACE;
  std::string json_file;
  std::string folder = "instinfer-demo";
  std::size_t queries = 256;
  std::size_t batch = 16;
  app.add_option(
         "--trace", trace_file,
         "safetensors file with layers.<n>.k and .v [tokens, kv_heads, head_dim] and layers.<n>.q [queries, q_heads, head_dim], "
         "post-RoPE; examples/traces/make_trace.py makes one of your text")
      ->capture_default_str();
  app.add_option("--json", json_file, "also write the table to this file, a list of objects");
  app.add_option("--out", folder, "folder for the figure and the timeline")->capture_default_str();
  app.add_option("--queries", queries, "positions to replay, at most the queries in the trace")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--batch", batch,
                 "sequences that the drive serves at once; they share the positions to replay")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    run(trace_file, json_file, folder, queries, batch);
  } catch (const std::exception& e) {
    fmt::print(stderr, "demo: {}\n", e.what());
    return 1;
  }
  return 0;
}
