// The attention kernel's own source on an emulated GPU against fp64.
#include <doctest/doctest.h>

#include <cstring>
#include <numeric>

#include "emulated_gpu.hpp"
#include "instinfer/cuda/attend_checks.hpp"
#include "instinfer/cuda/attend_kernel.hpp"
#include "instinfer/reference/exact.hpp"

using namespace instinfer;

namespace {

struct attend_case {
  std::vector<std::uint32_t> tokens;
  std::vector<std::uint32_t> first = {};  // empty: 0
  std::uint32_t kv_heads = 1;
  std::uint32_t group = 1;
  std::uint32_t page_tokens = 16;
  std::uint32_t blocks = 3;
  logit_rule rule = {};
  bool token_major = false;
  bool with_table = true;
  cuda::partition_rule partition = {};
  double listed_share = 0.0;  // > 0: fold a random subset
  bool blend = false;
};

// 16-byte aligned storage.
template <class T>
std::vector<T> filled(std::size_t n, T value) {
  std::vector<T> v(n, value);
  REQUIRE(reinterpret_cast<std::uintptr_t>(v.data()) % 16 == 0);
  return v;
}

// P is rounded to E before P V, and the output to fp32: half a unit of E in each weight, |o - exact| <= u * sum p |v|, and
// for the test's values sum p |v| is below 8 times |o|'s norm share (v has mean 0.3 and deviation 1).
template <class E>
constexpr double tolerance = 8.0 * rounding_error<E>;

template <class E, std::uint32_t Dim>
void check(unsigned seed, const attend_case& c) {
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto sequences = static_cast<std::uint32_t>(c.tokens.size());
  const std::uint32_t longest = *std::max_element(c.tokens.begin(), c.tokens.end());
  const std::uint32_t page_tokens = c.with_table ? c.page_tokens : std::max(longest, 1u);
  const std::uint32_t table_pages =
      c.with_table ? std::max(1u, (longest + page_tokens - 1) / page_tokens) : 1;
  const std::uint32_t pages = c.with_table ? sequences * table_pages + 3 : sequences;
  const std::size_t page_elements = std::size_t{page_tokens} * c.kv_heads * Dim;

  // NaN wherever no live token lies.
  const E nan{0x7FFF};
  auto k = filled<E>(pages * page_elements, nan);
  auto v = filled<E>(pages * page_elements, nan);
  std::vector<std::uint32_t> table(sequences * table_pages);
  std::vector<std::uint32_t> all(pages);
  std::iota(all.begin(), all.end(), 0u);
  if (c.with_table) {
    std::shuffle(all.begin(), all.end(), random);
  }
  std::copy_n(all.begin(), table.size(), table.begin());
  const auto stream_of = [&](const std::vector<E>& values) {
    const std::uint32_t* t = c.with_table ? table.data() : nullptr;
    return c.token_major ? cuda::token_major_pages(values.data(), pages, page_tokens, c.kv_heads, t,
                                                   table_pages)
                         : cuda::head_major_pages(values.data(), pages, page_tokens, c.kv_heads, t,
                                                  table_pages);
  };
  const auto row = [&](std::vector<E>& values, std::uint32_t s, std::uint32_t h, std::uint32_t t) {
    const std::size_t page = table[s * table_pages + t / page_tokens];
    const std::size_t in = t % page_tokens;
    return values.data() + page * page_elements +
           (c.token_major ? (in * c.kv_heads + h) * Dim : (h * page_tokens + in) * Dim);
  };

  const std::uint32_t q_heads = c.kv_heads * c.group;
  auto q = filled<E>(std::size_t{sequences} * q_heads * Dim, E{});
  for (E& x : q) {
    x = from_float<E>(normal(random));
  }
  std::vector<std::uint32_t> counts(sequences);
  std::vector<std::uint32_t> list;
  const std::int64_t list_stride = std::int64_t{table_pages} * page_tokens;
  list.resize(std::size_t{sequences} * c.kv_heads * static_cast<std::size_t>(list_stride),
              0xFFFF'FFFFu);
  auto kept = filled<float>(std::size_t{sequences} * q_heads, 0.25f);
  auto mean = filled<float>(std::size_t{sequences} * c.kv_heads * Dim, 2.0f);

  struct expected_head {
    reference::row_vector out;
    double lse;
  };
  std::vector<expected_head> expected;
  for (std::uint32_t s = 0; s < sequences; ++s) {
    const std::uint32_t first = c.first.empty() ? 0 : c.first[s];
    index_set visible;
    c.rule.visible(first, c.tokens[s], visible);
    counts[s] = static_cast<std::uint32_t>(c.listed_share * visible.count());
    for (std::uint32_t h = 0; h < c.kv_heads; ++h) {
      for (std::uint32_t t = first; t < c.tokens[s]; ++t) {
        for (std::uint32_t i = 0; i < Dim; ++i) {
          row(k, s, h, t)[i] = from_float<E>(normal(random));
          row(v, s, h, t)[i] = from_float<E>(normal(random) + 0.3f);
        }
      }
      std::vector<std::uint32_t> tokens;
      visible.view().for_each([&](std::uint32_t t) { tokens.push_back(t); });
      if (c.listed_share > 0.0) {
        std::shuffle(tokens.begin(), tokens.end(), random);
        tokens.resize(counts[s]);
        std::sort(tokens.begin(), tokens.end());
        std::copy(tokens.begin(), tokens.end(),
                  list.begin() + (std::int64_t{s} * c.kv_heads + h) * list_stride);
      }
      const auto n = static_cast<Eigen::Index>(tokens.size());
      reference::matrix K(n, Dim), V(n, Dim);
      for (Eigen::Index t = 0; t < n; ++t) {
        for (std::uint32_t i = 0; i < Dim; ++i) {
          K(t, i) =
              static_cast<double>(to_float(row(k, s, h, tokens[static_cast<std::size_t>(t)])[i]));
          V(t, i) =
              static_cast<double>(to_float(row(v, s, h, tokens[static_cast<std::size_t>(t)])[i]));
        }
      }
      const logit_rule plain{.scale = c.rule.scale, .soft_cap = c.rule.soft_cap};
      for (std::uint32_t g = 0; g < c.group; ++g) {
        reference::row_vector x(Dim);
        for (std::uint32_t i = 0; i < Dim; ++i) {
          x[i] = static_cast<double>(
              to_float(q[((std::size_t{s} * c.kv_heads + h) * c.group + g) * Dim + i]));
        }
        double sum = 0.0;
        for (Eigen::Index t = 0; t < n; ++t) {
          sum += std::exp(plain.capped(x.dot(K.row(t)) * plain.scale_for<double>(Dim)));
        }
        reference::row_vector out = reference::exact_attention(x, K, V, plain);
        if (c.blend) {
          out = 0.25 * out + 0.75 * reference::row_vector::Constant(Dim, 2.0);
        }
        expected.push_back({out, std::log(sum)});
      }
    }
  }

  auto out = filled<float>(std::size_t{sequences} * q_heads * Dim, -1e30f);
  std::vector<float> lse(std::size_t{sequences} * q_heads, -1e30f);
  const cuda::attend_arguments<E, float> a{
      .q = q.data(),
      .out = out.data(),
      .lse_base_e = lse.data(),
      .k = stream_of(k),
      .v = stream_of(v),
      .tokens = c.tokens.data(),
      .first = c.first.empty() ? nullptr : c.first.data(),
      .sizes = {sequences, c.kv_heads, c.group, table_pages * page_tokens},
      .scale = c.rule.scale_for(Dim),
      .soft_cap = c.rule.soft_cap,
      .window = c.rule.window,
      .sinks = c.rule.sinks,
      .listed = c.listed_share > 0.0 ? list.data() : nullptr,
      .listed_counts = c.listed_share > 0.0 ? counts.data() : nullptr,
      .list_stride = list_stride,
      .kept = c.blend ? kept.data() : nullptr,
      .mean_v = c.blend ? mean.data() : nullptr};
  const std::uint64_t bytes = cuda::attend_workspace::bytes(a.sizes, c.partition, c.blocks, Dim);
  auto memory = filled<cuda::float_quad>(bytes / 16, cuda::float_quad{});
  REQUIRE(bytes % 16 == 0);
  const auto work = cuda::attend_workspace::in(memory.data(), a.sizes, c.partition, c.blocks);
  const std::uint64_t slots = cuda::attend_workspace::slots(a.sizes, c.partition, c.blocks);
  std::fill(work.partials, reinterpret_cast<float*>(memory.data() + memory.size()),
            std::numeric_limits<float>::quiet_NaN());
  cuda::check_arguments(a, c.partition);

  using shape = cuda::tile_shape<E, Dim>;
  for (unsigned launch = 0; launch < 2;
       ++launch) {  // a second time on the same workspace, as a graph replays it
    std::vector<float> before = out;
    test::run_on_emulated_gpu(
        c.blocks, cuda::cta_threads, shape::shared_bytes, seed + launch,
        [&](test::emulated_lane& lane) {
          cuda::attend_kernel<test::emulated_lane, E, float, Dim>(lane, a, c.partition, work).run();
        });
    CHECK(*work.status == 0);
    CHECK(std::all_of(work.tickets, work.tickets + slots, [](std::uint32_t t) { return t == 0; }));
    if (launch == 1) {  // the order in which blocks and warps ran was another one
      CHECK(std::memcmp(before.data(), out.data(), out.size() * sizeof(float)) == 0);
    }
  }
  for (std::size_t h = 0; h < expected.size(); ++h) {
    CAPTURE(h);
    double difference = 0.0;
    for (std::uint32_t i = 0; i < Dim; ++i) {
      const double d = static_cast<double>(out[h * Dim + i]) - expected[h].out[i];
      difference += d * d;
    }
    const double norm = expected[h].out.norm();
    CHECK(std::sqrt(difference) <= tolerance<E> * norm);
    if (std::isinf(expected[h].lse)) {
      CHECK(static_cast<double>(lse[h]) == expected[h].lse);
    } else {
      CHECK(std::abs(static_cast<double>(lse[h]) - expected[h].lse) <=
            1e-5 * (1.0 + std::abs(expected[h].lse)));
    }
  }
}

}  // namespace

TEST_CASE("groups 1 to 16, odd ones too") {
  for (const std::uint32_t group : {1u, 2u, 3u, 5u, 7u, 8u, 9u, 16u}) {
    check<fp16, 64>(group, {.tokens = {70}, .kv_heads = 2, .group = group});
  }
  check<bf16, 128>(21, {.tokens = {100}, .group = 7});
  check<fp16, 128>(22, {.tokens = {100}, .group = 8});
  check<bf16, 256>(23, {.tokens = {50}, .group = 5});
}

TEST_CASE("page sizes and layouts") {
  for (const std::uint32_t page : {1u, 3u, 16u, 64u, 256u}) {
    check<fp16, 64>(31 + page,
                    {.tokens = {130, 77}, .kv_heads = 2, .group = 2, .page_tokens = page});
    check<fp16, 64>(
        32 + page,
        {.tokens = {130, 77}, .kv_heads = 2, .group = 2, .page_tokens = page, .token_major = true});
  }
  check<fp16, 64>(33, {.tokens = {130, 77}, .kv_heads = 2, .group = 2, .with_table = false});
}

TEST_CASE("lengths around a tile, empty ones, skewed batches, any number of CTAs") {
  check<fp16, 64>(41, {.tokens = {0, 1, 15, 16, 17, 63, 64, 65}, .group = 4, .blocks = 5});
  check<fp16, 64>(42, {.tokens = {0}, .group = 4});
  check<fp16, 64>(43, {.tokens = {0, 0, 0}, .kv_heads = 3, .group = 1, .blocks = 4});
  for (const std::uint32_t blocks : {1u, 2u, 7u, 40u}) {
    check<fp16, 64>(44 + blocks,
                    {.tokens = {900, 3, 20, 0, 5}, .kv_heads = 2, .group = 3, .blocks = blocks});
  }
  std::vector<std::uint32_t> many(150, 3);  // more sequences than threads of a CTA
  many[140] = 200;
  check<fp16, 64>(45, {.tokens = many, .blocks = 6});
}

TEST_CASE("soft cap, scale, window, sinks, reclaimed tokens") {
  for (const logit_rule rule : {logit_rule{.soft_cap = 2.0f}, logit_rule{.scale = 0.5f},
                                logit_rule{.window = 40}, logit_rule{.window = 40, .sinks = 4},
                                logit_rule{.window = 1}, logit_rule{.window = 100, .sinks = 200}}) {
    check<fp16, 64>(51, {.tokens = {150, 20}, .group = 2, .rule = rule});
    check<fp16, 64>(52, {.tokens = {150, 20}, .first = {33, 20}, .group = 2, .rule = rule});
  }
}

TEST_CASE("listed tokens, and SparF's blend") {
  check<fp16, 64>(61, {.tokens = {200, 90}, .kv_heads = 2, .group = 4, .listed_share = 0.3});
  check<bf16, 128>(
      62, {.tokens = {300}, .group = 3, .page_tokens = 1, .listed_share = 0.5, .blend = true});
  check<fp16, 64>(
      63,
      {.tokens = {10, 40}, .group = 3, .listed_share = 0.01, .blend = true});  // nothing is folded
}

TEST_CASE("fixed splits") {
  for (const std::uint32_t blocks : {1u, 3u, 16u}) {
    check<fp16, 64>(71, {.tokens = {300, 0, 64, 1},
                         .kv_heads = 2,
                         .group = 3,
                         .blocks = blocks,
                         .partition = {.unit_tokens = 64, .fixed = true}});
  }
}
