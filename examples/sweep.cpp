// What would it cost on flash? Sweeps the decode step of many design points over geometry, layout,
// attention and load, on all cores, and on many machines under mpirun: CSV, JSON and a picture.

#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <map>
#include <sstream>
#include <thread>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "support/draw.hpp"
#include "support/drive_file.hpp"
#include "support/kept_memory.hpp"
#include "support/program.hpp"
#include "support/progress.hpp"
#include "support/ranks.hpp"
#include "support/sweep.hpp"
#include "support/sweep_chart.hpp"

namespace {

using namespace instinfer;
using namespace instinfer::examples;

struct choices {
  std::map<std::string, std::string> values;  // of the parameters given
  std::string csv, json, svg;
  std::string x, y = "step_us", by;
  std::size_t threads = std::max(1u, std::thread::hardware_concurrency());
};

std::string csv_of(const row_list& rows) {
  std::ostringstream out;
  write_csv(rows, out);
  return out.str();
}
std::string json_of(const row_list& rows) {
  std::ostringstream out;
  write_json(rows, out);
  return out.str();
}

// A drive parameter may name files in place of presets.
void add_drive_files(const std::string& drives) {
  std::istringstream items(drives);
  for (std::string item; std::getline(items, item, ',');) {
    if (names_drive_file(item)) {
      add_drive(item, read_drive_file(item).spec);
    }
  }
}

std::vector<swept> axes_of(const choices& chosen) {
  std::vector<swept> axes;
  for (const parameter& p : parameters()) {
    if (const auto at = chosen.values.find(p.name); at != chosen.values.end()) {
      if (p.name == "drive") {
        add_drive_files(at->second);
      }
      axes.push_back({&p, value_list::of(p, at->second)});
    }
  }
  return axes;
}

// x: the first parameter of numbers that varies; lines: the next that varies with few enough
// values.
chart_choice chart_of(choices chosen, const std::vector<swept>& axes) {
  for (const bool words : {false, true}) {
    for (const swept& axis : axes) {
      const bool varies = axis.values.size() > 1 && axis.what->words.empty() != words;
      if (varies && chosen.x.empty()) {
        chosen.x = axis.what->name;
      }
    }
  }
  chosen.x = chosen.x.empty() ? "context" : chosen.x;
  for (const bool words : {true, false}) {
    for (const swept& axis : axes) {
      const bool fits = axis.values.size() > 1 && axis.values.size() <= most_lines;
      if (fits && chosen.by.empty() && axis.what->name != chosen.x &&
          axis.what->words.empty() != words) {
        chosen.by = axis.what->name;
      }
    }
  }
  const auto* const y =
      std::ranges::find_if(metrics, [&](const metric& m) { return m.name == chosen.y; });
  require(y != std::end(metrics), [&] {
    std::string names;
    for (const metric& m : metrics) {
      names += std::string(" ") + m.name;
    }
    return "y: there is no result \"" + chosen.y + "\"; there are" + names;
  });
  std::vector<std::string> others;
  for (const swept& axis : axes) {
    if (axis.values.size() > 1 && axis.what->name != chosen.x && axis.what->name != chosen.by) {
      others.push_back(axis.what->name);
    }
  }
  return {.x = chosen.x,
          .y = chosen.y,
          .by = chosen.by,
          .others = others,
          .x_label = parameter_of(chosen.x).meaning,
          .y_label = y->meaning,
          .by_label = chosen.by.empty() ? "" : parameter_of(chosen.by).meaning};
}

// Ranks took points in turn: row i of rank r is point r + i ranks.
row_list all_rows(const std::vector<std::string>& parts) {
  std::vector<row_list> of_rank;
  for (const std::string& part : parts) {
    of_rank.push_back(nlohmann::ordered_json::parse(part).get<row_list>());
  }
  row_list rows;
  for (std::size_t i = 0; i < of_rank.front().size(); ++i) {
    for (row_list& mine : of_rank) {
      if (i < mine.size()) {
        rows.push_back(std::move(mine[i]));
      }
    }
  }
  return rows;
}

void tell_skipped(const row_list& rows) {
  struct reason {
    std::size_t points = 0;
    std::string first;
  };
  std::map<std::string, reason> reasons;  // by the sentence without its numbers
  for (const auto& row : rows) {
    if (const auto why = row.at("skipped").get<std::string>(); !why.empty()) {
      std::string sentence = why;
      std::erase_if(sentence, [](char c) { return c >= '0' && c <= '9'; });
      reason& of = reasons[sentence];
      of.first = ++of.points == 1 ? why : of.first;
    }
  }
  constexpr std::size_t most_told = 5;
  std::size_t told = 0;
  for (const auto& [unused, why] : reasons) {
    if (told++ == most_told) {
      fmt::print(stderr, "sweep: and {} more reasons, see the column `skipped`\n",
                 reasons.size() - most_told);
      break;
    }
    fmt::print(stderr, "sweep: skipped {} point{}: {}{}\n", why.points, why.points == 1 ? "" : "s",
               why.first, why.points == 1 ? "" : ", and alike");
  }
}

std::string picture_data(const choices& chosen) {
  return std::filesystem::path(chosen.svg).replace_extension(".json").string();
}

// Returns whether everything asked for was made; without matplotlib there is no picture.
bool run(const choices& chosen, const ranks& world) {
  const std::vector<swept> axes = axes_of(chosen);
  const chart_choice chart = chart_of(chosen, axes);
  require(chosen.svg.empty() || picture_data(chosen) != chosen.json, [&] {
    return "json: " + chosen.json + " is for the picture's data; the rows need another name";
  });
  const std::vector<design_point> points = combinations(axes);
  if (world.size() == 1) {  // of many processes, one alone cannot stop the others
    for (const std::string& file :
         {chosen.csv, chosen.json, chosen.svg.empty() ? "" : picture_data(chosen)}) {
      if (!file.empty()) {
        program::check_writable(file);
      }
    }
  }
  const auto begin = std::chrono::steady_clock::now();
  row_list rows;
  {
    progress bar(world.rank() == 0 ? (points.size() + world.size() - 1) / world.size() : 0);
    rows = evaluate(points, chosen.threads, world.rank(), world.size(),
                    [&](std::size_t done) { bar.show(done); });
  }
  if (world.size() > 1) {
    const auto parts = world.gather(nlohmann::ordered_json(rows).dump());
    if (world.rank() > 0) {
      return true;
    }
    rows = all_rows(parts);
  }
  const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double cpu_s = static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  fmt::print(
      stderr,
      "sweep: {} points in {:.1f} s on {} process{} of {} threads; {:.2f} ms of CPU a point in this one\n",
      points.size(), s, world.size(), world.size() == 1 ? "" : "es", chosen.threads,
      1e3 * cpu_s * static_cast<double>(world.size()) / static_cast<double>(points.size()));
  tell_skipped(rows);
  if (!chosen.csv.empty()) {
    program::write_file(chosen.csv, csv_of(rows));
  }
  if (!chosen.json.empty()) {
    program::write_file(chosen.json, json_of(rows));
  }
  if (chosen.csv.empty() && chosen.json.empty() && chosen.svg.empty()) {
    fmt::print("{}", csv_of(rows));
  }
  if (!chosen.svg.empty()) {
    const std::string data = picture_data(chosen);
    program::write_file(data, sweep_chart(rows, chart).dump(1) + '\n');
    return draw(INSTINFER_CHARTS, data, chosen.svg);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const ranks world(&argc, &argv);
  return program::run("sweep", [&] {
    keep_freed_memory();
    CLI::App app{
        "Sweeps the decode step of design points on the modelled drive: one layer's attention for a batch.\n"
        "A parameter takes a value, a list 4,8,16, or a range 4:32:4 (steps of 4) or 4:32:x2 (factors of 2);\n"
        "0 or nothing is the preset's number. All combinations are evaluated. Without an output file, CSV goes\n"
        "to standard output."};
    choices chosen;
    for (const parameter& p : parameters()) {
      std::string help = p.meaning;
      for (const std::string& word : p.words) {
        help += (&word == &p.words.front() ? ": " : ", ") + word;
      }
      if (p.name == "drive") {
        help += ", or a file that ./dev bench drive --spec has written";
      }
      app.add_option("--" + p.name, chosen.values[p.name], help)->group("Parameters");
    }
    std::string results = "result drawn upwards:";
    for (const metric& m : metrics) {
      results += fmt::format("\n{}: {}", m.name, m.meaning);
    }
    app.add_option("--csv", chosen.csv, "write a line a point to this file");
    app.add_option("--json", chosen.json, "write an object a point to this file");
    app.add_option(
        "--svg", chosen.svg,
        "draw a result over a parameter, with Python's matplotlib; its data go to a .json of the same name");
    app.add_option("--x", chosen.x,
                   "parameter drawn to the right; by default the first number that varies");
    app.add_option("--y", chosen.y, results)->capture_default_str();
    app.add_option(
        "--by", chosen.by,
        "parameter with a line for each value; others that vary have lines of their own, at most 8 in all");
    app.add_option("--threads", chosen.threads, "threads of each process")
        ->capture_default_str()
        ->check(CLI::Range(1, 4096));
    CLI11_PARSE(app, argc, argv);
    std::erase_if(chosen.values, [](const auto& given) { return given.second.empty(); });
    try {
      return run(chosen, world) ? 0 : 1;
    } catch (const std::exception&) {
      if (world.rank() > 0) {  // the first says it for all
        return 1;
      }
      throw;
    }
  });
}
