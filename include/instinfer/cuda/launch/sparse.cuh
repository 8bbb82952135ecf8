#pragma once
// SparQ and SparF on a GPU: the two kernels that select tokens. cuda/launch/attend.cuh then folds
// the lists.
//
//   cuda::sparse<fp16, 128> select;                     // once
//   select(sparse_arguments, stream);                   // dims, logits, lists, kept shares
//   attend(attend_arguments with listed, kept, mean_v)  // the fold; all three are safe in a graph

#include "instinfer/cuda/kernels/score_kernel.hpp"
#include "instinfer/cuda/kernels/select_kernel.hpp"
#include "instinfer/cuda/launch/attend.cuh"
#include "instinfer/cuda/launch/cluster_lane.cuh"
#include "instinfer/cuda/launch/sparse_checks.hpp"

namespace instinfer::cuda {

template <class E, std::uint32_t Dim, class Code>
__global__ __launch_bounds__(score_threads, 2) void score_on_device(
    const __grid_constant__ sparse_arguments<E, Code> a, const std::uint32_t stretch,
    const std::uint32_t stretches) {
  using kernel = score_kernel<device_lane, E, Dim, Code>;
  __shared__ __align__(16) std::byte score_shared[kernel::shared_bytes];
  device_lane lane(score_shared);
  kernel(lane, a, stretch, stretches).run();
}

template <class E, class Code>
__global__ __launch_bounds__(select_threads) void select_on_device(
    const __grid_constant__ sparse_arguments<E, Code> a, const std::uint32_t shared_tokens) {
  extern __shared__ __align__(16) std::byte select_shared[];
  cluster_lane lane(select_shared);
  select_kernel<cluster_lane, E, Code>(lane, a, shared_tokens).run();
}

template <class E, std::uint32_t Dim, class Code = E>
class sparse {
 public:
  // For the current device. Throws no_device.
  sparse() : device_{current_device()} {
    check(
        cudaFuncSetAttribute(select_on_device<E, Code>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             device_.shared_bytes_per_cta),
        "cudaFuncSetAttribute");
  }

  // Starts both kernels. Throws device_error, and bad_argument with the argument's name; nothing is
  // started then.
  void operator()(const sparse_arguments<E, Code>& a, cudaStream_t stream = nullptr) const {
    check_arguments(a, Dim);
    score(a, stream);
    select(a, stream);
  }

 private:
  using kernel = select_kernel<cluster_lane, E, Code>;

  std::uint32_t heads(const attend_sizes& s) const { return s.sequences * s.kv_heads; }
  std::uint32_t multiprocessors() const {
    return static_cast<std::uint32_t>(device_.multiprocessors);
  }

  // Every CTA chooses the dims before it scores. So stretches are as long as possible, while all
  // SMs still have four CTAs.
  void score(const sparse_arguments<E, Code>& a, cudaStream_t stream) const {
    const std::uint32_t tokens = a.sizes.most_positions + 7;
    const auto stretches = [&](std::uint32_t stretch) { return (tokens + stretch - 1) / stretch; };
    std::uint32_t stretch = score_threads / 32 * score_segment;
    while (stretch < tokens && heads(a.sizes) * stretches(2 * stretch) >= 4 * multiprocessors()) {
      stretch *= 2;
    }
    score_on_device<E, Dim, Code>
        <<<heads(a.sizes) * stretches(stretch), score_threads, 0, stream>>>(a, stretch,
                                                                            stretches(stretch));
    check(cudaGetLastError(), "score_on_device<<<>>>");
  }

  // Clusters grow until there are two CTAs for each SM, and the keys of three CTAs fit in an SM's
  // shared memory.
  void select(const sparse_arguments<E, Code>& a, cudaStream_t stream) const {
    const std::uint32_t most = device_.capability >= 90 ? kernel::top_k::most_ctas : 1;
    const auto shared_bytes = static_cast<std::uint64_t>(device_.shared_bytes_per_cta);
    std::uint32_t ctas = 1;
    const auto tokens = [&] { return kernel::stretch_of(a.sizes.most_positions + 7, ctas); };
    while (ctas < most && (heads(a.sizes) * ctas < 2 * multiprocessors() ||
                           kernel::shared_bytes(tokens()) > shared_bytes / 3)) {
      ctas *= 2;
    }
    const std::uint32_t shared_tokens =
        kernel::shared_bytes(tokens()) <= shared_bytes ? tokens() : 0;
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {ctas, 1, 1};
    cudaLaunchConfig_t launch{};
    launch.gridDim = dim3(heads(a.sizes) * ctas);
    launch.blockDim = dim3(select_threads);
    launch.dynamicSmemBytes = kernel::shared_bytes(shared_tokens);
    launch.stream = stream;
    launch.attrs = &cluster;
    launch.numAttrs = ctas > 1 ? 1 : 0;
    check(cudaLaunchKernelEx(&launch, select_on_device<E, Code>, a, shared_tokens),
          "cudaLaunchKernelEx of select_on_device");
  }

  device_info device_;
};

}  // namespace instinfer::cuda
