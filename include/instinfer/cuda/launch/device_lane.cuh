#pragma once
// The Lane of a GPU: one thread, with the instructions that kernels use. PTX ISA 8.0, sm_80 on.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "instinfer/codec/element.hpp"
#include "instinfer/cuda/kernels/unrolled.hpp"
#include "instinfer/cuda/kernels/wide_values.hpp"

namespace instinfer::cuda {

// Kernels are constexpr templates, so the host's compiler sees them, too: hence __host__, although
// the host never calls these functions.
class device_lane {
 public:
  __device__ explicit device_lane(std::byte* shared) : shared_{shared} {}

  __host__ __device__ std::uint32_t thread() const {
#ifdef __CUDA_ARCH__
    return threadIdx.x;
#else
    return 0;
#endif
  }
  __host__ __device__ std::uint32_t block() const {
#ifdef __CUDA_ARCH__
    return blockIdx.x;
#else
    return 0;
#endif
  }
  __host__ __device__ std::uint32_t blocks() const {
#ifdef __CUDA_ARCH__
    return gridDim.x;
#else
    return 1;
#endif
  }
  __host__ __device__ std::uint32_t threads() const {
#ifdef __CUDA_ARCH__
    return blockDim.x;
#else
    return 1;
#endif
  }
  __host__ __device__ std::byte* shared() const { return shared_; }

  __host__ __device__ void sync_block() const { asm volatile("barrier.sync 0;" ::: "memory"); }
  __host__ __device__ void sync_warp() const {
    asm volatile("bar.warp.sync 0xffffffff;" ::: "memory");
  }
  // Orders this thread's global writes before what it does next, for the whole GPU.
  __host__ __device__ void fence() const { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

  __host__ __device__ std::uint32_t shuffle(std::uint32_t x, std::uint32_t from) const {
    std::uint32_t y;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(y) : "r"(x), "r"(from));
    return y;
  }
  __host__ __device__ float shuffle_xor(float x, std::uint32_t mask) const {
    float y;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=f"(y) : "f"(x), "r"(mask));
    return y;
  }
  __host__ __device__ std::uint32_t ballot(bool x) const {
    std::uint32_t y;
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; vote.sync.ballot.b32 %0, p, 0xffffffff; }"
                 : "=r"(y)
                 : "r"(static_cast<std::uint32_t>(x)));
    return y;
  }
  __host__ __device__ bool any(bool x) const { return ballot(x) != 0; }

  __host__ __device__ std::uint32_t bits(std::uint32_t x) const {
    std::uint32_t y;
    asm("popc.b32 %0, %1;" : "=r"(y) : "r"(x));
    return y;
  }

  // Loads eight values of 1 or 2 bytes, `stride` apart; zeros unless `wanted`. Stride 1: one load.
  template <class T>
  __host__ __device__ void load_8(const T* from, std::uint32_t stride, bool wanted,
                                  std::uint32_t (&packed)[2 * sizeof(T)]) const {
    unrolled<2 * sizeof(T)>([&](auto i) { packed[i] = 0; });
    if (stride > 1) {
      using bits = std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint8_t>;
      constexpr std::uint32_t each = 4 / sizeof(T);  // in a register
      unrolled<8>([&](auto i) {
        const std::uint32_t x =
            wanted ? reinterpret_cast<const bits*>(from)[std::size_t{i} * stride] : 0u;
        packed[i / each] |= x << (i % each * 8 * sizeof(T));
      });
    } else if constexpr (sizeof(T) == 2) {
      // Predicated: a branch would wait for the loads before it.
      asm volatile(
          "{ .reg .pred p; setp.ne.u32 p, %5, 0; @p ld.global.nc.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4]; }"
          : "+r"(packed[0]), "+r"(packed[1]), "+r"(packed[2]), "+r"(packed[3])
          : "l"(global_address(from)), "r"(static_cast<std::uint32_t>(wanted)));
    } else {
      asm volatile(
          "{ .reg .pred p; setp.ne.u32 p, %3, 0; @p ld.global.nc.L2::128B.v2.u32 {%0, %1}, [%2]; }"
          : "+r"(packed[0]), "+r"(packed[1])
          : "l"(global_address(from)), "r"(static_cast<std::uint32_t>(wanted)));
    }
  }
  __host__ __device__ void store_quad(float* to, const float_quad& x) const {
    *reinterpret_cast<float_quad*>(to) = x;
  }

  // Stores 16 bytes to shared memory.
  __host__ __device__ void store_16_bytes(std::byte* to, const std::uint32_t (&x)[4]) const {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(to)), "r"(x[0]),
                 "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
  }
  // Starts a copy of 4 or 16 bytes from global to shared memory, which wait_copies waits for.
  // Unless `wanted`, nothing is read and zeros are written.
  template <std::uint32_t Bytes>
  __host__ __device__ void copy_async(std::byte* to, const void* from, bool wanted) const {
    if constexpr (Bytes == 16) {
      asm volatile(
          "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
          "l"(global_address(from)), "r"(wanted ? 16u : 0u)
          : "memory");
    } else {
      asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)),
                   "l"(global_address(from)), "r"(wanted ? 4u : 0u)
                   : "memory");
    }
  }
  __host__ __device__ void commit_copies() const {
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  // Waits until at most Pending of this thread's committed groups are on their way.
  template <std::uint32_t Pending>
  __host__ __device__ void wait_copies() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
  }

  // Loads four 8 x 8 matrices of 16-bit elements. Lane l points at row l % 8 of matrix l / 8.
  __host__ __device__ void load_matrices(const std::byte* row, std::uint32_t (&m)[4]) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
  __host__ __device__ void load_matrices_transposed(const std::byte* row,
                                                    std::uint32_t (&m)[4]) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
  // c [16, 8] += a [16, 16] b [16, 8], fp32 sums.
  template <class E>
  __host__ __device__ void multiply_add(float (&c)[4], const std::uint32_t (&a)[4],
                                        std::uint32_t b0, std::uint32_t b1) const {
    if constexpr (std::same_as<E, fp16>) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
          "{%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, "
          "%7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
  }
  // Subtracts two pairs of fp16.
  __host__ __device__ std::uint32_t subtract_pairs(std::uint32_t x, std::uint32_t y) const {
    std::uint32_t z;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
    return z;
  }
  // Packs two elements into one register, `low` in its lower half, rounded to nearest even.
  template <class E>
  __host__ __device__ std::uint32_t pack(float low, float high) const {
    std::uint32_t y;
    if constexpr (std::same_as<E, fp16>) {
      asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    } else {
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    }
    return y;
  }
  template <class Out>
  __host__ __device__ Out narrow(float x) const {
    if constexpr (std::same_as<Out, float>) {
      return x;
    } else {
      return Out{static_cast<std::uint16_t>(pack<Out>(x, 0.0f) & 0xFFFFu)};
    }
  }
  // Unpacks the two elements of a register.
  template <class E>
  __host__ __device__ void widen(std::uint32_t two, float& low, float& high) const {
    if constexpr (std::same_as<E, fp16>) {
      asm("{ .reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
          : "=f"(low), "=f"(high)
          : "r"(two));
    } else {
      low = to_float(bf16{static_cast<std::uint16_t>(two & 0xFFFFu)});
      high = to_float(bf16{static_cast<std::uint16_t>(two >> 16)});
    }
  }

  // ex2.approx: 2 units in the last place; 2^-inf = 0.
  __host__ __device__ float exp2(float x) const {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  __host__ __device__ float log2(float x) const {
    float y;
    asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  // rcp.approx: 1 unit in the last place; 1 / inf = 0.
  __host__ __device__ float reciprocal(float x) const {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  __host__ __device__ float inverse_root(float x) const {
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  __host__ __device__ float clamp(float x, float low, float high) const {
    float y;
    asm("{ .reg .f32 t; max.f32 t, %1, %2; min.f32 %0, t, %3; }"
        : "=f"(y)
        : "f"(x), "f"(low), "f"(high));
    return y;
  }

  __host__ __device__ std::uint32_t add(std::uint32_t* to, std::uint32_t x) const {
    std::uint32_t old;
    asm volatile("atom.global.acq_rel.gpu.add.u32 %0, [%1], %2;"
                 : "=r"(old)
                 : "l"(global_address(to)), "r"(x)
                 : "memory");
    return old;
  }
  __host__ __device__ void minimum(std::uint64_t* of, std::uint64_t x) const {
    asm volatile("red.global.min.u64 [%0], %1;" ::"l"(global_address(of)), "l"(x) : "memory");
  }
  // Adds one, in shared memory.
  __host__ __device__ void count(std::uint32_t* to) const {
    asm volatile("red.shared.add.u32 [%0], 1;" ::"r"(shared_address(to)) : "memory");
  }
  __host__ __device__ void set_bits_shared(std::uint32_t* to, std::uint32_t bits) const {
    asm volatile("red.shared.or.b32 [%0], %1;" ::"r"(shared_address(to)), "r"(bits) : "memory");
  }
  __host__ __device__ void set_bits(std::uint32_t* to, std::uint32_t bits) const {
    asm volatile("red.global.or.b32 [%0], %1;" ::"l"(global_address(to)), "r"(bits) : "memory");
  }
  // Loads from L2: a line in L1 may be older than another CTA's write.
  __host__ __device__ float load_fresh(const float* from) const {
    float x;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(x) : "l"(global_address(from)) : "memory");
    return x;
  }
  __host__ __device__ float_quad load_fresh_quad(const float* from) const {
    float_quad x;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x[0]), "=f"(x.x[1]), "=f"(x.x[2]), "=f"(x.x[3])
                 : "l"(global_address(from))
                 : "memory");
    return x;
  }

 protected:
  static __host__ __device__ std::uint32_t shared_address(const void* p) {
#ifdef __CUDA_ARCH__
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
#else
    return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(p));
#endif
  }
  static __host__ __device__ std::uint64_t global_address(const void* p) {
#ifdef __CUDA_ARCH__
    return __cvta_generic_to_global(p);
#else
    return reinterpret_cast<std::uintptr_t>(p);
#endif
  }

 private:
  std::byte* shared_;
};

}  // namespace instinfer::cuda
