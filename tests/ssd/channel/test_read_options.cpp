// What a batch of reads may add, all options at once: against the event-driven drive to the tick,
// and refused where it cannot be.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_read_options {

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
using oracle::random_options;

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

}  // namespace instinfer::test_read_options
