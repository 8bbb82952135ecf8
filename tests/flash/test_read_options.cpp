// What a batch of reads may add: page types, cache read, read retry, decoding. Each against the
// event-driven drive to the tick, against closed forms, and refused where it cannot be.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "random_batches.hpp"

namespace flash = instinfer::flash;
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

template <timing T>
constexpr std::int64_t as_template_argument = T.read_array_ps(page_type::upper);

static_assert(as_template_argument<tlc> == 106'020'000);
static_assert(flash::valid(tlc));
static_assert(page_types{}.of(17) == page_type::lower);

// A drive with page types, decoding and moves of any length, and rules with some of the options.
struct random_options {
  random_case drive;
  drive_rules rules;

  explicit random_options(unsigned seed) : drive{seed} {
    std::mt19937 random{seed * 7919};
    const std::int64_t unit = pick(random, 0, 1) != 0 ? 290'000 : 1;  // multiples provoke ties
    const auto duration = [&](int most_us) {
      return std::max<std::int64_t>(pick(random, 1, most_us * 1'000'000) / unit * unit, unit);
    };
    timing& t = drive.times;
    t.types.count = pick(random, 1, 3);
    t.types.read_middle_ps = t.types.count == 3 ? duration(100) : 0;
    t.types.read_upper_ps = t.types.count >= 2 ? duration(100) : 0;
    t.types.order =
        pick(random, 0, 1) != 0 ? flash::page_order::shifted : flash::page_order::by_word_line;
    t.cache_move_ps = pick(random, 0, 2) == 0 ? 0 : duration(5);
    t.decode_ps = pick(random, 0, 1) * duration(10);
    if (pick(random, 0, 1) != 0) {
      drive.shape.pages *= 5;  // the shifted order has a long period
    }
    rules.cache_read = pick(random, 0, 2) != 0;
    if (pick(random, 0, 1) != 0) {
      rules.retry = flash::independent_failures(pick(random, 0, 600'000'000), pick(random, 0, 5),
                                                static_cast<std::uint64_t>(seed));
    }
    rules.pair = static_cast<flash::pairing>(pick(random, 0, 2));
    rules.arrive = static_cast<flash::arrival>(pick(random, 0, 1));
  }
};

template <class Call>
std::string complaint(Call&& call) {
  try {
    call();
  } catch (const instinfer::bad_argument& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("read options: equal to the event-driven drive, every page") {
  for (unsigned seed = 1; seed <= 700; ++seed) {
    INFO("seed " << seed);
    const random_options random{seed};
    oracle::check_against_oracle<flash::data_out_first>(random.drive, array_operation::read,
                                                        random.rules);
    oracle::check_against_oracle<flash::command_first>(random.drive, array_operation::read,
                                                       random.rules);
  }
}

TEST_CASE("read options: equal to the event-driven drive on bursts of the presets") {
  for (const flash::drive_spec& preset : {flash::instcsd, flash::tlc_ssd, flash::pcie5_16ch}) {
    random_case burst{1};
    burst.shape = preset.geometry;
    burst.times = preset.timing;
    burst.pages.clear();
    std::mt19937 random{17};
    const flash::placement place{preset.geometry};
    for (int i = 0; i < 2000; ++i) {
      burst.pages.push_back(place.striped(pick(random, 0, 400'000)));
    }
    for (const bool cache_read : {false, true}) {
      const drive_rules rules{.cache_read = cache_read,
                              .retry = flash::independent_failures(30'000'000, 5)};
      oracle::check_against_oracle<flash::data_out_first>(burst, array_operation::read, rules);
      oracle::check_against_oracle<flash::command_first>(burst, array_operation::read, rules);
    }
  }
}

TEST_CASE("read options: busy times add up, and a die is held no longer than the batch") {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    INFO("seed " << seed);
    const random_options random{seed};
    timeline<flash::command_first> drive{random.drive.shape, random.drive.times, random.rules};
    std::vector<std::int64_t> finish(random.drive.pages.size());
    std::int64_t bus_free = 0, channel = -1;
    const auto on_bus = [&](const flash::event& e) {
      if (e.kind == flash::event_kind::array_read) {
        return;
      }
      REQUIRE((e.channel != channel || e.begin_ticks >= bus_free));
      channel = e.channel;
      bus_free = e.end_ticks;
    };
    const flash::batch_times times = drive.read(random.drive.pages, finish, on_bus);
    CHECK(times.makespan_ticks == *std::ranges::max_element(finish));
    for (const flash::channel_load& load : times.channels) {
      CHECK(load.bus_ticks() <= load.end_ticks);
      CHECK(load.data_ticks == load.pages * drive.scale().page_transfer_ticks);
    }
    for (const flash::die_load& die : times.dies) {
      CHECK(die.array_ticks <= die.held_ticks);
      CHECK(die.held_ticks <= times.makespan_ticks);
    }
  }
}

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

// One die, command first: while a page is on the bus the next array read runs, so each further page
// takes the command, the array and the move.
TEST_CASE("cache read: one die reads back to back, its data-outs hidden") {
  const geometry g{.channels = 1, .pages = 256};
  const timing t = flash::vnand_v6_timing;
  std::vector<location> pages;
  for (std::int32_t n = 0; n < 100; ++n) {
    pages.push_back({.page = n});
  }
  const std::int64_t step = (290'000 + 45'020'000 + 3'000'000) * 7;
  timeline<flash::command_first> cached{g, t, {.cache_read = true}};
  const std::int64_t page = cached.scale().page_transfer_ticks;
  CHECK(cached.read(pages).makespan_ticks == 100 * step + page);
  timeline<flash::command_first> plain{g, t};
  CHECK(plain.read(pages).makespan_ticks == 100 * (step - 3'000'000 * 7 + page));
  // Data first: the next command waits until the page is out, so only the move is added.
  timeline<flash::data_out_first> data_first{g, t, {.cache_read = true}};
  CHECK(data_first.read(pages).makespan_ticks == 100 * (step + page));
}

// A data-out longer than the array: the bus is never idle between the first and the last.
TEST_CASE("cache read: a slow bus is kept busy, and the array waits with its second page") {
  const geometry g{.channels = 1, .pages = 256};
  timing t = flash::slc_low_latency.timing;
  t.page_transfer_ps = 20 * flash::ps_per_us;
  t.cache_move_ps = 0;
  timeline<flash::command_first> drive{g, t, {.cache_read = true}};
  std::vector<location> pages(50);
  // The command is sent once the array register is free, between two data-outs.
  CHECK(drive.read(pages).makespan_ps() == 290'000 + 3'020'000 + 49 * 290'000 + 50 * 20'000'000);
}

TEST_CASE("cache read: commands first, then shorter on bursts than without") {
  std::mt19937 random{5};
  const flash::placement place{flash::instcsd.geometry};
  std::vector<location> pages;
  for (int i = 0; i < 4000; ++i) {
    pages.push_back(place.striped(pick(random, 0, 200'000)));
  }
  timing t = flash::instcsd.timing;
  t.cache_move_ps = 0;
  timeline<flash::command_first> plain{flash::instcsd.geometry, t};
  timeline<flash::command_first> cached{flash::instcsd.geometry, t, {.cache_read = true}};
  CHECK(cached.read(pages).makespan_ticks < plain.read(pages).makespan_ticks);
}

TEST_CASE("cache read: data first and moves that take no time are the drive without") {
  for (unsigned seed = 1; seed <= 100; ++seed) {
    INFO("seed " << seed);
    random_options random{seed};
    random.drive.times.cache_move_ps = 0;
    std::vector<std::int64_t> with(random.drive.pages.size()), without(with.size());
    random.rules.cache_read = true;
    timeline<> cached{random.drive.shape, random.drive.times, random.rules};
    cached.read(random.drive.pages, with);
    random.rules.cache_read = false;
    timeline<> plain{random.drive.shape, random.drive.times, random.rules};
    plain.read(random.drive.pages, without);
    REQUIRE(with == without);
  }
}

TEST_CASE("read retry: the draw has the stated distribution and depends on place and seed alone") {
  constexpr flash::read_retry half = flash::independent_failures(500'000'000, 5, 42);
  static_assert(half.at_least[4] == 31'250'000);
  const auto nth = [place = flash::placement{flash::instcsd.geometry}](std::int64_t page) {
    return place.striped(page);
  };
  std::array<int, 6> counts{};
  const int draws = 1 << 20;
  for (int page = 0; page < draws; ++page) {
    ++counts[static_cast<std::size_t>(half.draw(nth(page)))];
  }
  double expected = draws / 2.0;
  for (std::size_t n = 0; n < 5; ++n) {
    CHECK(counts[n] == doctest::Approx(expected).epsilon(0.02));  // 5 sigma at n = 4
    expected /= 2;
  }
  CHECK(counts[5] == doctest::Approx(draws / 32.0).epsilon(0.03));

  std::int64_t sum = 0;
  for (std::int64_t page = 0; page < 4'000'000; ++page) {
    sum += flash::worst_read_retry.draw(nth(page));
  }
  CHECK(static_cast<double>(sum) / 4e6 == doctest::Approx(0.003).epsilon(0.05));
  CHECK(flash::worst_read_retry.mean() == doctest::Approx(0.003).epsilon(1e-6));
  CHECK(flash::read_retry{}.draw({}) == 0);
  CHECK(flash::independent_failures(flash::retry_scale, 5).draw({}) == 5);
}

TEST_CASE("read retry: every coordinate and the seed matter to the draw") {
  for (int coordinate = 0; coordinate < 7; ++coordinate) {
    INFO("coordinate " << coordinate);
    int failing = 0;
    for (std::int32_t n = 0; n < 4096; ++n) {
      location at{1, 2, 3, 1, 17, 100};
      std::int32_t* const all[] = {&at.channel, &at.chip, &at.die, &at.plane, &at.block, &at.page};
      std::uint64_t seed = 9;
      if (coordinate < 6) {
        *all[coordinate] = n;
      } else {
        seed = static_cast<std::uint64_t>(n);
      }
      failing += flash::independent_failures(500'000'000, 1, seed).draw(at);
    }
    CHECK(failing == doctest::Approx(2048).epsilon(0.08));  // 5 sigma
  }
}

TEST_CASE("read retry: each further read is another array time, for all planes of the command") {
  const geometry g{.channels = 1, .planes = 2, .pages = 64};
  const timing t = flash::vnand_v6_timing;
  timeline<> always{g, t, {.retry = flash::independent_failures(flash::retry_scale, 3)}};
  const std::int64_t page = always.scale().page_transfer_ticks;
  const std::array both{location{.plane = 0}, location{.plane = 1}};
  const flash::batch_times times = always.read(both);
  CHECK(times.makespan_ticks == (940'000 + 4 * 45'020'000) * 7 + 2 * page);
  CHECK(times.dies[0].array_ticks == 4 * 45'020'000 * 7);
  CHECK(always.program(both).makespan_ticks ==
        std::int64_t{7} * (1'177'000 + 450'000'000) + 2 * page);
}

TEST_CASE("read retry: a page reads alike in any batch, and other seeds read otherwise") {
  const random_case random{11};
  const auto alone = [&](const location& at, std::uint64_t seed) {
    timeline<> drive{
        random.shape, random.times, {.retry = flash::independent_failures(400'000'000, 5, seed)}};
    const std::array one{at};
    return drive.read(one).dies[0].array_ticks + drive.read(one).makespan_ticks;
  };
  bool seeds_differ = false;
  for (const location& at : random.pages) {
    CHECK(alone(at, 1) == alone(at, 1));
    seeds_differ = seeds_differ || alone(at, 1) != alone(at, 2);
  }
  CHECK(seeds_differ);
}

TEST_CASE("decoding: adds to each page's finish and the makespan, nothing waits for it") {
  const random_case random{8};
  timing t = random.times;
  t.decode_ps = 1'234'567;
  timeline<> plain{random.shape, random.times};
  timeline<> decoded{random.shape, t};
  std::vector<std::int64_t> before(random.pages.size()), after(random.pages.size());
  const std::int64_t makespan = plain.read(random.pages, before).makespan_ticks;
  const std::int64_t later = decoded.scale().from_ps(t.decode_ps);
  CHECK(decoded.read(random.pages, after).makespan_ticks == makespan + later);
  for (std::size_t i = 0; i < before.size(); ++i) {
    CHECK(after[i] == before[i] + later);
  }
  const std::int64_t programs = plain.program(random.pages).makespan_ticks;
  CHECK(decoded.program(random.pages).makespan_ticks == programs);
}

TEST_CASE("read options: bad input is named") {
  const auto timing_complaint = [](const timing& t) {
    const std::string text = complaint([&] { flash::validate(t); });
    CHECK(flash::valid(t) == text.empty());
    return text;
  };
  timing t = tlc;
  CHECK(timing_complaint(t).empty());
  t.types.count = 4;
  CHECK(timing_complaint(t).find("types.count must lie in [1, 3]") != std::string::npos);
  t.types.count = 0;
  CHECK(timing_complaint(t).find("got 0") != std::string::npos);
  t.types.count = 2;
  CHECK(timing_complaint(t).find("read_middle_ps needs types.count >= 3") != std::string::npos);
  t.types.count = 1;
  t.types.read_middle_ps = 0;
  CHECK(timing_complaint(t).find("read_upper_ps needs types.count >= 2") != std::string::npos);
  t = tlc;
  t.types.read_upper_ps = 0;
  CHECK(timing_complaint(t).find("types.read_upper_ps") != std::string::npos);
  t = tlc;
  t.types.read_middle_ps = -1;
  CHECK(timing_complaint(t).find("types.read_middle_ps") != std::string::npos);
  t = tlc;
  t.cache_move_ps = -1;
  CHECK(timing_complaint(t).find("cache_move_ps") != std::string::npos);
  t = tlc;
  t.decode_ps = flash::max_duration_ps + 1;
  CHECK(timing_complaint(t).find("decode_ps") != std::string::npos);

  const auto retry_complaint = [](const flash::read_retry& retry) {
    CHECK(!flash::valid(retry));
    return complaint([&] { timeline<>(geometry{}, tlc, {.retry = retry}); });
  };
  CHECK(retry_complaint({.at_least = {1, 2}}).find("must not rise") != std::string::npos);
  CHECK(retry_complaint({.at_least = {-1}}).find("-1") != std::string::npos);
  CHECK(!retry_complaint({.at_least = {flash::retry_scale + 1}}).empty());
  CHECK(complaint([] { (void)flash::independent_failures(1, 6); }).find("at most 5") !=
        std::string::npos);
  CHECK(!complaint([] { (void)flash::independent_failures(1, -1); }).empty());
  CHECK(!complaint([] { (void)flash::independent_failures(-1, 5); }).empty());
  CHECK(!complaint([] { (void)flash::independent_failures(flash::retry_scale + 1, 5); }).empty());
}
