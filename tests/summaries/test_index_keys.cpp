// Index keys: codes at the end of the range, and blocks of reclaimed tokens.

#include <doctest/doctest.h>

#include <algorithm>
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

}  // namespace instinfer::test_index_keys
