// The attention kernel with bulk copies and barriers on an emulated GPU against fp64: phases, zero
// rows, stages used again.
#include "instinfer/cuda/kernels/bulk_copies.hpp"
#include "tests/support/on_emulated_gpu.hpp"

namespace instinfer::test_bulk_copies {

namespace {

template <class E, std::uint32_t Dim>
void check(unsigned seed, const test::attend_case& c) {
  test::check_attend<test::on_emulated_gpu<cuda::bulk_copies>, E, Dim>(seed, c);
}

}  // namespace

TEST_CASE("tiles that end at, before and behind every stage; several pieces a CTA") {
  // A warp takes every fourth tile of 16 tokens: 1 to 11 tiles of 4 stages, whole and with a tail.
  for (std::uint32_t tokens = 48; tokens <= 720; tokens += 112) {
    check<fp16, 64>(tokens,
                    {.tokens = {tokens, tokens + 5}, .kv_heads = 2, .group = 3, .blocks = 1});
  }
  check<fp16, 64>(1, {.tokens = {0, 1, 15, 16, 17, 63, 64, 65, 900}, .group = 4, .blocks = 5});
}

TEST_CASE("head sizes, pages, layouts") {
  check<bf16, 128>(11, {.tokens = {300, 7}, .kv_heads = 2, .group = 7, .page_tokens = 3});
  check<fp16, 256>(12, {.tokens = {150}, .group = 16, .page_tokens = 64, .token_major = true});
  check<fp16, 64>(13, {.tokens = {130, 77}, .kv_heads = 2, .with_table = false});
}

TEST_CASE("masks, lists, blend, fixed splits") {
  check<fp16, 64>(21, {.tokens = {150, 20},
                       .first = {33, 20},
                       .group = 2,
                       .rule = {.soft_cap = 2.0f, .window = 40, .sinks = 4}});
  check<fp16, 64>(22, {.tokens = {300, 90}, .group = 3, .listed_share = 0.5, .blend = true});
  check<fp16, 64>(23, {.tokens = {300, 0, 1},
                       .kv_heads = 2,
                       .group = 3,
                       .partition = {.slice_tokens = 64, .fixed = true}});
}

TEST_CASE("random shapes") {
  for (unsigned seed = 100; seed < 120; ++seed) {
    check<fp16, 64>(seed, test::random_case(seed));
  }
}

}  // namespace instinfer::test_bulk_copies
