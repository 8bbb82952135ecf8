// An access plan by hand: its reads, their entries, and its bytes by residence.

#include <doctest/doctest.h>

#include <vector>

#include "instinfer/core/access_plan.hpp"

namespace instinfer::test_access_plan {

namespace {

page_read::run_slice slice_of(access_plan& plan, std::uint32_t first, std::uint32_t last) {
  page_read::run_slice slice = plan.begin_slice();
  plan.add_run(slice, first, last);
  return slice;
}

}  // namespace

TEST_CASE("a plan counts what it reads from flash, from the buffer, and from fast memory") {
  access_plan plan;
  constexpr entry_size entry{
      .packed_bytes = 2, .packed_elements = 1, .scale_bytes = 4, .open_bytes = 8};
  for (int round = 0; round < 2; ++round) {  // cleared, it is as new
    plan.clear();
    CHECK(plan.tokens(page_read{}).empty());  // nothing is wanted by default
    CHECK(plan.tokens(page_read{}).runs().empty());
    CHECK(page_read{}.page == no_page);
    CHECK(page_read{}.token_tile == 0);
    CHECK(page_read{}.dim_tile == 0);
    CHECK(plan.bytes(4096, entry) == traffic{});
    page_read::run_slice tokens = plan.begin_slice();
    plan.add_run(tokens, 1, 3);
    plan.add_run(tokens, 7, 8);
    const page_read::run_slice dims = slice_of(plan, 0, 5);
    CHECK(tokens.count == 3);
    plan.add({.page = page_id{4}, .tokens = tokens, .dims = dims});
    plan.add({.page = page_id{5}, .tokens = slice_of(plan, 0, 2), .dims = dims});
    plan.add({.buffered = true, .tokens = slice_of(plan, 4, 5), .dims = dims});
    plan.add({.from = residence::cached, .tokens = slice_of(plan, 4, 8), .dims = dims});
    plan.add({.buffered = true, .from = residence::fast, .tokens = tokens, .dims = dims});
    REQUIRE(plan.reads().size() == 5);
    const page_read& first = plan.reads()[0];
    CHECK(first.wanted_elements() == 15);
    CHECK(first.costs_flash());
    CHECK(!plan.reads()[2].costs_flash());
    CHECK(!plan.reads()[3].costs_flash());
    std::vector<std::uint32_t> members;
    plan.tokens(first).for_each([&](std::uint32_t t) { members.push_back(t); });
    CHECK(members == std::vector<std::uint32_t>{1, 2, 7});
    CHECK(plan.dims(first).count() == 5);
    // 15 + 10 elements on two pages, each with its scale; 5 in the buffer; 20 + 15 elsewhere.
    CHECK(plan.elements() == 65);
    CHECK(plan.bytes(4096, entry) == traffic{.pages_read = 2,
                                             .array_bytes = 8192,
                                             .channel_bytes = 8192,
                                             .filtered_bytes = 25 * 2 + 2 * 4,
                                             .buffer_bytes = 5 * 8,
                                             .fast_bytes = 35 * 2});
  }
}

TEST_CASE("V in a page of K costs no other page; V that is a part of K's rows costs nothing") {
  constexpr entry_size entry{
      .packed_bytes = 2, .packed_elements = 1, .scale_bytes = 4, .open_bytes = 8};
  struct expectation {
    sharing shares;
    std::uint64_t pages, elements;  // of V
  };
  for (const expectation& v :
       {expectation{sharing::nothing, 1, 12}, {sharing::page, 0, 12}, {sharing::entries, 0, 0}}) {
    access_plan plan;
    const page_read::run_slice tokens = slice_of(plan, 2, 5), k_dims = slice_of(plan, 0, 8),
                               v_dims = slice_of(plan, 0, 4);
    plan.add({.page = page_id{4}, .tokens = tokens, .dims = k_dims});
    plan.add({.kind = stream::v_by_token,
              .page = page_id{4},
              .shares = v.shares,
              .tokens = tokens,
              .dims = v_dims});
    CHECK(plan.reads()[0].costs_flash());
    CHECK(plan.reads()[1].costs_flash() == (v.pages == 1));
    CHECK(plan.reads()[1].wanted_elements() == 12);
    CHECK(plan.reads()[1].new_elements() == v.elements);
    CHECK(plan.elements() == 24 + v.elements);
    CHECK(plan.bytes(4096, entry) ==
          traffic{.pages_read = 1 + v.pages,
                  .array_bytes = 4096 * (1 + v.pages),
                  .channel_bytes = 4096 * (1 + v.pages),
                  .filtered_bytes = (24 + v.elements) * 2 + (1 + v.pages) * 4});
  }
}

TEST_CASE("scales of dims come with each page of K by token from flash, for its wanted dims") {
  constexpr entry_size entry{
      .packed_bytes = 1, .packed_elements = 1, .scale_bytes = 0, .open_bytes = 2, .dim_bytes = 4};
  access_plan plan;
  const page_read::run_slice tokens = slice_of(plan, 0, 2), dims = slice_of(plan, 1, 4);
  plan.add({.page = page_id{1}, .tokens = tokens, .dims = dims});
  plan.add({.page = page_id{2}, .tokens = tokens, .dims = slice_of(plan, 0, 5)});
  plan.add({.buffered = true, .tokens = tokens, .dims = dims});
  plan.add({.from = residence::fast, .tokens = tokens, .dims = dims});
  plan.add({.kind = stream::v_by_token, .page = page_id{3}, .tokens = tokens, .dims = dims});
  plan.add({.kind = stream::k_by_dim, .page = page_id{4}, .tokens = tokens, .dims = dims});
  // Values of four pages; scales of 3 and 5 dims.
  CHECK(plan.bytes(4096, entry).filtered_bytes == 2 * (3 + 5 + 3 + 3) + (3 + 5) * 4);
}

}  // namespace instinfer::test_access_plan
