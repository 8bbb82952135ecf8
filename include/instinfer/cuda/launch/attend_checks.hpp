#pragma once
// Checks of a launch's arguments that need no device. An error names the argument before anything
// is started.

#include <cstddef>
#include <limits>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/cuda/kernels/page_codes.hpp"
#include "instinfer/cuda/launch/attend_arguments.hpp"

namespace instinfer::cuda {

namespace detail {

inline void require_pointer(const void* p, std::size_t alignment, const std::string& name) {
  require(p != nullptr, [&] { return name + " must not be null"; });
  require(reinterpret_cast<std::uintptr_t>(p) % alignment == 0,
          [&] { return name + " must be aligned to " + std::to_string(alignment) + " bytes"; });
}

template <class E>
void check_stream(const paged_stream<E>& s, const attend_sizes& sizes, const std::string& name) {
  require_pointer(s.pages, 16, name + ".pages");
  if constexpr (is_coded<E>) {
    require_pointer(s.scales, alignof(float), name + ".scales");
  }
  require(s.page_count > 0, [&] { return name + ".page_count must be positive"; });
  require(s.page_tokens.value > 0, [&] { return name + ".page_tokens must be positive"; });
  require(s.table_pages > 0, [&] { return name + ".table_pages must be positive"; });
  require(s.table != nullptr || s.page_count >= sizes.sequences, [&] {
    return name + ": without a table every sequence has a page, there are " +
           std::to_string(s.page_count) + " for " + std::to_string(sizes.sequences) + " sequences";
  });
  require(s.table != nullptr || s.table_pages == 1,
          [&] { return name + ".table_pages must be 1 without a table"; });
  // The last row that the strides reach; no_row, 2^32 - 1, must stay free.
  const std::uint64_t last = std::uint64_t{s.page_count - 1} * s.page_rows +
                             std::uint64_t{sizes.kv_heads - 1} * s.head_rows +
                             std::uint64_t{s.page_tokens.value - 1} * s.token_rows;
  require(last < 0xFFFF'FFFFu, [&] {
    return name + ": a pool has at most 2^32 - 1 rows, the strides reach row " +
           std::to_string(last);
  });
  require(s.most_tokens() <= std::uint64_t{std::numeric_limits<std::int32_t>::max()}, [&] {
    return name + ": a sequence has at most 2^31 - 1 tokens, the table holds " +
           std::to_string(s.most_tokens());
  });
}

}  // namespace detail

// Throws bad_argument where the workspace is not what attend::workspace_bytes asks for.
inline void check_workspace(const void* memory, std::size_t bytes, std::size_t needed) {
  detail::require_pointer(memory, 16, "attend: workspace");
  require(bytes >= needed, [&] {
    return "attend: workspace must have " + std::to_string(needed) + " bytes, has " +
           std::to_string(bytes);
  });
}

// Throws bad_argument with the argument's name.
template <class E, class Out, class Code>
void check_arguments(const attend_arguments<E, Out, Code>& a, const partition_rule& rule) {
  require(a.sizes.sequences > 0 && a.sizes.kv_heads > 0,
          [] { return std::string("attend: sequences and kv_heads must be positive"); });
  require(a.sizes.group >= 1 && a.sizes.group <= largest_group, [&] {
    return "attend: group must be 1 to " + std::to_string(largest_group) + ", got " +
           std::to_string(a.sizes.group);
  });
  detail::require_pointer(a.q, 16, "attend: q");
  detail::require_pointer(a.out, alignof(Out), "attend: out");
  detail::require_pointer(a.tokens, alignof(std::uint32_t), "attend: tokens");
  detail::check_stream(a.k, a.sizes, "attend: k");
  detail::check_stream(a.v, a.sizes, "attend: v");
  const auto rate = [](float x) { return x >= 0.0f && x <= std::numeric_limits<float>::max(); };
  require(rate(a.scale) && a.scale > 0.0f && rate(a.soft_cap),
          [] { return std::string("attend: scale and soft_cap must be finite and not negative"); });
  const std::uint64_t held =
      a.k.most_tokens() < a.v.most_tokens() ? a.k.most_tokens() : a.v.most_tokens();
  require((a.listed == nullptr) == (a.listed_counts == nullptr),
          [] { return std::string("attend: listed and listed_counts go together"); });
  require(a.listed == nullptr || a.list_stride >= a.sizes.most_positions, [&] {
    return "attend: list_stride " + std::to_string(a.list_stride) +
           " is less than most_positions " + std::to_string(a.sizes.most_positions);
  });
  require(a.sizes.most_positions > 0,
          [] { return std::string("attend: most_positions must be positive"); });
  require(a.sizes.most_positions <= held, [&] {
    return "attend: most_positions " + std::to_string(a.sizes.most_positions) +
           " is more than a table row holds, " + std::to_string(held) + " tokens";
  });
  require((a.kept == nullptr) == (a.mean_v == nullptr),
          [] { return std::string("attend: kept and mean_v go together"); });
  require(rule.slice_tokens > 0 && rule.overhead_slices > 0, [] {
    return std::string("partition_rule: slice_tokens and overhead_slices must be positive");
  });
  // While parts are merged, their weights are in shared memory, see attend_kernel::merge_parts.
  require(!rule.fixed || std::uint64_t{rule.slices(a.sizes.most_positions)} * a.sizes.group <=
                             most_part_weights,
          [&] {
            return "partition_rule: slice_tokens " + std::to_string(rule.slice_tokens) + " cuts " +
                   std::to_string(a.sizes.most_positions) + " tokens of " +
                   std::to_string(a.sizes.group) + " heads into more than " +
                   std::to_string(most_part_weights) + " parts";
          });
}

}  // namespace instinfer::cuda
