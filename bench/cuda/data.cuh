#pragma once
// Filled pools of the GPU benchmark, and what is right about them.

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include <instinfer/cuda/launch/attend.cuh>

#include "shape.hpp"

namespace bench {

using namespace instinfer;
using cuda::check;
using element = fp16;
inline constexpr std::uint32_t dim_tile = 2;  // dims and tokens of a 4 KiB page of K by dim
inline constexpr std::uint32_t dim_tile_tokens = 1024;

inline constexpr float largest_value = 1.7f;

// The value of one element: uniform in [-1.7, 1.7], of unit deviation; the same whatever the
// layout.
__host__ __device__ inline float value_of(std::uint32_t stream, std::uint32_t sequence,
                                          std::uint32_t head, std::uint32_t token,
                                          std::uint32_t i) {
  std::uint64_t x = (std::uint64_t{sequence} << 40) ^ (std::uint64_t{head} << 32) ^
                    (std::uint64_t{token} << 9) ^ (i << 1) ^ stream;
  x = (x ^ (x >> 31)) * 0x9E37'79B9'7F4A'7C15ull;
  x = (x ^ (x >> 29)) * 0xBF58'476D'1CE4'E5B9ull;
  return (static_cast<float>((x >> 40) & 0xFF'FFFF) * 0x1p-23f - 1.0f) * largest_value;
}

// How a pool stores a value: as an element, or as a code to a scale that all pages share here.
template <class Code>
struct storage {
  static constexpr float scale = 1.0f;
  __host__ __device__ static Code of(float x) { return from_float<Code>(x); }
  __host__ __device__ static float value(Code c) { return to_float(c); }
};
template <>
struct storage<std::int8_t> {
  static constexpr float scale = largest_value / 127.0f;
  __host__ __device__ static std::int8_t of(float x) {
    return static_cast<std::int8_t>(x / scale + (x < 0.0f ? -0.5f : 0.5f));
  }
  __host__ __device__ static float value(std::int8_t c) { return static_cast<float>(c) * scale; }
};
template <>
struct storage<fp8> {
  static constexpr float scale = largest_value / 448.0f;
  __host__ __device__ static fp8 of(float x) { return to_fp8(x / scale); }
  __host__ __device__ static float value(fp8 c) { return to_float(c) * scale; }
};

template <class Code>
struct fill_arguments {
  Code* k;
  Code* v;
  Code* k_by_dim;  // may be null
  const std::uint32_t* table;
  const std::uint32_t* dim_table;
  const std::uint32_t* lengths;
  std::uint32_t sequences, kv_heads, tokens, page, table_pages, dim_tiles;
};

template <class Code>
__global__ void fill(const fill_arguments<Code> a) {
  const std::uint64_t all = std::uint64_t{a.sequences} * a.kv_heads * a.tokens * dim;
  for (std::uint64_t n = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; n < all;
       n += std::uint64_t{gridDim.x} * blockDim.x) {
    const auto i = static_cast<std::uint32_t>(n % dim);
    const auto t = static_cast<std::uint32_t>(n / dim % a.tokens);
    const auto h = static_cast<std::uint32_t>(n / dim / a.tokens % a.kv_heads);
    const auto s = static_cast<std::uint32_t>(n / dim / a.tokens / a.kv_heads);
    if (t >= a.lengths[s]) {
      continue;
    }
    const std::uint64_t page = a.table[std::uint64_t{s} * a.table_pages + t / a.page];
    const std::uint64_t at = ((page * a.kv_heads + h) * a.page + t % a.page) * dim + i;
    const Code k = storage<Code>::of(value_of(0, s, h, t, i));
    a.k[at] = k;
    a.v[at] = storage<Code>::of(value_of(1, s, h, t, i));
    if (a.k_by_dim != nullptr) {
      const std::uint64_t tile =
          ((std::uint64_t{s} * a.dim_tiles + t / dim_tile_tokens) * a.kv_heads + h) *
              (dim / dim_tile) +
          i / dim_tile;
      a.k_by_dim[std::uint64_t{a.dim_table[tile]} * dim_tile * dim_tile_tokens +
                 i % dim_tile * dim_tile_tokens + t % dim_tile_tokens] = k;
    }
  }
}
template <class T>
cuda::array<T> to_device(const std::vector<T>& host) {
  cuda::array<T> device(host.size());
  check(cudaMemcpy(device.data(), host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice),
        "cudaMemcpy");
  return device;
}
template <class T>
std::vector<T> to_host(const T* from, std::size_t n) {
  std::vector<T> host(n);
  check(cudaMemcpy(host.data(), from, n * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return host;
}

// Filled pools for `copies` batches one after the other, HND pages in random order. K and V of all
// copies are over ten times the L2.
template <class Code = element>
struct filled {
  static std::uint32_t copies_of(const shape& s) {
    const auto l2 = static_cast<std::uint64_t>(cuda::current_device().l2_bytes);
    return static_cast<std::uint32_t>(10 * l2 / s.kv_bytes(sizeof(Code)) + 1);
  }

  explicit filled(const shape& sh, bool by_dim) : s{sh} {
    copies = copies_of(s);
    sequences = s.batch * copies;
    table_pages = (s.tokens + s.page - 1) / s.page;
    std::vector<std::uint32_t> lengths;
    pages = 0;
    for (std::uint32_t i = 0; i < sequences; ++i) {
      lengths.push_back(s.tokens_of(i));
      pages += (s.tokens_of(i) + s.page - 1) / s.page;
    }
    dim_tiles = (s.tokens + dim_tile_tokens - 1) / dim_tile_tokens;
    std::mt19937 random(1);
    const auto permutation = [&](std::size_t n) {
      std::vector<std::uint32_t> order(n);
      for (std::size_t i = 0; i < n; ++i) {
        order[i] = static_cast<std::uint32_t>(i);
      }
      std::ranges::shuffle(order, random);
      return order;
    };
    // Short sequences of a skewed batch have pages for their own tokens only.
    const std::vector<std::uint32_t> order = permutation(pages);
    std::vector<std::uint32_t> host_table(std::size_t{sequences} * table_pages, 0xFFFF'FFFFu);
    for (std::uint32_t i = 0, taken = 0; i < sequences; ++i) {
      for (std::uint32_t p = 0; p < (lengths[i] + s.page - 1) / s.page; ++p) {
        host_table[std::size_t{i} * table_pages + p] = order[taken++];
      }
    }
    table = to_device(host_table);
    const std::size_t elements = std::size_t{pages} * s.kv_heads * s.page * dim;
    k = cuda::array<Code>(elements);
    v = cuda::array<Code>(elements);
    if (cuda::is_coded<Code>) {
      scales = to_device(std::vector<float>(std::size_t{pages} * s.kv_heads, storage<Code>::scale));
    }
    if (by_dim) {
      dim_pages = sequences * dim_tiles * s.kv_heads * (dim / dim_tile);
      dim_table = to_device(permutation(dim_pages));
      dim_scales = to_device(std::vector<float>(dim_pages, storage<Code>::scale));
      k_by_dim = cuda::array<Code>(std::size_t{dim_pages} * dim_tile * dim_tile_tokens);
    }
    std::normal_distribution<float> normal;
    host_q.resize(std::size_t{sequences} * s.q_heads * dim);
    for (element& x : host_q) {
      x = from_float<element>(normal(random));
    }
    q = to_device(host_q);
    out = cuda::array<element>(host_q.size());
    tokens = to_device(lengths);
    fill<Code><<<4096, 256>>>({k.data(), v.data(), k_by_dim.data(), table.data(), dim_table.data(),
                               tokens.data(), sequences, s.kv_heads, s.tokens, s.page, table_pages,
                               dim_tiles});
    check(cudaGetLastError(), "fill<<<>>>");
    check(cudaDeviceSynchronize(), "fill");
  }

  // The arguments of copy c.
  cuda::attend_arguments<element, element, Code> attend(std::uint32_t c) const {
    const std::uint32_t* t = table.data() + std::size_t{c} * s.batch * table_pages;
    const std::size_t at = std::size_t{c} * s.batch * s.q_heads * dim;
    const auto stream = [&](const cuda::array<Code>& values) {
      return cuda::with_scales(
          cuda::head_major_pages<Code>(values.data(), pages, s.page, s.kv_heads, t, table_pages),
          scales.data(), s.kv_heads);
    };
    return {.q = q.data() + at,
            .out = out.data() + at,
            .k = stream(k),
            .v = stream(v),
            .tokens = tokens.data() + std::size_t{c} * s.batch,
            .sizes = {s.batch, s.kv_heads, s.group(), s.tokens},
            .scale = 1.0f / std::sqrt(static_cast<float>(dim))};
  }

  static double stored(std::uint32_t stream, std::uint32_t sequence, std::uint32_t head,
                       std::uint32_t token, std::uint32_t i) {
    return static_cast<double>(
        storage<Code>::value(storage<Code>::of(value_of(stream, sequence, head, token, i))));
  }

  // |out - exact| / |exact| of query head 0 of a KV head's group, in fp64, over `seen` tokens (all
  // without a list).
  double error_of(std::uint32_t sequence, std::uint32_t head,
                  const std::vector<std::uint32_t>& seen, double kept,
                  const std::vector<float>& mean) const {
    const std::size_t at = (std::size_t{sequence} * s.q_heads + head * s.group()) * dim;
    std::vector<double> logits;
    for (const std::uint32_t t : seen) {
      double x = 0;
      for (std::uint32_t i = 0; i < dim; ++i) {
        x += static_cast<double>(to_float(host_q[at + i])) * stored(0, sequence, head, t, i);
      }
      logits.push_back(x / std::sqrt(static_cast<double>(dim)));
    }
    const double max = *std::ranges::max_element(logits);
    double sum = 0;
    std::vector<double> o(dim);
    for (std::size_t n = 0; n < seen.size(); ++n) {
      const double p = std::exp(logits[n] - max);
      sum += p;
      for (std::uint32_t i = 0; i < dim; ++i) {
        o[i] += p * stored(1, sequence, head, seen[n], i);
      }
    }
    const std::vector<element> mine = to_host(out.data() + at, dim);
    double difference = 0;
    double norm = 0;
    for (std::uint32_t i = 0; i < dim; ++i) {
      const double exact =
          kept * o[i] / sum + (1 - kept) * (mean.empty() ? 0.0 : static_cast<double>(mean[i]));
      difference += std::pow(static_cast<double>(to_float(mine[i])) - exact, 2);
      norm += exact * exact;
    }
    return std::sqrt(difference / norm);
  }

  shape s;
  std::uint32_t copies, sequences, table_pages, pages, dim_tiles, dim_pages = 0;
  std::vector<element> host_q;
  cuda::array<std::uint32_t> table, dim_table, tokens;
  cuda::array<Code> k, v, k_by_dim;
  cuda::array<float> scales;      // [page, kv_heads], of codes
  cuda::array<float> dim_scales;  // [page of K by dim]
  cuda::array<element> q, out;
};

}  // namespace bench
