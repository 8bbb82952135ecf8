#pragma once
// Decode attention on a GPU: checks, launch and workspace of the kernel in
// cuda/kernels/attend_kernel.hpp.
//
//   cuda::attend<fp16, fp16, 128> attend;                     // checks the device once
//   cuda::array<std::byte> memory = attend.workspace(sizes);  // once; zeroed
//   attend(arguments, memory, stream);                        // one kernel: safe in a graph
//
// Each run reads the lengths on the device, so a captured graph follows the context as it grows.

#include <algorithm>

#include "instinfer/cuda/kernels/attend_kernel.hpp"
#include "instinfer/cuda/launch/attend_checks.hpp"
#include "instinfer/cuda/launch/device.cuh"
#include "instinfer/cuda/launch/device_lane.cuh"
#include "instinfer/cuda/launch/table_check.hpp"

namespace instinfer::cuda {

// The lane with the instructions that a copy policy needs, and the oldest architecture that has
// them.
template <class Copies>
struct lane_for {
  using type = device_lane;
  static constexpr int capability = least_capability;
};

// Kernel: an attend_kernel.
template <class Kernel>
__global__ __launch_bounds__(cta_threads, (Kernel::shape::ctas_per_sm)) void attend_on_device(
    const __grid_constant__ typename Kernel::arguments a,
    const __grid_constant__ partition_rule rule, const __grid_constant__ attend_workspace work) {
  extern __shared__ __align__(128) std::byte attend_shared[];
  typename Kernel::lane_type lane(attend_shared);
  Kernel(lane, a, rule, work).run();
}

template <class E, class Out, class Code>
__global__ __launch_bounds__(cta_threads) void check_tables_on_device(
    const __grid_constant__ attend_arguments<E, Out, Code> a, table_report* report) {
  device_lane lane(nullptr);
  table_check<device_lane, E, Out, Code>(lane, a, report).run();
}

// Code: what pages hold: E, or std::int8_t or fp8 with a scale for each page and head
// (cuda/kernels/page_codes.hpp).
template <class E, class Out, std::uint32_t Dim, class Code = E, class Copies = lane_copies>
class attend {
 public:
  using kernel = attend_kernel<typename lane_for<Copies>::type, E, Out, Dim, Code, Copies>;
  using shape = typename kernel::shape;
  using arguments = typename kernel::arguments;

  // For the current device. Throws no_device, and device_error where the kernel does not fit.
  explicit attend(const partition_rule& rule = {}) : rule_{rule}, device_{current_device()} {
    device_.require_at_least(lane_for<Copies>::capability, shape::shared_bytes);
    check(cudaFuncSetAttribute(attend_on_device<kernel>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, shape::shared_bytes),
          "cudaFuncSetAttribute");
    // As much of the SM's memory as possible becomes shared memory: the L1 cache serves q and page
    // tables only.
    check(cudaFuncSetAttribute(attend_on_device<kernel>,
                               cudaFuncAttributePreferredSharedMemoryCarveout,
                               cudaSharedmemCarveoutMaxShared),
          "cudaFuncSetAttribute");
    int per_sm = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, attend_on_device<kernel>,
                                                        cta_threads, shape::shared_bytes),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    ctas_ = static_cast<std::uint32_t>(std::clamp(
        per_sm * device_.multiprocessors, 1, static_cast<int>(most_part_weights / largest_group)));
  }

  std::uint32_t ctas() const { return ctas_; }
  const device_info& device() const { return device_; }
  const partition_rule& rule() const { return rule_; }

  // Bytes that launches of these sizes need. Under the balanced rule, all batches of one group size
  // need the same.
  std::size_t workspace_bytes(const attend_sizes& sizes) const {
    return attend_workspace::bytes(sizes, rule_, ctas_, Dim);
  }
  // A zeroed workspace. Launches that may overlap need one each.
  array<std::byte> workspace(const attend_sizes& sizes) const {
    array<std::byte> memory(workspace_bytes(sizes));
    check(cudaMemset(memory.data(), 0, memory.size()), "cudaMemset");
    check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");  // before any other stream
    return memory;
  }

  // Starts the kernel. Throws device_error, and bad_argument with the argument's name; nothing is
  // started then.
  void operator()(const arguments& a, void* memory, std::size_t memory_bytes,
                  cudaStream_t stream = nullptr) const {
    check_arguments(a, rule_);
    check_workspace(memory, memory_bytes, workspace_bytes(a.sizes));
    attend_on_device<kernel><<<ctas_, cta_threads, shape::shared_bytes, stream>>>(
        a, rule_, attend_workspace::in(memory, a.sizes, rule_, ctas_));
    check(cudaGetLastError(), "attend_on_device<<<>>>");
  }
  void operator()(const arguments& a, const array<std::byte>& memory,
                  cudaStream_t stream = nullptr) const {
    (*this)(a, memory.data(), memory.size(), stream);
  }

  // Reads lengths, tables and lists on the device and waits for the result. Throws bad_argument
  // with the place of the first error. Without this check, a launch still never reads outside of
  // pools and tables: tokens in error count as zeros, and a bit is set in the workspace's status.
  void check_tables(const arguments& a, cudaStream_t stream = nullptr) const {
    check_arguments(a, rule_);
    const array<table_report> report(1);
    table_report host;
    check(cudaMemcpyAsync(report.data(), &host, sizeof(host), cudaMemcpyHostToDevice, stream),
          "cudaMemcpyAsync of the table report");
    check_tables_on_device<E, Out, Code><<<ctas_, cta_threads, 0, stream>>>(a, report.data());
    check(cudaGetLastError(), "check_tables_on_device<<<>>>");
    check(cudaMemcpyAsync(&host, report.data(), sizeof(host), cudaMemcpyDeviceToHost, stream),
          "cudaMemcpyAsync of the table report");
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    throw_if_bad(host, a.sizes.kv_heads);
  }

 private:
  partition_rule rule_;
  device_info device_;
  std::uint32_t ctas_ = 0;
};

}  // namespace instinfer::cuda
