#pragma once
// The choice of dims of SparQ and SparF on a GPU, by all threads of a CTA: the r dims with the
// largest |q| summed over the query group, and the temperature that goes with them. It also
// arranges q of these dims for the products with columns of K.

#include "instinfer/core/top_k.hpp"
#include "instinfer/cuda/kernels/tile_shape.hpp"
#include "instinfer/cuda/launch/sparse_arguments.hpp"

namespace instinfer::cuda {

template <class Lane, class E, std::uint32_t Dim, class Code>
class dim_choice {
 public:
  using arguments = sparse_arguments<E, Code>;
  static constexpr std::uint32_t columns_at_once = 8;  // of codes

  // Words of shared memory: the heads' scales, the chosen dims and their places, q in fp32, and the
  // multipliers of the columns.
  static constexpr std::uint32_t words = largest_group + 3 * Dim + largest_group * Dim +
                                         (is_coded<Code> ? (Dim + columns_at_once) * largest_group
                                                         : largest_group / 8 * Dim / 16 * 32 * 2);

  // Where the column of a chosen dim lies: the head's tile, and in that tile the element of the
  // column's first token.
  struct place {
    std::uint32_t tile;
    std::uint32_t element;
  };

  constexpr dim_choice(Lane& lane, const arguments& a, std::uint32_t* memory)
      : lane_{lane}, a_{a}, memory_{memory} {}

  constexpr const float* scales() const { return reinterpret_cast<const float*>(memory_); }
  constexpr const place* places() const {  // [keep_dims], by ascending dims
    return reinterpret_cast<const place*>(memory_ + largest_group);
  }
  // q of chosen dim j and head g is at 16 j + g. Absent heads, and places after the last dim, hold
  // zeros.
  constexpr const float* weights() const { return reinterpret_cast<const float*>(multiplier()); }
  // This lane's two registers of operand B of mma.m16n8k16, for chosen dims [16 step, 16 step + 16)
  // and heads [8 octet, 8 octet + 8).
  constexpr const std::uint32_t* fragment(std::uint32_t octet, std::uint32_t step) const {
    return multiplier() + ((octet * (Dim / 16) + step) * 32 + lane_.thread() % 32) * 2;
  }

  // Leaves the choice in shared memory. With `store`, it also writes the dims to the arguments'
  // array.
  constexpr void choose(std::uint32_t sequence, std::uint32_t head, bool store) {
    const std::int64_t item = std::int64_t{sequence} * a_.sizes.kv_heads + head;
    const E* from = a_.q + item * a_.sizes.group * Dim;
    for (std::uint32_t i = lane_.thread(); i < a_.sizes.group * Dim; i += lane_.threads()) {
      q()[i] = to_float(from[i]);
    }
    lane_.sync_block();
    rank_dims();
    for (std::uint32_t i = lane_.thread(); i < Dim; i += lane_.threads()) {
      std::uint32_t at = 0;
      for (std::uint32_t w = 0; w < i / 32; ++w) {
        at += lane_.bits(chosen()[w]);
      }
      const std::uint32_t bits = chosen()[i / 32] << (31 - i % 32);  // those up to i
      at += lane_.bits(bits) - 1;
      if (bits >> 31 != 0) {
        const std::uint32_t tile = a_.k.tile_dims(i);
        dims()[at] = i;
        reinterpret_cast<place*>(memory_ + largest_group)[at] = {
            tile, (i - tile * a_.k.tile_dims.value) * a_.k.dim_stride};
        if (store) {
          a_.dims[item * a_.keep_dims + at] = i;
        }
      }
    }
    lane_.sync_block();
    set_scales();
    if constexpr (is_coded<Code>) {
      set_weights();
    } else {
      set_fragments();
    }
    lane_.sync_block();
  }

 private:
  constexpr std::uint32_t* dims() const { return memory_ + largest_group + 2 * Dim; }
  constexpr float* q() const { return reinterpret_cast<float*>(dims() + Dim); }  // [group, Dim]
  constexpr std::uint32_t* multiplier() const { return dims() + Dim + largest_group * Dim; }
  // The memory of the multipliers first holds magnitudes [Dim], and one bit for each chosen dim
  // [Dim / 32].
  constexpr float* magnitudes() const { return reinterpret_cast<float*>(multiplier()); }
  constexpr std::uint32_t* chosen() const { return multiplier() + Dim; }
  static constexpr float magnitude(float x) { return x < 0.0f ? -x : x; }

  // A dim is chosen if fewer than keep_dims dims come before it. A dim comes before another if its
  // sum is larger, or if the sums are equal and its number is lower. This takes Dim^2 comparisons;
  // a thread makes a quarter of those of one dim. Sums are not negative, so they sort as their bits
  // do.
  constexpr void rank_dims() {
    for (std::uint32_t i = lane_.thread(); i < Dim; i += lane_.threads()) {
      float sum = 0.0f;
      for (std::uint32_t g = 0; g < a_.sizes.group; ++g) {
        sum += magnitude(q()[g * Dim + i]);
      }
      magnitudes()[i] = sum;
    }
    if (lane_.thread() < Dim / 32) {
      chosen()[lane_.thread()] = 0;
    }
    lane_.sync_block();
    const auto* keys = reinterpret_cast<const std::uint32_t*>(magnitudes());
    for (std::uint32_t n = lane_.thread(); n < 4 * Dim; n += lane_.threads()) {
      const std::uint32_t i = n / 4;
      const std::uint32_t mine = keys[i];
      std::uint32_t before = 0;
      for (std::uint32_t j = n % 4; j < Dim; j += 4) {
        before += keys[j] > mine || (keys[j] == mine && j < i) ? 1 : 0;
      }
      before += lane_.shuffle(before, lane_.thread() % 32 ^ 1);
      before += lane_.shuffle(before, lane_.thread() % 32 ^ 2);
      if (n % 4 == 0 && before < a_.keep_dims) {
        lane_.set_bits_shared(chosen() + i / 32, 1u << i % 32);
      }
    }
    lane_.sync_block();
  }

  // Temperature: scale / sqrt(|q[dims]|_1 / |q|_1); the root is 1 for a zero query. One warp works
  // on one head.
  constexpr void set_scales() {
    const std::uint32_t id = lane_.thread() % 32;
    for (std::uint32_t g = lane_.thread() / 32; g < a_.sizes.group; g += lane_.threads() / 32) {
      float all = 0.0f;
      float kept = 0.0f;
      for (std::uint32_t i = id; i < Dim; i += 32) {
        all += magnitude(q()[g * Dim + i]);
      }
      for (std::uint32_t j = id; j < a_.keep_dims; j += 32) {
        kept += magnitude(q()[g * Dim + dims()[j]]);
      }
      for (const std::uint32_t mask : {1u, 2u, 4u, 8u, 16u}) {
        all += lane_.shuffle_xor(all, mask);
        kept += lane_.shuffle_xor(kept, mask);
      }
      if (id == 0) {
        reinterpret_cast<float*>(memory_)[g] =
            a_.scale * (all > 0.0f && kept > 0.0f ? lane_.inverse_root(kept / all) : 1.0f);
      }
    }
  }

  constexpr float q_of(std::uint32_t j, std::uint32_t g) const {
    return j < a_.keep_dims && g < a_.sizes.group ? q()[g * Dim + dims()[j]] : 0.0f;
  }
  constexpr void set_weights() {
    for (std::uint32_t i = lane_.thread(); i < (Dim + columns_at_once) * largest_group;
         i += lane_.threads()) {
      reinterpret_cast<float*>(multiplier())[i] = q_of(i / largest_group, i % largest_group);
    }
  }
  constexpr void set_fragments() {
    const std::uint32_t steps = (a_.keep_dims + 15) / 16;
    const std::uint32_t octets = (a_.sizes.group + 7) / 8;
    for (std::uint32_t n = lane_.thread(); n < octets * steps * 64; n += lane_.threads()) {
      const std::uint32_t octet = n / (steps * 64);
      const std::uint32_t i = n - octet * steps * 64;  // [steps, 32, 2]
      const std::uint32_t head = octet * 8 + i / 8 % 8;
      const std::uint32_t j = i / 64 * 16 + i / 2 % 4 * 2 + i % 2 * 8;
      multiplier()[octet * (Dim / 16) * 64 + i] =
          lane_.template pack<E>(q_of(j, head), q_of(j + 1, head));
    }
  }

  Lane& lane_;
  const arguments& a_;
  std::uint32_t* memory_;
};

}  // namespace instinfer::cuda
