// In-storage attention at work on the KV cache of a real language model: what four designs read of
// it, how close they come to the exact answer, and how long the accesses take on the paper's drive
// and over FlexGen's route.

#include <filesystem>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "support/draw.hpp"
#include "support/program.hpp"
#include "support/replay.hpp"

namespace {

using namespace instinfer;
using trace::measurement;

const std::vector<double> compressions{2, 4, 8, 16};

// What the command line asks for.
struct choices {
  std::string trace_file = INSTINFER_DEFAULT_TRACE;
  std::string json_file;
  std::filesystem::path folder = "instinfer-demo";
  std::string drive;  // a folder for page files; empty: none
  std::size_t queries = 256;
  std::size_t batch = 16;
};

// The four designs at one head size; sparse ones at each compression.
template <int HeadDim>
std::vector<measurement> compare(const trace::kv_trace& trace, const choices& chosen,
                                 flash::chrome_trace& timeline) {
  const trace::exact_answers exact = trace::solve_exactly(trace, chosen.queries);
  std::vector<measurement> rows;
  const auto add = [&]<class D>(const char* name, double c,
                                const typename D::attention_policy& policy,
                                flash::chrome_trace* bars = nullptr) {
    rows.push_back(trace::replay<D, HeadDim>(name, c, policy, trace, exact, chosen.batch, bars));
    if (!chosen.drive.empty()) {
      trace::replay_from_drive<D, HeadDim>(policy, trace, chosen.queries, chosen.batch,
                                           chosen.drive, rows.back());
    }
  };
  add.template operator()<flexgen>("flexgen", 1, {});
  for (const double c : compressions) {
    add.template operator()<flexgen_sparq>("flexgen_sparq", c, attention::sparq::at_compression(c));
  }
  add.template operator()<insta>("insta", 1, {});
  for (const double c : compressions) {
    add.template operator()<insta_sparf>("insta_sparf", c, attention::sparf::at_compression(c),
                                         c == 8 ? &timeline : nullptr);
  }
  return rows;
}

std::vector<measurement> compare(const trace::kv_trace& trace, const choices& chosen,
                                 flash::chrome_trace& timeline) {
  switch (trace.head_dim()) {
    case 64:
      return compare<64>(trace, chosen, timeline);
    case 80:
      return compare<80>(trace, chosen, timeline);
    case 96:
      return compare<96>(trace, chosen, timeline);
    case 128:
      return compare<128>(trace, chosen, timeline);
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
  const bool drive = flexgen_row.drive_us > 0;
  fmt::print(
      "                          error       mass found              MB a step, by stage             ms a step       modelled: paper's accelerator that{}\n",
      drive ? "  from the drive" : "");
  fmt::print(
      "design         asked   mean    max    mean  worst  pages  array channel filter   link  CPU, measured  drive    x FlexGen    keeps up    x FlexGen{}\n",
      drive ? "  ms measured   MB" : "");
  for (const measurement& m : rows) {
    fmt::print(
        "{:<14} 1/{:<3.0f} {:>7.1e} {:>6.1e} {:>6.3f} {:>6.3f} {:>6.0f} {:>6.1f} {:>7.1f} {:>6.1f} {:>6.2f} {:>14.1f} {:>6.1f} {:>12.1f} {:>11.1f} {:>12.1f}",
        m.design, m.compression, m.rel_error_mean, m.rel_error_max, m.mass_mean, m.mass_min,
        m.pages, m.array_bytes / 1e6, m.channel_bytes / 1e6, m.filtered_bytes / 1e6,
        m.link_bytes / 1e6, m.cpu_us / 1e3, m.model_us / 1e3, flexgen_row.model_us / m.model_us,
        m.flash_us / 1e3, flexgen_row.flash_us / m.flash_us);
    if (drive) {
      fmt::print(" {:>12.1f} {:>4.1f}", m.drive_us / 1e3, m.drive_bytes / 1e6);
    }
    fmt::print("\n");
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
                    {"modelled_ample_accelerator_us", m.flash_us},
                    {"speed_up_over_flexgen", rows.front().model_us / m.model_us}});
    if (m.drive_us > 0) {
      list.back()["from_drive_us"] = m.drive_us;
      list.back()["bytes_from_drive"] = m.drive_bytes;
    }
  }
  return list;
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
      "with an accelerator that keeps up.\n",
      trace.q_heads(), trace.kv_heads(), trace.head_dim(), batch, trace.tokens(), dense.pages,
      host.link_bytes / 1e6, dense.link_bytes / 1e3, 100 * (1 - sparf.pages / dense.pages),
      100 * sparf.filtered_bytes / dense.filtered_bytes, 100 * sparf.mass_mean,
      100 * sparf.rel_error_mean, 100 * sparq.rel_error_mean, trace.q_heads() / trace.kv_heads(),
      128.0 / static_cast<double>(trace.head_dim()) * static_cast<double>(trace.q_heads()) /
          static_cast<double>(trace.kv_heads()));
}

void run(choices chosen) {
  const std::filesystem::path& folder = chosen.folder;
  const std::string data = (folder / "demo.json").string();
  const std::string picture = (folder / "demo.svg").string();
  std::filesystem::create_directories(folder);
  program::check_writable(data);
  program::check_writable(folder / "timeline.json");
  if (!chosen.json_file.empty()) {
    program::check_writable(chosen.json_file);
  }

  const trace::kv_trace trace = trace::read(chosen.trace_file);
  const std::size_t batch = std::min({chosen.batch, chosen.queries, trace.queries()});
  const std::size_t queries = std::min(chosen.queries, trace.queries()) / batch * batch;
  chosen.batch = batch;
  chosen.queries = queries;
  const auto about = [&](const char* key) {
    const auto at = trace.metadata.find(key);
    return at == trace.metadata.end() ? std::string("not stated") : at->second;
  };
  fmt::print(
      "trace      {}\nmodel      {}\ntext       {}\nshape      {} layers, {} query heads over {} KV heads, head size {}, {} tokens\n",
      chosen.trace_file, about("model"), about("text"), trace.layers.size(), trace.q_heads(),
      trace.kv_heads(), trace.head_dim(), trace.tokens());
  fmt::print(
      "replayed   the last {} positions of each layer, split over {} sequences; K and V stored as fp16; CPU path on {}\n",
      queries, batch, cpu::target_name());
  if (!chosen.drive.empty()) {
    const store::drive_files here({.folders = {chosen.drive}}, 1, 2, 4096);
    fmt::print("drive      {}: {}\n", chosen.drive, to_string(here.mode()));
  }
  fmt::print("\n");
  program::flush_output();

  flash::chrome_trace timeline;
  const std::vector<measurement> rows = compare(trace, chosen, timeline);
  print_table(rows);
  explain(trace, batch, rows);

  program::write_file(data,
                      nlohmann::json{{"kind", "demo"}, {"rows", as_json(rows)}}.dump(2) + '\n');
  program::write_file(folder / "timeline.json", timeline.json());
  fmt::print(
      "\nwritten    {}  the table\n           {}  one SparF step on the drive; open it at https://ui.perfetto.dev\n",
      data, (folder / "timeline.json").string());
  if (!chosen.json_file.empty()) {
    program::write_file(chosen.json_file, as_json(rows).dump(2) + '\n');
    fmt::print("           {}  the table\n", chosen.json_file);
  }
  if (examples::draw(INSTINFER_CHARTS, data, picture)) {
    fmt::print("           {}  the figure\n", picture);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("demo", [&] {
    CLI::App app{
        "Decode attention over a KV cache in flash: four designs on the KV trace of a real model.\n"
        "Designs: flexgen (dense, pages go to the GPU), flexgen_sparq (sparse, pages go to the GPU),\n"
        "insta (dense, in the drive), insta_sparf (sparse, in the drive)."};
    choices chosen;
    std::string folder = chosen.folder.string();
    app.add_option(
           "--trace", chosen.trace_file,
           "safetensors file with layers.<n>.k and .v [tokens, kv_heads, head_dim] and layers.<n>.q [queries, q_heads, head_dim], "
           "post-RoPE; examples/traces/make_trace.py makes one of your text")
        ->capture_default_str();
    app.add_option("--json", chosen.json_file,
                   "also write the table to this file, a list of objects");
    app.add_option("--out", folder, "folder for the figure and the timeline")
        ->capture_default_str();
    app.add_option("--queries", chosen.queries,
                   "positions to replay, at most the queries in the trace")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--batch", chosen.batch,
                   "sequences that the drive serves at once; they share the positions to replay")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--drive", chosen.drive,
                   "also decode from page files on the drive of this folder, and measure it");
    CLI11_PARSE(app, argc, argv);
    chosen.folder = folder;
    run(chosen);
    return 0;
  });
}
