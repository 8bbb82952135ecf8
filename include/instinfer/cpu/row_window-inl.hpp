#pragma once
// A window over the K and V rows of a plan, in the plan's order: the block of rows that a kernel takes now, and the next one,
// which it brings to the cache meanwhile.

#include <algorithm>
#include <array>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/coded_load-inl.hpp"
#include "instinfer/layout/head_pages.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Some rows, and whether they fill their block and lie one after the other in memory.
struct taken_rows {
  std::uint32_t count = 0;
  bool adjacent = false;
};

// Rows of one block: with 16 neither K nor V stands still for so long that the hardware's prefetchers lose its stream (of
// the read bandwidth, fp16 at head size 128: 0.96; blocks of 64 rows: 0.86). They are also the page of 4 KiB.
inline constexpr std::uint32_t block_rows = 16;

// Goes through the wanted rows of a plan's K pages, or of its V pages, which are all stored alike.
template <class Storage>
class row_cursor {
 public:
  using codec = codec_of<Storage>;
  using unit = typename codec::unit;
  static constexpr bool scaled = codec::scale_bytes > 0;

  // Reads [first, last) of a plan, of which it takes those of `values` (V) or not (K).
  void begin(bool values, std::size_t first, std::size_t last) {
    values_ = values;
    read_ = first;
    last_read_ = last;
    runs_ = {};
  }

  // Pointers to the next rows, up to block_rows of them, and what each is multiplied by if pages have scales. The rest of
  // `rows` then repeats the last one.
  template <class Pages>
  taken_rows take(const access_plan& plan, const Pages& pages,
                  std::span<const unit*, block_rows> rows, std::span<float, block_rows> scales) {
    taken_rows taken{0, true};
    const unit* end = nullptr;  // of the rows so far
    while (taken.count < block_rows && (!runs_.empty() || next_page(plan, pages))) {
      const std::uint32_t n = std::min(runs_.front().last - token_, block_rows - taken.count);
      taken.adjacent &= stride_ == dims_ && (end == nullptr || end == row_);
      for (std::uint32_t i = 0; i < n; ++i) {
        rows[taken.count + i] = row_ + std::size_t{i} * stride_;
      }
      if constexpr (scaled) {
        std::fill_n(scales.begin() + taken.count, block_rows - taken.count, scale_);
      }
      taken.count += n;
      token_ += n;
      row_ += std::size_t{n} * stride_;
      end = row_;
      if (token_ == runs_.front().last) {
        runs_ = runs_.subspan(1);
        start_run();
      }
    }
    if (taken.count > 0 && taken.count < block_rows) {
      std::fill(rows.begin() + taken.count, rows.end(), rows[taken.count - 1]);
    }
    taken.adjacent &= taken.count == block_rows;
    return taken;
  }

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
    const auto& page =
        layout::view_as<Storage>(view);  // a copy would be read back wider than written
    data_ = page.data;
    stride_ = page.shape.token_stride / unit_elements<unit>;
    dims_ = page.shape.dims / unit_elements<unit>;
    runs_ = plan.tokens(reads[read_]).runs();
    ++read_;
    if constexpr (scaled) {
      scale_ = page.scale() * load_factor<unit>;
      prefetch_next_scale(plan, pages);
    }
    start_run();
    return true;
  }

  // A scale is needed before its page's rows, and no stream leads to it.
  template <class Pages>
  void prefetch_next_scale(const access_plan& plan, const Pages& pages) const {
    const auto reads = plan.reads().first(last_read_);
    for (std::size_t i = read_; i < reads.size(); ++i) {
      if ((reads[i].kind == stream::v_by_token) == values_) {
        prefetch(layout::view_as<Storage>(pages(reads[i])).scale.at);
        break;
      }
    }
  }

  void start_run() {
    if (!runs_.empty()) {
      token_ = runs_.front().first;
      row_ = data_ + std::size_t{token_} * stride_;
    }
  }

  bool values_ = false;
  std::size_t read_ = 0;
  std::size_t last_read_ = 0;
  std::span<const index_run> runs_;  // left of the page, the current one first
  const unit* data_ = nullptr;
  const unit* row_ = nullptr;
  std::size_t stride_ = 0;  // in units
  std::size_t dims_ = 0;    // in units
  float scale_ = 1.0f;
  std::uint32_t token_ = 0;
};

// Blocks of rows around the current one. Kernels take the V rows of a block later than its K rows: beside K of the next.
template <class Storage>
class row_window {
  using cursor = row_cursor<Storage>;
  using unit = typename cursor::unit;

 public:
  // Reads [first, last) of a plan, which begin with a K page and end with V pages.
  template <class Pages>
  void begin(const access_plan& plan, std::size_t first, std::size_t last, const Pages& pages) {
    k_cursor_.begin(false, first, last);
    v_cursor_.begin(true, first, last);
    take(plan, pages);
    advance(plan, pages);
  }

  // The next block becomes the current one.
  template <class Pages>
  void advance(const access_plan& plan, const Pages& pages) {
    std::copy_n(k_.begin() + block_rows, block_rows, k_.begin());
    std::copy_n(v_.begin() + block_rows, 2 * block_rows, v_.begin());
    if constexpr (cursor::scaled) {
      std::copy_n(k_scales_.begin() + block_rows, block_rows, k_scales_.begin());
      std::copy_n(v_scales_.begin() + block_rows, block_rows, v_scales_.begin());
    }
    taken_k_[0] = taken_k_[1];
    taken_v_[0] = taken_v_[1];
    taken_v_[1] = taken_v_[2];
    take(plan, pages);
  }

  // Rows of the current block; 0 at the end.
  std::uint32_t count() const { return taken_k_[0].count; }
  // Rows [k_dim] of the current block, then those of the next one. Blocks that are not full repeat their last row.
  const unit* const* k() const { return k_.data(); }
  // Rows [v_dim] of the block before, the current one, and the next one; likewise.
  const unit* const* v_before() const { return v_.data(); }
  const unit* const* v() const { return v_.data() + block_rows; }
  // Whether rows lie one after the other: K of the current block, V of the one before.
  bool k_adjacent() const { return taken_k_[0].adjacent; }
  bool v_before_adjacent() const { return taken_v_[0].adjacent; }
  // What the current block's rows are multiplied by; of pages with scales only.
  const float* k_scales() const { return k_scales_.data(); }
  const float* v_scales() const { return v_scales_.data(); }

 private:
  template <class Pages>
  void take(const access_plan& plan, const Pages& pages) {
    const std::span<const unit*, 2 * block_rows> k(k_);
    const std::span<const unit*, 3 * block_rows> v(v_);
    const std::span<float, 2 * block_rows> k_scales(k_scales_);
    const std::span<float, 2 * block_rows> v_scales(v_scales_);
    taken_k_[1] = k_cursor_.take(plan, pages, k.template last<block_rows>(),
                                 k_scales.template last<block_rows>());
    taken_v_[2] = v_cursor_.take(plan, pages, v.template last<block_rows>(),
                                 v_scales.template last<block_rows>());
  }

  std::array<const unit*, 2 * block_rows> k_{};
  std::array<const unit*, 3 * block_rows> v_{};
  std::array<float, 2 * block_rows> k_scales_{};
  std::array<float, 2 * block_rows> v_scales_{};
  std::array<taken_rows, 2> taken_k_;
  std::array<taken_rows, 3> taken_v_;
  cursor k_cursor_;
  cursor v_cursor_;
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
