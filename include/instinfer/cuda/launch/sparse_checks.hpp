#pragma once
// Checks of the arguments of the selecting kernels of SparQ and SparF. They need no device.

#include "instinfer/cuda/launch/attend_checks.hpp"
#include "instinfer/cuda/launch/sparse_arguments.hpp"

namespace instinfer::cuda {

// Throws bad_argument with the argument's name.
template <class E, class Code>
void check_arguments(const sparse_arguments<E, Code>& a, std::uint32_t dim) {
  using detail::require_pointer;
  const attend_sizes& s = a.sizes;
  require(s.sequences > 0 && s.kv_heads > 0 && s.group >= 1 && s.group <= largest_group, [&] {
    return "sparse: sequences and kv_heads must be positive, group 1 to " +
           std::to_string(largest_group) + ", got " + std::to_string(s.group);
  });
  require_pointer(a.q, 16, "sparse: q");
  require_pointer(a.k.pages, 16, "sparse: k.pages");
  require_pointer(a.k.table, 4, "sparse: k.table");
  if constexpr (is_coded<Code>) {
    require_pointer(a.k.scales, 4, "sparse: k.scales");
  }
  require_pointer(a.tokens, 4, "sparse: tokens");
  require_pointer(a.dims, 4, "sparse: dims");
  require_pointer(a.logits, 16, "sparse: logits");
  require_pointer(a.states, 8, "sparse: states");
  require_pointer(a.keys, 4, "sparse: keys");
  require_pointer(a.listed, 4, "sparse: listed");
  require_pointer(a.listed_counts, 4, "sparse: listed_counts");
  require_pointer(a.kept, 4, "sparse: kept");
  require_pointer(a.status, 4, "sparse: status");
  require(a.k.page_count > 0, [] { return std::string("sparse: k.page_count must be positive"); });
  require(a.keep_dims <= dim, [&] {
    return "sparse: keep_dims must be at most " + std::to_string(dim) + ", got " +
           std::to_string(a.keep_dims);
  });
  const bool columns = a.k.token_stride == 1;
  require(
      a.k.page_elements % 8 == 0 && a.k.tile_tokens.value % 8 == 0 &&
          (!columns || a.k.dim_stride % 8 == 0),
      [] {
        return std::string(
            "sparse: k.page_elements, k.tile_tokens and, for columns, k.dim_stride must be multiples of 8");
      });
  require(std::uint64_t{a.k.dim_tiles} * a.k.tile_dims.value == dim, [&] {
    return "sparse: k.dim_tiles times k.tile_dims must be the head size " + std::to_string(dim);
  });
  require(a.logit_stride > 0 && a.logit_stride % score_segment == 0 &&
              a.logit_stride >= std::int64_t{s.most_positions} + 7,
          [&] {
            return "sparse: logit_stride must be a multiple of " + std::to_string(score_segment) +
                   " and at least most_positions + 7, got " + std::to_string(a.logit_stride);
          });
  require(a.list_stride > 0, [] { return std::string("sparse: list_stride must be positive"); });
  require(a.scale > 0.0f && a.scale <= std::numeric_limits<float>::max() && a.soft_cap >= 0.0f &&
              a.soft_cap <= std::numeric_limits<float>::max(),
          [] {
            return std::string(
                "sparse: scale must be finite and positive, soft_cap finite and not negative");
          });
  require(a.keep.share >= 0.0 && a.keep.share <= 1.0 && a.keep.local_share >= 0.0 &&
              a.keep.local_share <= 1.0,
          [] { return std::string("sparse: keep.share and keep.local_share must lie in [0, 1]"); });
}

}  // namespace instinfer::cuda
