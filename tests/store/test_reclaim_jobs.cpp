// Which sequence goes first, when, and what may never go.

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "instinfer/layout/token_indexed.hpp"
#include "instinfer/store/pages/ledger.hpp"
#include "instinfer/store/sequences/kv_cache.hpp"
#include "instinfer/store/sequences/reclaim_jobs.hpp"

namespace instinfer::test_reclaim_jobs {

using namespace store;

static_assert(VictimOrder<least_recently_used> && !VictimOrder<int>);

namespace {

using cache_type = kv_cache<kv_format<fp16, 128>, layout::token_indexed<>, std::tuple<>, ledger>;

// 64 pages; 16 tokens take 2 of them (K and V).
cache_type small_cache() {
  return cache_type({.layers = 1, .q_heads = 1, .kv_heads = 1}, {.bytes = 64 * 4096}, 8);
}

sequence grow(cache_type& cache, reclaim_jobs<>& jobs, double now, std::uint64_t tokens = 128) {
  const sequence seq = cache.open();
  std::vector<page_id> written;
  cache.append_count(seq, 0, tokens, written);
  jobs.used(seq, now);
  return seq;
}

}  // namespace

TEST_CASE("reclaim jobs: nothing goes by itself, unless rules are given") {
  CHECK(store::reclaim_rules{}.low_pages == 0);
  CHECK(store::reclaim_rules{}.idle_age == std::numeric_limits<double>::infinity());
}

TEST_CASE("reclaim jobs: least recently used first, and only outdated ones") {
  cache_type cache = small_cache();
  reclaim_jobs<> jobs({.low_pages = 20});
  std::vector<sequence> seqs;
  for (int i = 0; i < 4; ++i) {
    seqs.push_back(grow(cache, jobs, i));
  }
  CHECK(cache.pages().free_pages() == 0);
  CHECK(!jobs.victim());
  CHECK(jobs.reclaim_for_space(cache) == 0);  // all are live
  jobs.used(seqs[0], 10);                     // the oldest by opening is now the youngest by use
  for (const int i : {0, 1, 3}) {
    jobs.outdated(seqs[static_cast<std::size_t>(i)]);
  }
  CHECK(jobs.victim() == seqs[1]);
  CHECK(jobs.reclaim_for_space(cache) == 2);  // 16 pages are fewer than 20
  CHECK(cache.pages().free_pages() == 32);
  CHECK_THROWS_AS(cache.at(seqs[1], 0), unknown_sequence);
  CHECK_THROWS_AS(cache.at(seqs[3], 0), unknown_sequence);
  CHECK(jobs.victim() == seqs[0]);
  CHECK(jobs.reclaim_for_space(cache) == 0);      // above the threshold
  CHECK(jobs.reclaim_for_space(cache, 64) == 1);  // what is wanted now
  CHECK(cache.pages().free_pages() == 48);        // the live one stays, though more was wanted
  CHECK(jobs.size() == 1);
}

TEST_CASE("reclaim jobs: in idle time, those that nobody used for long enough") {
  cache_type cache = small_cache();
  reclaim_jobs<> jobs({.idle_age = 5});
  const sequence a = grow(cache, jobs, 0);
  const sequence b = grow(cache, jobs, 2);
  const sequence c = grow(cache, jobs, 3);
  for (const sequence seq : {a, b, c}) {
    jobs.outdated(seq);
  }
  CHECK(jobs.reclaim_when_idle(cache, 4.5) == 0);
  CHECK(jobs.reclaim_when_idle(cache, 7.5, 1) == 1);
  CHECK(jobs.victim() == b);
  CHECK(jobs.reclaim_when_idle(cache, 7.5) == 1);
  CHECK(jobs.victim() == c);
  CHECK(jobs.reclaim_when_idle(cache, 100) == 1);
  CHECK(cache.pages().free_pages() == 64);
  CHECK(reclaim_jobs<>().reclaim_when_idle(cache, 1e9) == 0);  // by default, never
}

TEST_CASE("reclaim jobs: an engine is as good as its cache") {
  struct engine_like {
    cache_type inner = small_cache();
    const cache_type& cache() const { return inner; }
    void reclaim(sequence seq) { inner.reclaim(seq); }
  } engine;
  reclaim_jobs<> jobs;
  const sequence seq = grow(engine.inner, jobs, 0);
  jobs.outdated(seq);
  CHECK(jobs.reclaim_for_space(engine, 48) == 0);
  CHECK(jobs.reclaim_for_space(engine, 49) == 1);
}

TEST_CASE("reclaim jobs: a live sequence is not reclaimed; bad input changes nothing") {
  cache_type cache = small_cache();
  reclaim_jobs<> jobs;
  const sequence live = grow(cache, jobs, 1);
  CHECK_THROWS_WITH_AS(
      jobs.reclaim(cache, live),
      "reclaim jobs: sequence 0 (generation 0) is live: its job must be outdated before it is "
      "reclaimed",
      bad_argument);
  CHECK(cache.at(live, 0).tokens() == 128);
  CHECK_THROWS_WITH_AS(jobs.outdated({7, 0}),
                       "reclaim jobs: sequence 7 (generation 0) was never used, or is gone",
                       unknown_sequence);
  CHECK_THROWS_AS(jobs.used(live, std::numeric_limits<double>::quiet_NaN()), bad_argument);
  jobs.outdated(live);
  CHECK_THROWS_WITH_AS(
      jobs.used(live, 2),
      "reclaim jobs: sequence 0 (generation 0) is outdated: it may be reclaimed at any time",
      bad_argument);
  jobs.reclaim(cache, live);
  CHECK_THROWS_AS(jobs.reclaim(cache, live), unknown_sequence);
  jobs.forget(live);  // already gone
  const sequence again = grow(cache, jobs, 3);
  CHECK(again.slot == live.slot);
  CHECK(!jobs.victim());  // a slot's new sequence is another job
  CHECK(jobs.size() == 1);
}

TEST_CASE("reclaim jobs: victims against a sorted list, random uses") {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random{seed};
    struct nothing {
      std::vector<sequence> gone;
      void reclaim(sequence seq) { gone.push_back(seq); }
    } cache;
    reclaim_jobs<> jobs({.idle_age = 0});
    std::vector<std::pair<double, std::uint32_t>> expected(30, {-1, 0});
    for (int n = 0; n < 200; ++n) {
      const auto slot = static_cast<std::uint32_t>(random() % 30);
      const double now = static_cast<double>(random() % 15);  // late reports and ties
      jobs.used({slot, 0}, now);
      expected[slot] = {std::max(expected[slot].first, now), slot};
    }
    std::erase_if(expected, [](const auto& e) { return e.first < 0; });
    for (const auto& e : expected) {
      jobs.outdated({e.second, 0});
    }
    std::sort(expected.begin(), expected.end());
    CHECK(jobs.reclaim_when_idle(cache, 15) == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CHECK(cache.gone[i].slot == expected[i].second);
    }
  }
}

}  // namespace instinfer::test_reclaim_jobs
