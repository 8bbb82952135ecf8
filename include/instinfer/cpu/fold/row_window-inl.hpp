#pragma once
// A window over the K and V rows of a plan, in the plan's order: the block of rows that a kernel
// uses now, and the blocks after it, which it prefetches at the same time.

#include <algorithm>
#include <array>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/coded_load-inl.hpp"
#include "instinfer/cpu/tuning-inl.hpp"
#include "instinfer/layout/head_pages.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// The rows that a kernel uses at once.
template <class Packed, std::uint32_t Rows>
struct row_block {
  std::array<const Packed*, Rows> rows{};    // missing rows repeat the last one
  std::array<float, Rows> scales{};          // factors of the rows; only for pages with scales
  std::array<const bf16*, Rows> dims{};      // scales of the rows' dims; only of K, if there are
  std::array<std::uint32_t, Rows> tokens{};  // of the rows; only if asked for
  std::uint32_t count = 0;
  // Packed values from one row to the next if the block is full and this is the same for all rows;
  // otherwise 0.
  std::size_t stride = 0;
};

// The rows at some distance after the first one of a block: the rest of the block, then the first
// rows of the next block. Empty if there are none to prefetch.
template <class Packed, std::uint32_t Rows = tuning{}.block_rows, cache_level To = cache_level::l2>
struct rows_ahead {
  const Packed* const* now = nullptr;
  const Packed* const* next = nullptr;
  std::uint32_t distance = Rows;

  explicit operator bool() const { return To != cache_level::none && now != nullptr; }
  // The same for the rows of the block from row t on.
  HWY_INLINE rows_ahead from(std::uint32_t t) const { return {now, next, distance + t}; }
  HWY_INLINE const Packed* operator[](std::size_t t) const {
    return t + distance < Rows ? now[t + distance] : next[t + distance - Rows];
  }
};

// Iterates over the wanted rows of a plan's K pages, or of its V pages. All pages are stored in the
// same way.
template <class Storage, std::uint32_t Rows = tuning{}.block_rows,
          cache_level Scattered = tuning{}.scattered>
class row_cursor {
 public:
  using codec = codec_of<Storage>;
  using packed = typename codec::packed;
  static constexpr std::uint32_t block_rows = Rows;
  using block = row_block<packed, Rows>;
  static constexpr bool scaled = codec::scale_bytes > 0;
  static constexpr bool dims_scaled = dim_bytes<codec> > 0;

  // Uses reads [first, last) of a plan: the V pages if `values`, otherwise the K pages. Blocks say
  // which tokens their rows are if the tokens of a page are given.
  void begin(bool values, std::size_t first, std::size_t last, std::uint32_t page_tokens = 0) {
    values_ = values;
    page_tokens_ = page_tokens;
    read_ = first;
    last_read_ = last;
    runs_ = {};
  }

  // The next rows, at most block_rows; count is 0 at the end. Rows without an even stride are
  // prefetched as soon as they are known, so that memory works while the plan is read (one SparF
  // head of 2K among 32K tokens on Zen 4: 270 us, against 330 with prefetches in the kernel).
  template <class Pages>
  void take(const access_plan& plan, const Pages& pages, block& to) {
    std::uint32_t count = 0;
    bool even = true;
    const packed* end = nullptr;  // where the next row must be
    while (count < block_rows && (!runs_.empty() || next_page(plan, pages))) {
      const std::uint32_t n = std::min(runs_.front().last - token_, block_rows - count);
      even &= end == nullptr || end == row_;
      for (std::uint32_t i = 0; i < n; ++i) {
        to.rows[count + i] = row_ + std::size_t{i} * stride_;
      }
      if constexpr (scaled) {
        std::fill_n(to.scales.begin() + count, block_rows - count, scale_);
      }
      if constexpr (dims_scaled) {
        std::fill_n(to.dims.begin() + count, block_rows - count, dim_scales_);
      }
      if (page_tokens_ > 0) [[unlikely]] {
        number(plan, to, count, n);
      }
      count += n;
      token_ += n;
      row_ += std::size_t{n} * stride_;
      end = row_;
      if (token_ == runs_.front().last) {
        runs_ = runs_.subspan(1);
        start_run();
      }
    }
    if (count > 0 && count < block_rows) {
      std::fill(to.rows.begin() + count, to.rows.end(), to.rows[count - 1]);
    }
    to.count = count;
    to.stride = even && count == block_rows ? stride_ : 0;
    if (to.stride == 0 && shares_ != sharing::entries) {
      for (std::uint32_t t = 0; t < count; ++t) {
        prefetch<Scattered>(to.rows[t], dims_ * sizeof(packed));
      }
    }
  }

  // What the rows taken last have in common with those of K.
  sharing shares() const { return shares_; }

 private:
  template <class Pages>
  bool next_page(const access_plan& plan, const Pages& pages) {
    const auto reads = plan.reads();
    while (read_ < last_read_ && (reads[read_].kind == stream::v_by_token) != values_) {
      ++read_;
    }
    if (read_ == last_read_) {
      return false;
    }
    const auto view = pages(reads[read_]);
    // A reference: a copy would be read back with wider loads than it was written with.
    const auto& page = layout::view_as<Storage>(view);
    data_ = page.data + page.shape.origin / packed_elements<packed>;
    stride_ = page.shape.token_stride / packed_elements<packed>;
    dims_ = page.shape.dims / packed_elements<packed>;
    runs_ = plan.tokens(reads[read_]).runs();
    shares_ = reads[read_].shares;
    ++read_;
    if constexpr (scaled) {
      scale_ = page.dims.stored() ? 1.0f : page.scale() * load_factor<packed>;
    }
    if constexpr (dims_scaled) {
      dim_scales_ = page.dims.scales;
    }
    if constexpr (scaled || dims_scaled) {
      prefetch_next_scale(plan, pages);
    }
    start_run();
    return true;
  }

  // A scale is needed before the rows of its page, and hardware prefetchers do not reach it.
  template <class Pages>
  void prefetch_next_scale(const access_plan& plan, const Pages& pages) const {
    const auto reads = plan.reads().first(last_read_);
    for (std::size_t i = read_; i < reads.size(); ++i) {
      if ((reads[i].kind == stream::v_by_token) == values_) {
        const auto view = pages(reads[i]);
        const auto& next = layout::view_as<Storage>(view);
        if constexpr (dims_scaled) {
          prefetch(next.dims.scales, std::size_t{codec::dim_bytes} * next.dims.dims);
        }
        if constexpr (scaled) {
          prefetch(next.scale.at);
        }
        break;
      }
    }
  }

  // Writes the tokens of the next n rows into the block, from row `at` on. Not inline: most folds
  // need no tokens, and take() is slower with the loop in it.
  HWY_NOINLINE void number(const access_plan& plan, block& to, std::uint32_t at,
                           std::uint32_t n) const {
    const std::uint32_t first = plan.reads()[read_ - 1].token_tile * page_tokens_ + token_;
    for (std::uint32_t i = 0; i < n; ++i) {
      to.tokens[at + i] = first + i;
    }
  }

  void start_run() {
    if (!runs_.empty()) {
      token_ = runs_.front().first;
      row_ = data_ + std::size_t{token_} * stride_;
    }
  }

  bool values_ = false;
  std::uint32_t page_tokens_ = 0;  // 0: rows are not numbered
  std::size_t read_ = 0;
  std::size_t last_read_ = 0;
  std::span<const index_run> runs_;  // the remaining runs of the page, the current one first
  const packed* data_ = nullptr;
  const packed* row_ = nullptr;
  std::size_t stride_ = 0;  // in packed values
  std::size_t dims_ = 0;    // in packed values
  float scale_ = 1.0f;
  const bf16* dim_scales_ = nullptr;
  std::uint32_t token_ = 0;
  sharing shares_ = sharing::nothing;  // of V with K
};

// The blocks of rows around the current one, and BlocksAhead blocks after it, at least 1. Kernels
// use the V rows of a block one step later than its K rows: together with K of the next block.
template <class Storage, tuning T, std::uint32_t BlocksAhead>
class row_window {
  using cursor = row_cursor<Storage, T.block_rows, T.scattered>;
  using packed = typename cursor::packed;

 public:
  using block = typename cursor::block;
  // The rows between the first one in use and the last one that a cursor has asked for: a block of
  // V before the current one, the blocks ahead, and one in which a cursor stands.
  static constexpr std::uint32_t rows_in_use = (BlocksAhead + 3) * T.block_rows;

  // Uses reads [first, last) of a plan. They begin with a K page and end with V pages. Blocks of
  // K say which tokens their rows are if the tokens of a K page are given.
  template <class Pages>
  void begin(const access_plan& plan, std::size_t first, std::size_t last, const Pages& pages,
             std::uint32_t page_tokens) {
    k_cursor_.begin(false, first, last, page_tokens);
    v_cursor_.begin(true, first, last);
    k_.fill({});
    v_.fill({});
    for (std::uint32_t i = 0; i <= BlocksAhead; ++i) {
      advance(plan, pages);
    }
  }

  // Moves to the next block.
  template <class Pages>
  void advance(const access_plan& plan, const Pages& pages) {
    k_now_ = (k_now_ + 1) % k_blocks;
    v_now_ = (v_now_ + 1) % v_blocks;
    k_cursor_.take(plan, pages, k_[(k_now_ + BlocksAhead) % k_blocks]);
    v_cursor_.take(plan, pages, v_[(v_now_ + BlocksAhead) % v_blocks]);
  }

  // The rows [k_dim] and [v_dim] of the current block; count is 0 at the end.
  const block& k() const { return k_[k_now_]; }
  const block& v() const { return v_[v_now_]; }
  const block& v_before() const { return v_[(v_now_ + v_blocks - 1) % v_blocks]; }

  // The rows `distance` after those of the current K block, and after those of the V block before
  // it, for a kernel to prefetch; 1 to BlocksAhead blocks. Fused rows of V are prefetched together
  // with those of K, because they are one stream in memory. None if rows have no even stride, or
  // are prefetched already.
  template <cache_level To>
  rows_ahead<packed, T.block_rows, To> k_ahead(std::uint32_t distance) const {
    return ahead<To>(k_, k_now_, distance);
  }
  template <cache_level To>
  rows_ahead<packed, T.block_rows, To> v_ahead(std::uint32_t distance) const {
    const bool fused = v_cursor_.shares() == sharing::page;
    auto rows = ahead<To>(v_, fused ? v_now_ : v_now_ + v_blocks - 1, distance);
    if (v_cursor_.shares() == sharing::entries) {
      rows.now = nullptr;
    }
    return rows;
  }

 private:
  static constexpr std::uint32_t k_blocks = BlocksAhead + 1;
  static constexpr std::uint32_t v_blocks = BlocksAhead + 2;

  // The rows that begin `distance` rows after blocks[at % Blocks]. Blocks after the end of the plan
  // have no rows. The result's distance is the same in all cases, so that it is known at compile
  // time.
  template <cache_level To, std::size_t Blocks>
  static rows_ahead<packed, T.block_rows, To> ahead(const std::array<block, Blocks>& blocks,
                                                    std::uint32_t at, std::uint32_t distance) {
    const std::uint32_t skipped = (distance - 1) / T.block_rows;
    const block& first = blocks[(at + skipped) % Blocks];
    const block& second = blocks[(at + skipped + 1) % Blocks];
    const block& then = second.count > 0 ? second : first;
    const bool any = first.stride > 0 || then.stride > 0;
    return {any ? first.rows.data() : nullptr, then.rows.data(), distance - skipped * T.block_rows};
  }

  std::array<block, k_blocks> k_;  // now, then those ahead, in turn
  std::array<block, v_blocks> v_;  // before, now, then those ahead, in turn
  std::uint32_t k_now_ = 0;
  std::uint32_t v_now_ = 0;
  cursor k_cursor_;
  cursor v_cursor_;
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
