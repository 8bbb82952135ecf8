// Which system, how many drives, how fast, for how long and at what price: a plan for a model, a
// context, users and a budget.

#include <algorithm>
#include <cctype>
#include <filesystem>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "support/draw.hpp"
#include "support/drive_file.hpp"
#include "support/number_in.hpp"
#include "support/plan.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;
using plan::option;

bool same_name(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) ==
           std::tolower(static_cast<unsigned char>(y));
  });
}

// Throws bad_argument with the names that there are.
template <class List, class NameOf>
auto named(const char* what, const std::string& wanted, const List& list, NameOf name_of) {
  std::string known;
  for (const auto& one : list) {
    if (same_name(name_of(one), wanted)) {
      return one;
    }
    known += (known.empty() ? "" : ", ") + std::string(name_of(one));
  }
  throw bad_argument(fmt::format("no {} is called {}; there are {}", what, wanted, known));
}

// A drive of a file costs as much as one of the paper's class. `name` must outlive it.
plan::named_drive drive_called(const std::string& name) {
  if (examples::names_drive_file(name)) {
    const examples::drive_file file = examples::read_drive_file(name);
    return {name, file.spec, system::ssd_pcie4, system::csd_pcie4, {.pair = file.pair}};
  }
  return named("drive", name, plan::drive_presets,
               [](const plan::named_drive& d) { return d.name; });
}

std::string count_of(int drives) {
  return fmt::format("{} drive{}", drives, drives > 1 ? "s" : "");
}

const char* weights_of(const option& o) {
  return o.weights == system::weights_at::gpu ? "GPU" : "host";
}

nlohmann::json json_of(const option& o) {
  nlohmann::json row{
      {"system", o.system}, {"drives", o.drives},    {"fits", o.fails == plan::limit::none},
      {"usd", o.bill.usd},  {"watts", o.bill.watts}, {"kind", "predicted"}};
  if (!o.why.empty()) {
    row["why"] = o.why;
  }
  if (o.fails == plan::limit::none || o.fails == plan::limit::usd ||
      o.fails == plan::limit::watts) {
    const system::memory_use& m = o.run.memory;
    const auto residence = [](const system::tier_use& use) {
      return nlohmann::json{{"needed_bytes", use.needed_bytes},
                            {"available_bytes", use.available_bytes}};
    };
    row["weights"] = weights_of(o);
    row["tokens_per_s"] = o.run.tokens_per_s();
    row["seconds_per_token"] = o.run.mean.time.total_s();
    row["prefill_s"] = o.run.prefill.total_s;
    row["usd_per_million_tokens"] = o.usd_per_million_tokens;
    row["bottleneck"] = o.bottleneck;
    row["bottleneck_share"] = o.bottleneck_share;
    row["memory"] = {{"gpu", residence(m.gpu)},
                     {"host", residence(m.host)},
                     {"drives", residence(m.drive)},
                     {"drive_dram", residence(m.drive_dram)}};
    if (o.drives > 0) {
      row["drive_lifetime_years"] = o.lifetime_years;
      row["write_amplification"] = o.write_amplification;
      for (std::size_t b = 0; b < flash::resource_count; ++b) {
        row["drive_bounds_ms_a_layer"][flash::resource_name(static_cast<flash::resource>(b))] =
            o.bounds.busy_ns[b] * 1e-6;
      }
    }
  }
  return row;
}

void print(const plan::request& r, const std::vector<option>& all, const option& chosen) {
  fmt::print("{}, {} sequences of {} + {} tokens, {} x {}, drive {}; all figures are predicted\n\n",
             r.model.name, r.job.batch, r.job.input_tokens, r.job.output_tokens, r.on.gpus,
             r.on.gpu.name, r.drive.name);
  fmt::print("{:<15}{:>7}{:>9}{:>11}{:>11}{:>10}{:>8}{:>10}{:>12}  {}\n", "system", "drives",
             "weights", "tokens/s", "s/token", "dollars", "watts", "years", "$/M tokens",
             "bottleneck");
  for (const option& o : all) {
    if (o.fails != plan::limit::none) {
      continue;
    }
    const bool this_one = o.system == chosen.system && o.drives == chosen.drives;
    fmt::print(
        "{:<15}{:>7}{:>9}{:>11.2f}{:>11.3f}{:>10.0f}{:>8.0f}{:>10}{:>12.2f}  {} {:.0f} %{}\n",
        o.system, o.drives, weights_of(o), o.run.tokens_per_s(), o.run.mean.time.total_s(),
        o.bill.usd, o.bill.watts, o.drives > 0 ? fmt::format("{:.1f}", o.lifetime_years) : "",
        o.usd_per_million_tokens, o.bottleneck, 100 * o.bottleneck_share,
        this_one ? "  <- chosen" : "");
  }
  for (const option& o : plan::closest_failures(all)) {
    fmt::print("{:<15}{}\n", o.system, o.why);
  }
  const system::memory_use& m = chosen.run.memory;
  fmt::print(
      "\nTake {}{}, weights in the {}: {:.2f} tokens/s, {:.3f} s a token, {:.0f} s of prefill.\n",
      chosen.system,
      chosen.drives > 0
          ? fmt::format(" with {} drive{}", chosen.drives, chosen.drives > 1 ? "s" : "")
          : "",
      chosen.weights == system::weights_at::gpu ? "GPU" : "host's memory",
      chosen.run.tokens_per_s(), chosen.run.mean.time.total_s(), chosen.run.prefill.total_s);
  const auto residence = [](const char* name, const system::tier_use& use) {
    if (use.needed_bytes > 0) {
      fmt::print("  {:<22}{:>10.1f} GB of {:.1f} GB{}\n", name, use.needed_bytes / 1e9,
                 use.available_bytes / 1e9,
                 use.fits() ? "" : ": more than there is, which the model allows");
    }
  };
  residence("GPU memory", m.gpu);
  residence("host memory", m.host);
  residence("drives", m.drive);
  residence("DRAM of the drives", m.drive_dram);
  if (chosen.drives > 0) {
    fmt::print(
        "  {:<22}{:>10.1f} years of drives that are always busy ({:.0f} P/E cycles, evenness {:.2f}, "
        "{:.0f} programs a page: reading moves it)\n",
        "lifetime", chosen.lifetime_years, plan::pe_cycles, plan::wear_evenness,
        chosen.write_amplification);
    std::string bounds;
    for (std::size_t b = 0; b < flash::resource_count; ++b) {
      bounds += fmt::format("{}{} {:.2f}", b > 0 ? ", " : "",
                            flash::resource_name(static_cast<flash::resource>(b)),
                            chosen.bounds.busy_ns[b] * 1e-6);
    }
    fmt::print("  {:<22}{} ms\n", "bounds of a layer", bounds);
  }
  fmt::print("  {:<22}{}, {:.0f} % of a step\n", "bottleneck", chosen.bottleneck,
             100 * chosen.bottleneck_share);
  fmt::print("  {:<22}{:>10.2f} dollars a million tokens; {:.0f} dollars to buy, {:.0f} W\n",
             "cost", chosen.usd_per_million_tokens, chosen.bill.usd, chosen.bill.watts);
}

void write_json(const nlohmann::json& whole, const std::string& file) {
  const std::string text = whole.dump(2) + '\n';
  if (file == "-") {
    fmt::print("{}", text);
  } else {
    program::write_file(file, text);
  }
}

int run(const plan::request& r, const std::string& json_file, const std::string& plot_file) {
  if (!json_file.empty() && json_file != "-") {
    program::check_writable(json_file);
  }
  const std::string plot_data =
      std::filesystem::path(plot_file).replace_extension(".json").string();
  if (!plot_file.empty()) {
    program::check_writable(plot_data);
  }
  const std::vector<option> all = plan::options(r);
  const std::optional<option> chosen = plan::best(r, all);
  nlohmann::json rows = nlohmann::json::array();
  for (const option& o : all) {
    rows.push_back(json_of(o));
  }
  const nlohmann::json whole{{"kind", "plan"},
                             {"model", r.model.name},
                             {"batch", r.job.batch},
                             {"input_tokens", r.job.input_tokens},
                             {"output_tokens", r.job.output_tokens},
                             {"gpu", r.on.gpu.name},
                             {"gpus", r.on.gpus},
                             {"drive", r.drive.name},
                             {"chosen", chosen ? json_of(*chosen) : nlohmann::json()},
                             {"options", rows}};
  if (!json_file.empty()) {
    write_json(whole, json_file);
  }
  if (!chosen) {
    fmt::print(stderr, "no plan satisfies the request:\n");
    for (const option& o : plan::closest_failures(all)) {
      fmt::print(stderr, "  {}{}: {}\n", o.system,
                 o.drives > 0 ? fmt::format(" with {}", count_of(o.drives)) : "", o.why);
    }
    return 1;
  }
  if (json_file != "-") {
    print(r, all, *chosen);
  }
  if (!plot_file.empty()) {
    write_json(whole, plot_data);
    if (!examples::draw(INSTINFER_CHARTS, plot_data, plot_file)) {
      return 1;
    }
    fmt::print(stderr, "written {} from {}\n", plot_file, plot_data);
  }
  return 0;
}

int plan_for(int argc, char** argv) {
  plan::request r;
  std::string model(r.model.name), gpu(r.on.gpu.name), drive(r.drive.name), json_file, plot_file;
  double host_gb = r.on.host.memory_bytes / 1e9;
  int pcie_generation = 4;
  using program::number_in;
  const CLI::Validator count = number_in(0, 1e9);
  CLI::App app(
      "Plans the capacity for decoding with a KV cache that may outgrow the GPU: with a budget the fastest machine, without one the cheapest by the token.");
  app.add_option("--model", model, "Model by name")->capture_default_str();
  app.add_option("--batch,--users", r.job.batch, "Sequences at a time, one a user")
      ->capture_default_str()
      ->check(count);
  app.add_option("--input", r.job.input_tokens, "Tokens of a prompt")
      ->capture_default_str()
      ->check(count);
  app.add_option("--output", r.job.output_tokens, "Tokens that are generated")
      ->capture_default_str()
      ->check(count);
  app.add_option("--gpu", gpu, "GPU by name")->capture_default_str();
  app.add_option("--gpus", r.on.gpus, "How many")->capture_default_str()->check(number_in(1, 4096));
  app.add_option("--pcie", pcie_generation, "Generation of each GPU's x16 link")
      ->capture_default_str();
  app.add_option("--host-gb", host_gb, "Host memory")
      ->capture_default_str()
      ->check(number_in(1e-3, 1e9));
  app.add_option("--drive", drive,
                 "Drive preset by name, or a file that ./dev bench drive --spec has written")
      ->capture_default_str();
  app.add_option("--max-drives", r.most_drives, "Up to how many drives")
      ->capture_default_str()
      ->check(number_in(1, 65536));
  app.add_option("--dollars", r.usd, "Budget to buy the machine")->check(number_in(0, 1e15));
  app.add_option("--watts", r.watts, "Budget of its power")->check(number_in(0, 1e15));
  app.add_option("--systems", r.systems, "Systems that are allowed")->delimiter(',');
  app.add_option("--json", json_file, "Write every option as JSON to a file, - for the terminal");
  app.add_option(
      "--plot", plot_file,
      "Draw tokens/s over drives as SVG, with Python's matplotlib; its data go to a .json of the same name");
  CLI11_PARSE(app, argc, argv);
  const system::gpu_spec gpus[] = {system::rtx_a6000, system::a100_80gb, system::h100_sxm,
                                   system::t4, system::rtx_4090};
  r.model = *named("model", model, system::all_models, [](const auto* m) { return m->name; });
  r.on.gpu = named("GPU", gpu, gpus, [](const system::gpu_spec& g) { return g.name; });
  r.drive = drive_called(drive);
  r.on.host.memory_bytes = host_gb * 1e9;
  r.on.gpu_link = system::pcie(pcie_generation, 16);
  return run(r, json_file, plot_file);
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("plan_capacity", [&] { return plan_for(argc, argv); }, 2);
}
