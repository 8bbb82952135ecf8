#pragma once
// How tiles get to shared memory by default: every lane copies chunks of 16 bytes by cp.async, sm_80 and later.

#include "instinfer/cuda/kernels/row_finder.hpp"
#include "instinfer/cuda/kernels/unrolled.hpp"

namespace instinfer::cuda {

// What a policy of this kind says: the padding of rows in shared memory, the bytes of a stage's barrier, and a loader, one a warp
// for the life of its CTA. begin() comes before a fold's first issue(), finish() after its last tile. issue() starts the copies of the warp's next tile, K rows, then V rows, then scales; next() waits for
// the oldest tile that was issued, for all lanes of the warp, and tells where it is. At most stages - 1 tiles are on their way;
// issue() is called once for every next(), and stages - 1 times before the first, with `wanted` false where no tile is left.
// Rows without a token become zeros, V above all: 0 * NaN is NaN.
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
      constexpr std::uint32_t rows_per_copy = 32 / row_layout::chunks;  // of 32 chunks
      if (wanted) {
        std::byte* stage = stages_ + fill_ * Shape::stage_bytes;
        const found_row mine = rows.next(status);
        const std::uint32_t lane_id = lane_.thread() % 32;
        const std::uint32_t chunk = lane_id % row_layout::chunks;
        unrolled<2 * tile_tokens / rows_per_copy>([&](auto i) {
          const std::uint32_t row = i * rows_per_copy + lane_id / row_layout::chunks;
          const std::uint32_t from = lane_.shuffle(mine.row, row);
          const Code* pages = i * rows_per_copy < tile_tokens ? k_pages_ : v_pages_;
          lane_.template copy_async<16>(
              stage + row_layout::offset(row, chunk),
              pages + (from == no_row ? 0
                                      : std::uint64_t{from} * (row_layout::bytes / sizeof(Code)) +
                                            chunk * (16 / sizeof(Code))),
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
      lane_.sync_warp();  // all lanes' copies have landed, and all are done with the tile before
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
