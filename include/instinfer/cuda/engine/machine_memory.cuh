#pragma once
// What all attends of one engine use again: kernels, a stream, device buffers, page tables.

#include <vector>

#include "instinfer/core/index_set.hpp"
#include "instinfer/cuda/engine/page_gatherer.cuh"
#include "instinfer/cuda/launch/sparse.cuh"

namespace instinfer::cuda {

template <class Format, class Home>
struct machine_memory {
  using element = typename Format::element;
  static constexpr std::uint32_t dim = Format::k_dim;

  // Throws no_device.
  machine_memory() {
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  ~machine_memory() { (void)cudaStreamDestroy(stream); }
  machine_memory(const machine_memory&) = delete;
  machine_memory& operator=(const machine_memory&) = delete;

  attend<element, float, dim> fold;  // first: it checks the device
  sparse<element, dim> select;
  cudaStream_t stream = nullptr;
  call_pages<Home> pages;
  page_gatherer<Format, Home> gatherer;
  array<std::byte> workspace;
  array<element> q;            // [q_heads, dim]
  array<float> out;            // [q_heads, dim]
  array<float> log_sum_exp;    // [q_heads], if asked for
  array<float> mean_v;         // [kv_heads, dim]
  array<std::uint32_t> words;  // tokens, first, kept count
  array<std::uint32_t> dims;   // [kv_heads, keep_dims]
  array<float> logits;         // [q_heads, logit_stride]
  array<float_pair> states;
  array<std::uint32_t> keys;    // [kv_heads, logit_stride]
  array<std::uint32_t> listed;  // [kv_heads, kept]
  array<float> kept;            // [q_heads]
  std::vector<element> host_q;
  std::vector<float> host_mean;
  std::vector<float> host_kept;
  std::vector<std::uint32_t> host_dims;  // as chosen on the device
  std::vector<std::uint32_t> host_listed;
  index_set visible;
};

}  // namespace instinfer::cuda
