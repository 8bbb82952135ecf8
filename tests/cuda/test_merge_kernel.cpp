// Merging attention results by their log-sum-exp equals attention over all the tokens.
#include <doctest/doctest.h>

#include "instinfer/cuda/kernels/merge_kernel.hpp"
#include "instinfer/reference/exact.hpp"
#include "tests/support/definitions.hpp"
#include "tests/support/emulated_gpu.hpp"

namespace instinfer::test_merge_kernel {

using reference::matrix;
using reference::row_vector;

TEST_CASE("parts of any size, empty ones too, merge to the whole") {
  constexpr int dim = 48;
  constexpr int rows = 7;
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  const std::vector<int> sizes{5, 0, 1, 30};
  const int all = 36;
  std::vector<float> parts(sizes.size() * rows * dim);
  std::vector<float> lse(sizes.size() * rows);
  std::vector<row_vector> expected;
  std::vector<double> expected_lse;
  for (int r = 0; r < rows; ++r) {
    const bool none = r == 3;  // a row of which every part is empty
    const matrix K = matrix::NullaryExpr(all, dim, [&] { return normal(random); });
    const matrix V = matrix::NullaryExpr(all, dim, [&] { return normal(random); });
    const row_vector q = 3 * row_vector::NullaryExpr(dim, [&] { return normal(random); });
    const row_vector logits = q * K.transpose() / std::sqrt(double{dim});
    expected.push_back(none ? row_vector::Zero(dim) : test::defined_attention(q, K, V));
    expected_lse.push_back(none ? -INFINITY : std::log(logits.array().exp().sum()));
    int first = 0;
    for (std::size_t j = 0; j < sizes.size(); ++j) {
      const int n = none ? 0 : sizes[j];
      const std::size_t at = j * rows + static_cast<std::size_t>(r);
      lse[at] = n == 0 ? -INFINITY
                       : static_cast<float>(std::log(logits.segment(first, n).array().exp().sum()));
      const row_vector o =
          n == 0 ? row_vector::Constant(dim, NAN).eval()
                 : test::defined_attention(q, K.middleRows(first, n), V.middleRows(first, n));
      for (int i = 0; i < dim; ++i) {
        parts[at * dim + static_cast<std::size_t>(i)] = static_cast<float>(o[i]);
      }
      first += sizes[j];
    }
  }
  std::vector<float> out(rows * dim, NAN);
  std::vector<float> out_lse(rows, NAN);
  const cuda::merge_arguments<float, float> a{.parts = parts.data(),
                                              .lse_base_e = lse.data(),
                                              .out = out.data(),
                                              .out_lse_base_e = out_lse.data(),
                                              .count = 4,
                                              .rows = rows,
                                              .dim = dim};
  test::run_on_emulated_gpu(1, 64, 16, 1,
                            [&](test::emulated_lane& lane) { cuda::merge_rows(lane, a); });
  for (int r = 0; r < rows; ++r) {
    const auto row = static_cast<std::size_t>(r);
    for (int i = 0; i < dim; ++i) {
      // Four weights and products in fp32, on values below 4.
      CHECK(std::abs(static_cast<double>(out[row * dim + static_cast<std::size_t>(i)]) -
                     expected[row][i]) <= 32 * 0x1p-24 * 4);
    }
    if (r == 3) {
      CHECK(std::isinf(out_lse[row]));
    } else {
      CHECK(std::abs(static_cast<double>(out_lse[row]) - expected_lse[row]) <= 1e-5);
    }
  }
}

TEST_CASE("parts near the largest number merge to a finite mean") {
  constexpr float most = std::numeric_limits<float>::max();
  constexpr std::uint32_t count = 7;
  std::mt19937 random(2);
  std::uniform_real_distribution<float> log_sums(-3.0f, 3.0f);
  for (int round = 0; round < 100; ++round) {
    // Dim 0: all the largest number. Dim 1: 3e38, then -3e38.
    std::vector<float> parts, lse;
    double sum = 0.0, mean = 0.0;
    for (std::uint32_t j = 0; j < count; ++j) {
      const float x = j < 4 ? 3e38f : -3e38f;
      parts.insert(parts.end(), {most, x});
      lse.push_back(log_sums(random));
      sum += std::exp(static_cast<double>(lse.back()));
      mean += std::exp(static_cast<double>(lse.back())) * static_cast<double>(x);
    }
    float out[2] = {NAN, NAN};
    const cuda::merge_arguments<float, float> a{.parts = parts.data(),
                                                .lse_base_e = lse.data(),
                                                .out = out,
                                                .count = count,
                                                .rows = 1,
                                                .dim = 2};
    test::run_on_emulated_gpu(1, 32, 16, 3,
                              [&](test::emulated_lane& lane) { cuda::merge_rows(lane, a); });
    CHECK(out[0] <= most);
    CHECK(out[0] >= most * (1.0f - 32 * 0x1p-24f));
    CHECK(std::abs(static_cast<double>(out[1]) - mean / sum) <= 64 * 0x1p-24 * 3e38);
  }
}

}  // namespace instinfer::test_merge_kernel
