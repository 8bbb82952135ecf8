// Scores, their reduction over a group, query groups, and rotation, by their definitions.

#include <doctest/doctest.h>

#include <complex>
#include <vector>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/attention/rope.hpp"
#include "instinfer/attention/scores.hpp"

namespace instinfer::test_scores {

using namespace attention;

namespace {

std::vector<std::uint32_t> list_of(const index_set& set) {
  std::vector<std::uint32_t> list;
  set.view().for_each([&](std::uint32_t i) { list.push_back(i); });
  return list;
}

}  // namespace

TEST_CASE("scores of a group: heads by candidates; their sum or their maximum is the rank") {
  const index_set candidates = [] {
    index_set set;
    set.add(3);
    set.add(7, 9);
    return set;
  }();
  std::vector<double> values{1, -2, 3, 10, 20, -30};
  const score_array<double> scores{candidates, values};
  REQUIRE(scores.heads() == 2);
  CHECK(scores.head(1)[0] == 10);
  std::vector<double> rank(3);
  reduce<double>(scores, group_reduction::sum, rank);
  CHECK(rank == std::vector<double>{11, 18, -27});
  reduce<double>(scores, group_reduction::max, rank);
  CHECK(rank == std::vector<double>{10, 20, 3});
  for (const auto& [threshold, expected] :
       std::vector<std::pair<double, std::vector<std::uint32_t>>>{
           {2.9, {3, 7, 8}}, {3, {3, 7}}, {10, {7}}, {20, {}}}) {
    index_set chosen;
    above(scores, std::span<const double>(rank), threshold, chosen);
    CHECK(list_of(chosen) == expected);
  }
  const score_array<double> none{index_view{}, {}};
  CHECK(none.heads() == 0);
  std::vector<double> zeros(2, 5.0);
  reduce<double>(none, group_reduction::sum, zeros);
  CHECK(zeros == std::vector<double>{0, 0});
  CHECK(one_each{}(5) == 1);
}

TEST_CASE("a query group: its heads, and its index queries, own or of the group") {
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const query_group q{.values = values, .group = 3, .logits = {}};
  CHECK(q.head(2)[0] == 5);
  CHECK(q.head(2).size() == 2);
  CHECK(q.index_heads() == 3);
  CHECK(q.index_of_dims(2).queries.data() == values.data());
  const std::vector<float> queries(8), weights(2);
  const query_group own{.values = values, .group = 3, .logits = {}, .index = {queries, weights}};
  CHECK(own.index_heads() == 2);
  CHECK(own.index_of_dims(4).queries.data() == queries.data());
  CHECK(own.index_of_dims(4).weights.size() == 2);
  CHECK_THROWS_WITH_AS(own.index_of_dims(3), "attend: index queries must be [2, 3], got 8 values",
                       bad_argument);
  // Rows of one value and a zero of padding are no index queries of two dims.
  const query_group padded{.values = values, .group = 3, .logits = {}, .true_dims = 1};
  CHECK_THROWS_WITH_AS(padded.index_of_dims(2),
                       "attend: index queries must be [3, 2], got 3 values", bad_argument);
}

TEST_CASE("rotation: pair i turns by position times base to the power of -2i over dims") {
  CHECK(!rope{}.present());
  CHECK(!rope{}.interleaved);
  CHECK(rope{10000}.present());
  for (const bool interleaved : {false, true}) {
    for (const std::uint32_t dims : {0u, 4u}) {
      for (const std::int64_t position : {-9, 0, 1, 1000}) {
        std::vector<float> x{1, 2, -3, 0.5f, 4, -1, 2, 7};
        const std::vector<float> before = x;
        rope{100, dims, interleaved}.rotate(x, position);
        const std::size_t n = dims == 0 ? 8 : dims;
        for (std::size_t i = 0; i < n / 2; ++i) {
          const std::size_t re = interleaved ? 2 * i : i;
          const std::size_t im = interleaved ? 2 * i + 1 : i + n / 2;
          const double angle =
              static_cast<double>(position) /
              std::pow(100.0, 2.0 * static_cast<double>(i) / static_cast<double>(n));
          const std::complex<double> turned =
              std::complex<double>(static_cast<double>(before[re]),
                                   static_cast<double>(before[im])) *
              std::polar(1.0, angle);
          CHECK(static_cast<double>(x[re]) == doctest::Approx(turned.real()).epsilon(1e-6));
          CHECK(static_cast<double>(x[im]) == doctest::Approx(turned.imag()).epsilon(1e-6));
        }
        for (std::size_t i = n; i < x.size(); ++i) {
          CHECK(x[i] == before[i]);  // beyond the rotated dims
        }
      }
    }
  }
}

}  // namespace instinfer::test_scores
