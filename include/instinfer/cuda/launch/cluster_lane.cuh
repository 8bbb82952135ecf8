#pragma once
// The Lane of kernels whose CTAs form clusters and reach each other's shared memory (sm_90). On
// older devices, and where a launch has no clusters, each CTA is a cluster of its own. The CTAs of
// a cluster have neighbouring block numbers.

#include "instinfer/cuda/launch/device_lane.cuh"

namespace instinfer::cuda {

class cluster_lane : public device_lane {
 public:
  using device_lane::device_lane;

  __host__ __device__ std::uint32_t cluster_rank() const {
    std::uint32_t rank = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
    return rank;
  }
  __host__ __device__ std::uint32_t cluster_ctas() const {
    std::uint32_t ctas = 1;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(ctas));
#endif
    return ctas;
  }
  __host__ __device__ void sync_cluster() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release; barrier.cluster.wait.acquire;" ::: "memory");
#else
    sync_block();
#endif
  }
  // The same place in the shared memory of another CTA of the cluster.
  template <class T>
  __host__ __device__ T* of_rank(T* mine, [[maybe_unused]] std::uint32_t rank) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm("mapa.u64 %0, %0, %1;" : "+l"(mine) : "r"(rank));
#endif
    return mine;
  }
  // Adds in the shared memory of any CTA of the cluster.
  __host__ __device__ void add_shared(std::uint32_t* to, std::uint32_t x) const {
    asm volatile("red.add.u32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
  }
};

}  // namespace instinfer::cuda
