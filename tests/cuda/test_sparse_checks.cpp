// What a selecting launch refuses, by the argument's name; and its budget.

#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "instinfer/codec/element.hpp"
#include "instinfer/cuda/kernels/score_kernel.hpp"
#include "instinfer/cuda/kernels/select_kernel.hpp"
#include "instinfer/cuda/launch/sparse_checks.hpp"
#include "tests/support/definitions.hpp"

namespace instinfer::test_sparse_checks {

TEST_CASE("arguments are named") {
  alignas(16) std::uint32_t words[4] = {};
  const auto refused = [&](const std::string& name, auto&& spoil) {
    CAPTURE(name);
    cuda::sparse_arguments<fp16> a{.q = reinterpret_cast<const fp16*>(words),
                                   .k = {.pages = reinterpret_cast<const fp16*>(words),
                                         .page_elements = 64,
                                         .page_count = 1,
                                         .tile_dims = cuda::divisor(4),
                                         .dim_stride = 8,
                                         .dim_tiles = 16,
                                         .table = words,
                                         .table_tiles = 1},
                                   .tokens = words,
                                   .sizes = {1, 1, 1, 100},
                                   .scale = 0.125f,
                                   .keep_dims = 8,
                                   .dims = words,
                                   .logits = reinterpret_cast<float*>(words),
                                   .logit_stride = 256,
                                   .states = reinterpret_cast<cuda::float_pair*>(words),
                                   .keys = words,
                                   .listed = words,
                                   .listed_counts = words,
                                   .list_stride = 10,
                                   .kept = reinterpret_cast<float*>(words),
                                   .status = words};
    cuda::check_arguments(a, 64);
    spoil(a);
    CHECK_THROWS_WITH_AS(cuda::check_arguments(a, 64), doctest::Contains(name.c_str()),
                         bad_argument);
  };
  using arguments = cuda::sparse_arguments<fp16>&;
  refused("group 1 to 16", [](arguments a) { a.sizes.group = 17; });
  refused("q must be aligned", [](arguments a) { ++a.q; });
  refused("k.pages must be aligned", [](arguments a) { ++a.k.pages; });
  refused("k.table must not be null", [](arguments a) { a.k.table = nullptr; });
  refused("k.page_count", [](arguments a) { a.k.page_count = 0; });
  refused("tokens must not", [](arguments a) { a.tokens = nullptr; });
  refused("logits must", [](arguments a) { a.logits = nullptr; });
  refused("keep_dims", [](arguments a) { a.keep_dims = 65; });
  refused("multiples of 8", [](arguments a) { a.k.tile_tokens = cuda::divisor(12); });
  refused("multiples of 8", [](arguments a) { a.k.dim_stride = 12; });
  refused("head size 64", [](arguments a) { a.k.dim_tiles = 15; });
  refused("logit_stride", [](arguments a) { a.sizes.most_positions = 250; });
  refused("list_stride", [](arguments a) { a.list_stride = 0; });
  refused("scale", [](arguments a) { a.scale = -1.0f; });
  refused("keep.share", [](arguments a) { a.keep.share = 1.5; });
}

TEST_CASE("the device's budget is a share, rounded up") {
  for (const double share : {0.0, 1.0 / 3, 0.125, 1.0 / 16, 0.5, 0.999, 1.0}) {
    for (std::uint32_t n = 0; n < 2000; ++n) {
      REQUIRE(cuda::kept_tokens::rounded_up(share, n) ==
              static_cast<std::uint32_t>(test::defined_kept(share, static_cast<int>(n))));
    }
  }
}

}  // namespace instinfer::test_sparse_checks
