#pragma once
// SparQ and SparF on a GPU: the two selecting kernels before cuda/attend.cuh folds what they list.
//
//   cuda::sparse<fp16, 128> select;                     // once
//   select(sparse_arguments, stream);                   // dims, logits, lists, kept shares
//   attend(attend_arguments with listed, kept, mean_v)  // the fold: three kernels in all, safe in a graph

#include "instinfer/cuda/attend.cuh"
#include "instinfer/cuda/score_kernel.hpp"
#include "instinfer/cuda/select_kernel.hpp"

namespace instinfer::cuda {

inline constexpr std::uint32_t select_threads = 1024;

template <class E, std::uint32_t Dim, std::uint32_t Heads>
__global__ __launch_bounds__(cta_threads) void score_on_device(
    const __grid_constant__ sparse_arguments<E> a) {
  __shared__ __align__(16)
      std::byte score_shared[score_kernel<device_lane, E, Dim, Heads>::shared_bytes];
  device_lane lane(score_shared);
  score_kernel<device_lane, E, Dim, Heads>(lane, a).run();
}

template <class E>
__global__ __launch_bounds__(select_threads) void select_on_device(
    const __grid_constant__ sparse_arguments<E> a, const std::uint32_t shared_keys) {
  extern __shared__ __align__(16) std::byte select_shared[];
  device_lane lane(select_shared);
  select_kernel<device_lane, E>(lane, a, shared_keys).run();
}

// Throws bad_argument with the argument's name.
template <class E>
void check_arguments(const sparse_arguments<E>& a, std::uint32_t dim) {
  using detail::require_pointer;
  const attend_sizes& s = a.sizes;
  require(s.sequences > 0 && s.kv_heads > 0 && s.group >= 1 && s.group <= largest_group, [&] {
    return "sparse: sequences and kv_heads must be positive, group 1 to " +
           std::to_string(largest_group) + ", got " + std::to_string(s.group);
  });
  require_pointer(a.q, 16, "sparse: q");
  require_pointer(a.k.pages, 16, "sparse: k.pages");
  require_pointer(a.k.table, 4, "sparse: k.table");
  require_pointer(a.tokens, 4, "sparse: tokens");
  require_pointer(a.dims, 4, "sparse: dims");
  require_pointer(a.logits, 16, "sparse: logits");
  require_pointer(a.states, 8, "sparse: states");
  require_pointer(a.keys, 4, "sparse: keys");
  require_pointer(a.listed, 4, "sparse: listed");
  require_pointer(a.listed_counts, 4, "sparse: listed_counts");
  require_pointer(a.kept, 4, "sparse: kept");
  require_pointer(a.status, 4, "sparse: status");
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
  require(a.logit_stride > 0 && a.logit_stride % score_chunk == 0 &&
              a.logit_stride >= std::int64_t{s.most_positions} + 7,
          [&] {
            return "sparse: logit_stride must be a multiple of " + std::to_string(score_chunk) +
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

template <class E, std::uint32_t Dim>
class sparse {
 public:
  // For the current device. Throws no_device.
  sparse() : device_{current_device()} {
    shared_keys_ =
        static_cast<std::uint32_t>(device_.shared_bytes_per_cta / 4) - select::fixed_words;
    check(cudaFuncSetAttribute(select_on_device<E>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               device_.shared_bytes_per_cta),
          "cudaFuncSetAttribute");
  }

  // Starts both kernels. Throws bad_argument with the argument's name, nothing is started then; and device_error.
  void operator()(const sparse_arguments<E>& a, cudaStream_t stream = nullptr) const {
    check_arguments(a, Dim);
    // As few sums in registers as the group allows.
    a.sizes.group == 1   ? score<1>(a, stream)
    : a.sizes.group <= 4 ? score<4>(a, stream)
                         : score<8>(a, stream);
    // What the longest head needs, so that short contexts leave room for two CTAs an SM.
    const std::uint32_t keys = std::min(shared_keys_, a.sizes.most_positions);
    select_on_device<E><<<a.sizes.sequences * a.sizes.kv_heads, select_threads,
                          select::shared_bytes(keys), stream>>>(a, keys);
    check(cudaGetLastError(), "select_on_device<<<>>>");
  }

 private:
  using select = select_kernel<device_lane, E>;

  template <std::uint32_t Heads>
  void score(const sparse_arguments<E>& a, cudaStream_t stream) const {
    int per_sm = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, score_on_device<E, Dim, Heads>,
                                                        cta_threads, 0),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    const auto ctas = static_cast<unsigned>(std::max(per_sm, 1) * device_.multiprocessors);
    score_on_device<E, Dim, Heads><<<ctas, cta_threads, 0, stream>>>(a);
    check(cudaGetLastError(), "score_on_device<<<>>>");
  }

  device_info device_;
  std::uint32_t shared_keys_ = 0;
};

}  // namespace instinfer::cuda
