// Static wear levelling: cold data goes to the most worn free blocks, and stays there.

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "instinfer/ssd/ftl/ftl.hpp"
#include "instinfer/ssd/ftl/reliability.hpp"

namespace instinfer::test_wear_levelling {

using namespace flash;

namespace {

constexpr geometry g{.blocks = 16, .pages = 4};

// Cold data in 8 of 16 blocks, the other blocks written and released `cycles` times.
std::vector<page_id> wear_out(ftl<>& f, int cycles) {
  std::vector<page_id> cold;
  for (std::uint32_t i = 0; i < 8 * 4; ++i) {
    cold.push_back(f.write(0, 0));
  }
  for (int cycle = 0; cycle < cycles; ++cycle) {
    std::vector<page_id> hot;
    for (std::uint32_t i = 0; i < 4 * 4; ++i) {
      hot.push_back(f.write(1, 0));
    }
    for (const page_id page : hot) {
      f.release(page);
    }
    f.idle();
  }
  return cold;
}

}  // namespace

TEST_CASE("wear levelling settles: cold data moves once, then nothing moves") {
  ftl<> f(g, 4 * static_cast<std::uint64_t>(g.blocks - 3), {.frontiers = 2});
  const std::vector<page_id> cold = wear_out(f, 100);
  const wear_summary before = f.wear();
  REQUIRE(before.most > 20);
  REQUIRE(before.least == 0);
  std::uint64_t moved = 0;
  for (int i = 0; i < 23; ++i) {
    moved += f.refresh(lagging{f.wear(), 2});
  }
  CHECK(moved >= 4);
  CHECK(moved <= 2 * cold.size());  // 32 pages a refresh would be 736
  CHECK(f.refresh(lagging{f.wear(), 2}) == 0);
  CHECK(f.counters().moved_for_wear == moved);
  for (const page_id page : cold) {
    CHECK(f.is_live(page));
  }
}

TEST_CASE("wear levelling: cold data lies in blocks that are worn more than those it left") {
  ftl<> f(g, 4 * static_cast<std::uint64_t>(g.blocks - 3), {.frontiers = 2});
  const std::vector<page_id> cold = wear_out(f, 100);
  const block_number left = f.blocks().block_of(f.physical(cold[0]));
  f.refresh(lagging{f.wear(), 2});
  const block_number now = f.blocks().block_of(f.physical(cold[0]));
  CHECK(now != left);
  CHECK(f.blocks().at(now).erases > f.blocks().at(left).erases);
}

TEST_CASE("wear levelling of a fresh drive moves nothing, whatever the spread") {
  ftl<> f(g, 16);
  for (std::uint32_t i = 0; i < 16; ++i) {
    f.write(0, 0);
  }
  for (const std::uint32_t spread : {0u, 1u, 2u, 4'000'000'000u}) {
    CHECK(f.refresh(lagging{f.wear(), spread}) == 0);
  }
}

// Sequences of random lengths grow side by side and go as a whole; a tenth of them stay long. The
// planner takes 0.85 for the mean over the most erases (support/plan.hpp).
TEST_CASE("wear: even within 0.85 after 100 cycles of sequences") {
  constexpr geometry drive{
      .channels = 2, .chips = 2, .dies = 2, .planes = 2, .blocks = 64, .pages = 16};
  const kv_blocks policy{.frontiers = 64};
  ftl<> f(drive, ftl<>::most_pages_per_channel(drive, policy), policy);
  std::mt19937 random{3};
  struct grown {
    std::vector<page_id> pages;
    std::size_t length = 0;
  };
  std::vector<grown> all(40);
  const auto renew = [&](grown& s) {
    for (const page_id page : s.pages) {
      f.release(page);
    }
    s = {.pages = {}, .length = 64 + random() % 375};
  };
  for (grown& s : all) {
    renew(s);
  }
  std::uint32_t turn = 0;
  while (f.counters().host_pages < 100 * f.capacity_pages()) {
    const std::size_t i = random() % all.size();
    if (all[i].pages.size() >= all[i].length) {
      if (i < 4 && random() % 4'000 != 0) {
        continue;
      }
      renew(all[i]);
    }
    for (int page = 0; page < 8; ++page) {
      all[i].pages.push_back(f.write(static_cast<std::uint32_t>(i), turn++ % 2));
    }
    if (random() % 16 == 0) {
      f.idle();
    }
  }
  const wear_summary wear = f.wear();
  CHECK(wear.mean > 90);
  CHECK(wear.mean / wear.most > 0.85);
  CHECK(f.counters().write_amplification() < 1.01);
}

}  // namespace instinfer::test_wear_levelling
