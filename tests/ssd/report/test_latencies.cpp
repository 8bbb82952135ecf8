// Percentiles against sorted lists, and on a batch.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "instinfer/ssd/report/latencies.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_latencies {

namespace {

constexpr flash::latencies of_three = [] {
  std::array<std::int64_t, 3> ticks{30, 10, 20};
  return flash::latencies_of(ticks);
}();
static_assert(of_three == flash::latencies{3, 20, 30, 30, 30});

// By the definition: how many are no larger?
std::int64_t percentile(const std::vector<std::int64_t>& sorted, double share) {
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (static_cast<double>(i + 1) >= share * static_cast<double>(sorted.size()) - 1e-9) {
      return sorted[i];
    }
  }
  return 0;
}

}  // namespace

TEST_CASE("latencies: equal to the definition on a sorted list") {
  for (unsigned seed = 1; seed <= 400; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random{seed};
    std::vector<std::int64_t> ticks(static_cast<std::size_t>(oracle::pick(random, 0, 3000)));
    const int range = oracle::pick(random, 0, 1) != 0 ? 10 : 1'000'000;
    for (std::int64_t& t : ticks) {
      t = oracle::pick(random, 0, range);
    }
    std::vector<std::int64_t> sorted = ticks;
    std::ranges::sort(sorted);
    const flash::latencies got = flash::latencies_of(ticks);
    CHECK(got.count == static_cast<std::int64_t>(sorted.size()));
    CHECK(got.p50_ticks == percentile(sorted, 0.5));
    CHECK(got.p99_ticks == percentile(sorted, 0.99));
    CHECK(got.p999_ticks == percentile(sorted, 0.999));
    CHECK(got.max_ticks == (sorted.empty() ? 0 : sorted.back()));
    std::ranges::sort(ticks);
    CHECK(ticks == sorted);  // reordered, nothing lost
  }
}

TEST_CASE("latencies: of 1 to 1000 pages that finish one after the other") {
  std::vector<std::int64_t> ticks;
  for (std::int64_t n = 1; n <= 1000; ++n) {
    ticks.push_back(n);
  }
  CHECK(flash::latencies_of(ticks) == flash::latencies{1000, 500, 990, 999, 1000});
}

TEST_CASE("latencies: of a batch, the largest is the makespan") {
  const oracle::random_case random{21};
  flash::timeline<> drive{random.shape, random.times};
  std::vector<std::int64_t> finish(random.pages.size());
  const std::int64_t makespan = drive.read(random.pages, finish).makespan_ticks;
  const flash::latencies got = flash::latencies_of(finish);
  CHECK(got.max_ticks == makespan);
  CHECK(got.p50_ticks < makespan);
}

}  // namespace instinfer::test_latencies
