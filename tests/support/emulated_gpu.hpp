#pragma once
// A GPU for tests: runs a kernel's own source, one fiber a thread, and takes every liberty that the
// programming model gives the hardware: warps and lanes run in random order between
// synchronisations, asynchronous copies land as late as they may, and their target holds NaN until
// then. Shared memory begins as NaN. Stricter than hardware in one thing: whatever all lanes of a
// warp take part in (shuffles, ldmatrix, mma) also orders their memory accesses here, so a missing
// sync_warp beside one goes unseen.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <stdexcept>
#include <vector>

#include "instinfer/codec/element.hpp"
#include "instinfer/cuda/kernels/unrolled.hpp"
#include "instinfer/cuda/kernels/wide_values.hpp"
#include "tests/support/emulated_block.hpp"

namespace instinfer::test {

// What device_lane is on a GPU.
class emulated_lane {
 public:
  emulated_lane(emulated_block& block, std::uint32_t thread, std::uint32_t block_index,
                std::uint32_t blocks)
      : block_{block}, thread_{thread}, block_index_{block_index}, blocks_{blocks} {}

  std::uint32_t thread() const { return thread_ % block_.threads(); }
  std::uint32_t block() const { return block_index_; }
  std::uint32_t blocks() const { return blocks_; }
  std::uint32_t threads() const { return block_.threads(); }
  std::byte* shared() const { return block_.shared(cluster_rank()); }
  void sync_block() const { block_.sync(cluster_rank()); }
  std::uint32_t cluster_rank() const { return thread_ / block_.threads(); }
  std::uint32_t cluster_ctas() const { return block_.ctas(); }
  void sync_cluster() const { block_.sync_cluster(); }
  template <class T>
  T* of_rank(T* mine, std::uint32_t rank) const {
    if (rank >= block_.ctas()) {
      throw std::runtime_error("emulated GPU: a rank that the cluster has not");
    }
    const auto to = reinterpret_cast<std::uintptr_t>(block_.shared(rank));
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(mine) + to -
                                reinterpret_cast<std::uintptr_t>(shared()));
  }
  void sync_warp() const { (void)block_.exchange(thread_, 0); }
  void fence() const {}

  std::uint32_t shuffle(std::uint32_t x, std::uint32_t from) const {
    return block_.exchange(thread_, x)[from];
  }
  float shuffle_xor(float x, std::uint32_t mask) const {
    return block_.exchange(thread_, x)[thread_ % 32 ^ mask];
  }
  std::uint32_t ballot(bool x) const {
    const auto all = block_.exchange(thread_, x);
    std::uint32_t bits = 0;
    for (std::uint32_t l = 0; l < 32; ++l) {
      bits |= static_cast<std::uint32_t>(all[l]) << l;
    }
    return bits;
  }
  bool any(bool x) const { return ballot(x) != 0; }

  std::uint32_t bits(std::uint32_t x) const { return static_cast<std::uint32_t>(std::popcount(x)); }

  template <class T>
  void load_8(const T* from, std::uint32_t stride, bool wanted,
              std::uint32_t (&packed)[2 * sizeof(T)]) const {
    if (stride == 1 && reinterpret_cast<std::uintptr_t>(from) % (8 * sizeof(T)) != 0) {
      throw std::runtime_error("emulated GPU: a source that is not aligned to what is loaded");
    }
    std::memset(packed, 0, sizeof(packed));
    for (std::size_t i = 0; wanted && i < 8; ++i) {
      std::memcpy(reinterpret_cast<std::byte*>(packed) + i * sizeof(T), from + i * stride,
                  sizeof(T));
    }
  }
  void store_quad(float* to, const cuda::float_quad& x) const { std::memcpy(to, x.x, sizeof(x)); }

  void store_16_bytes(std::byte* to, const std::uint32_t (&x)[4]) const {
    check_shared(to, 16);
    std::memcpy(to, x, 16);
  }
  template <std::uint32_t Bytes>
  void copy_async(std::byte* to, const void* from, bool wanted) {
    check_shared(to, Bytes);
    if (reinterpret_cast<std::uintptr_t>(from) % Bytes != 0) {
      throw std::runtime_error("emulated GPU: a source that is not aligned to what is copied");
    }
    std::memset(to, 0xFF, Bytes);
    open_group_.push_back({to, wanted ? from : nullptr, Bytes});
  }
  void commit_copies() {
    groups_.push_back(std::move(open_group_));
    open_group_.clear();
  }
  template <std::uint32_t Pending>
  void wait_copies() {
    while (groups_.size() > Pending) {
      for (const copy& c : groups_.front()) {
        c.from == nullptr ? std::memset(c.to, 0, c.bytes) : std::memcpy(c.to, c.from, c.bytes);
      }
      groups_.erase(groups_.begin());
    }
  }

  // What bulk_lane adds. That stores and bulk copies go different ways is not emulated: a missing
  // fence goes unseen.
  void init_barrier(std::byte* at) const {
    check_shared(at, 8);
    block_.init_barrier(at);
  }
  void fence_proxies() const {}
  void arrive_expecting(std::byte* at, std::uint32_t bytes) const {
    block_.arrive_expecting(at, bytes);
  }
  template <std::uint32_t Bytes>
  void copy_bulk(std::byte* to, const void* from, std::byte* at) const {
    check_shared(to, 16);
    check_shared(to + Bytes - 16, 16);
    if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0) {
      throw std::runtime_error("emulated GPU: a source that is not aligned to what is copied");
    }
    block_.copy_bulk(to, from, Bytes, at);
  }
  void wait_barrier(std::byte* at, std::uint32_t parity) const { block_.wait_barrier(at, parity); }

  // Lane l receives from each matrix row l / 4, elements 2 (l % 4) and the next.
  void load_matrices(const std::byte* row, std::uint32_t (&m)[4]) const {
    const auto rows = exchange_rows(row);
    for (std::uint32_t i = 0; i < 4; ++i) {
      std::memcpy(&m[i], rows[8 * i + thread_ % 32 / 4] + thread_ % 4 * 4, 4);
    }
  }
  // The same of the transposed matrices: column l / 4, rows 2 (l % 4) and the next.
  void load_matrices_transposed(const std::byte* row, std::uint32_t (&m)[4]) const {
    const auto rows = exchange_rows(row);
    for (std::uint32_t i = 0; i < 4; ++i) {
      std::uint16_t two[2];
      for (std::uint32_t r = 0; r < 2; ++r) {
        std::memcpy(&two[r], rows[8 * i + thread_ % 4 * 2 + r] + thread_ % 32 / 4 * 2, 2);
      }
      m[i] = std::uint32_t{two[1]} << 16 | two[0];
    }
  }

  // Fragments as PTX lays them out for mma.m16n8k16.
  template <class E>
  void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                    std::uint32_t b1) const {
    struct operands {
      std::uint32_t a[4], b[2];
    };
    const auto all = block_.exchange(thread_, operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    const auto element = [](std::uint32_t two, std::uint32_t i) {
      return to_float(E{static_cast<std::uint16_t>(two >> (16 * i))});
    };
    for (std::uint32_t i = 0; i < 4; ++i) {
      const std::uint32_t row = thread_ % 32 / 4 + 8 * (i / 2);
      const std::uint32_t column = thread_ % 4 * 2 + i % 2;
      for (std::uint32_t k = 0; k < 16; ++k) {
        const float x = element(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + 2 * (k / 8)], k % 2);
        const float y = element(all[column * 4 + k % 8 / 2].b[k / 8], k % 2);
        c[i] += x * y;
      }
    }
  }
  std::uint32_t subtract_pairs(std::uint32_t x, std::uint32_t y) const {
    const auto half = [](std::uint32_t two, std::uint32_t i) {
      return to_float(fp16{static_cast<std::uint16_t>(two >> (16 * i))});
    };
    return pack<fp16>(half(x, 0) - half(y, 0), half(x, 1) - half(y, 1));
  }
  template <class E>
  std::uint32_t pack(float low, float high) const {
    return std::uint32_t{from_float<E>(high).bits} << 16 | from_float<E>(low).bits;
  }
  template <class Out>
  Out narrow(float x) const {
    return from_float<Out>(x);
  }
  template <class E>
  void widen(std::uint32_t two, float& low, float& high) const {
    low = to_float(E{static_cast<std::uint16_t>(two)});
    high = to_float(E{static_cast<std::uint16_t>(two >> 16)});
  }

  // Results below 2^-126 are 0, as with ex2.approx.ftz and rcp.approx.ftz.
  static float flushed(float x) {
    return std::abs(x) < std::numeric_limits<float>::min() ? 0.0f : x;
  }
  float exp2(float x) const { return flushed(std::exp2(x)); }
  float log2(float x) const { return std::log2(x); }
  float reciprocal(float x) const { return flushed(1.0f / x); }
  float inverse_root(float x) const { return 1.0f / std::sqrt(x); }
  float clamp(float x, float low, float high) const { return std::fmin(std::fmax(x, low), high); }
  std::uint32_t add(std::uint32_t* to, std::uint32_t x) const {
    const std::uint32_t old = *to;
    *to += x;
    return old;
  }
  void minimum(std::uint64_t* of, std::uint64_t x) const { *of = std::min(*of, x); }
  void count(std::uint32_t* to) const { ++*to; }
  void add_shared(std::uint32_t* to, std::uint32_t x) const { *to += x; }
  void set_bits_shared(std::uint32_t* to, std::uint32_t bits) const { *to |= bits; }
  void set_bits(std::uint32_t* to, std::uint32_t bits) const { *to |= bits; }
  float load_fresh(const float* from) const { return *from; }
  cuda::float_quad load_fresh_quad(const float* from) const {
    return *reinterpret_cast<const cuda::float_quad*>(from);
  }

 private:
  struct copy {
    std::byte* to;
    const void* from;
    std::size_t bytes;
  };

  void check_shared(const std::byte* p, std::size_t bytes) const {
    if (p < shared() || p + bytes > shared() + block_.shared_bytes() ||
        reinterpret_cast<std::uintptr_t>(p) % bytes != 0) {
      throw std::runtime_error("emulated GPU: outside of shared memory, or misaligned");
    }
  }
  std::array<const std::byte*, 32> exchange_rows(const std::byte* row) const {
    check_shared(row, 16);
    return block_.exchange(thread_, row);
  }

  emulated_block& block_;
  std::uint32_t thread_;  // of the cluster
  std::uint32_t block_index_;
  std::uint32_t blocks_;
  std::vector<copy> open_group_;
  std::vector<std::vector<copy>> groups_;
};

// Runs kernel(lane) on a grid, cluster after cluster of `ctas` blocks in random order: each to its
// end, which is the most that a kernel may not rely on when clusters do not wait for each other.
template <class Kernel>
void run_on_emulated_gpu(std::uint32_t blocks, std::uint32_t threads, std::size_t shared_bytes,
                         unsigned seed, Kernel&& kernel, std::uint32_t ctas = 1) {
  std::vector<std::uint32_t> order(blocks / ctas);
  for (std::uint32_t b = 0; b < order.size(); ++b) {
    order[b] = b;
  }
  std::mt19937 random(seed);
  std::shuffle(order.begin(), order.end(), random);
  for (const std::uint32_t b : order) {
    emulated_block block(threads, shared_bytes, static_cast<unsigned>(random()), ctas);
    block.run([&](std::uint32_t thread) {
      emulated_lane lane(block, thread, b * ctas + thread / threads, blocks);
      kernel(lane);
    });
  }
}

}  // namespace instinfer::test
