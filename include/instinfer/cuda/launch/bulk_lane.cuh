#pragma once
// The Lane that cuda/kernels/bulk_copies.hpp needs: it adds the bulk copies and transaction
// barriers of sm_90. PTX ISA 8.0. Compiled for an older architecture, it traps; cuda::attend does
// not start it there.

#include "instinfer/cuda/kernels/bulk_copies.hpp"
#include "instinfer/cuda/launch/attend.cuh"

namespace instinfer::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define INSTINFER_SM_90(...) __trap()
#else
#define INSTINFER_SM_90(...) asm volatile(__VA_ARGS__)
#endif

class bulk_lane : public device_lane {
 public:
  using device_lane::device_lane;

  // A barrier that takes one arrival a phase.
  __host__ __device__ void init_barrier(std::byte* barrier) const {
    INSTINFER_SM_90(
        "mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
  }
  // Orders this thread's accesses to shared memory, and those that it has seen, before bulk copies
  // that it starts later.
  __host__ __device__ void fence_proxies() const {
    INSTINFER_SM_90("fence.proxy.async.shared::cta;" :: : "memory");
  }
  // Arrives. The phase completes when so many bytes have landed.
  __host__ __device__ void arrive_expecting(std::byte* barrier, std::uint32_t bytes) const {
    INSTINFER_SM_90(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
        "r"(bytes) : "memory");
  }
  template <std::uint32_t Bytes>
  __host__ __device__ void copy_bulk(std::byte* to, const void* from, std::byte* barrier) const {
    INSTINFER_SM_90(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(shared_address(to)),
        "l"(global_address(from)), "n"(Bytes), "r"(shared_address(barrier)) : "memory");
  }
  // Waits until the phase of this parity is complete. What was copied in it is then visible to this
  // thread.
  __host__ __device__ void wait_barrier(std::byte* barrier, std::uint32_t parity) const {
    std::uint32_t done = 0;
    while (done == 0) {
      INSTINFER_SM_90(
          "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, "
          "p; }" : "=r"(done) : "r"(shared_address(barrier)),
          "r"(parity) : "memory");
    }
  }
};

#undef INSTINFER_SM_90

template <>
struct lane_for<bulk_copies> {
  using type = bulk_lane;
  static constexpr int capability = 90;
};

}  // namespace instinfer::cuda
