// The element by element kernels against double, on tiles of any strides.

#include <doctest/doctest.h>

#include "instinfer/cpu/fold/any_tile-inl.hpp"
#include "kernel_checks.hpp"

using namespace instinfer;
using namespace instinfer::test;

namespace {

// score_any and fold_any on tiles of any strides, for some of their tokens and dims.
template <Element E>
void check_any(const layout::tile& shape, unsigned seed) {
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::vector<E> page(shape.elements() + 1);
  for (E& x : page) {
    x = from_float<E>(std::uniform_real_distribution<float>{-2.0f, 2.0f}(random));
  }
  const layout::tile_view<E> view{page.data() + 1, shape, shape.tokens};
  const auto some = [&](std::uint32_t of, unsigned one_in) {
    index_set set;
    for (std::uint32_t i = 0; i < of; ++i) {
      if (random() % one_in == 0) {
        set.add(i);
      }
    }
    return set;
  };
  for (const unsigned one_in : {1u, 3u, 1000u}) {
    CAPTURE(one_in);
    const index_set wanted_tokens = some(shape.tokens, one_in);
    const index_set wanted_dims = some(shape.dims, one_in);
    const std::uint32_t group = 3;
    const std::size_t stride = shape.tokens + 2;
    guarded q(group * (shape.dims + 5), 0), products(group * stride, 1);
    fill(q.span(), random, -3.0f, 3.0f);
    fill(products.span(), random, -1.0f, 1.0f);
    const std::vector<float> before(products.span().begin(), products.span().end());
    cpu::score_any(view, wanted_tokens, wanted_dims, group, q.data(), shape.dims + 5,
                   products.data(), stride);
    CHECK(products.guards_hold());
    guarded o(group * (shape.dims + 9), 2), weights(group * stride, 3);
    fill(weights.span(), random, 0.0f, 1.0f);
    fill(o.span(), random, -1.0f, 1.0f);
    const std::vector<float> o_before(o.span().begin(), o.span().end());
    cpu::fold_any(view, wanted_tokens, group, weights.data(), stride, o.data(), shape.dims + 9);
    CHECK(o.guards_hold());
    const auto element = [&](std::uint32_t t, std::uint32_t i) {
      return as_double(to_float(view.data[shape.offset(t, i)]));
    };
    for (std::uint32_t h = 0; h < group; ++h) {
      for (std::uint32_t t = 0; t < stride; ++t) {
        double exact = as_double(before[h * stride + t]);
        double magnitude = std::abs(exact);
        if (wanted_tokens.view().contains(t)) {
          wanted_dims.view().for_each([&](std::uint32_t i) {
            const double product = as_double(q.span()[h * (shape.dims + 5) + i]) * element(t, i);
            exact += product;
            magnitude += std::abs(product);
          });
        }
        REQUIRE(std::abs(as_double(products.span()[h * stride + t]) - exact) <=
                sum_bound(wanted_dims.count() + 1, magnitude));
      }
      for (std::uint32_t i = 0; i < shape.dims + 9; ++i) {
        double exact = as_double(o_before[h * (shape.dims + 9) + i]);
        double magnitude = std::abs(exact);
        if (i < shape.dims) {
          wanted_tokens.view().for_each([&](std::uint32_t t) {
            const double product = as_double(weights.span()[h * stride + t]) * element(t, i);
            exact += product;
            magnitude += std::abs(product);
          });
        }
        REQUIRE(std::abs(as_double(o.span()[h * (shape.dims + 9) + i]) - exact) <=
                sum_bound(wanted_tokens.count() + 1, magnitude));
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("element by element kernels: any tile", E, fp32, fp16, bf16) {
  check_any<E>(layout::by_token(31, 16), 301);
  check_any<E>(layout::by_dim(40, 8), 302);
  check_any<E>({.tokens = 9, .dims = 7, .token_stride = 20, .dim_stride = 2}, 303);
  check_any<E>({.tokens = 9, .dims = 7, .token_stride = 3, .dim_stride = 31}, 304);
}
