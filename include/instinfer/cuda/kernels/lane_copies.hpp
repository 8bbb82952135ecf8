#pragma once
// Copies tiles to shared memory by cp.async, the default: every lane copies words of 16 bytes.
// sm_80 and later.

#include "instinfer/cuda/kernels/row_finder.hpp"
#include "instinfer/cuda/kernels/unrolled.hpp"

namespace instinfer::cuda {

// A copy policy gives three things: the padding of rows in shared memory, the bytes of a stage's
// barrier, and a loader. Each warp has one loader for the life of its CTA.
//   begin()   comes before the first issue() of a fold
//   issue()   starts the copies of the warp's next tile: K rows, V rows, scales
//   next()    waits for the oldest issued tile, for all lanes of the warp; returns its place
//   finish()  comes after the last tile of a fold
// At most stages - 1 tiles are on their way. A fold calls issue() stages - 1 times before its first
// next(), and then once for every next(). `wanted` is false where no tile is left.
// Rows without a token become zeros. This matters most for V: 0 * NaN is NaN.
struct lane_copies {
  static constexpr std::uint32_t row_padding = 0;
  static constexpr std::uint32_t stage_barrier_bytes = 0;

  template <class Lane, class Code, class Shape>
  class loader {
   public:
    constexpr loader(Lane& lane, const Code* k_pages, const Code* v_pages, std::byte* stages,
                     std::byte* /*barriers*/)
        : lane_{lane}, k_pages_{k_pages}, v_pages_{v_pages}, stages_{stages} {}

    constexpr void begin() {}

    constexpr void issue(row_finder& rows, bool wanted, std::uint32_t& status) {
      using row_layout = typename Shape::row;
      constexpr std::uint32_t rows_per_copy = 32 / row_layout::words;  // of 32 words
      if (wanted) {
        std::byte* stage = stages_ + fill_ * Shape::stage_bytes;
        const found_row mine = rows.next(status);
        const std::uint32_t lane_id = lane_.thread() % 32;
        const std::uint32_t word = lane_id % row_layout::words;
        unrolled<2 * tile_tokens / rows_per_copy>([&](auto i) {
          const std::uint32_t row = i * rows_per_copy + lane_id / row_layout::words;
          const std::uint32_t from = lane_.shuffle(mine.row, row);
          const Code* pages = i * rows_per_copy < tile_tokens ? k_pages_ : v_pages_;
          lane_.template copy_async<16>(
              stage + row_layout::offset(row, word),
              pages + (from == no_row ? 0
                                      : std::uint64_t{from} * (row_layout::bytes / sizeof(Code)) +
                                            word * (16 / sizeof(Code))),
              from != no_row);
        });
        if constexpr (Shape::scales_bytes > 0) {
          lane_.template copy_async<4>(stage + 2 * Shape::tile_bytes + lane_id * 4, mine.scale,
                                       mine.row != no_row);
        }
        fill_ = fill_ + 1 == Shape::stages ? 0 : fill_ + 1;
      }
      lane_.commit_copies();
    }

    constexpr const std::byte* next() {
      lane_.template wait_copies<Shape::stages - 2>();
      // All lanes' copies have landed, and all lanes are done with the tile before.
      lane_.sync_warp();
      const std::byte* stage = stages_ + use_ * Shape::stage_bytes;
      use_ = use_ + 1 == Shape::stages ? 0 : use_ + 1;
      return stage;
    }

    constexpr void finish() { lane_.template wait_copies<0>(); }

   private:
    Lane& lane_;
    const Code* k_pages_;
    const Code* v_pages_;
    std::byte* stages_;
    std::uint32_t fill_ = 0;  // stage that is filled next
    std::uint32_t use_ = 0;
  };
};

}  // namespace instinfer::cuda
