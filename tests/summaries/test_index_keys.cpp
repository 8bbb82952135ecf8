// The codes of index keys at the end of the range.

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "instinfer/methods/dsa.hpp"
#include "instinfer/summaries/index_keys.hpp"
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

}  // namespace instinfer::test_index_keys
