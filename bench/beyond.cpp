// What the InstInfer paper could not ask, predicted: long contexts, newer drives, prices, a million drives: --json, --figures, --doc.

#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "beyond/document.hpp"
#include "beyond/figures.hpp"

namespace {

using namespace instinfer;

struct arguments {
  std::string json, figures, doc;
};

arguments parse(int argc, char** argv) {
  arguments parsed;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    std::string* const value = name == "--json"      ? &parsed.json
                               : name == "--figures" ? &parsed.figures
                               : name == "--doc"     ? &parsed.doc
                                                     : nullptr;
    if (value == nullptr || i + 1 == argc) {
      throw std::runtime_error(
          "usage: ./dev bench beyond [--json FILE] [--figures DIR] [--doc FILE], got " + name);
    }
    *value = argv[++i];
  }
  return parsed;
}

template <class Write>
void write_file(const std::string& path, const Write& write) {
  std::ofstream file(path);
  write(file);
  if (!file.flush()) {
    throw std::runtime_error("could not write " + path);
  }
}

void run(const arguments& wanted) {
  const beyond::results results = beyond::run_everything();
  const std::string page = beyond::document(results);
  std::fputs(page.c_str(), stdout);
  if (!wanted.figures.empty()) {
    std::filesystem::create_directories(wanted.figures);
    for (const beyond::figure& f : beyond::all_figures(results)) {
      write_file((std::filesystem::path(wanted.figures) / (f.name + ".svg")).string(),
                 [&](std::ostream& out) { f.drawing.write(out); });
    }
  }
  if (!wanted.json.empty()) {
    write_file(wanted.json, [&](std::ostream& out) { out << beyond::json(results); });
  }
  if (!wanted.doc.empty()) {
    write_file(wanted.doc, [&](std::ostream& out) { out << page; });
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
  }
}
