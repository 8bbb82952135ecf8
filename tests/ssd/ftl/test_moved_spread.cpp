// Moved pages keep their plane, so garbage collection does not cost a sequence its spread over
// dies.

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/ftl/ftl.hpp"

namespace instinfer::test_moved_spread {

namespace {

// Two channels of four dies.
constexpr flash::geometry shape(std::int32_t planes) {
  return {.channels = 2, .chips = 2, .dies = 2, .planes = planes, .blocks = 64, .pages = 16};
}
constexpr flash::timing times{.read_ps = 45'000'000,
                              .program_ps = 450'000'000,
                              .erase_ps = 3'500'000'000,
                              .bus_bytes_per_s = 1'400'000'000};

// A sequence that grew among others, before and after these have churned.
struct survivor {
  explicit survivor(std::int32_t planes_of_a_die)
      : ftl{shape(planes_of_a_die), most(planes_of_a_die), {}}, planes{planes_of_a_die} {
    const auto length = static_cast<std::size_t>(64 * planes);
    const std::size_t count = ftl.capacity_pages() * 85 / 100 / length - 1;
    std::vector<std::vector<page_id>> others(count);
    const auto write = [&](std::uint32_t sequence, std::vector<page_id>& pages) {
      pages.push_back(ftl.write(sequence, turn++ % 2));
    };
    // All planes in turn, so that the planes of a die hold the pages of a row at the same place.
    const auto write_row = [&](std::uint32_t sequence, std::vector<page_id>& pages) {
      for (std::int32_t i = 0; i < 8 * planes; ++i) {
        write(sequence, pages);
      }
    };
    while (kept.size() < length) {
      write_row(1000, kept);
      for (std::uint32_t o = 0; o < count; ++o) {
        write_row(o, others[o]);
      }
    }
    before = places();
    std::mt19937 random{7};
    while (ftl.counters().moved_for_space < 10 * ftl.capacity_pages()) {
      const auto o = static_cast<std::uint32_t>(random() % count);
      std::erase_if(others[o], [&](page_id page) {
        const bool goes = random() % 2 == 0;
        if (goes) {
          ftl.release(page);
        }
        return goes;
      });
      while (others[o].size() < length) {
        write(o, others[o]);
      }
    }
    after = places();
  }

  static std::uint64_t most(std::int32_t planes_of_a_die) {
    return flash::ftl<flash::greedy_pages>::most_pages_per_channel(shape(planes_of_a_die));
  }
  std::vector<flash::location> places() const {
    std::vector<flash::location> at;
    for (const page_id page : kept) {
      at.push_back(ftl.locate(page));
    }
    return at;
  }
  std::int64_t read_ps(const std::vector<flash::location>& at) const {
    flash::timeline<> drive{shape(planes), times};
    return drive.read(at).makespan_ps();
  }

  flash::ftl<flash::greedy_pages> ftl;
  std::int32_t planes;
  std::uint32_t turn = 0;
  std::vector<page_id> kept;
  std::vector<flash::location> before, after;
};

}  // namespace

TEST_CASE("moved pages: each stays on its plane, whatever garbage collection does") {
  for (const std::int32_t planes : {1, 2}) {
    CAPTURE(planes);
    const survivor s{planes};
    std::size_t moved = 0;
    for (std::size_t i = 0; i < s.kept.size(); ++i) {
      REQUIRE(s.after[i].channel == s.before[i].channel);
      REQUIRE(s.after[i].chip == s.before[i].chip);
      REQUIRE(s.after[i].die == s.before[i].die);
      REQUIRE(s.after[i].plane == s.before[i].plane);
      moved += s.after[i].block == s.before[i].block ? 0 : 1;
    }
    CHECK(moved > s.kept.size() * 9 / 10);
    if (planes == 1) {
      CHECK(s.read_ps(s.after) == s.read_ps(s.before));
    } else {
      // The 8 rows of a die were read by 8 commands of 940 ns and tR 45.02 us. Planes no longer
      // hold the pages of a row at the same place, so 16 commands of 290 ns read them now. The bus
      // carries the same data.
      const double more_ps = 16 * (45'020'000.0 + 290'000) - 8 * (45'020'000.0 + 940'000);
      CHECK(static_cast<double>(s.read_ps(s.after) - s.read_ps(s.before)) ==
            doctest::Approx(more_ps).epsilon(0.05));
    }
  }
}

TEST_CASE("moved pages: the room that their spread takes is told by the capacity") {
  // Four planes a channel: a free block and one for moved pages on each.
  const flash::geometry g = shape(1);
  CHECK(survivor::most(1) == (4 * 64 - 8) * 16);
  flash::geometry small = g;
  small.blocks = 63;  // below 64 a plane: two kept blocks, and one for moved pages
  CHECK(flash::ftl<flash::greedy_pages>::most_pages_per_channel(small) == (4 * 63 - 3) * 16);
}

}  // namespace instinfer::test_moved_spread
