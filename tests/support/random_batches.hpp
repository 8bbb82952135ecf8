#pragma once
// Random drives and batches, and the comparison of a timeline with the oracle on them.

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <random>
#include <span>
#include <type_traits>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/spec/placement.hpp"
#include "support/event_driven_drive.hpp"

namespace oracle {

namespace flash = instinfer::flash;

inline std::vector<location> striped(const geometry& g, std::int64_t count) {
  const flash::placement place{g};
  std::vector<location> pages;
  for (std::int64_t n = 0; n < count; ++n) {
    pages.push_back(place.striped(n));
  }
  return pages;
}

inline int pick(std::mt19937& random, int least, int most) {
  return std::uniform_int_distribution<int>{least, most}(random);
}

struct random_case {
  geometry shape;
  timing times;
  std::vector<location> pages;

  explicit random_case(unsigned seed) {
    std::mt19937 random{seed};
    shape = {.channels = pick(random, 1, 4),
             .chips = pick(random, 1, 5),
             .dies = pick(random, 1, 3),
             .planes = pick(random, 1, 4),
             .blocks = pick(random, 1, 4),
             .pages = pick(random, 1, 6),
             .spare_bytes = pick(random, 0, 1) * 448,
             .codeword_bytes = 1024 << seed % 3};
    if (seed % 10 == 0) {
      shape.chips = pick(random, 9, 40);  // more than 64 dies on a channel
      shape.dies = 4;
    }
    const std::array<std::int64_t, 5> rates{1'400'000'000, 2'400'000'000, 1'000'000'000,
                                            333'000'000, 8'000'000'000};
    times = {.read_ps = pick(random, 0, 1) != 0 ? pick(random, 1, 60) * flash::ps_per_us
                                                : pick(random, 1, 9'000'000),
             .program_ps = pick(random, 1, 700) * flash::ps_per_us,
             .erase_ps = pick(random, 1, 3'500) * flash::ps_per_us,
             .bus_bytes_per_s = rates[static_cast<std::size_t>(pick(random, 0, 4))]};
    if (pick(random, 0, 3) == 0) {
      // Multiples of the command time provoke ties.
      times.page_transfer_ps = pick(random, 1, 50) * 290'000;
      times.read_ps = pick(random, 1, 50) * 290'000;
      times.read_turnaround_ps = 0;
    }
    const int count = pick(random, 0, 3) == 0 ? pick(random, 1, 8) : pick(random, 1, 400);
    const bool skewed = pick(random, 0, 3) == 0;
    for (int i = 0; i < count; ++i) {
      const auto below = [&](std::int32_t n) {
        return skewed && pick(random, 0, 2) != 0 ? 0 : pick(random, 0, n - 1);
      };
      pages.push_back({below(shape.channels), below(shape.chips), below(shape.dies),
                       below(shape.planes), below(shape.blocks), below(shape.pages)});
    }
  }
};

template <class Timeline>
flash::batch_times replay(Timeline& drive, array_operation what, const std::vector<location>& pages,
                          std::span<std::int64_t> finish) {
  switch (what) {
    case array_operation::read:
      return drive.read(pages, finish);
    case array_operation::program:
      return drive.program(pages, finish);
    case array_operation::erase:
      return drive.erase(pages, finish);
  }
  return {};
}

template <class Arbitration>
void check_against_oracle(const random_case& random, array_operation what,
                          const flash::drive_rules& rules,
                          std::span<const std::int32_t> codewords = {}) {
  std::vector<std::int64_t> finish(random.pages.size(), -1);
  flash::timeline<Arbitration> drive{random.shape, random.times, rules};
  const flash::batch_times times = codewords.empty()
                                       ? replay(drive, what, random.pages, finish)
                                       : drive.read_codewords(random.pages, codewords, finish);
  constexpr bool data_first = std::is_same_v<Arbitration, flash::data_out_first>;
  event_driven_drive slow{
      random.shape,
      random.times,
      {what, data_first, rules.pair, rules.arrive, rules.cache_read, rules.retry}};
  const outcome expected = slow.run(random.pages, codewords);
  REQUIRE(times.makespan_ticks == expected.makespan);
  REQUIRE(times.commands == expected.commands);
  REQUIRE(finish == expected.finish);
}

// A drive with page types, decoding and moves of any length, and rules with some of the options.
struct random_options {
  random_case drive;
  flash::drive_rules rules;

  explicit random_options(unsigned seed) : drive{seed} {
    std::mt19937 random{seed * 7919};
    const std::int64_t unit = pick(random, 0, 1) != 0 ? 290'000 : 1;  // multiples provoke ties
    const auto duration = [&](int most_us) {
      return std::max<std::int64_t>(pick(random, 1, most_us * 1'000'000) / unit * unit, unit);
    };
    flash::timing& t = drive.times;
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
    rules.pair = static_cast<flash::pairing>(pick(random, 0, 3));
    rules.arrive = static_cast<flash::arrival>(pick(random, 0, 1));
  }
};

}  // namespace oracle
