// Page types: which page has which, and the reads and programs of each, against the event-driven
// drives and by hand.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/mixed_timeline.hpp"
#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/report/energy.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_page_types {

using flash::array_operation;
using flash::drive_rules;
using flash::geometry;
using flash::location;
using flash::page_type;
using flash::page_types;
using flash::timeline;
using flash::timing;
using oracle::pick;
using oracle::random_case;

namespace {

constexpr timing tlc{
    .read_ps = 56'500'000,
    .program_ps = 820'500'000,
    .erase_ps = 3'500'000'000,
    .bus_bytes_per_s = 1'400'000'000,
    .types = {.count = 3, .read_middle_ps = 77'500'000, .read_upper_ps = 106'000'000}};

flash::page_types random_types(std::mt19937& random) {
  const int count = oracle::pick(random, 2, 3);
  flash::page_types types{.count = count, .read_upper_ps = 70'000'000};
  types.read_middle_ps = count == 3 ? 60'000'000 : 0;
  types.program_middle_ps = count == 3 ? std::int64_t{oracle::pick(random, 0, 3)} * 400'000'000 : 0;
  types.program_upper_ps = std::int64_t{oracle::pick(random, 0, 3)} * 900'000'000;
  types.order = oracle::pick(random, 0, 1) != 0 ? flash::page_order::shifted
                                                : flash::page_order::by_word_line;
  return types;
}

}  // namespace

TEST_CASE("page types: which page number has which type") {
  using enum page_type;
  const page_types mlc{.count = 2, .read_upper_ps = 1};
  const page_types one_go{.count = 3, .read_middle_ps = 1, .read_upper_ps = 1};
  page_types shifted = one_go;
  shifted.order = flash::page_order::shifted;
  const std::array by_two{lower, upper, lower, upper};
  const std::array by_three{lower, middle, upper, lower, middle, upper, lower};
  const std::array by_shift{lower, lower, lower,  lower,  lower, lower, middle, middle,
                            lower, lower, middle, middle, upper, upper, lower,  lower};
  for (std::int32_t n = 0; n < 4; ++n) {
    CHECK(mlc.of(n) == by_two[static_cast<std::size_t>(n)]);
  }
  for (std::int32_t n = 0; n < 7; ++n) {
    CHECK(one_go.of(n) == by_three[static_cast<std::size_t>(n)]);
  }
  for (std::int32_t n = 0; n < 16; ++n) {
    INFO("page " << n);
    CHECK(shifted.of(n) == by_shift[static_cast<std::size_t>(n)]);
  }
}

TEST_CASE("page types: a short read overtakes a long one that was issued before") {
  const geometry g{.channels = 1, .chips = 2, .pages = 6};
  timeline<> drive{g, tlc};
  const std::int64_t page = drive.scale().page_transfer_ticks;
  const std::array pages{location{.chip = 0, .page = 5}, location{.chip = 1, .page = 0}};
  std::array<std::int64_t, 2> finish{};
  drive.read(pages, finish);
  CHECK(finish[0] == (290'000 + 106'020'000) * 7 + page);
  CHECK(finish[1] == (2 * 290'000 + 56'520'000) * 7 + page);
}

TEST_CASE_TEMPLATE("programs by page type: 0 ticks off the event-driven drive", A,
                   flash::data_out_first, flash::command_first) {
  for (unsigned seed = 1; seed <= 150; ++seed) {
    CAPTURE(seed);
    oracle::random_case random{seed};
    std::mt19937 draw{seed};
    random.times.types = random_types(draw);
    const flash::drive_rules rules{.pair = static_cast<flash::pairing>(seed % 3)};
    oracle::check_against_oracle<A>(random, flash::array_operation::program, rules);

    // As a stream of one priority that all comes at once.
    flash::timeline<A> batch{random.shape, random.times, rules};
    flash::mixed_timeline<A> mixed{random.shape, random.times, {.pair = rules.pair}};
    std::vector<flash::io_request> requests;
    for (const flash::location& at : random.pages) {
      requests.push_back({.what = flash::array_operation::program, .where = at});
    }
    std::vector<std::int64_t> a(requests.size()), b(requests.size());
    batch.program(random.pages, a);
    mixed.run(requests, b);
    REQUIRE(a == b);
  }
}

TEST_CASE("programs by page type: one page of each, by hand") {
  flash::drive_spec drive = flash::tlc_ssd;
  flash::timeline<> timeline{drive.geometry, drive.timing};
  const std::int64_t per_ps = timeline.scale().ticks_per_ps;
  const std::int64_t bus = 361'000 * per_ps + timeline.scale().page_transfer_ticks;
  const std::int64_t array_ps[] = {820'500'000, 2'225'000'000, 5'734'000'000};
  for (std::int32_t page = 0; page < 6; ++page) {
    const flash::location at{.page = page};
    CHECK(timeline.program({&at, 1}).makespan_ticks == bus + array_ps[page % 3] * per_ps);
  }
  CHECK(drive.timing.mean_program_array_ps() == (820'500'000 + 2'225'000'000 + 5'734'000'000) / 3);
  CHECK(drive.timing.mean_read_array_ps() == (56'520'000 + 77'520'000 + 106'020'000) / 3);
  CHECK(flash::instcsd.timing.mean_program_array_ps() == 450'000'000);
  // 41.25 mW for the mean page of 4 KiB.
  CHECK(flash::energy_of({.pages_programmed = 3}, drive.geometry, drive.timing).program_j ==
        doctest::Approx(0.0825 / 2 * (820.5e-6 + 2225e-6 + 5734e-6)));
}

TEST_CASE("programs by page type: 0 is as the lower pages; a type that is not there has none") {
  flash::timing t = flash::vnand_v6_timing;
  t.types = {.count = 3, .read_middle_ps = 1, .read_upper_ps = 1};
  CHECK(t.program_array_ps(flash::page_type::upper) == t.program_ps);
  CHECK(flash::valid(t));
  t.types = {.program_upper_ps = 5};
  CHECK(!flash::valid(t));
  CHECK_THROWS_WITH_AS(
      flash::validate(t),
      "flash timing: types.program_upper_ps needs types.count >= 2, which is 1; got 5 ps",
      bad_argument);
  t.types = {.count = 2, .read_upper_ps = 1, .program_middle_ps = 5};
  CHECK_THROWS_AS(flash::validate(t), bad_argument);
}

}  // namespace instinfer::test_page_types
