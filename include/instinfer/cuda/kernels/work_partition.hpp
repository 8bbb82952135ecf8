#pragma once
// How the work of one launch is dealt to its CTAs. Every CTA finds its share on the device, from
// the lengths alone. So there is no plan that the host must make and copy, or that goes stale in a
// graph. The functions are constexpr, so tests run them on the CPU.

#include <algorithm>
#include <cstdint>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer::cuda {

// The positions of one sequence's tokens that a query sees: the same set as logit_rule::visible.
// Position p in [0, count) is token first + p, or token first + p + gap behind the sinks.
struct visible_tokens {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
  std::uint32_t sinks = 0;
  std::uint32_t gap = 0;  // hidden tokens between the sinks and the window

  constexpr std::uint32_t token(std::uint32_t position) const {
    return first + position + (position >= sinks ? gap : 0);
  }
  // The position of a token that is seen.
  constexpr std::uint32_t position(std::uint32_t token) const {
    const std::uint32_t at = token - first;
    return at < sinks ? at : at - gap;
  }
  // Whether n neighbouring tokens are all seen. False where they reach across the end of the sinks.
  constexpr bool shows_all(std::uint32_t token, std::uint32_t n) const {
    const std::uint32_t at = token - first;  // wraps before the first
    return (at < sinks && sinks - at >= n) ||
           (at >= sinks + gap && at < gap + count && gap + count - at >= n);
  }
  constexpr bool shows(std::uint32_t token) const {
    const std::uint32_t at = token - first;  // wraps before the first
    return at < sinks || (at >= sinks + gap && at < gap + count);
  }
};

// Live tokens are [first, last); window 0 shows all of them.
constexpr visible_tokens visible_of(std::uint32_t first, std::uint32_t last, std::uint32_t window,
                                    std::uint32_t sinks) {
  const std::uint32_t live = last > first ? last - first : 0;
  if (window == 0 || window >= live) {
    return {first, live, 0, 0};
  }
  const std::uint32_t kept = std::min(sinks, live - window);
  return {first, kept + window, kept, live - window - kept};
}

// An item is one KV head of one sequence. Work is measured in slices of `slice_tokens` positions of
// one item.
//
//   balanced   Every CTA gets an equal stretch of the slices of all items, wherever items begin. At
//              most two of its pieces are parts of an item, so the partial results of a launch fit
//              2 * CTAs slots. The same launch on the same device gives the same bits. With another
//              batch around it, a sequence may get other bits.
//   fixed      Items are cut every `slice_tokens` positions, and the pieces are merged in order.
//              The bits of a sequence depend on its own length only. Each piece needs a slot.
struct partition_rule {
  std::uint32_t slice_tokens = 64;
  // What the beginning and end of an item cost: about a tile's load latency. > 0.
  std::uint32_t overhead_slices = 1;
  bool fixed = false;

  constexpr std::uint32_t slices(std::uint32_t positions) const {
    return positions / slice_tokens + (positions % slice_tokens != 0 ? 1 : 0);
  }
  // At least 1: an item without tokens needs an owner, too, which writes its zeros.
  constexpr std::uint64_t cost(std::uint32_t positions) const {
    const std::uint64_t n = slices(positions);
    return fixed ? std::max<std::uint64_t>(n, 1) : n + overhead_slices;
  }
};

// CTA i of n takes the costs [i * total / n, (i + 1) * total / n). n <= total, so no share is
// empty.
struct cost_share {
  std::uint64_t total = 0;
  std::uint64_t ctas = 1;

  constexpr std::uint64_t begin(std::uint64_t cta) const { return cta * total / ctas; }
  constexpr std::uint64_t end(std::uint64_t cta) const { return (cta + 1) * total / ctas; }
  // The CTA whose share holds x: the last i with i * total / n <= x.
  constexpr std::uint64_t cta_of(std::uint64_t x) const { return ((x + 1) * ctas - 1) / total; }
};

constexpr cost_share share_costs(std::uint64_t total, std::uint32_t ctas) {
  return {total, std::min<std::uint64_t>(ctas, total)};
}

// One CTA's part of an item: slices [begin, end). The CTA that comes last merges the partial
// results of the item's pieces, in the order of `index`. The ticket counts the CTAs that have come.
struct piece {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint32_t index = 0;
  std::uint32_t pieces = 1;
  std::uint64_t ticket = 0;
  std::uint64_t slot = 0;

  constexpr bool whole() const { return pieces == 1; }
};

// The part of an item that lies in the share of `cta`. The costs of the item begin at `item_begin`.
// Under the fixed rule, it is the next piece from slice `from` on. Empty (begin == end) where the
// CTA has no part, and for an item without slices.
constexpr piece piece_of(const partition_rule& rule, const cost_share& share, std::uint64_t cta,
                         std::uint64_t item_begin, std::uint64_t slices, std::uint64_t from = 0) {
  const std::uint64_t low = std::max(share.begin(cta), item_begin) - item_begin;
  const std::uint64_t high = std::min(std::max(share.end(cta), item_begin) - item_begin, slices);
  const std::uint64_t begin = std::max(low, from);
  if (begin >= high) {
    return {};
  }
  if (rule.fixed) {
    return {.begin = begin,
            .end = begin + 1,
            .index = static_cast<std::uint32_t>(begin),
            .pieces = static_cast<std::uint32_t>(slices),
            .ticket = item_begin,
            .slot = item_begin + begin};
  }
  const std::uint64_t first = share.cta_of(item_begin);
  const std::uint64_t last = share.cta_of(item_begin + slices - 1);
  return {.begin = begin,
          .end = high,
          .index = static_cast<std::uint32_t>(cta - first),
          .pieces = static_cast<std::uint32_t>(last - first + 1),
          .ticket = first,
          .slot = 2 * cta + (cta == first ? 1 : 0)};
}

// Slot of piece j of the same item.
constexpr std::uint64_t slot_of_piece(const partition_rule& rule, const piece& p, std::uint32_t j) {
  return rule.fixed ? p.ticket + j : 2 * (p.ticket + j) + (j == 0 ? 1 : 0);
}

// Division of n < 2^31 by a number that is known at run time only, in one multiplication. With 2^l
// >= d and m = ceil(2^(31+l) / d), the error m * d - 2^(31+l) is below 2^l. For n < 2^31 that
// cannot change the quotient.
struct divisor {
  std::uint32_t value = 1;
  std::uint32_t multiplier = 1u << 31;
  std::uint32_t shift = 31;

  constexpr divisor() = default;
  constexpr explicit divisor(std::uint32_t d) : value{d} {
    std::uint32_t log = 0;
    while ((std::uint64_t{1} << log) < d) {
      ++log;
    }
    shift = 31 + log;
    multiplier = static_cast<std::uint32_t>(((std::uint64_t{1} << shift) + d - 1) / d);
  }
  constexpr std::uint32_t operator()(std::uint32_t n) const {
    return static_cast<std::uint32_t>((std::uint64_t{n} * multiplier) >> shift);
  }
};

}  // namespace instinfer::cuda
