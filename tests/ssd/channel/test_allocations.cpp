// Replays allocate nothing once they have seen a batch as large, whatever the options.

#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "instinfer/ssd/channel/mixed_timeline.hpp"
#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/report/latencies.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "tests/support/counted_allocations.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_allocations {

using test::allocations;

using flash::array_operation;

namespace {

constexpr int count = 3000;

std::vector<flash::location> burst(const flash::geometry& g, unsigned seed) {
  std::mt19937 random{seed};
  const flash::placement place{g};
  std::vector<flash::location> pages;
  for (int i = 0; i < count; ++i) {
    pages.push_back(place.striped(oracle::pick(random, 0, 100'000)));
  }
  return pages;
}

// Of the second call.
template <class Call>
std::int64_t allocations_when_warm(Call&& call) {
  call(0);
  const std::int64_t before = allocations;
  call(1);
  return allocations - before;
}

}  // namespace

TEST_CASE("allocations: none in a batch as large as one before") {
  const flash::drive_spec& drive = flash::tlc_ssd;
  const std::vector<flash::location> batches[] = {burst(drive.geometry, 1),
                                                  burst(drive.geometry, 2)};
  std::vector<std::int64_t> finish(count);
  for (const bool cache_read : {false, true}) {
    const flash::drive_rules rules{.cache_read = cache_read, .retry = flash::worst_read_retry};
    flash::timeline<> time{drive.geometry, drive.timing, rules};
    for (const array_operation what :
         {array_operation::read, array_operation::program, array_operation::erase}) {
      CHECK(allocations_when_warm([&](int n) {
              oracle::replay(time, what, batches[n], finish);
              CHECK(flash::latencies_of(finish).count == count);
            }) == 0);
    }
  }
}

TEST_CASE("allocations: they are counted") {
  const std::int64_t before = allocations;
  ::operator delete(::operator new(1));
  CHECK(allocations == before + 1);
}

TEST_CASE("allocations: none in a mixed stream as large as one before") {
  const flash::drive_spec& drive = flash::instcsd;
  std::vector<flash::io_request> streams[2];
  for (unsigned n = 0; n < 2; ++n) {
    for (const flash::location& at : burst(drive.geometry, n)) {
      const auto i = static_cast<std::int64_t>(streams[n].size());
      streams[n].push_back({.what = i % 5 == 0 ? array_operation::program : array_operation::read,
                            .where = at,
                            .arrival_ps = i * flash::ps_per_us,
                            .priority = i % 5 == 0 ? 1 : 0});
    }
  }
  std::vector<std::int64_t> finish(count);
  flash::mixed_timeline<> time{
      drive.geometry, drive.timing, {.suspend = {.of_programs = true, .program_ps = 20'000'000}}};
  CHECK(allocations_when_warm(
            [&](int n) { CHECK(time.run(streams[n], finish).suspensions > 0); }) == 0);
}

}  // namespace instinfer::test_allocations
