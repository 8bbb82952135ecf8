// The boxes of pages: bounds of every product inside, and what may be left out by them.

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "instinfer/summaries/chunks.hpp"
#include "instinfer/summaries/page_bounds.hpp"
#include "support/workload.hpp"
#include "tests/support/rows.hpp"
#include "tests/support/transcribed_quest.hpp"

namespace instinfer::test_page_bounds {

using namespace test;

namespace {

template <std::uint32_t Tokens>
auto boxes_of(const std::vector<float>& k) {
  typename attention::page_bounds<Tokens>::template state<method_format> boxes;
  const auto tokens = static_cast<std::uint32_t>(k.size() / 64);
  boxes.reserve(tokens);
  for (std::uint32_t t = 0; t < tokens; ++t) {
    boxes.append(rows_of(k, t, 1), rows_of(k, t, 1));
  }
  return boxes;
}

// The bound of one chunk for a query, in double.
template <class Boxes>
double bound_of(const Boxes& boxes, std::uint32_t chunk, std::span<const float> q) {
  std::vector<float> row(128);
  std::vector<float> prepared(128);
  boxes.row(chunk, row);
  Boxes::prepare(q, prepared);
  return matrix_of(row, 128).row(0).dot(matrix_of(prepared, 128).row(0));
}

}  // namespace

TEST_CASE(
    "Quest: a page's bound is at least every product inside, and is it for pages of one token") {
  const workload::sample s = workload::topics{.tokens = 500, .queries = 16, .key_noise = 0.05f}();
  const auto pages = boxes_of<16>(s.k);
  const auto tokens = boxes_of<1>(s.k);
  REQUIRE(pages.chunks() == 32);
  REQUIRE(tokens.chunks() == 500);
  CHECK(pages.weight(31) == 4);
  CHECK(pages.bytes() == 32 * 2 * 64 * 4);
  const matrix K = matrix_of(s.k);
  int left_out = 0;  // pages, by queries four times as sharp
  for (int i = 0; i < s.queries(); ++i) {
    const auto q = rows_of(s.q, static_cast<std::size_t>(i), 1);
    const row_vector products = matrix_of(q).row(0) * K.transpose();
    const row_vector expected = test::quest_bounds(matrix_of(q), K, 16);
    for (std::uint32_t p = 0; p < 32; ++p) {
      const double bound = bound_of(pages, p, q);
      CHECK(bound == doctest::Approx(expected[p]).epsilon(1e-12));
      for (std::uint32_t t = pages.members(p).first; t < pages.members(p).last; ++t) {
        CHECK(bound >= products[t] - 1e-9);
        CHECK(bound_of(tokens, t, q) == doctest::Approx(products[t]).epsilon(1e-9));
      }
    }
    // Certified pruning: leaving out pages whose bound is below m - ln(1/eps) - ln N loses less
    // than eps of the mass.
    const double eps = 1e-3;
    const row_vector weights = test::defined_weights(4.0 * matrix_of(q).row(0), K);
    const double most = 4 * products.maxCoeff() / 8;
    double skipped = 0;
    for (std::uint32_t p = 0; p < 32; ++p) {
      if (4 * bound_of(pages, p, q) / 8 < most - std::log(1 / eps) - std::log(500.0)) {
        ++left_out;
        for (std::uint32_t t = pages.members(p).first; t < pages.members(p).last; ++t) {
          skipped += weights[t];
        }
      }
    }
    CHECK(skipped < eps);
  }
  CHECK(left_out > 0);
}

static_assert(attention::ChunkState<attention::page_bounds<16>::state<method_format>> &&
              !attention::WeightedChunkState<attention::page_bounds<16>::state<method_format>>);

TEST_CASE("boxes from a file that later calls could not rely on are refused") {
  const std::vector<float> k(37 * 64, 1.0f);
  const auto boxes = boxes_of<16>(k);  // 3 of them
  CHECK(boxes.fits(0, 37, 0));
  CHECK(!boxes.fits(0, 38, 0));
  CHECK(!boxes.fits(1, 37, 0));
  const auto fits_with = [&](auto&& change) {
    auto changed = boxes;
    changed.each_part(change);
    return changed.fits(0, 37, 0);
  };
  CHECK(fits_with([](auto&...) {}));
  CHECK(!fits_with([](auto& rows, auto&...) { rows.pop_back(); }));
  CHECK(!fits_with([](auto& rows, auto&...) { rows.resize(rows.size() + 1); }));
  CHECK(!fits_with([](auto& rows, auto&, auto&, auto& freed) {
    rows.resize(2 * 128);
    freed = 1;  // the first box has live tokens
  }));
}

}  // namespace instinfer::test_page_bounds
