// The deal of work to CTAs: every position exactly once, and no CTA with more than its share.
#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "instinfer/cuda/kernels/work_partition.hpp"
#include "tests/support/definitions.hpp"

namespace instinfer::test_work_partition {

using namespace cuda;

namespace {

std::uint32_t below(std::mt19937& random, std::uint32_t n) {
  return static_cast<std::uint32_t>(random() % n);
}

// Deals a batch as kernels do, and checks it.
void check_deal(const std::vector<std::uint32_t>& positions, std::uint32_t kv_heads,
                std::uint32_t ctas, const partition_rule& rule) {
  std::uint64_t total = 0;
  std::vector<std::uint64_t> item_begin;
  for (const std::uint32_t n : positions) {
    for (std::uint32_t h = 0; h < kv_heads; ++h) {
      item_begin.push_back(total);
      total += rule.cost(n);
    }
  }
  const cost_share share = share_costs(total, ctas);
  REQUIRE(share.begin(0) == 0);
  REQUIRE(share.end(share.ctas - 1) == total);
  struct seen_item {
    std::uint64_t slices = 0;
    std::uint32_t pieces = 0;
    std::uint32_t expected_pieces = 0;
    std::uint64_t ticket = 0;
    std::vector<std::uint64_t> slots;
  };
  std::vector<seen_item> seen(item_begin.size());
  std::map<std::uint64_t, std::size_t> slot_owner;
  std::map<std::uint64_t, std::size_t> ticket_owner;
  for (std::uint64_t cta = 0; cta < share.ctas; ++cta) {
    REQUIRE(share.begin(cta) < share.end(cta));
    REQUIRE(share.cta_of(share.begin(cta)) == cta);
    REQUIRE(share.cta_of(share.end(cta) - 1) == cta);
    std::uint64_t slices_of_cta = 0;
    for (std::size_t i = 0; i < item_begin.size(); ++i) {
      const std::uint32_t slices = rule.slices(positions[i / kv_heads]);
      for (piece p = piece_of(rule, share, cta, item_begin[i], slices); p.begin < p.end;
           p = piece_of(rule, share, cta, item_begin[i], slices, p.end)) {
        REQUIRE(p.begin == seen[i].slices);  // in order, without gaps or overlaps
        REQUIRE(p.index == seen[i].pieces);
        seen[i].slices = p.end;
        seen[i].expected_pieces = p.pieces;
        slices_of_cta += p.end - p.begin;
        if (p.pieces > 1) {
          REQUIRE(slot_owner.emplace(p.slot, i).second);
          const auto [at, fresh] = ticket_owner.emplace(p.ticket, i);
          REQUIRE(at->second == i);
          REQUIRE(p.slot < (rule.fixed ? total : 2 * share.ctas));
          REQUIRE(p.ticket < (rule.fixed ? total : share.ctas));
          REQUIRE(slot_of_piece(rule, p, p.index) == p.slot);
        }
        ++seen[i].pieces;
      }
    }
    REQUIRE(slices_of_cta <= total / share.ctas + 1);
  }
  for (std::size_t i = 0; i < seen.size(); ++i) {
    REQUIRE(seen[i].slices == rule.slices(positions[i / kv_heads]));
    REQUIRE(seen[i].pieces == seen[i].expected_pieces);
  }
}

}  // namespace

TEST_CASE("every slice exactly once, shares balanced, slots and tickets each with one owner") {
  std::mt19937 random(1);
  for (int round = 0; round < 400; ++round) {
    CAPTURE(round);
    std::vector<std::uint32_t> positions(1 + below(random, 20));
    for (std::uint32_t& n : positions) {
      // Skewed: most short, some long, some empty.
      n = below(random, 5) == 0   ? 0
          : below(random, 7) == 0 ? below(random, 100'000)
                                  : below(random, 300);
    }
    const partition_rule rule{.slice_tokens = round % 3 == 0 ? 64u : 1u + below(random, 500),
                              .overhead_slices = 1 + below(random, 4),
                              .fixed = round % 4 == 3};
    check_deal(positions, 1 + below(random, 9), 1 + below(random, 300), rule);
  }
}

TEST_CASE("one sequence of a million tokens, and one long among short ones") {
  check_deal({1'000'000}, 8, 264, {});
  std::vector<std::uint32_t> skewed(64, 1024);
  skewed[0] = 131'072;
  check_deal(skewed, 8, 264, {});
}

TEST_CASE("visible positions are those of the window and the sinks") {
  std::mt19937 random(2);
  for (int round = 0; round < 2000; ++round) {
    const std::uint32_t first = below(random, 50);
    const std::uint32_t last = first + below(random, 100);
    const std::uint32_t window = below(random, 120);
    const std::uint32_t sinks = below(random, 20);
    const std::vector<int> visible =
        test::defined_visible(static_cast<int>(first), static_cast<int>(last),
                              static_cast<int>(window), static_cast<int>(sinks));
    const std::set<std::uint32_t> expected(visible.begin(), visible.end());
    const visible_tokens seen = visible_of(first, last, window, sinks);
    REQUIRE(seen.count == expected.size());
    std::uint32_t at = 0;
    for (const std::uint32_t t : expected) {
      REQUIRE(seen.token(at) == t);
      REQUIRE(seen.position(t) == at++);
    }
    const std::uint32_t n = 1 + below(random, 20);
    for (std::uint32_t t = 0; t < last + 5; ++t) {
      REQUIRE(seen.shows(t) == expected.contains(t));
      bool all = true;
      for (std::uint32_t i = 0; i < n; ++i) {
        all = all && expected.contains(t + i);
      }
      // Where there are sinks it may say no: it does not look across their end.
      REQUIRE((seen.sinks == 0 ? seen.shows_all(t, n) == all : !seen.shows_all(t, n) || all));
    }
  }
}

TEST_CASE("division by multiplication") {
  std::mt19937 random(3);
  for (std::uint32_t d = 1; d < 600; ++d) {
    const divisor by(d);
    for (const std::uint32_t n : {0u, 1u, d - 1, d, d + 1, 0x7FFF'FFFFu, 0x7FFF'FFFFu - d}) {
      REQUIRE(by(n) == n / d);
    }
    for (int i = 0; i < 200; ++i) {
      const auto n = static_cast<std::uint32_t>(random() >> 1);
      REQUIRE(by(n) == n / d);
    }
  }
}

}  // namespace instinfer::test_work_partition
