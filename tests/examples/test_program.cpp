// How a program ends: results that cannot be written are told, and files are tried before the work.

#include <doctest/doctest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "support/program.hpp"
#include "tests/support/trace_file.hpp"

namespace instinfer::test_program {

namespace fs = std::filesystem;
using test::trace_file::path_in_folder;

namespace {

// A program of its own whose standard output goes to a file: its status, and what it said.
struct ended {
  int status;
  std::string said;
};

template <class Body>
ended run_with_output(const char* output, Body&& body) {
  const std::string errors = path_in_folder("errors");
  std::fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (std::freopen(output, "w", stdout) == nullptr ||
        std::freopen(errors.c_str(), "w", stderr) == nullptr) {
      _exit(99);
    }
    const int status = program::run("prog", body);
    std::fflush(stderr);
    _exit(status);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  std::ifstream in(errors);
  return {WEXITSTATUS(status), {std::istreambuf_iterator<char>(in), {}}};
}

int print_little() {
  std::puts("the result");
  return 0;
}
// More than the buffer: the first failure is long past when the program ends.
int print_much() {
  for (int i = 0; i < 100'000; ++i) {
    std::puts("the result");
  }
  return 0;
}

}  // namespace

TEST_CASE("a program whose output is lost says so and fails, whether little or much is lost") {
  const std::string kept = path_in_folder("kept");
  CHECK(run_with_output(kept.c_str(), print_little).status == 0);
  CHECK(fs::file_size(kept) == 11);
  for (const auto& body : {print_little, print_much}) {
    const ended lost = run_with_output("/dev/full", body);
    CHECK(lost.status == 1);
    CHECK(lost.said.find("prog: standard output cannot be written") == 0);
  }
}

TEST_CASE("a program's own status and failure are kept") {
  CHECK(run_with_output("/dev/null", [] { return 7; }).status == 7);
  const ended failed =
      run_with_output("/dev/null", []() -> int { throw bad_argument("the sentence"); });
  CHECK(failed.status == 1);
  CHECK(failed.said == "prog: the sentence\n");
}

TEST_CASE("whether a file can be written is found without touching it") {
  const std::string missing = path_in_folder("not_yet");
  program::check_writable(missing);
  CHECK(!fs::exists(missing));
  program::write_file(missing, "text");
  program::check_writable(missing);
  CHECK(fs::file_size(missing) == 4);
  const std::string nowhere = path_in_folder("no folder/file");
  CHECK_THROWS_WITH_AS(program::check_writable(nowhere), (nowhere + ": cannot be written").c_str(),
                       bad_file);
  CHECK_THROWS_AS(program::check_writable(path_in_folder("")), bad_file);
}

TEST_CASE("a file that does not take its last byte is an error") {
  CHECK_THROWS_WITH_AS(program::write_file("/dev/full", "x"), "/dev/full: cannot be written",
                       bad_file);
}

}  // namespace instinfer::test_program
