// What the InstInfer paper could not ask, predicted: long contexts, prices, a million drives.

#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>

#include "beyond/document.hpp"
#include "beyond/json.hpp"

namespace {

using namespace instinfer;

struct arguments {
  std::string json, doc;
};

arguments parse(int argc, char** argv) {
  arguments parsed;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    std::string* const value = name == "--json"  ? &parsed.json
                               : name == "--doc" ? &parsed.doc
                                                 : nullptr;
    if (value == nullptr || i + 1 == argc) {
      throw std::runtime_error(
          "usage: ./dev bench beyond [--json FILE] [--figures DIR] [--doc FILE], got " + name);
    }
    *value = argv[++i];
  }
  return parsed;
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  if (!file.flush()) {
    throw std::runtime_error("could not write " + path);
  }
}

void run(const arguments& wanted) {
  const beyond::results results = beyond::run_everything();
  const std::string page = beyond::document(page::text_of(INSTINFER_BEYOND_TEMPLATE), results);
  std::fputs(page.c_str(), stdout);
  if (!wanted.json.empty()) {
    write_file(wanted.json, beyond::json(results).dump(1) + '\n');
  }
  if (!wanted.doc.empty()) {
    write_file(wanted.doc, page);
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
