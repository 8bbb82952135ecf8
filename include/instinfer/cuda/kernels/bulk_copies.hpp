#pragma once
// Copies tiles to shared memory by the bulk copies of sm_90: one instruction a row, in place of one
// for each 16 bytes. An mbarrier counts the bytes. This is not the default: on an H200 it is 5 to 8
// % slower than cp.async (docs/gpu.md). `./dev bench cuda --benchmark_filter=dense` times both.
//
// Each stage has a barrier, which takes one arrival a phase: that of lane 0, which announces how
// many bytes will come. Why no lane waits for ever, or too short a time:
//   - A phase completes when lane 0 has arrived and the announced bytes have landed. Each row that
//     is not zeros brings `bytes`.
//   - A stage is filled again only after next() of the tile that follows. All lanes reach the
//     sync_warp of that call after their wait on the stage's phase. So no lane is ever more than
//     one phase late, and one bit tells phases apart.
//   - The warp waits for every tile that it issues. So fill and use meet again after each fold, and
//     no copy is on its way when the CTA merges in the same memory or ends.
// Bulk copies write through another proxy than stores. So begin() orders them after what the CTA
// stored in the stages between two folds. A lane that stored zeros in a row fences afterwards; no
// other lane copies to that row.

#include "instinfer/cuda/kernels/row_finder.hpp"
#include "instinfer/cuda/kernels/unrolled.hpp"

namespace instinfer::cuda {

struct bulk_copies {
  static constexpr std::uint32_t row_padding = 16;  // a copied row cannot be swizzled
  static constexpr std::uint32_t stage_barrier_bytes = 8;

  // The interface is that of lane_copies::loader. Lane l copies row l of a tile: 16 rows of K, then
  // 16 of V.
  template <class Lane, class Code, class Shape>
  class loader {
   public:
    static_assert(!is_coded<Code>,
                  "instinfer: bulk copies bring elements, codes need lane_copies for their scales, "
                  "see cuda/kernels/bulk_copies.hpp");

    constexpr loader(Lane& lane, const Code* k_pages, const Code* v_pages, std::byte* stages,
                     std::byte* barriers)
        : lane_{lane},
          pages_{lane.thread() % 32 < tile_tokens ? k_pages : v_pages},
          stages_{stages},
          barriers_{barriers} {
      if (lane_id() == 0) {
        for (std::uint32_t s = 0; s < Shape::stages; ++s) {
          lane_.init_barrier(barrier(s));
        }
      }
      lane_.fence_proxies();
      lane_.sync_warp();
    }

    constexpr void begin() { lane_.fence_proxies(); }

    constexpr void issue(row_finder& rows, bool wanted, std::uint32_t& status) {
      if (!wanted) {
        return;
      }
      const std::uint32_t from = rows.next(status).row;
      const std::uint32_t present = lane_.bits(lane_.ballot(from != no_row));
      if (lane_id() == 0) {
        lane_.arrive_expecting(barrier(fill_), present * row::bytes);
      }
      lane_.sync_warp();
      std::byte* to = stages_ + fill_ * Shape::stage_bytes + lane_id() * row::pitch;
      if (from != no_row) {
        lane_.template copy_bulk<row::bytes>(
            to, pages_ + std::uint64_t{from} * (row::bytes / sizeof(Code)), barrier(fill_));
      } else {
        for (std::uint32_t c = 0; c < row::words; ++c) {
          lane_.store_16_bytes(to + 16 * c, {0, 0, 0, 0});
        }
        lane_.fence_proxies();
      }
      fill_ = fill_ + 1 == Shape::stages ? 0 : fill_ + 1;
    }

    constexpr const std::byte* next() {
      lane_.wait_barrier(barrier(use_), phase_);
      // Then the other lanes' zeros are visible, too, and all lanes are done with the tile before.
      lane_.sync_warp();
      const std::byte* stage = stages_ + use_ * Shape::stage_bytes;
      if (++use_ == Shape::stages) {
        use_ = 0;
        phase_ ^= 1;
      }
      return stage;
    }

    constexpr void finish() {}

   private:
    using row = typename Shape::row;
    constexpr std::uint32_t lane_id() const { return lane_.thread() % 32; }
    constexpr std::byte* barrier(std::uint32_t stage) const {
      return barriers_ + stage * stage_barrier_bytes;
    }

    Lane& lane_;
    const Code* pages_;
    std::byte* stages_;
    std::byte* barriers_;
    std::uint32_t fill_ = 0;
    std::uint32_t use_ = 0;
    std::uint32_t phase_ = 0;  // parity of the phase that `use_` waits for
  };
};

}  // namespace instinfer::cuda
