// Selections that are drawn, for caches without data.

#include <doctest/doctest.h>

#include <map>
#include <set>
#include <vector>

#include "instinfer/flash/engine.hpp"
#include "tests/paths/random_cache.hpp"
#include "tests/support/shared_attends.hpp"
#include "tests/support/timed_cache.hpp"

namespace instinfer::test_random_selection {

using namespace test;

namespace {

using format = kv_format<fp16, 64>;
constexpr int dim = 64;
constexpr model_shape shape{.layers = 2, .q_heads = 6, .kv_heads = 2};  // GQA 3
const store::capacity capacity{.bytes = 16 << 20, .context_tokens = 512};

// Sealed pages that a head's selection touches, from the layout's own words: groups of `group`
// tokens, dim pages of `dims` x `run` tokens.
std::uint64_t pages_of(const test::head_record& head, bool dual, std::uint32_t tokens,
                       const layout::tiling& tiles) {
  const auto touched = [](const std::vector<int>& chosen, std::uint32_t tile,
                          std::uint32_t tiles_sealed) {
    std::set<std::uint32_t> all;
    for (const int i : chosen) {
      if (const std::uint32_t at = static_cast<std::uint32_t>(i) / tile; at < tiles_sealed) {
        all.insert(at);
      }
    }
    return static_cast<std::uint64_t>(all.size());
  };
  using attention::operation;
  const auto chosen = [&](operation op) { return head.chosen[static_cast<int>(op)].at(0); };
  const std::uint32_t group = tiles.v_by_token.tokens;
  const auto& folded = dual ? chosen(operation::top_tokens) : chosen(operation::all_tokens);
  std::uint64_t pages = 2 * touched(folded, group, tokens / group);  // K and V
  if (dual) {
    const layout::tile& k = tiles.k_by_dim;
    pages += touched(chosen(operation::top_dims), k.dims, UINT32_MAX) *
             touched(chosen(operation::all_tokens), k.tokens, tokens / k.tokens);
  }
  return pages;
}

template <class D>
void check_drawn() {
  constexpr bool sparse = !std::is_same_v<typename D::attention_policy, attention::dense>;
  for (const std::uint32_t tokens : {0u, 1u, 31u, 32u, 33u, 511u, 512u, 700u, 2500u}) {
    CAPTURE(tokens);
    timed_cache<D> cache;
    const sequence seq = cache.filled(tokens);
    const flash::receipt done = cache.attend(seq);
    CHECK(cache.out == std::vector<float>(cache.out.size(), 0.0f));
    const test::recorder seen = watch(cache.engine.inner(), seq, 0, cache.q);
    std::uint64_t pages = 0;
    std::map<page_id, int> once;
    for (const test::head_record& head : seen.heads) {
      pages += pages_of(head, sparse, tokens, cache.engine.inner().cache().tiles());
      for (const auto& [page, n] : head.pages) {
        CHECK(++once[page] == 1);  // heads share no page
        CHECK(n == 1);             // no page is read twice by one operation, and K lies twice
      }
      if constexpr (sparse) {
        const typename D::attention_policy policy;
        CHECK(head.chosen[static_cast<int>(attention::operation::top_dims)].at(0).size() ==
              policy.keep_dims.of(dim, "dims"));
        const auto& kept = head.chosen[static_cast<int>(attention::operation::top_tokens)].at(0);
        REQUIRE(kept.size() == policy.keep_tokens.of(tokens, "tokens"));
        const std::uint32_t local =
            policy.local.of(static_cast<std::uint32_t>(kept.size()), "local");
        for (std::uint32_t i = 0; i < local; ++i) {  // the newest are kept
          CHECK(kept[kept.size() - 1 - i] == static_cast<int>(tokens - 1 - i));
        }
      }
    }
    CHECK(charged_pages(done) == pages);
    CHECK(done.traffic.pages_read == pages);
    check_same(done, cache.attend(seq));      // again
    check_same(done, one_attend<D>(tokens));  // elsewhere
    if constexpr (!sparse) {                  // nothing to draw: as with data
      flash::engine<D, format, cpu::path> with_data({1, 6, 2},
                                                    {.bytes = 256 << 20, .context_tokens = 2048});
      const test::random_cache<format> data(5, static_cast<int>(tokens), 6, 2);
      const sequence real = with_data.open();
      with_data.append(real, 0, data.k, data.v);
      std::vector<float> out(6 * dim);
      check_same(done, with_data.attend(real, 0, data.q, out));
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("flash engine: drawn selections", D, insta, insta_sparf, flexgen,
                   flexgen_sparq) {
  check_drawn<D>();
}

// 40 heads of 128 dims, as OPT-13B: 20 KiB a token and layer. 256 sequences of 1024 tokens in 40
// layers are 215 GB; the test fills one layer, 5.4 GB in 1.3 million pages, and attends with an
// eighth of the batch.
TEST_CASE("flash engine: a cache of 215 GB is timed without the bytes") {
  using engine_type = flash::engine<insta, kv_format<fp16, 128>>;
  engine_type engine({.layers = 40, .q_heads = 40, .kv_heads = 40},
                     {.bytes = 215'000'000'000, .context_tokens = 1024});
  constexpr std::uint64_t tokens = 1024;
  constexpr std::uint64_t token_bytes = 40 * 2 * 128 * 2;
  const std::vector<float> q(40 * 128, 1.0f);
  std::vector<float> out(40 * 128, -1.0f);
  std::vector<engine_type::request> batch;
  traffic written;
  for (int i = 0; i < 256; ++i) {
    const sequence seq = engine.open();
    written += engine.append_count(seq, i % 40, tokens).traffic;
    if (i % 40 == 7) {
      batch.push_back({seq, q, out});
    }
  }
  CHECK(written.written_bytes == 256 * tokens * token_bytes);
  CHECK(written.link_bytes == 256 * tokens * token_bytes);
  const auto& cache = engine.inner().cache();
  CHECK(cache.pages().capacity_pages() * 4096 > 214'000'000'000);
  CHECK(cache.pages().capacity_pages() - cache.pages().free_pages() == written.pages_written);
  const std::uint64_t resident = cache.at(batch[0].seq, 7).resident_bytes();
  CHECK(resident < tokens * token_bytes / 500);  // an L2P entry a page, no group buffer

  const flash::receipt done = engine.attend_batch(7, batch);
  CHECK(done.traffic.array_bytes == batch.size() * tokens * token_bytes);
  CHECK(done.traffic.pages_read == charged_pages(done));
  // Between the buses' rate and the sequential read rate of the preset.
  const double bytes = static_cast<double>(done.traffic.array_bytes);
  CHECK(flash_ns(done) > bytes / static_cast<double>(engine.drive().bus_bytes_per_s()) * 1e9);
  CHECK(flash_ns(done) < 1.2 * bytes / flash::sequential_read_bytes_per_s(engine.drive()) * 1e9);
  CHECK(out == std::vector<float>(out.size(), 0.0f));
  CHECK_THROWS_AS(
      engine.append_count(batch[0].seq, 0, std::uint64_t{215'000'000'000} / token_bytes),
      drive_full);
}

}  // namespace instinfer::test_random_selection
