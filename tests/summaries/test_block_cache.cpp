#include "instinfer/summaries/block_cache.hpp"

#include <algorithm>
#include <iterator>
#include <list>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "tests/support/counted_allocations.hpp"

namespace instinfer::test_block_cache {

using test::allocations;

namespace {

// The definition: a list of blocks, most recently used first.
struct slow_cache {
  std::size_t slots;
  std::list<std::uint32_t> recent;

  bool touch(std::uint32_t block) {
    const auto at = std::ranges::find(recent, block);
    if (at == recent.end()) {
      return false;
    }
    recent.splice(recent.begin(), recent, at);
    return true;
  }
  std::optional<std::uint32_t> admit(std::uint32_t block) {
    std::optional<std::uint32_t> evicted;
    if (slots == 0) {
      return evicted;
    }
    if (recent.size() == slots) {
      evicted = recent.back();
      recent.pop_back();
    }
    recent.push_front(block);
    return evicted;
  }
};

void check_counts(const block_cache& cache, std::uint64_t requested) {
  CHECK(cache.hits() + cache.misses() == requested);
  CHECK(cache.free() + cache.used() == cache.capacity());
}

}  // namespace

TEST_CASE("a block cache does what a list of recent blocks does, over random requests") {
  for (unsigned seed = 0; seed < 40; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const auto slots = static_cast<std::uint32_t>(random() % 9);
    const auto blocks = 1 + static_cast<std::uint32_t>(random() % 20);
    block_cache cache(slots, seed % 2 == 0 ? blocks : 0);  // the table may also grow
    slow_cache model{slots, {}};
    std::map<std::uint32_t, std::uint32_t> slot_of;
    std::uint64_t hits = 0;
    for (std::uint64_t i = 1; i <= 400; ++i) {
      const auto block = static_cast<std::uint32_t>(random() % blocks);
      const auto slot = cache.touch(block);
      const bool hit = model.touch(block);
      REQUIRE(slot.has_value() == hit);
      hits += hit ? 1 : 0;
      if (hit) {
        CHECK(*slot == slot_of.at(block));
      } else if (random() % 4 > 0) {  // not every miss is admitted
        const auto admitted = cache.admit(block);
        const auto evicted = model.admit(block);
        CHECK(admitted.evicted == evicted);
        CHECK(admitted.slot.has_value() == (slots > 0));
        if (evicted) {
          CHECK(*admitted.slot == slot_of.at(*evicted));
          slot_of.erase(*evicted);
        }
        if (admitted.slot) {
          CHECK(*admitted.slot < slots);
          slot_of[block] = *admitted.slot;
        }
      }
      if (random() % 8 == 0) {
        const auto gone = static_cast<std::uint32_t>(random() % blocks);
        CHECK(cache.forget(gone) == (std::erase(model.recent, gone) > 0));
        slot_of.erase(gone);
      }
      CHECK(cache.used() == model.recent.size());
      CHECK(cache.hits() == hits);
      check_counts(cache, i);
      std::set<std::uint32_t> distinct;
      for (const auto& [b, s] : slot_of) {
        CHECK(cache.contains(b));
        distinct.insert(s);
      }
      CHECK(distinct.size() == slot_of.size());
    }
  }
}

TEST_CASE("copies that follow the slots equal their source at every hit") {
  constexpr std::uint32_t blocks = 64;
  constexpr std::uint32_t slots = 10;
  std::mt19937 random(5);
  std::vector<std::vector<std::uint32_t>> source(blocks, std::vector<std::uint32_t>(16));
  for (auto& block : source) {
    std::ranges::generate(block, [&] { return static_cast<std::uint32_t>(random()); });
  }
  std::vector<std::vector<std::uint32_t>> copies(slots);
  block_cache cache(slots, blocks);
  for (int i = 0; i < 5000; ++i) {
    const auto block = static_cast<std::uint32_t>(random() % (i % 100 < 50 ? blocks : slots));
    if (const auto slot = cache.touch(block)) {
      REQUIRE(copies[*slot] == source[block]);
    } else {
      copies[*cache.admit(block).slot] = source[block];
    }
  }
  CHECK(cache.hits() > 1000);
  CHECK(cache.misses() > 1000);
}

TEST_CASE(
    "a loop over one block more than there are slots never hits; over as many it always does") {
  for (const std::uint32_t extra : {0u, 1u}) {
    block_cache cache(7, 8);
    for (std::uint32_t i = 0; i < 10 * (7 + extra); ++i) {
      const std::uint32_t block = i % (7 + extra);
      if (!cache.touch(block)) {
        const auto admitted = cache.admit(block);
        CHECK(admitted.evicted.has_value() == (i >= 7));
        if (admitted.evicted) {
          CHECK(*admitted.evicted == (block + 1) % 8);  // the oldest is the next to be asked for
        }
      }
    }
    CHECK(cache.hits() == (extra == 0 ? 9 * 7 : 0));
    CHECK(cache.hit_rate() == doctest::Approx(extra == 0 ? 0.9 : 0.0));
  }
}

TEST_CASE("a cache without slots admits nothing and misses always") {
  block_cache cache;
  for (std::uint32_t i = 0; i < 5; ++i) {
    CHECK(!cache.touch(i % 2));
    const auto admitted = cache.admit(i % 2);
    CHECK(!admitted.slot);
    CHECK(!admitted.evicted);
  }
  CHECK(cache.misses() == 5);
  CHECK(cache.hit_rate() == 0.0);
  check_counts(cache, 5);
}

TEST_CASE("admitting a block that is there is refused, and changes nothing") {
  block_cache cache(2, 4);
  (void)cache.admit(0);
  (void)cache.admit(1);
  std::string message;
  try {
    (void)cache.admit(0);
  } catch (const bad_argument& e) {
    message = e.what();
  }
  CHECK(message == "block cache: block 0 is in slot 0; admit is for blocks that touch missed");
  CHECK(cache.admit(2).evicted == 0u);  // 0 is still the oldest
}

TEST_CASE("numbers moved down: blocks before are forgotten, the others keep their slots and ages") {
  for (const std::uint32_t by : {0u, 1u, 2u, 4u, 7u, 8u, 11u}) {
    CAPTURE(by);
    block_cache cache(4, 8);
    std::map<std::uint32_t, std::uint32_t> slot_of;
    for (const std::uint32_t block : {6u, 1u, 4u, 3u}) {
      slot_of[block] = *cache.admit(block).slot;
    }
    CHECK(cache.touch(1).has_value());
    const std::vector<std::uint32_t> oldest_first{6, 4, 3, 1};
    cache.move_down(by);
    CHECK(cache.blocks() == (by < 8 ? 8 - by : 0));
    std::vector<std::uint32_t> stay;  // old numbers
    std::ranges::copy_if(oldest_first, std::back_inserter(stay),
                         [&](std::uint32_t block) { return block >= by; });
    CHECK(cache.used() == stay.size());
    for (std::uint32_t block = by; block < 8; ++block) {
      CHECK(cache.contains(block - by) == slot_of.contains(block));
    }
    for (std::uint32_t i = 0; i < 4; ++i) {  // free slots first, then the oldest
      const auto admitted = cache.admit(20 + i);
      const std::size_t free = 4 - stay.size();
      REQUIRE(admitted.evicted.has_value() == (i >= free));
      if (i >= free) {
        CHECK(*admitted.evicted == stay[i - free] - by);
        CHECK(*admitted.slot == slot_of.at(stay[i - free]));
      }
    }
  }
}

TEST_CASE("nothing is allocated for reserved blocks") {
  block_cache cache(100, 50);
  cache.reserve(1000);
  std::mt19937 random(3);
  const std::int64_t before = allocations;
  for (int i = 0; i < 20000; ++i) {
    const auto block = static_cast<std::uint32_t>(random() % 1000);
    if (!cache.touch(block)) {
      (void)cache.admit(block);
    }
    cache.forget(static_cast<std::uint32_t>(random() % 1100));
  }
  CHECK(allocations == before);
}

}  // namespace instinfer::test_block_cache
