// Parallel policies: every task once, with a worker's number that no other one has at the time.

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "instinfer/core/parallel.hpp"
#include "tests/support/refusal.hpp"

namespace instinfer::test_parallel {

namespace {

struct claims {
  std::size_t workers_count;
  std::size_t workers() const { return workers_count; }
  void for_each(std::size_t, auto&&) const {}
};

}  // namespace

TEST_CASE("serial: all indices in order, by worker 0") {
  std::vector<std::size_t> done;
  parallel::serial{}.for_each(4, [&](std::size_t i, std::size_t worker) {
    CHECK(worker == 0);
    done.push_back(i);
  });
  CHECK(done == std::vector<std::size_t>{0, 1, 2, 3});
  CHECK(parallel::serial{}.workers() == 1);
  CHECK(parallel::parts_of(parallel::serial{}) == 1);
}

#if defined(_OPENMP)
TEST_CASE("openmp: all indices once, by as many workers as it says") {
  const parallel::openmp three{3};
  CHECK(three.workers() == 3);
  std::vector<std::atomic<int>> done(100);
  std::vector<std::atomic<int>> busy(3);
  three.for_each(100, [&](std::size_t i, std::size_t worker) {
    if (worker < 3 && ++busy[worker] == 1) {
      ++done[i];
      --busy[worker];
    }
  });
  CHECK(std::ranges::all_of(done, [](const auto& n) { return n == 1; }));
}
#endif

TEST_CASE("a pool gets the count and the task; fixed parts pass through to the policy within") {
  std::vector<std::size_t> done;
  const parallel::on_pool pool(5, [&](std::size_t count, auto&& task) {
    for (std::size_t i = 0; i < count; ++i) {
      task(i, i % 5);
    }
  });
  CHECK(pool.workers() == 5);
  CHECK(parallel::parts_of(pool) == 5);
  const parallel::in_parts eight(8, pool);
  CHECK(eight.workers() == 5);
  CHECK(parallel::parts_of(eight) == 8);
  eight.for_each(3, [&](std::size_t i, std::size_t worker) { done.push_back(10 * i + worker); });
  CHECK(done == std::vector<std::size_t>{0, 11, 22});
}

TEST_CASE("no workers, too many, and parts that are none are refused") {
  CHECK(parallel::parts_of(claims{1 << 16}) == 1 << 16);
  CHECK(test::refusal_of([] { parallel::parts_of(claims{0}); }) ==
        "attend: the parallel policy must have 1 to 65536 workers, has 0");
  CHECK(test::refusal_of([] { parallel::parts_of(claims{(1 << 16) + 1}); }).find("has 65537") !=
        std::string::npos);
  CHECK(test::refusal_of([] { parallel::parts_of(parallel::in_parts(0, claims{1})); }) ==
        "attend: the parallel policy must have 1 to 65536 parts, has 0");
  CHECK(parallel::parts_of(parallel::in_parts(1 << 16, claims{1})) == 1 << 16);
}

}  // namespace instinfer::test_parallel
