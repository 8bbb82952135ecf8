#pragma once
// K or V of many sequences as a kernel reads it: rows of one token, found through a page table.
// Strides say how pages lie. So one code path reads flash pages (one head, one stream), pools of
// [page, head, token, dim] or [page, token, head, dim], and plain arrays.

#include <cstdint>

#include "instinfer/cuda/kernels/work_partition.hpp"

namespace instinfer::cuda {

// The row of token t of a head, in rows of `dim` values from `pages` on, is
//   page * page_rows + head * head_rows + (t % page_tokens) * token_rows
// with page =
//   table[sequence * table_sequence_stride + (t / page_tokens) * table_page_stride
//         + head * table_head_stride].
// Without a table, the page is the sequence and page_tokens its capacity. Rows are counted in 32
// bits (2^32 rows of 128 bytes are 512 GB); addresses are computed in 64 bits.
//
// E is an element, or an 8-bit code. Codes have one scale for each page and head: scales[page *
// scale_page_stride + head * scale_head_stride].
template <class E>
struct paged_stream {
  const E* pages = nullptr;  // 16-byte aligned
  std::uint32_t page_rows = 0;
  std::uint32_t token_rows = 1;
  std::uint32_t head_rows = 0;
  divisor page_tokens{1};
  std::uint32_t page_count = 0;  // pages in the pool: larger entries are errors

  const std::uint32_t* table = nullptr;
  std::uint32_t table_pages = 1;  // entries of a sequence's head
  std::uint32_t table_page_stride = 1;
  std::uint32_t table_head_stride = 0;
  std::int64_t table_sequence_stride = 0;

  const float* scales = nullptr;
  std::uint32_t scale_page_stride = 0;
  std::uint32_t scale_head_stride = 0;

  // The most tokens that a sequence can have.
  constexpr std::uint64_t most_tokens() const {
    return std::uint64_t{table_pages} * page_tokens.value;
  }
  constexpr const std::uint32_t* entries(std::uint32_t sequence, std::uint32_t head) const {
    return table + sequence * table_sequence_stride + std::int64_t{head} * table_head_stride;
  }
};

// A pool [page, kv_heads, page_tokens, dim] (HND) with a table [sequences, table_pages].
template <class E>
constexpr paged_stream<E> head_major_pages(const E* pages, std::uint32_t page_count,
                                           std::uint32_t page_tokens, std::uint32_t kv_heads,
                                           const std::uint32_t* table, std::uint32_t table_pages) {
  return {.pages = pages,
          .page_rows = kv_heads * page_tokens,
          .token_rows = 1,
          .head_rows = page_tokens,
          .page_tokens = divisor(page_tokens),
          .page_count = page_count,
          .table = table,
          .table_pages = table_pages,
          .table_sequence_stride = table_pages};
}

// The same for a pool [page, page_tokens, kv_heads, dim] (NHD).
template <class E>
constexpr paged_stream<E> token_major_pages(const E* pages, std::uint32_t page_count,
                                            std::uint32_t page_tokens, std::uint32_t kv_heads,
                                            const std::uint32_t* table, std::uint32_t table_pages) {
  paged_stream<E> s =
      head_major_pages(pages, page_count, page_tokens, kv_heads, table, table_pages);
  s.token_rows = kv_heads;
  s.head_rows = 1;
  return s;
}

// One array [sequences, kv_heads, capacity_tokens, dim], without a table.
template <class E>
constexpr paged_stream<E> contiguous(const E* values, std::uint32_t sequences,
                                     std::uint32_t capacity_tokens, std::uint32_t kv_heads) {
  return head_major_pages<E>(values, sequences, capacity_tokens, kv_heads, nullptr, 1);
}

// Token-indexed flash pages as they lie in the store: a page holds one head and one stream. The
// table is the L2P table [token_tile, kv_heads] of a sequence's layer (layout/head_pages.hpp).
// Pages are page_rows rows apart.
template <class E>
constexpr paged_stream<E> flash_pages(const E* pages, std::uint32_t page_count,
                                      std::uint32_t page_rows, std::uint32_t page_tokens,
                                      std::uint32_t kv_heads, const std::uint32_t* table,
                                      std::uint32_t token_tiles) {
  return {.pages = pages,
          .page_rows = page_rows,
          .page_tokens = divisor(page_tokens),
          .page_count = page_count,
          .table = table,
          .table_pages = token_tiles,
          .table_page_stride = kv_heads,
          .table_head_stride = 1,
          .table_sequence_stride = std::int64_t{token_tiles} * kv_heads};
}

// Scales in an array of their own, [page, kv_heads].
template <class Code>
constexpr paged_stream<Code> with_scales(paged_stream<Code> s, const float* scales,
                                         std::uint32_t kv_heads) {
  s.scales = scales;
  s.scale_page_stride = kv_heads;
  s.scale_head_stride = 1;
  return s;
}

// Scales in the last four bytes of each flash page, where codec/scaled_pages.hpp writes them.
// page_bytes is a multiple of 16, and the length of page_rows rows.
template <class Code>
paged_stream<Code> with_scales_in_pages(paged_stream<Code> s, std::uint32_t page_bytes) {
  s.scales = reinterpret_cast<const float*>(s.pages + page_bytes) - 1;
  s.scale_page_stride = page_bytes / sizeof(float);
  return s;
}

}  // namespace instinfer::cuda
