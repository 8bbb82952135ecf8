// What the InstInfer paper could not ask, predicted: long contexts, prices, a million drives.

#include <cstdio>
#include <stdexcept>
#include <string>

#include "beyond/document.hpp"
#include "beyond/json.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;

constexpr const char* usage =
    "usage: ./dev bench beyond [--json FILE] [--figures DIR] [--doc FILE]";

struct arguments {
  bool help = false;
  std::string json, doc;
};

arguments parse(int argc, char** argv) {
  arguments parsed;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--help") {
      parsed.help = true;
      continue;
    }
    std::string* const value = name == "--json"  ? &parsed.json
                               : name == "--doc" ? &parsed.doc
                                                 : nullptr;
    if (value == nullptr || i + 1 == argc) {
      throw std::runtime_error(std::string(usage) + ", got " + name);
    }
    *value = argv[++i];
  }
  return parsed;
}

void run(const arguments& wanted) {
  if (wanted.help) {
    std::puts(usage);
    return;
  }
  for (const std::string& file : {wanted.json, wanted.doc}) {
    if (!file.empty()) {
      program::check_writable(file);
    }
  }
  const beyond::results results = beyond::run_everything();
  const std::string page = beyond::document(page::text_of(INSTINFER_BEYOND_TEMPLATE), results);
  std::fputs(page.c_str(), stdout);
  if (!wanted.json.empty()) {
    program::write_file(wanted.json, beyond::json(results).dump(1) + '\n');
  }
  if (!wanted.doc.empty()) {
    program::write_file(wanted.doc, page);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench beyond", [&] {
    run(parse(argc, argv));
    return 0;
  });
}
