#pragma once
// Copies of tiles: whole rows, whole columns, and transposes in blocks.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "instinfer/layout/concepts.hpp"

namespace instinfer::layout {

// Elements of a cache line: the rows and columns of a block.
template <class E>
inline constexpr std::uint32_t line_elements = 64 / sizeof(E);

namespace detail {

// to[i * to_stride + t] = from[t * from_stride + i] for the t and i whose rows of elements fill 64
// bits: 4 x 4 elements of 2 bytes, or 2 x 2 of 4 bytes.
template <class E>
void transpose_words(const E* from, std::size_t from_stride, E* to, std::size_t to_stride) {
  constexpr std::size_t n = 8 / sizeof(E);
  std::uint64_t r[n];
  for (std::size_t t = 0; t < n; ++t) {
    std::memcpy(&r[t], from + t * from_stride, 8);
  }
  constexpr std::uint64_t low = 0x0000'0000'FFFF'FFFFu;
  for (std::size_t t = 0; t < n / 2; ++t) {
    const std::uint64_t a = r[t], b = r[t + n / 2];
    r[t] = (a & low) | (b << 32);
    r[t + n / 2] = (a >> 32) | (b & ~low);
  }
  if constexpr (n == 4) {
    constexpr std::uint64_t even = 0x0000'FFFF'0000'FFFFu;
    for (std::size_t t = 0; t < n; t += 2) {
      const std::uint64_t a = r[t], b = r[t + 1];
      r[t] = (a & even) | ((b & even) << 16);
      r[t + 1] = ((a >> 16) & even) | (b & ~even);
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    std::memcpy(static_cast<void*>(to + i * to_stride), &r[i], 8);
  }
}

// to[i * to_stride + t] = from[t * from_stride + i] for a cache line of t and i. Both sides are
// copied by whole lines, because lines at a large power of 2 from each other share few places of
// the L1 cache.
template <class E>
void transpose_lines(const E* from, std::size_t from_stride, E* to, std::size_t to_stride) {
  constexpr std::uint32_t n = line_elements<E>;
  E rows[n][n];
  E columns[n][n];
  for (std::uint32_t t = 0; t < n; ++t) {
    std::memcpy(rows[t], from + t * from_stride, sizeof(rows[t]));
  }
  for (std::uint32_t i = 0; i < n; i += 8 / sizeof(E)) {
    for (std::uint32_t t = 0; t < n; t += 8 / sizeof(E)) {
      transpose_words(&rows[t][i], n, &columns[i][t], n);
    }
  }
  for (std::uint32_t i = 0; i < n; ++i) {
    std::memcpy(to + i * to_stride, columns[i], sizeof(columns[i]));
  }
}

}  // namespace detail

// to[i * to_stride + t] = from[t * from_stride + i] for t < tokens and i < dims.
template <class E>
void transpose(const E* from, std::size_t from_stride, E* to, std::size_t to_stride,
               std::uint32_t tokens, std::uint32_t dims) {
  constexpr std::uint32_t n = line_elements<E>;
  // Words are put together in the order of little-endian processors.
  const bool little = std::endian::native == std::endian::little;
  const std::uint32_t whole_tokens = little ? tokens / n * n : 0;
  const std::uint32_t whole_dims = whole_tokens > 0 ? dims / n * n : 0;
  for (std::uint32_t t = 0; t < whole_tokens; t += n) {
    for (std::uint32_t i = 0; i < whole_dims; i += n) {
      detail::transpose_lines(from + t * from_stride + i, from_stride, to + i * to_stride + t,
                              to_stride);
    }
  }
  for (std::uint32_t i = 0; i < dims; ++i) {
    for (std::uint32_t t = i < whole_dims ? whole_tokens : 0; t < tokens; ++t) {
      to[i * to_stride + t] = from[t * from_stride + i];
    }
  }
}

// Copies the first `tokens` tokens of a page to another with the same tokens and dims.
template <class E>
void copy_tile(const E* from, const tile& as, E* to, const tile& as_to, std::uint32_t tokens) {
  from += as.origin;
  to += as_to.origin;
  if (as.dim_stride == 1 && as_to.dim_stride == 1) {
    const bool packed = as.token_stride == as.dims && as_to.token_stride == as.dims;
    const std::size_t rows = packed ? 1 : tokens;
    const std::size_t row = packed ? std::size_t{tokens} * as.dims : as.dims;
    for (std::size_t t = 0; t < rows; ++t) {
      std::copy_n(from + t * as.token_stride, row, to + t * as_to.token_stride);
    }
  } else if (as.token_stride == 1 && as_to.token_stride == 1) {
    for (std::size_t i = 0; i < as.dims; ++i) {
      std::copy_n(from + i * as.dim_stride, tokens, to + i * as_to.dim_stride);
    }
  } else if (as.dim_stride == 1 && as_to.token_stride == 1) {
    transpose(from, as.token_stride, to, as_to.dim_stride, tokens, as.dims);
  } else {
    for (std::size_t i = 0; i < as.dims; ++i) {
      for (std::size_t t = 0; t < tokens; ++t) {
        to[t * as_to.token_stride + i * as_to.dim_stride] =
            from[t * as.token_stride + i * as.dim_stride];
      }
    }
  }
}

}  // namespace instinfer::layout
