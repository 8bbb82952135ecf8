// The gather probe reads what the plan reads: every wanted row and column, in order, once.

#include "bench/pieces.hpp"

#include <utility>

#include <doctest/doctest.h>

namespace instinfer::test_pieces {

namespace {

using places = std::vector<std::pair<std::size_t, std::size_t>>;  // first value, values

// Two pages of 8 tokens and 4 dims, one after the other: K by dim, then V by token.
struct two_pages {
  std::vector<fp16> values;
  layout::tile_view<fp16> operator()(const page_read& read) const {
    return read.kind == stream::v_by_token
               ? layout::tile_view<fp16>{values.data() + 32, layout::by_token(8, 4), 8}
               : layout::tile_view<fp16>{values.data(), {8, 4, 1, 8, 0}, 8};
  }
};

void add(access_plan& plan, stream kind, std::initializer_list<index_run> tokens,
         std::initializer_list<index_run> dims) {
  page_read read;
  read.kind = kind;
  read.tokens = plan.begin_slice();
  for (const index_run run : tokens) {
    plan.add_run(read.tokens, run.first, run.last);
  }
  read.dims = plan.begin_slice();
  for (const index_run run : dims) {
    plan.add_run(read.dims, run.first, run.last);
  }
  plan.add(read);
}

places pieces_of(const access_plan& plan, const two_pages& pages) {
  std::vector<bench::piece> pieces;
  bench::add_pieces(plan, pages, pieces);
  places found;
  for (const bench::piece& p : pieces) {
    found.emplace_back(reinterpret_cast<const fp16*>(p.at) - pages.values.data(),
                       p.bytes / sizeof(fp16));
  }
  return found;
}

}  // namespace

TEST_CASE("pieces are rows of the wanted tokens, or the wanted tokens of each wanted dim") {
  const two_pages pages{std::vector<fp16>(64)};
  access_plan plan;
  add(plan, stream::v_by_token, {{1, 3}, {5, 6}}, {{0, 4}});  // rows 1 and 2 are neighbours
  CHECK(pieces_of(plan, pages) == places{{36, 8}, {52, 4}});
  add(plan, stream::k_by_dim, {{0, 2}, {4, 8}}, {{1, 2}, {3, 4}});
  CHECK(pieces_of(plan, pages) == places{{36, 8}, {52, 4}, {8, 2}, {24, 2}, {12, 4}, {28, 4}});
}

TEST_CASE("every byte of the pieces is read, by all prefetches and at any length") {
  for (const std::size_t bytes : {1u, 63u, 64u, 65u, 300u}) {
    CAPTURE(bytes);
    std::vector<std::byte> memory(3 * bytes + 1);
    const std::vector<bench::piece> pieces{{memory.data() + 2 * bytes + 1, bytes},
                                           {memory.data(), bytes}};
    for (std::size_t i = 0; i < memory.size(); ++i) {
      memory[i] = std::byte{1};
      const std::uint8_t expected = i < bytes || i > 2 * bytes ? 1 : 0;
      CHECK(bench::read_pieces<cpu::cache_level::none>(pieces, 0) == expected);
      CHECK(bench::read_pieces<cpu::cache_level::l1>(pieces, 2048) == expected);
      memory[i] = std::byte{0};
    }
  }
}

}  // namespace instinfer::test_pieces
