#pragma once
// GPUs as values from their data sheets: memory size and bandwidth, and dense fp16 tensor
// arithmetic.

#include <string>
#include <string_view>

#include "instinfer/core/errors.hpp"

namespace instinfer::system {

struct gpu_spec {
  std::string_view name;
  double memory_bytes = 0;
  double memory_bytes_per_s = 0;
  double flops_per_s = 0;  // fp16 tensor cores, fp32 sums, no sparsity
  double watts = 0;        // board power

  void validate() const {
    require(memory_bytes > 0 && memory_bytes_per_s > 0 && flops_per_s > 0 && watts >= 0, [&] {
      return "gpu_spec " + std::string(name) +
             ": memory_bytes, memory_bytes_per_s and flops_per_s must be positive";
    });
  }
};

// From NVIDIA's data sheet of each part. If it gives a figure only for 2:4 sparsity, half of it is
// used.
inline constexpr gpu_spec rtx_a6000{"RTX A6000", 48e9, 768e9, 154.8e12, 300};
inline constexpr gpu_spec a100_80gb{"A100 80GB SXM", 80e9, 2'039e9, 312e12, 400};
inline constexpr gpu_spec h100_sxm{"H100 SXM", 80e9, 3'350e9, 989.5e12, 700};
inline constexpr gpu_spec t4{"T4", 16e9, 320e9, 65e12, 70};
// fp16 with fp32 sums, from the Ada white paper, appendix A. With fp16 sums it is twice as fast.
inline constexpr gpu_spec rtx_4090{"RTX 4090", 24e9, 1'008e9, 165.2e12, 450};

}  // namespace instinfer::system
