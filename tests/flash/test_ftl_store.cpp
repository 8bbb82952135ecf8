// The KV cache on an FTL: the same contents and attention as on a plain store, while pages move and
// programs fail.

#include <doctest/doctest.h>

#if defined(__linux__)
#include <unistd.h>
#endif

#include <fstream>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "instinfer/flash/ftl_store.hpp"
#include "instinfer/reference.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "instinfer/store/layer/l2p_footprint.hpp"
#include "instinfer/store/pages/memory.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test_ftl_store {

namespace {

using format = kv_format<fp16, 16>;

// 8 channels of 2 planes: 1536 pages of 4 KiB, of which a cache takes fewer.
constexpr flash::geometry small{
    .channels = 8, .chips = 1, .dies = 1, .planes = 2, .blocks = 24, .pages = 4};

using no_data = flash::ftl_store<small>;
using data = flash::ftl_store<small, flash::kv_blocks{.frontiers = 4}, flash::page_array>;
using failing = flash::ftl_store<small, flash::kv_blocks{.frontiers = 2}, flash::page_array,
                                 flash::random_faults{.program = 0.01, .erase = 0.01}>;
using crowded = flash::ftl_store<small, flash::greedy_pages{}, flash::page_array,
                                 flash::random_faults{.program = 0.001}>;
static_assert(store::PageStore<no_data> && store::PageStore<data> && store::PageStore<failing>);

template <class Store>
using engine_on = engine<insta_sparf, format, reference::path, Store>;

// Contents of all sealed pages of a sequence, in the order of its tables.
template <class Engine>
std::vector<std::byte> contents(const Engine& e, sequence seq, int layers) {
  std::vector<std::byte> all;
  for (int l = 0; l < layers; ++l) {
    const auto head = e.cache().at(seq, l).head(0);
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      for (const page_id page : head.of(s).table) {
        if (page != no_page) {
          const auto bytes = e.cache().pages().view(page);
          all.insert(all.end(), bytes.begin(), bytes.end());
        }
      }
    }
  }
  return all;
}

template <class Store>
flash::ftl_counters decode_with_reclaim(unsigned seed, std::uint64_t pages) {
  const store::capacity capacity{.bytes = pages * 4096, .context_tokens = 512};
  INFO("seed " << seed);
  constexpr int layers = 2;
  const model_shape shape{.layers = layers, .q_heads = 4, .kv_heads = 4};
  engine_on<store::memory> plain(shape, capacity);
  engine_on<Store> on_flash(shape, capacity);
  std::mt19937 random(seed);
  std::vector<std::pair<sequence, sequence>> open;  // the same one on both
  std::vector<float> q(4 * 16);
  std::vector<float> expected(q.size());
  std::vector<float> out(q.size());
  for (int step = 0; step < 250; ++step) {
    CAPTURE(step);
    if (open.size() < 4) {
      open.emplace_back(plain.open(), on_flash.open());
    }
    const std::size_t i = random() % open.size();
    const auto [a, b] = open[i];
    const auto k = normals(random, (1 + random() % 200) * 4 * 16);
    const auto v = normals(random, k.size());
    try {
      for (int l = 0; l < layers; ++l) {
        const receipt ra = plain.append(a, l, k, v);
        const receipt rb = on_flash.append(b, l, k, v);
        REQUIRE(ra.traffic == rb.traffic);
      }
    } catch (const drive_full&) {
      plain.reclaim(a);
      on_flash.reclaim(b);
      open.erase(open.begin() + static_cast<long>(i));
      continue;
    }
    if (step % 9 == 0) {
      const store::reclaim_range old{
          .tokens_before = static_cast<std::uint32_t>(random() % (plain.positions(a, 0) + 1))};
      plain.reclaim(a, old);
      on_flash.reclaim(b, old);
    }
    for (float& x : q) {
      x = to_float(normals(random, 1)[0]);
    }
    plain.attend(a, 0, q, expected);
    on_flash.attend(b, 0, q, out);
    REQUIRE(out == expected);
    if (step % 10 == 0) {
      REQUIRE(contents(on_flash, b, layers) == contents(plain, a, layers));
    }
  }
  for (const auto& [a, b] : open) {
    REQUIRE(contents(on_flash, b, layers) == contents(plain, a, layers));
    on_flash.reclaim(b);
  }
  const auto& ftl = on_flash.cache().pages().translation();
  CHECK(ftl.live_pages() == 0);
  CHECK(ftl.free_pages() == ftl.capacity_pages());
  return ftl.counters();
}

}  // namespace

TEST_CASE("KV cache on an FTL: the same pages and attention as on a plain store") {
  const flash::ftl_counters n = decode_with_reclaim<data>(1, 800);
  CHECK(n.host_pages > 4'000);  // five times the cache
  CHECK(n.erases > 700);
  CHECK(n.write_amplification() == 1.0);
}

TEST_CASE("KV cache on an FTL: nothing is lost where programs and erases fail, and pages move") {
  const flash::ftl_counters failed = decode_with_reclaim<failing>(2, 800);
  CHECK(failed.failed_programs > 10);
  CHECK(failed.failed_erases > 3);
  CHECK(failed.moved_for_failure > 10);
  const flash::ftl_counters moved = decode_with_reclaim<crowded>(3, 1200);
  CHECK(moved.failed_programs > 0);
  CHECK(moved.moved_for_space > 100);
}

TEST_CASE("KV cache on an FTL: no block holds pages of two sequences") {
  store::kv_cache<format, layout::dual<>, std::tuple<>, no_data> cache(
      {.layers = 2, .q_heads = 8, .kv_heads = 8}, {.bytes = 600ull * 4096, .context_tokens = 512},
      8);
  std::vector<page_id> written;
  std::map<flash::block_number, std::uint32_t> owner;
  const std::vector<sequence> open{cache.open(), cache.open(), cache.open()};
  for (int step = 0; step < 8; ++step) {
    for (const sequence seq : open) {
      written.clear();
      cache.append_count(seq, step % 2, 120, written);
      for (const page_id page : written) {
        const auto& ftl = cache.pages().translation();
        const auto block = ftl.blocks().block_at(cache.pages().locate(page));
        CHECK(owner.emplace(block, seq.slot).first->second == seq.slot);
      }
    }
  }
  CHECK(owner.size() > 20);
  cache.reclaim(open[1]);
  auto& ftl = cache.pages().translation();
  std::uint32_t dead = 0;
  for (std::uint32_t c = 0; c < 8; ++c) {
    dead += ftl.blocks().count(c, flash::block_state::dead);
  }
  CHECK(dead > 0);
  CHECK(ftl.idle() == dead);
}

TEST_CASE("FTL store: refuses another drive's channels and pages, and more than fits") {
  CHECK_THROWS_WITH_AS(
      no_data(4, 10, 4096),
      "ftl_store: the drive has 8 channels and pages of 4096 bytes, the cache 4 and 4096",
      bad_argument);
  CHECK_THROWS_AS(no_data(8, 10, 8192), bad_argument);
  CHECK_THROWS_AS(no_data(8, 0, 4096), bad_argument);
  CHECK_THROWS_WITH_AS(
      no_data(8, 181, 4096),
      "ftl: a channel of 192 pages holds 1 to 180 beside its spare blocks, got 181", bad_argument);
}

TEST_CASE("KV cache on an FTL: bytes of the two L2P tables") {
  // OPT-13B's layers and heads, 2048 tokens. A 4 KiB page holds 16 tokens of 128 dims, or 2 dims of
  // 1024 tokens.
  using opt = kv_format<fp16, 128>;
  using drive = flash::ftl_store<flash::instcsd.geometry>;
  store::kv_cache<opt, layout::dual<>, std::tuple<>, drive> cache(
      {.layers = 40, .q_heads = 40, .kv_heads = 40},
      {.bytes = 200'000'000'000u, .context_tokens = 2048}, 8);
  const sequence seq = cache.open();
  std::vector<page_id> written;
  for (int l = 0; l < 40; ++l) {
    cache.append_count(seq, l, 2048, written);
  }
  const store::l2p_footprint l2p = store::l2p_of(cache, seq);
  CHECK(l2p.token_indexed_bytes() == 4u * 40 * 40 * 2 * (2048 / 16));
  CHECK(l2p.dim_indexed_bytes() == 4u * 40 * 40 * (2048 / 1024) * (128 / 2));
  CHECK(l2p.entries() == written.size());
  CHECK(l2p.bytes(8) == 2 * l2p.bytes());
  CHECK(cache.pages().translation().live_pages() == l2p.entries());
  CHECK(cache.pages().translation().l2p_bytes() == 4u * cache.pages().capacity_pages());
}

// Sanitizers touch memory of their own; clang has no macro to tell them.
#if defined(__linux__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
TEST_CASE("KV cache on an FTL: timing alone takes under 1/200 of the cache's bytes") {
  const auto resident_bytes = [] {
    std::uint64_t total_pages = 0;
    std::uint64_t resident_pages = 0;
    std::ifstream("/proc/self/statm") >> total_pages >> resident_pages;
    return resident_pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  };
  const std::uint64_t before = resident_bytes();
  using drive = flash::ftl_store<flash::instcsd.geometry>;
  store::kv_cache<kv_format<fp16, 128>, layout::dual<>, std::tuple<>, drive> cache(
      {.layers = 40, .q_heads = 40, .kv_heads = 40},
      {.bytes = 20'000'000'000u, .context_tokens = 2048}, 8);
  std::vector<page_id> written;
  for (int i = 0; i < 7; ++i) {
    const sequence seq = cache.open();
    for (int l = 0; l < 40; ++l) {
      written.clear();
      cache.append_count(seq, l, 2048, written);
    }
  }
  const std::uint64_t stored_bytes = cache.pages().translation().live_pages() * 4096;
  CHECK(stored_bytes > 17'000'000'000u);
  CHECK(resident_bytes() - before < stored_bytes / 200);
}
#endif

}  // namespace instinfer::test_ftl_store
