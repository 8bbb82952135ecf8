#pragma once
// Finds the rows of K and V for positions: which token, on which page, in which row of the pool.

#include "instinfer/cuda/kernels/tile_shape.hpp"

namespace instinfer::cuda {

inline constexpr std::uint32_t no_row = 0xFFFF'FFFFu;

struct found_row {
  std::uint32_t row = no_row;
  const float* scale = nullptr;  // of its page and head, for codes
};

// Finds rows of K (lanes 0 to 15) and V (lanes 16 to 31), one token a lane, two tiles ahead of
// their use. While the copies of tile i are issued, the list entry for tile i + 2 and the table
// entry for tile i + 1 are loaded.
class row_finder {
 public:
  template <class E>
  constexpr row_finder(const paged_stream<E>& stream, std::uint32_t sequence, std::uint32_t head,
                       const std::uint32_t* list, const visible_tokens& seen, std::uint32_t first,
                       std::uint32_t last)
      : table_{stream.table == nullptr ? nullptr : stream.entries(sequence, head)},
        table_page_stride_{stream.table_page_stride},
        table_pages_{stream.table_pages},
        page_tokens_{stream.page_tokens},
        page_count_{stream.page_count},
        page_rows_{stream.page_rows},
        token_rows_{stream.token_rows},
        scales_{stream.scales == nullptr
                    ? nullptr
                    : stream.scales + std::int64_t{head} * stream.scale_head_stride},
        scale_page_stride_{stream.scale_page_stride},
        head_row_{head * stream.head_rows},
        sequence_{sequence},
        list_{list},
        seen_{seen},
        position_{first},
        last_{last} {
    token_ = find_token();
    entry_ = find_entry(token_);
    next_token_ = find_token();
  }

  // The row of this lane's token in the next tile. It is no_row past the last token, and for what
  // is out of range, which the status reports.
  constexpr found_row next(std::uint32_t& status) {
    found_row found{no_row, scales_};
    if (token_ != none) {
      if (entry_ < page_count_) {
        const std::uint32_t in_page = token_ - page_tokens_(token_) * page_tokens_.value;
        found.row = entry_ * page_rows_ + head_row_ + in_page * token_rows_;
        found.scale += std::uint64_t{entry_} * scale_page_stride_;
      } else {
        status |= entry_ == beyond_table ? token_beyond_table : page_out_of_range;
      }
    }
    token_ = next_token_;
    entry_ = find_entry(token_);
    next_token_ = find_token();
    return found;
  }

 private:
  static constexpr std::uint32_t none = 0xFFFF'FFFFu;
  static constexpr std::uint32_t beyond_table = 0xFFFF'FFFEu;

  constexpr std::uint32_t find_token() {
    const std::uint32_t p = position_;
    position_ += warps_per_cta * tile_tokens;
    return p >= last_ ? none : list_ != nullptr ? list_[p] : seen_.token(p);
  }
  constexpr std::uint32_t find_entry(std::uint32_t token) const {
    if (token == none) {
      return none;
    }
    const std::uint32_t index = page_tokens_(token);
    if (index >= table_pages_) {
      return beyond_table;
    }
    return table_ == nullptr ? sequence_ : table_[std::uint64_t{index} * table_page_stride_];
  }

  const std::uint32_t* table_;
  std::uint32_t table_page_stride_;
  std::uint32_t table_pages_;
  divisor page_tokens_;
  std::uint32_t page_count_;
  std::uint32_t page_rows_;
  std::uint32_t token_rows_;
  const float* scales_;
  std::uint32_t scale_page_stride_;
  std::uint32_t head_row_;
  std::uint32_t sequence_;
  const std::uint32_t* list_;
  visible_tokens seen_;
  std::uint32_t position_;
  std::uint32_t last_;
  std::uint32_t token_ = none;
  std::uint32_t entry_ = none;
  std::uint32_t next_token_ = none;
};

}  // namespace instinfer::cuda
