#pragma once
// The types of the pages that share a word line, and the type of each page number.
// Cells with several bits are sensed with a different number of read levels per type, so array
// times differ.

#include <cstdint>

namespace instinfer::flash {

enum class page_type { lower, middle, upper };  // also: LSB, CSB, MSB

// The type of page n of a block.
// - by_word_line: the pages of a word line are consecutive, type n mod count. For parts that
//   program a word line at once.
// - shifted: the upper pages of a word line come after the lower pages of later word lines, against
//   program disturb. TLC: 0 to 5 lower, 6 and 7 middle, then pairs of lower, middle and upper.
//   MLC: lower and upper alternate (Yaakobi et al., ICNC 2012, as in MQSim).
enum class page_order { by_word_line, shifted };

inline constexpr std::int32_t max_page_types = 3;

// The default is one type, with tR of timing::read_ps and tPROG of timing::program_ps. With more
// types, these times are those of the lower pages.
struct page_types {
  std::int32_t count = 1;           // bits per cell: 1 SLC, 2 MLC (lower, upper), 3 TLC
  std::int64_t read_middle_ps = 0;  // tR; only with three types
  std::int64_t read_upper_ps = 0;   // tR; only with two or three
  page_order order = page_order::by_word_line;
  std::int64_t program_middle_ps = 0;  // tPROG; 0: timing::program_ps, as for lower pages
  std::int64_t program_upper_ps = 0;

  // Precondition: page >= 0.
  constexpr page_type of(std::int32_t page) const {
    std::int32_t type = page % count;
    if (count == 3 && order == page_order::shifted) {
      type = page < 6 ? 0 : page < 8 ? 1 : (page - 8) / 2 % 3;
    }
    return count == 2 && type == 1 ? page_type::upper : static_cast<page_type>(type);
  }

  friend constexpr bool operator==(const page_types&, const page_types&) = default;
};

}  // namespace instinfer::flash
