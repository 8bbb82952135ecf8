// Query heads of a group that select each for itself.

#include "instinfer/methods/per_query_head.hpp"
#include "instinfer/methods/quest.hpp"
#include "tests/support/decoder.hpp"

namespace instinfer::test_per_query_head {

using namespace test;
using attention::quest;

namespace {

constexpr quest quest_of(budget keep) { return {.keep_pages = keep, .dense_layers = 0}; }

}  // namespace

TEST_CASE("heads that select alone do what each would do by itself") {
  const test::random_cache<method_format> data(103, 400, 4, 1);
  using alone = attention::per_query_head<quest>;
  static_assert(!attention::shares_selection<alone> && attention::shares_selection<quest>);
  decoder<alone, cpu::path> together(alone{quest_of(0.2)}, 4);
  together.append(data.k, data.v);
  together.attend(data.q);
  traffic sum;
  decoder<quest, cpu::path> one(quest_of(0.2));
  one.append(data.k, data.v);
  for (std::size_t h = 0; h < 4; ++h) {
    one.attend(rows_of(data.q, h, 1));
    sum += one.traffic;
    CHECK(std::ranges::equal(one.out, rows_of(together.out, h, 1)));
  }
  sum.link_bytes = together.traffic.link_bytes;
  CHECK(together.traffic == sum);  // what several heads want is read for each
}

}  // namespace instinfer::test_per_query_head
