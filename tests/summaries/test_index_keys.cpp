// Index keys: codes at the end of the range, blocks of reclaimed tokens, scores, and the choice of
// index heads.

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "instinfer/methods/dsa.hpp"
#include "instinfer/summaries/index_keys.hpp"
#include "tests/support/normals.hpp"
#include "tests/support/rows.hpp"

namespace instinfer::test_index_keys {

using namespace test;

namespace {

using index = attention::basic_dsa<128>::index;

}  // namespace

TEST_CASE(
    "keys near the end of the range are kept, clipped, since an append cannot fail half-way") {
  index::state<method_format> keys;
  keys.reserve(1);
  const std::vector<float> huge(128, std::numeric_limits<float>::max());
  keys.append(rows_of(huge, 0, 1), rows_of(huge, 0, 1), huge);
  REQUIRE(keys.keys().size() == 1);
  CHECK(is_finite(keys.keys()[0][0]));
  CHECK(keys.keys()[0][0] > 1e35f);
}

TEST_CASE("reclaimed tokens: their blocks no longer count, and those that stay have their means") {
  using small = attention::index_keys<16, 4>;
  small::state<method_format> keys;
  const auto value = [](std::uint32_t t, std::uint32_t i) {
    return static_cast<float>(t * 5 % 17) + static_cast<float>(i) / 4;
  };
  const std::vector<float> unread(64);
  keys.reserve(23);
  for (std::uint32_t t = 0; t < 23; ++t) {
    std::vector<float> key(16);
    for (std::uint32_t i = 0; i < 16; ++i) {
      key[i] = value(t, i);
    }
    keys.append(unread, unread, key);
  }
  for (std::uint32_t forgotten = 0; forgotten <= 23; ++forgotten) {
    CAPTURE(forgotten);
    const std::uint32_t first = forgotten / 4;  // block
    CHECK(keys.blocks() == 6 - first);
    for (std::uint32_t block = first; block < 6; ++block) {
      std::vector<double> mean(16);
      keys.mean(block - first, mean);
      const std::uint32_t end = std::min(23u, (block + 1) * 4);
      for (std::uint32_t i = 0; i < 16; ++i) {
        double sum = 0;
        for (std::uint32_t t = block * 4; t < end; ++t) {
          sum += static_cast<double>(value(t, i));
        }
        CHECK(mean[i] == doctest::Approx(sum / (end - block * 4)).epsilon(1e-12));
      }
    }
    CHECK(keys.tokens() == 23);
    CHECK(keys.bytes() <= 2 * (24 - forgotten + 4) * (16 + 4 + 16));
    if (forgotten < 23) {
      keys.forget(unread, unread);
    }
  }
}

TEST_CASE(
    "keys taken back: those that stay are as they were, the last block's mean is of its codes") {
  using small = attention::index_keys<16, 8>;
  std::mt19937 random(3);
  normal_distribution normal;
  std::vector<std::vector<float>> given(45, std::vector<float>(16));
  for (auto& key : given) {
    std::ranges::generate(key, [&] { return normal(random); });
  }
  const std::vector<float> unread(64);
  const auto append = [&](auto& keys, std::uint32_t first, std::uint32_t last) {
    keys.reserve(last - first);
    for (std::uint32_t t = first; t < last; ++t) {
      keys.append(unread, unread, given[t]);
    }
  };
  for (const std::uint32_t stay : {20u, 21u, 24u, 31u, 32u, 45u}) {
    CAPTURE(stay);
    small::state<method_format> keys, fresh;
    append(keys, 0, 45);
    append(fresh, 0, stay);
    for (int t = 0; t < 20; ++t) {
      keys.forget(unread, unread);
      fresh.forget(unread, unread);
    }
    keys.truncate(stay, std::tuple<>{});
    for (int round = 0; round < 2; ++round) {  // as it is, and when it goes on
      CHECK(keys.tokens() == fresh.tokens());
      REQUIRE(keys.blocks() == fresh.blocks());
      for (std::uint32_t t = 20; t < keys.tokens(); ++t) {
        CHECK(keys.key(t) == fresh.key(t));
      }
      for (std::uint32_t block = 0; block < keys.blocks(); ++block) {
        std::vector<double> mean(16), expected(16);
        keys.mean(block, mean);
        fresh.mean(block, expected);
        // A coded key is off by 1/17 of its length, and that of a dim is at most all of it.
        for (std::size_t i = 0; i < 16; ++i) {
          CHECK(std::abs(mean[i] - expected[i]) <= (stay % 8 == 0 ? 1e-12 : 8.0 / 17));
        }
      }
      if (round == 0) {
        append(keys, stay, 45);
        append(fresh, stay, 45);
      }
    }
  }
}

namespace {

// Vectors of 16 dims that are 4 times a whole number in two dims of four, and their keys. Rotation
// and coding are exact: a rotated dim is the sum or difference of two numbers of at most 7.
std::vector<float> whole_rows(std::mt19937& random, std::size_t rows) {
  std::vector<float> x(rows * 16);
  for (std::size_t row = 0; row < rows; ++row) {
    for (const std::size_t dim : {random() % 2, 2 + random() % 2}) {
      x[row * 16 + dim] = static_cast<float>(4 * (static_cast<int>(random() % 15) - 7));
    }
  }
  return x;
}
double product(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return sum;
}
std::span<const float> row_of(const std::vector<float>& x, std::size_t row) {
  return std::span(x).subspan(row * 16, 16);
}

}  // namespace

TEST_CASE_TEMPLATE("the score of a token: the sum of w relu(q . k) over the chosen heads", T, float,
                   double) {
  std::mt19937 random(5);
  const std::vector<float> k = whole_rows(random, 20), q = whole_rows(random, 5);
  const std::vector<float> w{1, -0.5f, 2, 0.25f, -3};
  const std::vector<float> unread(64);
  attention::index_keys<16, 8>::state<method_format> keys;
  keys.reserve(20);
  for (std::size_t t = 0; t < 20; ++t) {
    keys.append(unread, unread, row_of(k, t));
  }
  index_set heads = index_set::range(0, 2), tokens = index_set::range(3, 9);
  heads.add(3, 5);
  tokens.add(12, 20);
  for (const bool weighted : {true, false}) {
    const attention::index_query query{q, weighted ? std::span(w) : std::span<const float>{}};
    std::vector<T> scores(tokens.count());
    keys.template score<T>(query, heads, tokens, scores);
    auto score = scores.begin();
    tokens.view().for_each([&](std::uint32_t t) {
      double expected = 0;
      heads.view().for_each([&](std::uint32_t h) {
        expected += (weighted ? static_cast<double>(w[h]) : 1.0) *
                    std::max(0.0, product(row_of(q, h), row_of(k, t)));
      });
      CHECK(static_cast<double>(*score++) == expected);
    });
  }
}

TEST_CASE("decoded index queries take the place of those that a vector had") {
  std::mt19937 random(6);
  const std::vector<float> q = whole_rows(random, 4);
  const std::vector<float> w{2, 3, 5, 7};
  std::vector<double> queries(3, 9.0), weights(1, 9.0);
  attention::decode_index_queries<16>({q, w}, index_set::range(1, 3), queries, weights);
  CHECK(weights == std::vector<double>{3, 5});
  REQUIRE(queries.size() == 2 * 16);
  for (std::size_t h = 0; h < 2; ++h) {
    for (std::uint32_t i = 0; i < 16; ++i) {  // the Hadamard matrix, over 4
      double expected = 0;
      for (std::uint32_t j = 0; j < 16; ++j) {
        const double x = static_cast<double>(q[(1 + h) * 16 + j]) / 4;
        expected += std::popcount(i & j) % 2 == 0 ? x : -x;
      }
      CHECK(queries[h * 16 + i] == expected);
    }
  }
}

TEST_CASE("index heads by energy: against block means, by their norms, against the newest key") {
  using attention::head_router;
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    const std::vector<float> k = whole_rows(random, 11), q = whole_rows(random, 6);
    const std::vector<float> w{1, -2, 0.5f, 3, -1, 4};
    const std::vector<float> unread(64);
    attention::index_keys<16, 4>::state<method_format> keys;
    keys.reserve(11);
    for (std::size_t t = 0; t < 11; ++t) {
      keys.append(unread, unread, row_of(k, t));
    }
    for (const head_router router :
         {head_router::block_means, head_router::query_norm, head_router::newest_key}) {
      std::vector<double> energy;
      for (std::size_t h = 0; h < 6; ++h) {
        double of = 0;
        for (std::size_t block = 0; block < 3; ++block) {
          double sum = 0;
          const std::size_t end = std::min<std::size_t>(11, 4 * block + 4);
          for (std::size_t t = 4 * block; t < end; ++t) {
            sum += product(row_of(q, h), row_of(k, t));
          }
          of += std::max(0.0, sum / static_cast<double>(end - 4 * block)) / 3;
        }
        of = router == head_router::block_means ? of
             : router == head_router::query_norm
                 ? std::sqrt(product(row_of(q, h), row_of(q, h)))
                 : std::max(0.0, product(row_of(q, h), row_of(k, 10)));
        energy.push_back(of * std::abs(static_cast<double>(w[h])));
      }
      index_set chosen;
      CHECK(keys.top_heads({q, w}, router, 2, chosen) == (router == head_router::block_means  ? 3
                                                          : router == head_router::query_norm ? 0
                                                                                              : 1));
      CHECK(chosen.count() == 2);
      double least_chosen = std::numeric_limits<double>::infinity(), most_left = 0;
      for (std::uint32_t h = 0; h < 6; ++h) {
        bool is_chosen = false;
        chosen.view().for_each([&](std::uint32_t c) { is_chosen |= c == h; });
        least_chosen = is_chosen ? std::min(least_chosen, energy[h]) : least_chosen;
        most_left = is_chosen ? most_left : std::max(most_left, energy[h]);
      }
      CHECK(least_chosen >= most_left * (1 - 1e-12));
    }
  }
}

}  // namespace instinfer::test_index_keys
