#pragma once
// Launches the merge of attention results, see cuda/kernels/merge_kernel.hpp.

#include "instinfer/cuda/kernels/merge_kernel.hpp"
#include "instinfer/cuda/launch/attend.cuh"

namespace instinfer::cuda {

template <class Part, class Out>
__global__ __launch_bounds__(cta_threads) void merge_on_device(
    const __grid_constant__ merge_arguments<Part, Out> a) {
  device_lane lane(nullptr);
  merge_rows(lane, a);
}

// Throws bad_argument with the argument's name, and device_error.
template <class Part, class Out>
void merge(const merge_arguments<Part, Out>& a, cudaStream_t stream = nullptr) {
  detail::require_pointer(a.parts, alignof(Part), "merge: parts");
  detail::require_pointer(a.lse_base_e, alignof(float), "merge: lse_base_e");
  detail::require_pointer(a.out, alignof(Out), "merge: out");
  require(a.count > 0 && a.rows > 0 && a.dim > 0,
          [] { return std::string("merge: count, rows and dim must be positive"); });
  const std::uint32_t ctas = std::min((a.rows + warps_per_cta - 1) / warps_per_cta, 65535u);
  merge_on_device<Part, Out><<<ctas, cta_threads, 0, stream>>>(a);
  check(cudaGetLastError(), "merge_on_device<<<>>>");
}

}  // namespace instinfer::cuda
