// Parts of pages over the bus: against the event-driven drive to the tick, and by hand.

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_codewords {

using oracle::pick;
using oracle::random_case;

namespace {

// Codewords of 1 KiB, four a page, 1 us each.
constexpr flash::geometry one_die{.channels = 1, .pages = 64, .codeword_bytes = 1024};
constexpr flash::timing whole_us{.read_ps = 10 * flash::ps_per_us,
                                 .program_ps = 1,
                                 .erase_ps = 1,
                                 .page_transfer_ps = 4 * flash::ps_per_us,
                                 .read_command_ps = 0,
                                 .read_address_ps = 0,
                                 .read_turnaround_ps = 0};

}  // namespace

TEST_CASE("codewords: equal to the event-driven drive, every page, every option") {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    INFO("seed " << seed);
    random_case drive{seed};
    std::mt19937 random{seed * 31};
    flash::drive_rules rules;
    rules.cache_read = pick(random, 0, 1) != 0;
    rules.pair = static_cast<flash::pairing>(pick(random, 0, 2));
    rules.arrive = static_cast<flash::arrival>(pick(random, 0, 1));
    if (pick(random, 0, 1) != 0) {
      rules.retry = flash::independent_failures(300'000'000, 5, seed);
    }
    std::vector<std::int32_t> codewords;
    for (std::size_t i = 0; i < drive.pages.size(); ++i) {
      codewords.push_back(pick(random, 0, drive.shape.codewords_per_page()));
    }
    oracle::check_against_oracle<flash::data_out_first>(drive, flash::array_operation::read, rules,
                                                        codewords);
    oracle::check_against_oracle<flash::command_first>(drive, flash::array_operation::read, rules,
                                                       codewords);
  }
}

TEST_CASE("codewords: by hand") {
  const std::vector<flash::location> pages{{.page = 0}, {.page = 1}, {.page = 2}};
  const std::vector<std::int32_t> codewords{1, 0, 3};
  std::vector<std::int64_t> finish(3);
  flash::timeline<> drive{one_die, whole_us};
  const flash::batch_times times = drive.read_codewords(pages, codewords, finish);
  CHECK(finish == std::vector<std::int64_t>{11'000'000, 25'000'000, 38'000'000});
  CHECK(times.channels[0].data_ticks == 8'000'000);
  // All of each page is a plain read, and the next batch knows nothing of the parts before.
  const std::vector<std::int32_t> all{4, 4, 0};
  CHECK(drive.read_codewords(pages, all).makespan_ticks == 42'000'000);
  CHECK(drive.read(pages).makespan_ticks == 42'000'000);
}

TEST_CASE("codewords: ticks in which a part is whole") {
  flash::timing t = whole_us;
  t.page_transfer_ps = 10;  // a quarter: 2 1/2 ps
  const flash::tick_scale scale = flash::ticks_of(t, one_die);
  CHECK(scale == flash::tick_scale{2, 20});
  flash::timeline<> drive{one_die, t};
  const flash::location page{};
  const std::int32_t three = 3;
  CHECK(drive.read_codewords({&page, 1}, {&three, 1}).makespan_ticks == 2 * t.read_ps + 15);
}

TEST_CASE("codewords: how many hold the wanted bytes") {
  CHECK(flash::codewords_of(0, 1, one_die) == 1);
  CHECK(flash::codewords_of(0, 1024, one_die) == 1);
  CHECK(flash::codewords_of(1023, 1025, one_die) == 2);
  CHECK(flash::codewords_of(0, 4096, one_die) == 4);
  CHECK(flash::codewords_of(2048, 4096, one_die) == 2);
}

}  // namespace instinfer::test_codewords
