// Forks: sequences that share the sealed pages of a prompt, and go on each for itself.

#include <doctest/doctest.h>

#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/layout/dual.hpp"
#include "instinfer/layout/fused.hpp"
#include "instinfer/store/pages/memory.hpp"
#include "instinfer/store/sequences/cache_file.hpp"
#include "tests/support/plain_cache.hpp"
#include "tests/support/saved_engine.hpp"

namespace instinfer::test_fork {

namespace {

using test::append;
using test::saved;

constexpr model_shape shape{.layers = 2, .q_heads = 2, .kv_heads = 2};
constexpr std::size_t row = 2 * 64;
const store::capacity room{.bytes = 32 << 20, .context_tokens = 256};

template <class Layout, class Format = kv_format<fp16, 64>, class Store = store::memory>
using cache_of = store::kv_cache<Format, Layout, std::tuple<>, Store>;
using rows_cache = cache_of<layout::token_indexed<>>;
using counts_cache = cache_of<layout::token_indexed<>, kv_format<fp16, 64>, store::ledger>;

template <class Cache>
void truncate(Cache& cache, sequence seq, int layer, std::size_t tokens) {
  std::vector<page_id> read;
  const auto l = static_cast<std::uint32_t>(layer);
  cache.truncate(seq, {l, l + 1, static_cast<std::uint32_t>(tokens)}, read, [](auto) {});
}
template <class Cache>
std::uint64_t taken(const Cache& cache) {
  return cache.pages().capacity_pages() - cache.pages().free_pages();
}

}  // namespace

TEST_CASE_TEMPLATE("fork: each goes on for itself, and the last owner frees a page", Cache,
                   rows_cache, cache_of<layout::dual<>>, cache_of<layout::fused_dual<>>,
                   cache_of<layout::dual<>, kv_format<int8_pages<fp16>, 64>>) {
  Cache cache(shape, room, 8);
  std::mt19937 random(1);
  const double error = Cache::format::plain ? 0 : 1.01 / 254 + 0x1p-11;
  const auto prompt = test::drawn_tokens<fp16>(random, 700, row);
  const sequence first = cache.open();
  append(cache, first, 0, prompt);
  append(cache, first, 1, prompt);
  const std::uint64_t pages = taken(cache);
  const std::uint64_t buffered = cache.buffered_bytes();

  struct conversation {
    sequence seq;
    test::plain_tokens<fp16> tokens[2];
    std::size_t reclaimed = 0;
  };
  std::vector<conversation> all{{first, {prompt, prompt}}};
  for (int i = 0; i < 3; ++i) {
    all.push_back({cache.fork(first), {prompt, prompt}});
  }
  CHECK(taken(cache) == pages);
  CHECK(cache.buffered_bytes() <= 4 * buffered);
  CHECK(saved(cache, all[3].seq) == saved(cache, first));

  const auto check_all = [&](int rounds) {
    for (const conversation& c : all) {
      for (int l = 0; l < 2; ++l) {
        test::check_stored(cache, c.seq, l, c.reclaimed, c.tokens[l], rounds * error, 11);
      }
    }
  };
  check_all(1);
  // They grow apart: through a new page, into shared pages, from the front.
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (int l = 0; l < 2; ++l) {
      const auto more = test::drawn_tokens<fp16>(random, 20 + 40 * i, row);
      append(cache, all[i].seq, l, more);
      all[i].tokens[l].append(more);
    }
  }
  check_all(1);
  truncate(cache, all[1].seq, 0, 333);
  all[1].tokens[0].truncate(333);
  check_all(2);
  const auto more = test::drawn_tokens<fp16>(random, 150, row);
  append(cache, all[1].seq, 0, more);
  all[1].tokens[0].append(more);
  check_all(2);
  all[2].reclaimed = 300;
  cache.reclaim(all[2].seq, {.tokens_before = 300});
  check_all(2);
  cache.reclaim(first);  // the prompt stays with the others
  all.erase(all.begin());
  check_all(2);
  // A fork of a fork, of which old tokens were given up.
  all.push_back(all[1]);
  all.back().seq = cache.fork(all[1].seq);
  cache.reclaim(all[1].seq);
  all.erase(all.begin() + 1);
  check_all(2);
  while (!all.empty()) {
    cache.reclaim(all.back().seq);
    all.pop_back();
    check_all(2);
  }
  CHECK(taken(cache) == 0);
  CHECK(cache.buffered_bytes() == 0);
}

TEST_CASE("fork: a page is freed when all owners gave it up, whoever was first") {
  counts_cache cache({.layers = 1, .q_heads = 1, .kv_heads = 1}, room, 8);
  std::vector<page_id> written;
  const sequence a = cache.open();
  cache.append_count(a, 0, 10 * 32, written);
  CHECK(cache.pages().owner_bytes() == 0);  // nothing is shared
  const sequence b = cache.fork(a);
  const sequence c = cache.fork(b);
  CHECK(taken(cache) == 20);
  for (const page_id page : written) {
    CHECK(cache.pages().owners(page) == 3);
  }
  cache.reclaim(b, {.tokens_before = 5 * 32});
  cache.reclaim(a);
  CHECK(taken(cache) == 20);
  cache.reclaim(c, {.tokens_before = 3 * 32});
  CHECK(taken(cache) == 14);
  cache.reclaim(c);
  CHECK(taken(cache) == 10);
  CHECK(cache.at(b, 0).tokens() - cache.at(b, 0).first() == 5 * 32);
  std::vector<page_id> again;
  cache.append_count(b, 0, 32, again);
  CHECK(again.size() == 2);
  CHECK(cache.pages().owners(again[0]) == 1);  // also where its number was shared before
  cache.reclaim(b);
  CHECK(taken(cache) == 0);
}

TEST_CASE("fork: a thousand conversations over one prompt take what differs") {
  counts_cache cache({.layers = 4, .q_heads = 2, .kv_heads = 2}, {.bytes = 64 << 20}, 8);
  std::vector<page_id> written;
  const sequence prompt = cache.open();
  for (int l = 0; l < 4; ++l) {
    cache.append_count(prompt, l, 2048, written);
  }
  const std::uint64_t pages = taken(cache);
  CHECK(pages == 4 * 2 * 2 * 2048 / 32);
  std::vector<sequence> all;
  for (int i = 0; i < 1000; ++i) {
    all.push_back(cache.fork(prompt));
  }
  CHECK(taken(cache) == pages);
  CHECK(cache.pages().owners(written[5]) == 1001);
  // A fork's DRAM is its page tables; the owners' table is one for all.
  std::uint64_t resident = 0;
  for (int l = 0; l < 4; ++l) {
    resident += cache.at(all[7], l).resident_bytes();
  }
  CHECK(resident == pages * sizeof(page_id));
  CHECK(cache.pages().owner_bytes() <= 2 * (pages + 8) * sizeof(std::uint32_t));
  for (int i = 0; i < 1000; ++i) {
    std::vector<page_id> own;
    // 32 more tokens each: a page of K and of V a head.
    CHECK(cache.append_count(all[static_cast<std::size_t>(i)], i % 4, 32, own).pages_written == 4);
  }
  CHECK(taken(cache) == pages + 4000);
  cache.reclaim(prompt);
  CHECK(taken(cache) == pages + 4000);
  for (const sequence seq : all) {
    cache.reclaim(seq);
  }
  CHECK(taken(cache) == 0);
}

TEST_CASE("fork: clusters of one are not those of the other, and each attends as if alone") {
  using namespace test_cache_file;
  engine_type engine(test_cache_file::shape, test_cache_file::room,
                     {attention::retro_infer{.window = 16,
                                             .retrieved = 0.1,
                                             .estimated = 0.3,
                                             .cluster_tokens = 8,
                                             .segment_tokens = 128,
                                             .update_tokens = 32}});
  engine_type alone(test_cache_file::shape, test_cache_file::room, engine.attention());
  decoder a(engine, engine.open(), 1);
  decoder b(alone, alone.open(), 1);
  for (decoder* d : {&a, &b}) {
    d->append(0, 301);
    d->append(1, 301);
  }
  decoder fork(engine, engine.fork(a.seq), 2);
  const std::string before = test_cache_file::saved(engine, fork.seq);
  CHECK(before == test_cache_file::saved(engine, a.seq));
  for (int l = 0; l < 2; ++l) {
    CHECK(engine.build(a.seq, l).traffic == alone.build(b.seq, l).traffic);
  }
  CHECK(test_cache_file::saved(engine, fork.seq) == before);
  fork.append(0, 40);
  engine.truncate(fork.seq, 20);
  for (int i = 0; i < 40; ++i) {
    CAPTURE(i);
    REQUIRE(a.step() == b.step());
    if (i == 20) {
      engine.reclaim(fork.seq);
    }
  }
  CHECK(test_cache_file::saved(engine, a.seq) == test_cache_file::saved(alone, b.seq));
}

TEST_CASE("fork: what it needs must be there, and nothing changes where it is not") {
  // Room for the open pages of one sequence: 12 tokens, so 16 of K and V of two heads.
  rows_cache cache({.layers = 1, .q_heads = 2, .kv_heads = 2},
                   {.bytes = 4 << 20,
                    .context_tokens = 256,
                    .address = address_codec({.batch = 3}),
                    .buffer_bytes = 2 * 2 * 16 * 64 * 2 + 100},
                   8);
  std::mt19937 random(2);
  const sequence seq = cache.open();
  append(cache, seq, 0, test::drawn_tokens<fp16>(random, 76, row));
  std::string why;
  try {
    (void)cache.fork(seq);
  } catch (const drive_full& e) {
    why = e.what();
  }
  INFO(why);
  CHECK(why.find("fork: copies of open pages need 8192 bytes of the group buffer") == 0);
  CHECK(cache.buffered_bytes() == 2 * 2 * 16 * 64 * 2);
  truncate(cache, seq, 0, 64);
  append(cache, seq, 0, test::drawn_tokens<fp16>(random, 32, row));  // no open token
  (void)cache.fork(seq);
  const sequence last = cache.fork(seq);
  CHECK_THROWS_AS(cache.fork(seq), address_overflow);
  cache.reclaim(last);
  CHECK_THROWS_AS(cache.fork(last), unknown_sequence);
  CHECK(cache.fork(seq).slot == last.slot);
}

}  // namespace instinfer::test_fork
