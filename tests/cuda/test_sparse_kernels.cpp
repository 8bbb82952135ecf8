// The selecting kernel of SparQ and SparF on an emulated GPU: dims, logits, exact top-k, kept
// share.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/core/logit_rule.hpp"
#include "instinfer/cuda/kernels/score_kernel.hpp"
#include "instinfer/cuda/kernels/select_kernel.hpp"
#include "instinfer/cuda/launch/sparse_checks.hpp"
#include "instinfer/layout/dual.hpp"
#include "tests/support/definitions.hpp"
#include "tests/support/emulated_gpu.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test_sparse_kernels {

namespace {

struct sparse_case {
  std::vector<std::uint32_t> tokens;
  std::vector<std::uint32_t> first = {};
  std::uint32_t kv_heads = 1;
  std::uint32_t group = 1;
  std::uint32_t keep_dims = 8;
  cuda::kept_tokens keep = {.share = 0.125};
  logit_rule rule = {};
  bool by_dim = true;
  bool zero_query = false;  // all tokens tie
  bool rank_by_logits = false;
  std::uint32_t ctas = 1;  // of a head's cluster
};

template <class E, class Code>
struct stored_as {
  using type = scaled_pages<Code, E>;
};
template <class E>
struct stored_as<E, E> {
  using type = E;
};

// Code: what the pages of K hold, E or codes with their scale in the last four bytes.
template <class E, std::uint32_t Dim, class Code = E>
void check(unsigned seed, const sparse_case& c) {
  CAPTURE(seed);
  std::mt19937 random(seed);
  normal_distribution normal;
  using storage = typename stored_as<E, Code>::type;
  using format = kv_format<storage, static_cast<int>(Dim)>;
  const auto tiles = layout::dual<4096, 4>::tiles<format>(4096);
  const layout::tile& tile = c.by_dim ? tiles.k_by_dim : tiles.k_by_token;
  const auto sequences = static_cast<std::uint32_t>(c.tokens.size());
  const std::uint32_t longest = *std::max_element(c.tokens.begin(), c.tokens.end());
  const std::uint32_t token_tiles = longest / tile.tokens + 1;
  const std::uint32_t dim_tiles = Dim / tile.dims;
  constexpr std::uint32_t page_elements = 4096 / sizeof(Code);
  const std::uint32_t pages = sequences * token_tiles * c.kv_heads * dim_tiles;
  const bool coded = cuda::is_coded<Code>;
  std::vector<E> values(std::size_t{pages} * page_elements, coded ? E{} : E{0x7FFF});
  std::vector<std::uint32_t> table(pages);
  std::iota(table.begin(), table.end(), 0u);
  std::shuffle(table.begin(), table.end(), random);
  const auto element = [&](std::uint32_t s, std::uint32_t h, std::uint32_t t,
                           std::uint32_t i) -> E& {
    const std::uint32_t page =
        table[((s * token_tiles + t / tile.tokens) * c.kv_heads + h) * dim_tiles + i / tile.dims];
    return values[std::size_t{page} * page_elements + tile.offset(t % tile.tokens, i % tile.dims)];
  };
  const std::uint32_t q_heads = c.kv_heads * c.group;
  std::vector<E> q(std::size_t{sequences} * q_heads * Dim);
  for (E& x : q) {
    x = from_float<E>(c.zero_query ? 0.0f : normal(random));
  }
  for (std::uint32_t s = 0; s < sequences; ++s) {
    for (std::uint32_t h = 0; h < c.kv_heads; ++h) {
      for (std::uint32_t t = 0; t < c.tokens[s]; ++t) {
        for (std::uint32_t i = 0; i < Dim; ++i) {
          element(s, h, t, i) = from_float<E>(normal(random));
        }
      }
    }
  }

  std::vector<cuda::float_quad> memory(std::size_t{pages} * 4096 / 16);
  const std::span pool(reinterpret_cast<std::byte*>(memory.data()), std::size_t{pages} * 4096);
  std::vector<std::vector<float>> stored;  // of codes: the values that each page holds
  for (std::uint32_t p = 0; p < pages; ++p) {
    using codec = codec_of<storage>;
    const std::span page = pool.subspan(std::size_t{p} * 4096, 4096);
    const std::span held =
        std::span(values).subspan(std::size_t{p} * page_elements, elements_in<codec>(4096));
    codec::encode(held, page);
    if constexpr (cuda::is_coded<Code>) {
      const float scale = page_scale<codec>(page.data(), 4096)();
      stored.emplace_back();
      for (std::size_t i = 0; i < held.size(); ++i) {
        stored.back().push_back(codec::value(reinterpret_cast<const Code*>(page.data()), i) *
                                scale);
      }
    }
  }
  const auto stored_at = [&](std::uint32_t s, std::uint32_t h, std::uint32_t t, std::uint32_t i) {
    const E& at = element(s, h, t, i);
    const auto n = static_cast<std::size_t>(&at - values.data());
    return coded ? stored[n / page_elements][n % page_elements] : to_float(at);
  };

  const std::int64_t logit_stride = (longest + 7 + 255) / 256 * 256;
  const auto items = std::size_t{sequences} * c.kv_heads;
  std::vector<std::uint32_t> dims(items * c.keep_dims, 999);
  std::vector<float> logits(items * c.group * static_cast<std::size_t>(logit_stride), NAN);
  std::vector<cuda::float_pair> states(
      items * c.group * static_cast<std::size_t>(logit_stride / 256), {NAN, NAN});
  std::vector<std::uint32_t> keys(items * static_cast<std::size_t>(logit_stride));
  const std::int64_t list_stride = longest + 1;
  std::vector<std::uint32_t> listed(items * static_cast<std::size_t>(list_stride), 0xFFFF'FFFFu);
  std::vector<std::uint32_t> counts(sequences, 999);
  std::vector<float> kept(items * c.group, NAN);
  std::uint32_t status = 0;
  const cuda::sparse_arguments<E, Code> a{
      .q = q.data(),
      .k = {.pages = reinterpret_cast<const Code*>(pool.data()),
            .page_elements = page_elements,
            .page_count = pages,
            .tile_tokens = cuda::divisor(tile.tokens),
            .tile_dims = cuda::divisor(tile.dims),
            .token_stride = tile.token_stride,
            .dim_stride = tile.dim_stride,
            .dim_tiles = dim_tiles,
            .table = table.data(),
            .table_tiles = token_tiles,
            .table_tile_stride = c.kv_heads * dim_tiles,
            .table_sequence_stride = std::int64_t{token_tiles} * c.kv_heads * dim_tiles,
            .scales = reinterpret_cast<const float*>(pool.data() + 4096) - 1,
            .scale_page_stride = 1024},
      .tokens = c.tokens.data(),
      .first = c.first.empty() ? nullptr : c.first.data(),
      .sizes = {sequences, c.kv_heads, c.group, longest},
      .scale = c.rule.scale_for(Dim),
      .soft_cap = c.rule.soft_cap,
      .window = c.rule.window,
      .sinks = c.rule.sinks,
      .keep_dims = c.keep_dims,
      .keep = c.keep,
      .rank_by_logits = c.rank_by_logits,
      .dims = dims.data(),
      .logits = logits.data(),
      .logit_stride = logit_stride,
      .states = states.data(),
      .keys = keys.data(),
      .listed = listed.data(),
      .listed_counts = counts.data(),
      .list_stride = list_stride,
      .kept = kept.data(),
      .status = &status};

  cuda::check_arguments(a, Dim);

  using score = cuda::score_kernel<test::emulated_lane, E, Dim, Code>;
  using select = cuda::select_kernel<test::emulated_lane, E, Code>;
  const auto heads = static_cast<std::uint32_t>(items);
  const std::uint32_t stretch = 1024;
  const std::uint32_t stretches = (longest + stretch - 1) / stretch;
  test::run_on_emulated_gpu(
      heads * stretches, cuda::score_threads, score::shared_bytes, seed,
      [&](test::emulated_lane& lane) { score(lane, a, stretch, stretches).run(); });
  const auto run_select = [&](std::uint32_t shared_tokens) {
    test::run_on_emulated_gpu(
        heads * c.ctas, cuda::select_threads, select::shared_bytes(shared_tokens), seed,
        [&](test::emulated_lane& lane) { select(lane, a, shared_tokens).run(); }, c.ctas);
    CHECK(status == 0);
  };
  run_select(select::stretch_of(longest + 7, c.ctas));
  const auto listed_from_shared = listed;
  const auto kept_from_shared = kept;
  std::ranges::fill(listed, 0xFFFF'FFFFu);
  std::ranges::fill(kept, NAN);
  run_select(0);  // keys in global memory
  CHECK(listed == listed_from_shared);
  CHECK(kept == kept_from_shared);

  for (std::uint32_t s = 0; s < sequences; ++s) {
    const std::uint32_t first = c.first.empty() ? 0 : c.first[s];
    const std::uint32_t base = first / 8 * 8;
    const std::vector<int> visible =
        test::defined_visible(static_cast<int>(first), static_cast<int>(c.tokens[s]), c.rule);
    const std::vector<std::uint32_t> seen(visible.begin(), visible.end());
    const int kept_count = test::defined_kept(c.keep.share, static_cast<int>(seen.size()));
    const auto k = static_cast<std::uint32_t>(kept_count);
    const int local = test::defined_kept(c.keep.local_share, kept_count);
    REQUIRE(counts[s] == std::min(k, c.keep.most));
    for (std::uint32_t h = 0; h < c.kv_heads; ++h) {
      CAPTURE(s);
      CAPTURE(h);
      const std::size_t item = std::size_t{s} * c.kv_heads + h;
      const auto q_of = [&](std::uint32_t g, std::uint32_t i) {
        return to_float(q[(item * c.group + g) * Dim + i]);
      };
      // Dims: the largest of the same fp32 sums, ties to the lower.
      std::vector<float> magnitude(Dim, 0.0f);
      for (std::uint32_t i = 0; i < Dim; ++i) {
        for (std::uint32_t g = 0; g < c.group; ++g) {
          magnitude[i] += std::abs(q_of(g, i));
        }
      }
      std::vector<std::uint32_t> expected_dims(Dim);
      std::iota(expected_dims.begin(), expected_dims.end(), 0u);
      std::ranges::stable_sort(expected_dims, std::ranges::greater{},
                               [&](std::uint32_t i) { return magnitude[i]; });
      expected_dims.resize(c.keep_dims);
      std::ranges::sort(expected_dims);
      CHECK(std::equal(expected_dims.begin(), expected_dims.end(),
                       dims.begin() + static_cast<std::ptrdiff_t>(item * c.keep_dims)));
      // Logits against fp64, then ranks in fp64 of the logits that the kernel ranked.
      const auto logit_of = [&](std::uint32_t g, std::uint32_t t) {
        return static_cast<double>(
            logits[(item * c.group + g) * static_cast<std::size_t>(logit_stride) + t - base]);
      };
      std::vector<double> rank(seen.size(), 0.0);
      std::vector<std::vector<double>> exact(c.group);
      for (std::uint32_t g = 0; g < c.group; ++g) {
        double all = 0.0;
        double part = 0.0;
        for (std::uint32_t i = 0; i < Dim; ++i) {
          all += std::abs(static_cast<double>(q_of(g, i)));
        }
        for (const std::uint32_t i : expected_dims) {
          part += std::abs(static_cast<double>(q_of(g, i)));
        }
        const double coverage = all > 0.0 && part > 0.0 ? part / all : 1.0;
        double exact_sum = 0.0;
        double sum = 0.0;
        for (const std::uint32_t t : seen) {
          double product = 0.0;
          for (const std::uint32_t i : expected_dims) {
            product += static_cast<double>(q_of(g, i)) * static_cast<double>(stored_at(s, h, t, i));
          }
          const double logit = test::defined_logit(product / std::sqrt(coverage), Dim, c.rule);
          REQUIRE(std::abs(logit_of(g, t) / 1.4426950408889634 - logit) <=
                  2e-5 * (1.0 + std::abs(logit)));
          exact[g].push_back(std::exp(logit));
          exact_sum += exact[g].back();
          sum += std::exp2(logit_of(g, t));
        }
        for (std::size_t p = 0; p < seen.size(); ++p) {
          exact[g][p] /= exact_sum;
          const double logit = logit_of(g, seen[p]);
          rank[p] += c.rank_by_logits ? logit : std::exp2(logit) / sum;
        }
      }
      std::fill(rank.end() - local, rank.end(), INFINITY);
      // The list: ascending, and none left out ranks higher than one kept, but for fp32 rounding of
      // the ranks.
      const std::uint32_t* list = listed.data() + item * static_cast<std::size_t>(list_stride);
      std::vector<std::size_t> chosen;
      double least = INFINITY;
      double most = -INFINITY;
      for (std::size_t p = 0; p < seen.size(); ++p) {
        if (chosen.size() < k && list[chosen.size()] == seen[p]) {
          chosen.push_back(p);
          least = std::min(least, rank[p]);
        } else {
          most = std::max(most, rank[p]);
        }
      }
      REQUIRE(chosen.size() == k);
      if (c.zero_query) {
        CHECK((k == 0 || chosen.back() == k - 1));  // ties go to the lower token
      } else if (k > 0 && k < seen.size()) {
        CHECK(least >= most - 1e-5 * std::abs(most));
      }
      for (std::uint32_t g = 0; g < c.group; ++g) {
        double alpha = 0.0;
        for (const std::size_t p : chosen) {
          alpha += exact[g][p];
        }
        CHECK(std::abs(static_cast<double>(kept[item * c.group + g]) - alpha) <= 1e-4);
      }
    }
  }
}

}  // namespace

TEST_CASE("SparF's selection: groups, lengths, layouts, clusters") {
  for (const std::uint32_t group : {1u, 2u, 4u}) {
    check<fp16, 64>(group, {.tokens = {700, 1, 0, 513}, .kv_heads = 2, .group = group});
  }
  check<fp16, 64>(11, {.tokens = {2000}, .ctas = 8});
  check<bf16, 128>(12, {.tokens = {600, 90}, .group = 7, .keep_dims = 16, .ctas = 2});
  check<fp16, 64>(13, {.tokens = {1300}, .group = 16, .keep_dims = 5, .ctas = 4});
  check<fp16, 64>(14, {.tokens = {300}, .group = 3, .by_dim = false});
  check<fp16, 256>(15, {.tokens = {300}, .group = 9, .keep_dims = 40});
}

TEST_CASE("local tokens, window, sinks, soft cap, reclaimed tokens, all and none kept") {
  check<fp16, 64>(21, {.tokens = {700}, .group = 2, .keep = {.share = 0.1, .local_share = 0.25}});
  for (const logit_rule rule : {logit_rule{.window = 400}, logit_rule{.window = 300, .sinks = 5},
                                logit_rule{.soft_cap = 3.0f}}) {
    check<fp16, 64>(22, {.tokens = {900, 350},
                         .first = {13, 350},
                         .group = 2,
                         .rule = rule,
                         .ctas = rule.window == 300 ? 2u : 1u});
  }
  check<fp16, 64>(23, {.tokens = {300}, .group = 2, .keep = {.share = 1.0}, .ctas = 2});
  check<fp16, 64>(24, {.tokens = {300}, .group = 2, .keep = {.share = 0.0}, .ctas = 2});
  check<fp16, 128>(24, {.tokens = {700, 40}, .group = 4, .rank_by_logits = true});
  check<fp16, 64>(25, {.tokens = {300}, .group = 2, .keep_dims = 64});
}

TEST_CASE("ties go to the lower token") {
  check<fp16, 64>(31, {.tokens = {600}, .group = 2, .zero_query = true});
  check<fp16, 64>(
      32, {.tokens = {1700}, .group = 2, .keep = {.share = 0.4}, .zero_query = true, .ctas = 4});
}

TEST_CASE("pages of codes, as the dual layout stores them") {
  check<fp16, 64, fp8>(41, {.tokens = {1500, 1, 0, 513}, .kv_heads = 2, .group = 3, .ctas = 2});
  check<fp16, 64, std::int8_t>(42, {.tokens = {1100}, .first = {13}, .keep_dims = 13});
  check<fp16, 64, std::int8_t>(43, {.tokens = {300}, .group = 16, .rank_by_logits = true});
}

}  // namespace instinfer::test_sparse_kernels
