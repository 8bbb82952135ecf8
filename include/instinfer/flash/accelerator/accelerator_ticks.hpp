#pragma once
// How long the units behind the channels take for their work, in a drive's exact ticks.

#include <array>
#include <cstddef>
#include <cstdint>

#include "instinfer/ssd/spec/accelerator.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// Ticks of an amount of work at a rate, rounded up to picoseconds (work_ps). Remembers what it has
// worked out: pages of one attend ask for few different amounts.
class work_ticks {
 public:
  work_ticks(std::int64_t per_second, const tick_scale& scale)
      : per_second_{per_second}, scale_{scale} {}

  // Throws as work_ps does.
  std::int64_t operator()(std::int64_t amount) {
    entry& known = known_[static_cast<std::size_t>(amount) % known_.size()];
    if (known.amount != amount) {
      known = {amount, scale_.from_ps(work_ps(amount, per_second_))};
    }
    return known.ticks;
  }

  // About the same without the rounding, for amounts of any size; 0 for a unit that is missing.
  double about(double amount) const {
    return per_second_ > 0
               ? amount / static_cast<double>(per_second_) * static_cast<double>(ps_per_s) *
                     static_cast<double>(scale_.ticks_per_ps)
               : 0.0;
  }

 private:
  struct entry {
    std::int64_t amount = 0;
    std::int64_t ticks = 0;
  };
  std::int64_t per_second_;
  tick_scale scale_;
  std::array<entry, 61> known_{};  // a prime, as amounts are multiples of powers of two
};

// The kernels share the work of every page evenly, and the softmax units that of its scores: both
// are data-parallel over dims and tokens.
struct accelerator_ticks {
  accelerator_ticks(const accelerator_spec& units, std::int64_t dram_bytes_per_s,
                    std::int64_t page_bytes, const tick_scale& scale)
      : filter_page{scale.from_ps(units.filter_ps(page_bytes))},
        filter{units.filter_bytes_per_s, scale},
        dram{dram_bytes_per_s, scale},
        gemv{units.gemv_flops_per_s * units.attention_kernels, scale},
        softmax{units.softmax_flops_per_s * units.softmax_units, scale},
        top_k{units.top_k_elements_per_s, scale} {}

  std::int64_t filter_page;  // a page, wanted or not
  work_ticks filter;         // bytes
  work_ticks dram;           // bytes
  work_ticks gemv;           // FLOP
  work_ticks softmax;        // FLOP
  work_ticks top_k;          // elements
};

}  // namespace instinfer::flash
