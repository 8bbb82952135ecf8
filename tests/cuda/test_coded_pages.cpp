// Pages of int8 and fp8 codes in the attention kernel, on an emulated GPU against fp64 on the
// decoded values.
#include "tests/support/normals.hpp"
#include "tests/support/on_emulated_gpu.hpp"

namespace instinfer::test_coded_pages {

namespace {

template <class Code, std::uint32_t Dim>
void check(unsigned seed, const test::attend_case& c) {
  test::check_attend<test::on_emulated_gpu<>, fp16, Dim, Code>(seed, c);
}

// Calls f with a value of each code type.
template <class F>
void for_each_code(F&& f) {
  f(fp8{});
  f(std::int8_t{});
}

// The same code four times over, as a register holds it.
template <class Code>
void check_widened(std::uint8_t bits) {
  Code code;
  std::memcpy(&code, &bits, 1);
  test::emulated_block block(32, 0, 1);
  const test::emulated_lane lane(block, 0, 0, 1);
  for (std::uint32_t at = 0; at < 4; ++at) {
    std::uint32_t pairs[2];
    cuda::page_code<Code>::widen(lane, std::uint32_t{bits} << (8 * at), pairs[0], pairs[1]);
    const fp16 mine{static_cast<std::uint16_t>(pairs[at % 2] >> (16 * (at / 2)))};
    CHECK(to_float(mine) * cuda::page_code<Code>::factor == code_8bit<Code>::to_value(code));
  }
}

}  // namespace

TEST_CASE("every code is decoded to its value, wherever in a register it lies") {
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    CAPTURE(bits);
    check_widened<std::int8_t>(static_cast<std::uint8_t>(bits));
    if ((bits & 0x7F) != 0x7F) {
      check_widened<fp8>(static_cast<std::uint8_t>(bits));
    }
  }
}

TEST_CASE("head sizes and groups") {
  for_each_code([]<class Code>(Code) {
    for (const std::uint32_t group : {1u, 3u, 8u, 16u}) {
      check<Code, 64>(group, {.tokens = {70, 33}, .kv_heads = 2, .group = group});
    }
    check<Code, 128>(21, {.tokens = {101}, .kv_heads = 2, .group = 7});
    check<Code, 256>(22, {.tokens = {51}, .group = 5});
  });
}

TEST_CASE("page sizes and layouts, lengths around a tile") {
  for_each_code([]<class Code>(Code) {
    for (const std::uint32_t page : {1u, 3u, 64u}) {
      check<Code, 64>(31, {.tokens = {130, 77}, .kv_heads = 2, .group = 2, .page_tokens = page});
      check<Code, 64>(
          32, {.tokens = {130, 77}, .kv_heads = 2, .page_tokens = page, .token_major = true});
    }
    check<Code, 64>(33, {.tokens = {130, 77}, .kv_heads = 2, .group = 2, .with_table = false});
    check<Code, 64>(34, {.tokens = {0, 1, 15, 16, 17, 63, 64, 65}, .group = 4, .blocks = 5});
    check<Code, 64>(35, {.tokens = {900, 3, 0, 5}, .group = 3, .blocks = 7});
  });
}

TEST_CASE("V scales near both ends of fp32: small weights count as ever") {
  for_each_code([]<class Code>(Code) {
    for (const float size : {0x1p124f, 0x1p60f, 0x1p-40f}) {  // values up to 5 times that
      CAPTURE(size);
      check<Code, 64>(38, {.tokens = {900, 5, 0}, .group = 3, .blocks = 7, .v_size = size});
    }
  });
}

TEST_CASE("masks, lists, blend, fixed splits") {
  for_each_code([]<class Code>(Code) {
    check<Code, 64>(41, {.tokens = {150, 20},
                         .first = {33, 20},
                         .group = 2,
                         .rule = {.soft_cap = 2.0f, .window = 40, .sinks = 4}});
    check<Code, 128>(42, {.tokens = {300}, .group = 3, .listed_share = 0.5, .blend = true});
    check<Code, 64>(43, {.tokens = {300, 0, 1},
                         .kv_heads = 2,
                         .group = 3,
                         .partition = {.slice_tokens = 64, .fixed = true}});
  });
}

TEST_CASE("flash pages as they lie: one head a page, the scale in its last four bytes") {
  for_each_code([]<class Code>(Code) {
    constexpr std::uint32_t dim = 64;
    constexpr std::uint32_t page_bytes = 1024;
    constexpr std::uint32_t page_tokens = (page_bytes - 4) / dim;  // 15
    constexpr std::uint32_t kv_heads = 2;
    constexpr std::uint32_t tokens = 100;
    constexpr std::uint32_t tiles = (tokens + page_tokens - 1) / page_tokens;
    std::mt19937 random(51);
    normal_distribution normal;
    std::vector<cuda::float_quad> memory(tiles * kv_heads * page_bytes / 16);
    auto* pool = reinterpret_cast<std::byte*>(memory.data());
    std::vector<std::uint32_t> table(tiles * kv_heads);  // [token_tile, kv_heads]
    std::iota(table.begin(), table.end(), 0u);
    std::shuffle(table.begin(), table.end(), random);
    std::vector<reference::matrix> stored(kv_heads, reference::matrix(tokens, dim));
    for (std::uint32_t at = 0; at < table.size(); ++at) {
      const std::uint32_t first = at / kv_heads * page_tokens;
      std::vector<fp16> x(page_tokens * dim);
      for (fp16& y : x) {
        y = from_float<fp16>(normal(random) + 0.3f);
      }
      const std::span page(pool + std::size_t{table[at]} * page_bytes, page_bytes);
      scaled_pages<Code, fp16>::encode(x, page);
      const page_scale<scaled_pages<Code, fp16>> scale(page.data(), page_bytes);
      for (std::uint32_t i = 0; i < x.size() && first + i / dim < tokens; ++i) {
        stored[at % kv_heads](first + i / dim, i % dim) = static_cast<double>(
            scaled_pages<Code, fp16>::value(reinterpret_cast<const Code*>(page.data()), i) *
            scale());
      }
    }
    std::vector<fp16> q(kv_heads * dim);
    reference::matrix exact_q(kv_heads, dim);
    for (std::uint32_t i = 0; i < q.size(); ++i) {
      q[i] = from_float<fp16>(normal(random));
      exact_q(i / dim, i % dim) = static_cast<double>(to_float(q[i]));
    }
    const auto pages = cuda::with_scales_in_pages(
        cuda::flash_pages(reinterpret_cast<const Code*>(pool),
                          static_cast<std::uint32_t>(table.size()), page_bytes / dim, page_tokens,
                          kv_heads, table.data(), tiles),
        page_bytes);
    std::vector<float> out(q.size());
    const std::uint32_t length = tokens;
    const cuda::attend_arguments<fp16, float, Code> a{.q = q.data(),
                                                      .out = out.data(),
                                                      .k = pages,
                                                      .v = pages,
                                                      .tokens = &length,
                                                      .sizes = {1, kv_heads, 1, tokens},
                                                      .scale = 0.125f};
    const cuda::partition_rule rule;
    cuda::check_arguments(a, rule);
    std::vector<cuda::float_quad> work(cuda::attend_workspace::bytes(a.sizes, rule, 2, dim) / 16);
    test::on_emulated_gpu<>::run<fp16, dim, Code>(
        a, rule, cuda::attend_workspace::in(work.data(), a.sizes, rule, 2), 2, 52);
    for (std::uint32_t h = 0; h < kv_heads; ++h) {
      const reference::row_vector exact =
          test::defined_attention(exact_q.row(h), stored[h], stored[h]);
      double difference = 0.0;
      for (std::uint32_t i = 0; i < dim; ++i) {
        difference += std::pow(static_cast<double>(out[h * dim + i]) - exact[i], 2);
      }
      CHECK(std::sqrt(difference) <= test::tolerance<fp16> * exact.norm());
    }
  });
}

TEST_CASE("pages of tiny values lose nothing, pages of zeros do no harm") {
  for_each_code([]<class Code>(Code) {
    // V of 2^-14 and less: weights times these scales would be denormal in fp16, or nothing.
    constexpr std::uint32_t dim = 64;
    constexpr std::uint32_t tokens = 48;  // three pages: tiny, tiny, zeros
    std::mt19937 random(61);
    normal_distribution normal;
    std::vector<Code> k(tokens * dim);
    std::vector<Code> v(tokens * dim);
    std::vector<float> k_scales(3);
    std::vector<float> v_scales(3);
    reference::matrix K(tokens, dim);
    reference::matrix V(tokens, dim);
    for (std::uint32_t p = 0; p < 3; ++p) {
      const auto put = [&](std::vector<Code>& to, std::vector<float>& scales,
                           reference::matrix& all, float size) {
        std::vector<float> x(16 * dim);
        for (float& y : x) {
          y = (normal(random) + 0.3f) * size;
        }
        std::vector<Code> codes(x.size());
        scales[p] = test::encode_page<fp32>(x, codes);
        std::ranges::copy(codes, to.begin() + p * 16 * dim);
        for (std::uint32_t i = 0; i < x.size(); ++i) {
          all(p * 16 + i / dim, i % dim) = static_cast<double>(x[i]);
        }
      };
      put(k, k_scales, K, 1.0f);
      put(v, v_scales, V, p == 2 ? 0.0f : std::ldexp(1.0f, p == 0 ? -14 : -30));
    }
    std::vector<fp16> q(dim, from_float<fp16>(0.5f));
    std::vector<float> out(dim);
    const std::uint32_t table[] = {0, 1, 2};
    const auto stream = [&](const std::vector<Code>& x, const std::vector<float>& scales) {
      return cuda::with_scales(cuda::head_major_pages(x.data(), 3, 16, 1, table, 3), scales.data(),
                               1);
    };
    const auto attend = [&](std::uint32_t first, std::uint32_t last) {
      const cuda::attend_arguments<fp16, float, Code> a{.q = q.data(),
                                                        .out = out.data(),
                                                        .k = stream(k, k_scales),
                                                        .v = stream(v, v_scales),
                                                        .tokens = &last,
                                                        .first = &first,
                                                        .sizes = {1, 1, 1, tokens},
                                                        .scale = 0.125f};
      const cuda::partition_rule rule;
      std::vector<cuda::float_quad> work(cuda::attend_workspace::bytes(a.sizes, rule, 1, dim) / 16);
      test::on_emulated_gpu<>::run<fp16, dim, Code>(
          a, rule, cuda::attend_workspace::in(work.data(), a.sizes, rule, 1), 1, 62);
      const reference::matrix some_k = K.middleRows(first, last - first);
      const reference::matrix some_v = V.middleRows(first, last - first);
      const reference::row_vector exact =
          test::defined_attention(reference::row_vector::Constant(dim, 0.5), some_k, some_v);
      double difference = 0.0;
      for (std::uint32_t i = 0; i < dim; ++i) {
        difference += std::pow(static_cast<double>(out[i]) - exact[i], 2);
      }
      CHECK(std::sqrt(difference) <= test::tolerance<fp16> * exact.norm());
    };
    attend(0, 48);
    attend(0, 16);
    attend(16, 32);
    attend(16, 48);
    attend(32, 48);
  });
}

TEST_CASE("random shapes") {
  for (unsigned seed = 100; seed < 120; ++seed) {
    for_each_code([&]<class Code>(Code) { check<Code, 64>(seed, test::random_case(seed)); });
  }
}

}  // namespace instinfer::test_coded_pages
