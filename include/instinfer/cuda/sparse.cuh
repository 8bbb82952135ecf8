#pragma once
// SparQ and SparF on a GPU: the two selecting kernels before cuda/attend.cuh folds what they list.
//
//   cuda::sparse<fp16, 128> select;                     // once
//   select(sparse_arguments, stream);                   // dims, logits, lists, kept shares
//   attend(attend_arguments with listed, kept, mean_v)  // the fold: three kernels in all, safe in a graph

#include "instinfer/cuda/attend.cuh"
#include "instinfer/cuda/score_kernel.hpp"
#include "instinfer/cuda/select_kernel.hpp"
#include "instinfer/cuda/sparse_checks.hpp"

namespace instinfer::cuda {

inline constexpr std::uint32_t select_threads = 1024;

template <class E, std::uint32_t Dim, std::uint32_t Heads, class Code>
__global__ __launch_bounds__(cta_threads) void score_on_device(
    const __grid_constant__ sparse_arguments<E, Code> a) {
  using kernel = score_kernel<device_lane, E, Dim, Heads, Code>;
  __shared__ __align__(16) std::byte score_shared[kernel::shared_bytes];
  device_lane lane(score_shared);
  kernel(lane, a).run();
}

template <class E, class Code>
__global__ __launch_bounds__(select_threads) void select_on_device(
    const __grid_constant__ sparse_arguments<E, Code> a, const std::uint32_t shared_keys) {
  extern __shared__ __align__(16) std::byte select_shared[];
  device_lane lane(select_shared);
  select_kernel<device_lane, E, Code>(lane, a, shared_keys).run();
}

template <class E, std::uint32_t Dim, class Code = E>
class sparse {
 public:
  // For the current device. Throws no_device.
  sparse() : device_{current_device()} {
    shared_keys_ =
        static_cast<std::uint32_t>(device_.shared_bytes_per_cta / 4) - select::fixed_words;
    check(
        cudaFuncSetAttribute(select_on_device<E, Code>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             device_.shared_bytes_per_cta),
        "cudaFuncSetAttribute");
  }

  // Starts both kernels. Throws bad_argument with the argument's name, nothing is started then; and device_error.
  void operator()(const sparse_arguments<E, Code>& a, cudaStream_t stream = nullptr) const {
    check_arguments(a, Dim);
    // As few sums in registers as the group allows.
    a.sizes.group == 1   ? score<1>(a, stream)
    : a.sizes.group <= 4 ? score<4>(a, stream)
                         : score<8>(a, stream);
    // What the longest head needs, so that short contexts leave room for two CTAs an SM.
    const std::uint32_t keys = std::min(shared_keys_, a.sizes.most_positions);
    select_on_device<E, Code><<<a.sizes.sequences * a.sizes.kv_heads, select_threads,
                                select::shared_bytes(keys), stream>>>(a, keys);
    check(cudaGetLastError(), "select_on_device<<<>>>");
  }

 private:
  using select = select_kernel<device_lane, E, Code>;

  template <std::uint32_t Heads>
  void score(const sparse_arguments<E, Code>& a, cudaStream_t stream) const {
    int per_sm = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
              &per_sm, score_on_device<E, Dim, Heads, Code>, cta_threads, 0),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    const auto ctas = static_cast<unsigned>(std::max(per_sm, 1) * device_.multiprocessors);
    score_on_device<E, Dim, Heads, Code><<<ctas, cta_threads, 0, stream>>>(a);
    check(cudaGetLastError(), "score_on_device<<<>>>");
  }

  device_info device_;
  std::uint32_t shared_keys_ = 0;
};

}  // namespace instinfer::cuda
