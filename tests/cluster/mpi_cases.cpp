// Engines over MPI against one engine: a single unit, since the cases share their engines, which
// cost more to compile than all cases. tests/cluster/run starts it under mpirun. With a first
// argument `kill` or `leave`, a rank ends in the middle of a call instead.

#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/cluster/cases.hpp"

#include <csignal>

#include "tests/cluster/failure_cases.hpp"
#include "tests/cluster/file_cases.hpp"
#include "tests/cluster/message_cases.hpp"
#include "tests/cluster/result_cases.hpp"

namespace {

using namespace instinfer;
using namespace instinfer::test;

// A rank ends while the host waits for it.
int end_a_rank(std::string_view how) {
  many<dense, cluster::by_heads> c(MPI_COMM_WORLD, shape, memory);
  if (c.is_host()) {
    const sequence s = c.open();
    const std::vector<fp16> rows(7 * 64);
    c.append(s, 0, rows, rows);
    for (;;) {
      std::vector<float> q(14 * 64), out(14 * 64);
      c.attend(s, 0, q, out);
    }
  }
  if (world_rank() == 1) {
    if (how == "leave") {
      return 0;
    }
    std::raise(SIGKILL);
  }
  c.serve();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const cluster::session mpi(&argc, &argv);
  if (argc == 2 && (std::string_view(argv[1]) == "kill" || std::string_view(argv[1]) == "leave")) {
    return end_a_rank(argv[1]);
  }
  return doctest::Context(argc, argv).run();
}
