// The FTL against a map: random writes and releases, garbage collection, failures; counters that
// add up; refusals.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/ftl/ftl.hpp"
#include "tests/support/refusal.hpp"

namespace instinfer::test_ftl {

using namespace flash;

static_assert(FtlPolicy<kv_blocks> && FtlPolicy<greedy_pages> && !FtlPolicy<int>);
static_assert(FaultModel<no_faults> && FaultModel<random_faults> && !FaultModel<int>);
static_assert(FtlPages<no_pages> && FtlPages<page_array> && !FtlPages<int>);

namespace {

// What the host knows: its live pages, and a stamp that it wrote into each.
using model = std::map<std::uint32_t, std::uint64_t>;

std::uint32_t number(page_id page) { return static_cast<std::uint32_t>(page); }

template <class Ftl>
void check_blocks(const Ftl& f, std::size_t live) {
  const block_table& blocks = f.blocks();
  std::uint64_t live_in_blocks = 0;
  for (std::uint32_t c = 0; c < f.channels(); ++c) {
    std::uint32_t seen[block_states] = {};
    const std::uint32_t per_channel = blocks.blocks_per_channel();
    std::uint32_t free_in_planes = 0;
    for (std::uint32_t plane = 0; plane < blocks.planes(); ++plane) {
      free_in_planes += blocks.free_blocks(c, plane);
    }
    for (block_number b = c * per_channel; b < (c + 1) * per_channel; ++b) {
      const block_info& block = blocks.at(b);
      ++seen[static_cast<int>(block.state)];
      live_in_blocks += block.live;
      std::uint32_t owned = 0;
      for (std::uint32_t i = 0; i < blocks.pages_per_block(); ++i) {
        owned += blocks.owner(physical_page{b * blocks.pages_per_block() + i}) != no_page ? 1u : 0u;
      }
      REQUIRE(owned == block.live);
      REQUIRE(block.live <= block.written);
      REQUIRE(blocks.block_at(blocks.locate(b)) == b);
      REQUIRE((block.state != block_state::free || block.written == 0));
      REQUIRE((block.state != block_state::closed || block.live > 0));
    }
    for (int s = 0; s < block_states; ++s) {
      REQUIRE(seen[s] == blocks.count(c, static_cast<block_state>(s)));
    }
    REQUIRE(free_in_planes == blocks.count(c, block_state::free));
  }
  REQUIRE(live_in_blocks == live);
  REQUIRE(f.live_pages() == live);
  REQUIRE(f.free_pages() + f.live_pages() <= f.capacity_pages());
  if (f.counters().failed_programs + f.counters().failed_erases == 0) {
    REQUIRE(f.free_pages() + f.live_pages() == f.capacity_pages());
  }
}

// As many owners as live pages (check_blocks), and each page owns where it lies: so no two lie in
// one place.
template <class Ftl>
void check_pages(const Ftl& f, const model& pages) {
  for (const auto& [p, stamp] : pages) {
    const page_id page{p};
    REQUIRE(f.is_live(page));
    REQUIRE(inside(f.locate(page), f.blocks().shape()));
    REQUIRE(f.locate(page).channel == static_cast<std::int32_t>(channel_of(page, f.channels())));
    if constexpr (std::decay_t<decltype(f.pages())>::holds_data) {
      std::uint64_t found = 0;
      std::memcpy(&found, f.pages()[f.physical(page)].data(), sizeof found);
      REQUIRE(found == stamp);
    }
  }
}

template <class Policy>
void random_commands(unsigned seed, const Policy& policy, double faults) {
  INFO("seed " << seed << ", faults " << faults);
  std::mt19937 random{seed};
  const auto pick = [&](std::int32_t least, std::int32_t most) {
    return std::uniform_int_distribution<std::int32_t>{least, most}(random);
  };
  const auto unsigned_pick = [&](std::int32_t least, std::int32_t most) {
    return static_cast<std::uint32_t>(pick(least, most));
  };
  const geometry g{.channels = pick(1, 3),
                   .chips = pick(1, 2),
                   .dies = pick(1, 2),
                   .planes = pick(1, 2),
                   .blocks = pick(8, 14),
                   .pages = pick(1, 9),
                   .page_bytes = 16,
                   .codeword_bytes = 16};
  using drive = ftl<Policy, page_array, random_faults>;
  const std::uint64_t pages = drive::most_pages_per_channel(g, policy);
  const std::uint64_t fewer = std::min<std::uint64_t>(pages - 1, unsigned_pick(0, 40));
  drive f(g, pages - (seed % 2) * fewer, policy, {},
          {.program = faults, .erase = faults, .seed = seed});
  model held;
  std::uint64_t host_pages = 0;
  std::uint64_t refused = 0;
  for (int step = 0; step < 2500; ++step) {
    f.set_time(static_cast<std::uint32_t>(step));
    const int what = pick(0, 99);
    if (what < 56) {
      const bool room = f.free_pages() > 0;
      const auto failures = [&] {
        return f.counters().failed_programs + f.counters().failed_erases;
      };
      const std::uint64_t failures_before = failures();
      try {
        const page_id page = f.write(unsigned_pick(0, 4), unsigned_pick(0, 99));
        // Beyond its promise, a drive has the blocks kept for failures.
        REQUIRE((room || faults > 0));
        REQUIRE(!held.contains(number(page)));
        held[number(page)] = ++host_pages;
        std::memcpy(f.pages()[f.physical(page)].data(), &host_pages, sizeof host_pages);
      } catch (const drive_full&) {
        REQUIRE((!room || failures() > failures_before));
        ++refused;
      }
    } else if (what < 90) {
      if (!held.empty()) {
        const auto it = std::next(held.begin(), static_cast<long>(random() % held.size()));
        f.release(page_id{it->first});
        CHECK_THROWS_AS(f.release(page_id{it->first}), bad_argument);
        held.erase(it);
      }
    } else if (what < 93) {
      f.idle(static_cast<std::uint64_t>(pick(0, 4)));
    } else if (what < 95) {
      f.refresh([&](const block_info& b, std::uint32_t now) { return now - b.written_at_s > 200; });
    } else if (step % 1000 == 999) {
      for (const auto& entry : held) {  // a unit dies at once
        f.release(page_id{entry.first});
      }
      held.clear();
    }
    if (step % 20 == 0) {
      check_blocks(f, held.size());
      check_pages(f, held);
    }
  }
  check_blocks(f, held.size());
  check_pages(f, held);
  const ftl_counters& n = f.counters();
  CHECK(n.host_pages == host_pages);
  CHECK(n.programs() == n.host_pages + n.moved() + n.failed_programs);
  CHECK((faults > 0 || n.failed_programs + n.failed_erases + n.moved_for_failure == 0));
}

struct one_program_fails {
  int number = 0;  // of the program that fails, from 1
  int programs = 0;
  bool program_fails(const location&) { return ++programs == number; }
  bool erase_fails(const location&) { return false; }
};

}  // namespace

TEST_CASE("FTL: every live page is where its number says, under random commands") {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    random_commands(seed, kv_blocks{.frontiers = 4, .stripe = seed % 3}, 0);
    random_commands(seed, greedy_pages{.kept_blocks = 1}, 0);
  }
}

TEST_CASE("FTL: nothing is lost where programs and erases fail") {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    random_commands(seed, kv_blocks{.frontiers = 4, .stripe = seed % 3}, 0.004);
    random_commands(seed, greedy_pages{.kept_blocks = 2}, 0.004);
    random_commands(seed, kv_blocks{.frontiers = 2}, 0.1);  // until the drive has worn away
  }
}

TEST_CASE("FTL: striding over chips, dies and planes; the planes of a die at one page number") {
  constexpr geometry g{.channels = 2, .chips = 2, .dies = 2, .planes = 2, .blocks = 8, .pages = 4};
  ftl<> f(g, 100);
  for (std::int32_t n = 0; n < 64; ++n) {
    const location at = f.locate(f.write(3, static_cast<std::uint32_t>(n)));
    const std::int32_t turn = n / 2;
    CHECK(at == location{.channel = n % 2,
                         .chip = turn % 2,
                         .die = turn / 2 % 2,
                         .plane = turn / 4 % 2,
                         .block = 0,
                         .page = turn / 8});
  }
}

TEST_CASE("FTL: the operations of a call, charged to a timeline") {
  constexpr geometry g{.channels = 2, .chips = 1, .dies = 1, .planes = 1, .blocks = 8, .pages = 4};
  constexpr timing t{.read_ps = 45 * ps_per_us,
                     .program_ps = 450 * ps_per_us,
                     .erase_ps = 3'500 * ps_per_us,
                     .bus_bytes_per_s = 1'000'000'000};
  ftl<greedy_pages> f(g, 20);
  timeline<> clock{g, t};
  std::vector<page_id> pages;
  for (std::uint32_t i = 0; i < 40; ++i) {
    pages.push_back(f.write(0, i));
  }
  CHECK(f.operations().programs.empty());  // nothing is recorded unless asked for
  f.record_operations(true);
  // Channel 0 has 5 full blocks of 4 pages and 3 free ones, of which 2 are kept.
  for (const std::size_t i :
       {0u, 2u, 8u, 16u, 24u}) {  // 2 pages of its first block, 1 each of the next three
    f.release(pages[i]);
  }
  for (int i = 0; i < 4; ++i) {
    f.write(0, 0);
  }
  const ftl_operations& done = f.operations();
  CHECK(done.programs.size() == 4);
  CHECK((done.reads.empty() && done.erases.empty()));
  f.clear_operations();
  f.write(0, 0);  // collects blocks with 2, 3 and 3 live pages, which takes 2 blocks and gives 3
  CHECK(done.reads.size() == 8);
  CHECK(done.programs.size() == 9);
  CHECK(done.erases.size() == 3);
  CHECK(f.counters().moved_for_space == 8);
  CHECK(f.counters().erases == 3);
  // One die, one after the other: command cycles, 4096 bytes at 1 GB/s, the array.
  CHECK(clock.read(done.reads).makespan_ps() ==
        std::int64_t{8} * (290'000 + 4'096'000 + 45'020'000));
  CHECK(clock.program(done.programs).makespan_ps() ==
        std::int64_t{9} * (361'000 + 4'096'000 + 450'000'000));
  CHECK(clock.erase(done.erases).makespan_ps() == std::int64_t{3} * (220'000 + 3'500'000'000));
}

TEST_CASE("FTL: erases wait for idle time, or until free blocks fall below the threshold") {
  constexpr geometry g{.channels = 1, .blocks = 10, .pages = 2};
  ftl<> f(g, 14, {.frontiers = 1, .erase_below_blocks = 4, .kept_blocks = 2});
  const auto fill = [&](int blocks) {
    std::vector<page_id> pages;
    for (int i = 0; i < 2 * blocks; ++i) {
      pages.push_back(f.write(0, 0));
    }
    return pages;
  };
  const auto give_up = [&](const std::vector<page_id>& pages) {
    for (const page_id page : pages) {
      f.release(page);
    }
  };
  give_up(fill(4));
  CHECK(f.blocks().count(0, block_state::dead) == 4);
  CHECK(f.counters().erases == 0);
  CHECK(f.idle(3) == 3);
  CHECK(f.idle() == 1);
  CHECK(f.idle() == 0);
  give_up(fill(6));
  CHECK(f.counters().erases == 4);
  fill(1);  // 4 blocks are free: not below the threshold
  CHECK(f.counters().erases == 4);
  fill(1);  // 3 are
  CHECK(f.counters().erases == 5);
  CHECK(f.wear().most == 1);

  // An open block whose pages are all dead is not waited for when blocks run short.
  ftl<> left_open(g, 14, {.frontiers = 2, .erase_below_blocks = 4, .kept_blocks = 2});
  left_open.release(left_open.write(0, 0));
  for (int i = 0; i < 14; ++i) {
    left_open.write(1, 0);
  }
  CHECK(left_open.counters().erases == 1);
  CHECK(left_open.blocks().count(0, block_state::free) == 3);
}

TEST_CASE("FTL: without a free block, one that is half dead is collected before sequences mix") {
  constexpr geometry g{.channels = 1, .blocks = 8, .pages = 4};
  for (const std::size_t second_dead : {1, 4}) {  // in the block of the first, or in the next one
    CAPTURE(second_dead);
    ftl<> f(g, 20, {.frontiers = 2, .kept_blocks = 2});
    std::vector<page_id> pages;
    for (int i = 0; i < 16; ++i) {
      pages.push_back(f.write(0, 0));
    }
    f.write(1, 0);  // the other sequence's block has room for three pages
    f.release(pages[0]);
    f.release(pages[second_dead]);
    for (int i = 0; i < 4; ++i) {
      f.write(0, 0);
    }
    CHECK(f.blocks().count(0, block_state::free) == 2);  // which are kept
    CHECK(f.counters().moved() == 0);
    f.write(0, 0);
    CHECK(f.counters().moved() == (second_dead == 1 ? 2 : 0));
  }
}

TEST_CASE("FTL: bad blocks of the factory, and a failed block's pages rewritten") {
  constexpr geometry g{.channels = 2, .planes = 2, .blocks = 8, .pages = 4};
  const std::vector<location> bad{{.block = 3}, {.plane = 1, .block = 0}, {.block = 3}};
  ftl<> f(g, 44, {}, bad);
  CHECK(f.blocks().count(0, block_state::bad) == 2);
  CHECK(f.capacity_pages() == 88);
  CHECK(f.overprovisioning() == doctest::Approx((14 + 16) * 4 / 88.0 - 1));
  CHECK(test::refusal_of<bad_argument>([&] { ftl<>(g, 45, {}, bad); }) ==
        "ftl: channel 0 has blocks for 44 pages beside the bad and spare ones, 45 are asked for");
  CHECK(test::refusal_of<bad_argument>([&] {
          ftl<>(g, 4, {}, std::vector<location>{{.channel = 2}});
        }).find("ftl: bad block at channel 2, chip 0") == 0);
  for (std::uint32_t i = 0; i < 88; ++i) {
    location block = f.locate(f.write(0, i));
    block.page = 0;
    CHECK(std::find(bad.begin(), bad.end(), block) == bad.end());
  }

  constexpr geometry one{.channels = 1, .blocks = 8, .pages = 4};
  ftl<kv_blocks, no_pages, one_program_fails> failing(one, 20, {}, {}, {.number = 3});
  std::vector<page_id> pages;
  for (int i = 0; i < 3; ++i) {
    pages.push_back(failing.write(0, 0));
  }
  CHECK(failing.counters().failed_programs == 1);
  CHECK(failing.counters().moved_for_failure == 2);
  CHECK(failing.counters().write_amplification() == 2.0);
  CHECK(failing.blocks().count(0, block_state::bad) == 1);
  for (const page_id page : pages) {
    CHECK(failing.locate(page).block != 0);
  }
  CHECK(failing.capacity_pages() == 16);  // 7 blocks, 3 of them spare
}

// A write leaves the last free block alone: it is what garbage collection moves pages to.
TEST_CASE("FTL: a failing block waits for room, which idle time makes by collecting") {
  constexpr geometry g{.channels = 1, .blocks = 8, .pages = 4};
  // 34: the second program after blocks 0 and 1 were collected, in the block that was opened then.
  ftl<greedy_pages, no_pages, one_program_fails> f(g, 24, {.kept_blocks = 1}, {}, {.number = 34});
  std::vector<page_id> pages;
  for (int i = 0; i < 24; ++i) {  // 6 full blocks
    pages.push_back(f.write(0, 0));
  }
  for (std::size_t i = 0; i < 24; i += 4) {
    f.release(pages[i]);
    f.release(pages[i + 1]);
  }
  for (int i = 0; i < 5; ++i) {  // a seventh block, then half a block each of 0 and 1 moves
    f.write(0, 0);
  }
  CHECK(f.counters().moved_for_space == 4);
  f.write(0, 0);  // fails, and goes to a block that collecting 2 and 3 gives
  CHECK(f.counters().failed_programs == 1);
  CHECK(f.counters().moved_for_space == 8);
  CHECK(f.blocks().count(0, block_state::free) == 1);
  CHECK(f.blocks().count(0, block_state::failing) == 1);
  CHECK(f.counters().moved_for_failure == 0);
  CHECK(f.idle() == 1);  // block 4 is collected, so that an open block has room
  CHECK(f.counters().moved_for_space == 10);
  CHECK(f.counters().moved_for_failure == 1);
  CHECK(f.blocks().count(0, block_state::failing) == 0);
  CHECK(f.blocks().count(0, block_state::bad) == 1);
}

TEST_CASE("FTL: bad input: what, where, what was expected; state unchanged") {
  constexpr geometry g{.channels = 2, .blocks = 8, .pages = 4};
  CHECK(test::refusal_of<bad_argument>([&] { ftl<>(g, 0); }) ==
        "ftl: a channel of 32 pages holds 1 to 20 beside its spare blocks, got 0");
  CHECK(test::refusal_of<bad_argument>([&] { ftl<>(g, 21); }) ==
        "ftl: a channel of 32 pages holds 1 to 20 beside its spare blocks, got 21");
  CHECK(test::refusal_of<bad_argument>([&] { ftl<>(g, 4, {.frontiers = 0}); }) ==
        "ftl: a policy has 1 to 65536 frontiers and keeps at least 1 block free, got 0 and 2");
  CHECK_THROWS_AS(ftl<>(g, 4, {.kept_blocks = 0}), bad_argument);
  CHECK_THROWS_AS(ftl<>(geometry{.channels = 0}, 4), bad_argument);
  CHECK_THROWS_AS(ftl<>(geometry{.channels = 1, .blocks = 2}, 1), bad_argument);
  CHECK(test::refusal_of<bad_argument>([&] {
          ftl<>(geometry{.channels = 1 << 16, .blocks = 1 << 8, .pages = 1 << 8}, 1);
        }).find("flash blocks: a drive has at most 2^32 - 2 pages, got 4294967296") == 0);

  ftl<> f(g, 20);
  CHECK(test::refusal_of<bad_argument>([&] { f.release(page_id{5}); }) ==
        "ftl: release of page 5, which holds nothing");
  CHECK_THROWS_AS(f.release(no_page), bad_argument);
  for (std::uint32_t i = 0; i < 40; ++i) {
    f.write(i % 3, 0);  // channel 1 takes what channel 0 cannot
  }
  const ftl_counters before = f.counters();
  CHECK(test::refusal_of<drive_full>([&] { f.write(0, 1); }) ==
        "ftl: the drive is full, 40 pages of 40 are taken");
  CHECK(f.counters() == before);
  CHECK(f.live_pages() == 40);
  f.release(page_id{0});
  CHECK_THROWS_AS(f.release(page_id{0}), bad_argument);
  CHECK(f.write(0, 1) == page_id{0});
}

}  // namespace instinfer::test_ftl
