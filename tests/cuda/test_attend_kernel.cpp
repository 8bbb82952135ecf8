// The attention kernel's own source on an emulated GPU against fp64.
#include "tests/support/normals.hpp"
#include "tests/support/on_emulated_gpu.hpp"

namespace instinfer::test_attend_kernel {

namespace {

using on_emulated_gpu = test::on_emulated_gpu<>;

template <class E, std::uint32_t Dim>
void check(unsigned seed, const test::attend_case& c) {
  test::check_attend<on_emulated_gpu, E, Dim>(seed, c);
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

TEST_CASE("V near the largest bf16: sums stay finite, also over parts, and with SparF's blend") {
  for (const float size : {0x1p124f, 0x1p-90f}) {  // values up to 5 times that
    CAPTURE(size);
    check<bf16, 64>(65, {.tokens = {900, 5, 0}, .group = 3, .blocks = 7, .v_size = size});
    check<bf16, 128>(66, {.tokens = {300},
                          .group = 2,
                          .blocks = 2,
                          .listed_share = 0.5,
                          .blend = true,
                          .v_size = size});
  }
}

TEST_CASE("fixed splits") {
  for (const std::uint32_t blocks : {1u, 3u, 16u}) {
    check<fp16, 64>(71, {.tokens = {300, 0, 64, 1},
                         .kv_heads = 2,
                         .group = 3,
                         .blocks = blocks,
                         .partition = {.slice_tokens = 64, .fixed = true}});
  }
}

TEST_CASE("with fixed splits the bits of a sequence do not depend on its batch or on the CTAs") {
  constexpr std::uint32_t dim = 64;
  constexpr std::uint32_t tokens[2] = {500, 300};
  std::mt19937 random(81);
  normal_distribution normal;
  const auto drawn = [&](std::size_t n) {
    std::vector<fp16> x(n);
    for (fp16& e : x) {
      e = from_float<fp16>(normal(random));
    }
    return x;
  };
  const auto k = drawn(2 * 512 * dim);
  const auto v = drawn(2 * 512 * dim);
  const auto q = drawn(2 * 3 * dim);
  const auto attended = [&](std::uint32_t first, std::uint32_t sequences, std::uint32_t blocks,
                            const cuda::partition_rule& rule) {
    std::vector<float> out(sequences * 3 * dim);
    const std::size_t at = std::size_t{first} * 512 * dim;
    const cuda::attend_arguments<fp16, float> a{
        .q = q.data() + first * 3 * dim,
        .out = out.data(),
        .k = cuda::contiguous(k.data() + at, sequences, 512, 1),
        .v = cuda::contiguous(v.data() + at, sequences, 512, 1),
        .tokens = tokens + first,
        .sizes = {sequences, 1, 3, 512},
        .scale = 0.125f};
    std::vector<cuda::float_quad> memory(cuda::attend_workspace::bytes(a.sizes, rule, blocks, dim) /
                                         16);
    const auto work = cuda::attend_workspace::in(memory.data(), a.sizes, rule, blocks);
    on_emulated_gpu::run<fp16, dim>(a, rule, work, blocks, 82);
    return std::vector<float>(out.end() - 3 * dim, out.end());  // of the last sequence
  };
  const cuda::partition_rule fixed{.slice_tokens = 128, .fixed = true};
  const auto alone = attended(1, 1, 2, fixed);
  CHECK(alone == attended(0, 2, 2, fixed));
  CHECK(alone == attended(0, 2, 9, fixed));
  CHECK(alone != attended(1, 1, 5, {}));  // which the balanced rule does not promise
}

TEST_CASE("random shapes") {
  for (unsigned seed = 100; seed < 120; ++seed) {
    check<fp16, 64>(seed, test::random_case(seed));
  }
}

}  // namespace instinfer::test_attend_kernel
