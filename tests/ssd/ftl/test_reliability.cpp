// Refresh after many reads and after a long time: what moves, when, and what it costs in programs.

#include <doctest/doctest.h>

#include <vector>

#include "instinfer/ssd/ftl/ftl.hpp"
#include "instinfer/ssd/ftl/reliability.hpp"

namespace instinfer::test_reliability {

using namespace flash;

namespace {

constexpr geometry g{.channels = 2, .planes = 2, .blocks = 16, .pages = 8};

template <class Ftl>
std::vector<page_id> fill(Ftl& f, std::uint32_t pages, std::uint32_t unit = 0) {
  std::vector<page_id> written;
  for (std::uint32_t i = 0; i < pages; ++i) {
    written.push_back(f.write(unit, i));
  }
  return written;
}

}  // namespace

TEST_CASE("refresh: nothing by default") {
  ftl<> f(g, 100);
  const std::vector<page_id> pages = fill(f, 64);
  f.set_time(2'000'000'000);
  for (int i = 0; i < 100; ++i) {
    f.count_read(pages[0]);
  }
  CHECK(f.refresh(refresh_limits{}) == 0);
  CHECK(f.counters().write_amplification() == 1.0);
}

TEST_CASE("read disturb: the block that reached the limit moves, no other, and starts anew") {
  ftl<> f(g, 100);
  const std::vector<page_id> pages = fill(f, 64);  // 8 full blocks
  const block_number block = f.blocks().block_of(f.physical(pages[0]));
  for (int i = 0; i < 50; ++i) {
    f.count_read(pages[0]);
  }
  CHECK(f.blocks().at(block).reads == 50);
  CHECK(f.refresh(refresh_limits{.reads = 51}) == 0);
  CHECK(f.refresh(refresh_limits{.reads = 50}) == 8);
  CHECK(f.counters().moved_for_refresh == 8);
  CHECK(f.counters().write_amplification() == 72.0 / 64);
  const block_number moved_to = f.blocks().block_of(f.physical(pages[0]));
  CHECK(moved_to != block);
  CHECK(f.blocks().at(moved_to).reads == 0);
  CHECK(f.blocks().at(block).state == block_state::free);
  CHECK(f.blocks().at(block).erases == 1);
  CHECK(f.blocks().at(block).reads == 0);
  CHECK(f.refresh(refresh_limits{.reads = 50}) == 0);
}

TEST_CASE("retention: pages move when the oldest of their block reaches the limit") {
  ftl<> f(g, 100);
  f.set_time(1000);
  fill(f, 32);
  f.set_time(1000 + three_weeks_s / 2);
  fill(f, 32);
  f.set_time(1000 + three_weeks_s - 1);
  CHECK(f.refresh(refresh_limits{.age_s = three_weeks_s}) == 0);
  f.set_time(1000 + three_weeks_s);
  CHECK(f.refresh(refresh_limits{.age_s = three_weeks_s}) == 32);
  CHECK(f.refresh(refresh_limits{.age_s = three_weeks_s}) == 0);
  fill(f, 2);  // pages of open blocks grow old, too
  f.set_time(1000 + 3 * three_weeks_s);
  CHECK(f.refresh(refresh_limits{.age_s = three_weeks_s}) == 66);
  for (block_number b = 0; b < 2 * f.blocks().blocks_per_channel(); ++b) {
    const block_info& block = f.blocks().at(b);
    CHECK((block.written == 0 || block.written_at_s == 1000 + 3 * three_weeks_s));
  }
  f.set_time(999);  // a clock that goes back makes nothing old
  CHECK(f.refresh(refresh_limits{.age_s = three_weeks_s}) == 0);
}

TEST_CASE("read disturb: decode that reads every page for each token, against the formula") {
  constexpr std::uint32_t limit = 400;
  constexpr std::uint32_t tokens = 230;
  ftl<> f(g, 100);
  const std::vector<page_id> pages = fill(f, 64);
  for (std::uint32_t t = 1; t <= tokens; ++t) {
    for (const page_id page : pages) {
      f.count_read(page);
    }
    f.refresh(refresh_limits{.reads = limit});
  }
  CHECK(tokens_between_refreshes(limit, 8, 1.0) == 50);
  CHECK(f.counters().write_amplification() ==
        write_amplification_of_reading(tokens, limit, 8, 1.0));
  CHECK(f.counters().write_amplification() == 5.0);
  for (const page_id page : pages) {
    CHECK(f.is_live(page));
  }
  // The paper's drive: 1024 pages a block.
  CHECK(tokens_between_refreshes(common_read_limit, 1024, 1.0) ==
        doctest::Approx(97.7).epsilon(0.001));
  CHECK(tokens_between_refreshes(common_read_limit, 1024, 1.0 / 8) ==
        doctest::Approx(781).epsilon(0.001));
  CHECK_THROWS_AS(tokens_between_refreshes(100, 8, 0.0), bad_argument);
  CHECK_THROWS_AS(tokens_between_refreshes(100, 0, 1.0), bad_argument);
}

TEST_CASE("refresh of an open block: its sequence does not come back to it") {
  constexpr geometry one{.channels = 1, .blocks = 8, .pages = 4};
  ftl<> f(one, 20, {.frontiers = 2});
  const page_id first = f.write(0, 0);
  CHECK(f.locate(first).block == 0);
  f.set_time(100);
  CHECK(f.refresh(refresh_limits{.age_s = 100}) == 1);
  for (const page_id page : fill(f, 16, 1)) {
    f.release(page);
  }
  f.idle();
  const page_id other = fill(f, 9, 1).back();  // after two blocks that were never erased
  CHECK(f.locate(other).block == 0);
  CHECK(f.locate(f.write(0, 0)).block != 0);
}

TEST_CASE("refresh of a full drive: the spare blocks are enough, and nothing is lost") {
  constexpr geometry one{.channels = 1, .blocks = 6, .pages = 4};
  ftl<> f(one, 12);
  const std::vector<page_id> pages = fill(f, 12);
  f.set_time(100);
  // 3 free blocks are enough, one after the other.
  CHECK(f.refresh(refresh_limits{.age_s = 50}) == 12);
  CHECK(f.refresh(refresh_limits{.age_s = 50}) == 0);
  for (const page_id page : pages) {
    CHECK(f.is_live(page));
  }
}

TEST_CASE("static wear levelling: data that stays does not keep its blocks young") {
  const auto spread = [](bool level) {
    ftl<> f(g, 200, {.frontiers = 2});
    std::vector<page_id> cold;
    for (std::uint32_t i = 0; i < 200; ++i) {
      cold.push_back(f.write(0, i));
    }
    for (int round = 0; round < 300; ++round) {
      std::vector<page_id> hot;
      for (std::uint32_t i = 0; i < 64; ++i) {
        hot.push_back(f.write(1, i));
      }
      for (const page_id page : hot) {
        f.release(page);
      }
      if (level && f.wear().most > 10) {
        f.refresh(lagging{f.wear().most - 10});
      }
    }
    for (const page_id page : cold) {
      CHECK(f.is_live(page));
    }
    CHECK(f.counters().write_amplification() < 1.2);
    return f.wear().most - f.wear().least;
  };
  CHECK(spread(false) > 50);
  CHECK(spread(true) <= 14);
}

}  // namespace instinfer::test_reliability
