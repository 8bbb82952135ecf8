#include <algorithm>
#include <random>
#include <set>
#include <span>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/layout/dual.hpp"
#include "instinfer/store/pages/memory.hpp"
#include "instinfer/store/sequences/kv_cache.hpp"
#include "instinfer/summaries/concepts.hpp"
#include "instinfer/summaries/mean_value.hpp"
#include "tests/support/refusal.hpp"

namespace instinfer::test_kv_cache {

static_assert(store::PageStore<store::memory> && store::PageStore<store::ledger>);
static_assert(!store::PageStore<int>);

namespace {

using format = kv_format<fp16, 64>;
using mean_state = attention::mean_value::state<format>;
using cache = store::kv_cache<format, layout::dual<>, std::tuple<mean_state>, store::memory>;

// Keeps the slots that it was told before pages came.
struct told_ledger : store::ledger {
  using ledger::ledger;
  void begin_writes(std::uint32_t slot) { told.push_back(slot); }
  std::vector<std::uint32_t> told;
};
using timing_cache = store::kv_cache<format, layout::dual<>, std::tuple<mean_state>, told_ledger>;

std::vector<fp16> ramp(std::size_t n, float start) {
  std::vector<fp16> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = from_float<fp16>(start + static_cast<float>(i % 1000) * 0.01f);
  }
  return x;
}

// All that a caller can see of a cache.
struct snapshot {
  std::uint64_t free_pages;
  std::uint32_t tokens;
  double mean;
  friend bool operator==(const snapshot&, const snapshot&) = default;
};

snapshot look(const cache& c, sequence seq) {
  return {c.pages().free_pages(), c.at(seq, 0).tokens(), std::get<0>(c.at(seq, 0).summaries(0))[0]};
}

}  // namespace

TEST_CASE("what was appended lies where the mapping says, sealed or open") {
  cache c({.layers = 2, .q_heads = 4, .kv_heads = 2}, {.bytes = 8 << 20, .context_tokens = 1024},
          8);
  const sequence seq = c.open();
  std::mt19937 random(1);
  std::vector<fp16> k;
  std::vector<fp16> v;
  std::vector<page_id> written;
  while (k.size() < 2000u * 2 * 64) {  // appends of random length, some of more than two tiles
    const std::size_t n = random() % 6 == 0 ? 300 + random() % 400 : random() % 40;
    const std::vector<fp16> new_k = ramp(n * 2 * 64, static_cast<float>(random() % 90));
    const std::vector<fp16> new_v = ramp(n * 2 * 64, static_cast<float>(random() % 90));
    c.append(seq, 1, new_k, new_v, written);
    k.insert(k.end(), new_k.begin(), new_k.end());
    v.insert(v.end(), new_v.begin(), new_v.end());
  }
  const auto tokens = static_cast<std::uint32_t>(k.size() / 128);
  for (std::uint32_t h = 0; h < 2; ++h) {
    const layout::head_pages head = c.at(seq, 1).head(h);
    CHECK(head.tokens == tokens);
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      const layout::tile& tile = head.tiles.of(s);
      const auto& values = s == stream::v_by_token ? v : k;
      for (std::uint32_t t = 0; t < tokens; t += 7) {
        for (std::uint32_t i = 0; i < 64; ++i) {
          const bool buffered = t >= head.of(s).sealed_tokens;
          const std::uint32_t tt = t / tile.tokens;
          const page_read wanted{.kind = s,
                                 .token_tile = tt,
                                 .dim_tile = i / tile.dims,
                                 .page = buffered ? no_page : head.of(s).page(tt, i / tile.dims),
                                 .buffered = buffered,
                                 .tokens = {},
                                 .dims = {}};
          const auto page = cache::page_views{c, head}(wanted);
          CHECK(t % tile.tokens < page.fill);
          CHECK(page.data[page.shape.offset(t % tile.tokens, i % tile.dims)] ==
                values[(t * 2 + h) * 64 + i]);
        }
      }
    }
  }
}

TEST_CASE("consecutive pages of a head go round the channels") {
  cache c({.layers = 1, .q_heads = 8, .kv_heads = 8}, {.bytes = 32 << 20, .context_tokens = 4096},
          8);
  const sequence seq = c.open();
  std::vector<page_id> written;
  const std::vector<fp16> x = ramp(512u * 8 * 64, 0.0f);
  c.append(seq, 0, x, x, written);
  for (std::uint32_t h = 0; h < 8; ++h) {
    const layout::stream_pages& pages = c.at(seq, 0).head(h).of(stream::k_by_token);
    for (std::uint32_t tile = 0; tile + 1 < pages.sealed_tokens / 32; ++tile) {
      CHECK(channel_of(pages.page(tile + 1, 0), 8) == (channel_of(pages.page(tile, 0), 8) + 1) % 8);
    }
  }
}

TEST_CASE("K twice and V once: 1.5 times the footprint of dense KV") {
  cache c({.layers = 1, .q_heads = 1, .kv_heads = 1}, {.bytes = 8 << 20, .context_tokens = 4096},
          8);
  const sequence seq = c.open();
  std::vector<page_id> written;
  const std::vector<fp16> x = ramp(4096u * 64, 0.0f);
  const traffic moved = c.append(seq, 0, x, x, written);
  CHECK(moved.written_bytes == 4096u * 64 * 2 * 3);
  CHECK(moved.pages_written == written.size());
}

TEST_CASE("a full drive is a typed error that leaves the cache as it was") {
  cache c({.layers = 1, .q_heads = 2, .kv_heads = 2}, {.bytes = 64 * 4096, .context_tokens = 1024},
          8);
  const sequence seq = c.open();
  std::vector<page_id> written;
  const std::vector<fp16> x = ramp(256u * 2 * 64, 0.0f);
  c.append(seq, 0, x, x, written);
  const snapshot before = look(c, seq);
  CHECK(test::refusal_of<drive_full>([&] {
          c.append(seq, 0, ramp(256u * 2 * 64, 1.0f), ramp(256u * 2 * 64, 1.0f), written);
        }) == "append: 256 tokens need 48 pages, the drive has 16 free of 64");
  CHECK(look(c, seq) == before);
  c.append(seq, 0, ramp(2 * 64, 5.0f), ramp(2 * 64, 5.0f),
           written);  // the group buffer still takes tokens
  c.reclaim(seq);
  CHECK(c.pages().free_pages() == 64);
}

TEST_CASE("bad input: what, where, what was expected; state unchanged") {
  cache c(
      {.layers = 2, .q_heads = 4, .kv_heads = 2},
      {.context_tokens = 1024,
       .address = address_codec({.batch = 1, .layer = 2, .token = 10, .head = 2, .dim = 64}, 32)},
      8);
  const sequence seq = c.open();
  std::vector<page_id> written;
  const std::vector<fp16> x = ramp(40u * 2 * 64, 0.0f);
  c.append(seq, 0, x, x, written);
  const snapshot before = look(c, seq);

  CHECK(
      test::refusal_of<bad_argument>([&] {
        c.append(seq, 0, std::span(x).first(130), x, written);
      }).find("k must be [new_tokens, 2, 64] and v [new_tokens, 2, 64], got 130 and 5120 elements") !=
      std::string::npos);
  CHECK(test::refusal_of<bad_argument>([&] {
          c.append(seq, 0, std::span(x).first(128), std::span(x).first(256), written);
        }).find("got 128 and 256") != std::string::npos);
  std::vector<fp16> bad = x;
  bad[3 * 128 + 64 + 5] = fp16{0x7E00};
  CHECK(test::refusal_of<bad_argument>([&] { c.append(seq, 0, x, bad, written); }) ==
        "append: v must be finite, is not at [token 3, head 1, dim 5]");
  bad[3 * 128 + 64 + 5] = fp16{0xFC00};
  CHECK(test::refusal_of<bad_argument>([&] {
          c.append(seq, 0, bad, x, written);
        }).find("k must be finite") != std::string::npos);
  CHECK(test::refusal_of<bad_argument>([&] { c.append(seq, 2, x, x, written); }) ==
        "layer must be in [0, 2), got 2");
  CHECK(test::refusal_of<unknown_sequence>([&] {
          c.append({7, 0}, 0, x, x, written);
        }).find("sequence 7 (generation 0) is not open") == 0);
  CHECK(test::refusal_of<address_overflow>([&] {
          c.append(seq, 0, ramp(300u * 2 * 64, 0), ramp(300u * 2 * 64, 0), written);
        }) == "address: field Token holds 0 to 9, got 10");
  CHECK(test::refusal_of<address_overflow>([&] { c.open(); }) ==
        "address: field Batch holds 0 to 0, got 1");
  CHECK(test::refusal_of<bad_argument>([&] { c.reclaim(seq, {0, 3, 0}); }) ==
        "reclaim: layers [0, 3) must be one layer or more within [0, 2)");
  CHECK(test::refusal_of<bad_argument>([&] { c.reclaim(seq, {0, 1, 41}); }) ==
        "reclaim: layer 0 has 40 tokens, cannot give up 41");
  CHECK(look(c, seq) == before);

  CHECK_THROWS_AS(cache({.layers = 0}, {}, 8), bad_argument);
  CHECK_THROWS_AS(cache({.layers = 1, .q_heads = 5, .kv_heads = 2}, {}, 8), bad_argument);
  CHECK_THROWS_AS(cache({}, {.bytes = 4095 * 8}, 8), bad_argument);
  CHECK_THROWS_AS(cache({}, {}, 0), bad_argument);
}

TEST_CASE("reclaim of old tokens frees their whole pages and mends the summaries") {
  cache c({.layers = 1, .q_heads = 1, .kv_heads = 1}, {.bytes = 1 << 20, .context_tokens = 1024},
          8);
  const sequence seq = c.open();
  std::vector<page_id> written;
  std::vector<fp16> v(600u * 64);
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = from_float<fp16>(static_cast<float>(i / 64));
  }
  c.append(seq, 0, ramp(v.size(), 0.0f), v, written);
  const std::uint64_t free = c.pages().free_pages();
  c.reclaim(seq, {0, 1, 100});  // 3 whole pages of 32 tokens each of K and V; no tile of K by dim
  CHECK(c.pages().free_pages() == free + 6);
  CHECK(std::get<0>(c.at(seq, 0).summaries(0))[0] == doctest::Approx((100 + 599) / 2.0));
  c.reclaim(seq, {0, 1, 50});  // already gone
  CHECK(c.pages().free_pages() == free + 6);
  c.reclaim(seq, {0, 1, 600});
  CHECK(std::get<0>(c.at(seq, 0).summaries(0))[0] == 0.0);
  CHECK(c.at(seq, 0).first() == 600);
  c.reclaim(seq);
  CHECK(c.pages().free_pages() == c.pages().capacity_pages());
}

TEST_CASE("the ledger counts the same pages without data") {
  const store::capacity capacity{.bytes = 8 << 20, .context_tokens = 1024};
  cache with({.layers = 1, .q_heads = 2, .kv_heads = 2}, capacity, 8);
  timing_cache without({.layers = 1, .q_heads = 2, .kv_heads = 2}, capacity, 8);
  with.open();
  without.open();
  const sequence a = with.open();  // in slot 1
  const sequence b = without.open();
  std::vector<page_id> written;
  std::vector<page_id> counted;
  for (const std::size_t n : {1u, 31u, 700u, 5u}) {
    const std::vector<fp16> x = ramp(n * 128, 0.0f);
    CHECK(with.append(a, 0, x, x, written) == without.append_count(b, 0, n, counted));
  }
  CHECK(written == counted);
  CHECK(with.pages().free_pages() == without.pages().free_pages());
  CHECK(without.pages().told == std::vector<std::uint32_t>(4, 1));
  // The sealed pages of a head with tokens of a run, stream by stream.
  std::uint64_t pages = 0;
  for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
    const layout::tile& tile = without.tiles().of(s);
    std::set<std::uint32_t> tiles;
    for (std::uint32_t t = 40; t < 700; ++t) {
      if (t / tile.tokens < 737 / tile.tokens) {
        tiles.insert(t / tile.tokens);
      }
    }
    pages += tiles.size() * (64 / tile.dims);
  }
  CHECK(without.at(b, 0).pages_of({40, 700}) == pages);
}

TEST_CASE("rows are padded with zeros to the length that pages have") {
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  std::vector<float> rows;
  CHECK(std::ranges::equal(store::padded_rows(std::span(x), 3, 4, rows),
                           std::vector<float>{1, 2, 3, 0, 4, 5, 6, 0}));
  CHECK(store::padded_rows(std::span(x), 3, 3, rows).data() == x.data());
}

TEST_CASE("a drive of 256 MiB for sequences of 4096 tokens, unless others are given") {
  const store::capacity by_default;
  CHECK(by_default.bytes == 256u * 1024 * 1024);
  CHECK(by_default.context_tokens == 4096);
  CHECK(by_default.buffer_bytes == std::uint64_t{4} * 1024 * 1024 * 1024);
}

TEST_CASE("a drive without a channel is refused") {
  CHECK_THROWS_WITH_AS(store::ledger(0, 8, 4096),
                       "store: a drive needs at least one channel, got 0", bad_argument);
}

// The definition: of the preferred channel, or of the first after it with a free slot, the first
// free slot after the last one given, round the channel.
TEST_CASE("the ledger gives free slots in ascending order, and never one that is taken") {
  constexpr std::uint32_t channels = 3;
  constexpr std::uint32_t slots = 150;  // two words of 64 slots, and a part of one
  store::ledger ledger(channels, slots, 4096);
  std::vector<std::vector<bool>> taken(channels, std::vector<bool>(slots));
  std::vector<std::uint32_t> next(channels, 0);
  std::vector<page_id> held;
  std::mt19937 random(1);
  for (int step = 0; step < 20'000; ++step) {
    // Ever fuller in even thousands of steps, ever emptier in odd ones.
    const bool more = random() % 4 < (step / 1000 % 2 == 0 ? 3 : 1);
    if (more && held.size() < channels * slots) {
      const auto preferred = static_cast<std::uint32_t>(random());
      std::uint32_t c = preferred % channels;
      while (std::ranges::count(taken[c], false) == 0) {
        c = (c + 1) % channels;
      }
      std::uint32_t slot = next[c] % slots;
      while (taken[c][slot]) {
        slot = (slot + 1) % slots;
      }
      REQUIRE(ledger.allocate(preferred) == make_page_id(c, slot, channels));
      held.push_back(make_page_id(c, slot, channels));
      taken[c][slot] = true;
      next[c] = slot + 1;
    } else if (!more && !held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      ledger.release(held.back());
      taken[channel_of(held.back(), channels)][slot_of(held.back(), channels)] = false;
      held.pop_back();
    }
    REQUIRE(ledger.free_pages() == channels * slots - held.size());
  }
  REQUIRE(held.size() < channels * slots);
  store::ledger other(channels, slots, 4096);
  other.restore([&](page_id page) { return ledger.taken(page); });
  CHECK(other.free_pages() == ledger.free_pages());
  for (std::uint32_t c = 0; c < channels; ++c) {
    const auto last = std::ranges::find(taken[c].rbegin(), taken[c].rend(), true);
    CHECK(other.used_slots(c) == static_cast<std::uint32_t>(taken[c].rend() - last));
    for (std::uint32_t slot = 0; slot < slots; ++slot) {
      CHECK(other.taken(make_page_id(c, slot, channels)) == taken[c][slot]);
    }
  }
}

}  // namespace instinfer::test_kv_cache
