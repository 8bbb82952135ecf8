#include <doctest/doctest.h>

#include <random>
#include <set>
#include <vector>

#include "instinfer/core/index_set.hpp"

namespace instinfer::test_index_set {

namespace {

std::vector<std::uint32_t> members(index_view set) {
  std::vector<std::uint32_t> all;
  set.for_each([&](std::uint32_t i) { all.push_back(i); });
  return all;
}

}  // namespace

TEST_CASE("an index set is the set of what was added") {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    index_set set;
    std::set<std::uint32_t> model;
    std::uint32_t at = 0;
    for (int i = 0; i < 20; ++i) {
      const auto first = at + static_cast<std::uint32_t>(random() % 3);
      const auto last = first + static_cast<std::uint32_t>(random() % 4);
      set.add(first, last);
      for (std::uint32_t x = first; x < last; ++x) {
        model.insert(x);
      }
      at = last;
    }
    CHECK(members(set) == std::vector(model.begin(), model.end()));
    CHECK(set.count() == model.size());
    for (std::uint32_t x = 0; x < at + 2; ++x) {
      CHECK(set.view().contains(x) == model.contains(x));
    }
    const std::uint32_t last = static_cast<std::uint32_t>(random() % (at + 2));
    set.drop_from(last);
    std::erase_if(model, [&](std::uint32_t x) { return x >= last; });
    CHECK(members(set) == std::vector(model.begin(), model.end()));
    CHECK(set.count() == model.size());
    for (std::size_t r = 1; r < set.view().runs().size();
         ++r) {  // runs are disjoint and never touch
      CHECK(set.view().runs()[r - 1].last < set.view().runs()[r].first);
    }
  }
}

TEST_CASE("positions of a part in the whole, and the part at positions") {
  index_set all;
  all.add(3, 6);
  all.add(10);
  all.add(20, 24);
  index_set some;
  some.add(4, 6);
  some.add(20);
  some.add(23);
  std::vector<std::pair<std::uint32_t, std::uint32_t>> found;
  for_each_position(all, some,
                    [&](std::uint32_t i, std::uint32_t at) { found.emplace_back(i, at); });
  CHECK(found ==
        std::vector<std::pair<std::uint32_t, std::uint32_t>>{{4, 1}, {5, 2}, {20, 4}, {23, 7}});
  index_set positions;
  positions.add(1, 5);
  positions.add(7);
  index_set chosen;
  add_at_positions(all, positions, chosen);
  CHECK(members(chosen) == std::vector<std::uint32_t>{4, 5, 10, 20, 23});
  CHECK(chosen.view().runs().size() == 4);
}

TEST_CASE("a set loses its first index, is emptied, and judges one that came from a file") {
  index_set set = index_set::range(7, 9);
  set.add(12);
  CHECK(set.within(7, 13));
  CHECK(!set.within(8, 13));
  CHECK(!set.within(7, 12));
  set.drop_first();
  CHECK(members(set) == std::vector<std::uint32_t>{8, 12});
  set.drop_first();
  CHECK(members(set) == std::vector<std::uint32_t>{12});
  CHECK(set.view().runs().size() == 1);
  CHECK(set.view() == index_set::range(12, 13).view());
  CHECK(!(set.view() == index_view{}));
  CHECK(!(set.view() == index_set::range(13, 14).view()));  // as many, others
  CHECK(index_view{}.count() == 0);
  CHECK(index_view{}.empty());
  set.clear();
  CHECK(set.count() == 0);
  CHECK(set.view().empty());
  // What a file may hold: the runs and their count, each wrong.
  struct from_file {
    std::vector<index_run> runs;
    std::uint32_t count;
    void operator()(std::vector<index_run>& r, std::uint32_t& n) const { r = runs, n = count; }
  };
  const auto judged = [](const from_file& file) {
    index_set read;
    read.each_part(file);
    return read.within(0, 10);
  };
  CHECK(judged({{{0, 2}, {4, 10}}, 8}));
  CHECK(judged({{{0, 2}, {2, 3}}, 3}));
  CHECK(!judged({{{0, 2}, {4, 10}}, 7}));
  CHECK(!judged({{{0, 2}, {1, 3}}, 4}));
  CHECK(!judged({{{3, 3}}, 0}));
  CHECK(!judged({{{4, 11}}, 7}));
}

TEST_CASE("a set without its indices from one on, and a set moved down") {
  const std::vector<std::uint32_t> all{3, 4, 7, 8, 9, 12};
  for (std::uint32_t last = 0; last < 15; ++last) {
    CAPTURE(last);
    index_set set;
    for (const std::uint32_t x : all) {
      set.add(x);
    }
    set.drop_from(last);
    std::vector<std::uint32_t> stay, moved;
    for (const std::uint32_t x : all) {
      if (x < last) {
        stay.push_back(x);
        moved.push_back(x - 3);
      }
    }
    CHECK(members(set) == stay);
    CHECK(set.count() == stay.size());
    CHECK(set.within(0, 13));  // no empty run
    set.move_down(3);
    CHECK(members(set) == moved);
    CHECK(set.count() == moved.size());
    set.add(20);
    CHECK(set.count() == stay.size() + 1);
  }
}

}  // namespace instinfer::test_index_set
