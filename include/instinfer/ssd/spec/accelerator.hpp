#pragma once
// Rates of the units inside the drive that consume pages: filters, attention kernels, arg-top-k
// (InstInfer §IV-B, Fig. 8; Table I); and the time that given work takes them.

#include <cstdint>
#include <limits>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// Time in ps of `amount` units of work at `per_second` units a second, rounded up, for any two
// positive 63-bit numbers. Throws bad_argument for a negative amount, work without a rate, or more
// than 9.2e6 seconds.
constexpr std::int64_t work_ps(std::int64_t amount, std::int64_t per_second) {
  require(amount >= 0, [&] {
    return "accelerator: an amount of work must not be negative, got " + std::to_string(amount);
  });
  if (amount == 0) {
    return 0;
  }
  constexpr std::int64_t max_rate = std::numeric_limits<std::int64_t>::max() / 1000;
  require(per_second > 0 && per_second <= max_rate, [&] {
    return "accelerator: work needs a rate in [1, 9.2e15] a second, got " +
           std::to_string(per_second) + " (0: the drive has no such unit)";
  });
  const std::int64_t seconds = amount / per_second;
  require(seconds < std::numeric_limits<std::int64_t>::max() / ps_per_s, [&] {
    return "accelerator: " + std::to_string(seconds) + " s of work do not fit 63 bits of ps";
  });
  // Long division, three decimal digits at a time, so that no product exceeds 1000 x rate.
  std::int64_t ps = seconds;
  std::int64_t rest = amount % per_second;
  for (int group = 0; group < 4; ++group) {
    rest *= 1000;
    ps = ps * 1000 + rest / per_second;
    rest %= per_second;
  }
  return ps + (rest > 0 ? 1 : 0);
}

// Softmax work per score: subtract the maximum, exponential, add to the sum, multiply by the
// reciprocal, and scale by 1/sqrt(d_h): 5 FLOP. Assumed: Table I gives a rate without its unit of
// work.
inline constexpr std::int64_t softmax_flops_per_score = 5;

// Two pages per filter: one arrives while the other is filtered. Assumed. The channel controllers
// in Table II have 27.8 blocks of RAM (36 Kbit), 15.6 KB for each of 8, which is room for three
// pages.
inline constexpr std::int32_t paper_filter_buffer_pages = 2;
// Half of the 108 pages of 4 KiB that Table II's 96 blocks of RAM for the attention kernels hold.
// The other half is for queries, scores and outputs. The half is assumed.
inline constexpr std::int32_t paper_kernel_buffer_pages = 54;

struct accelerator_spec {
  std::int64_t filter_bytes_per_s = 0;    // per filter; each channel controller has one
  std::int32_t attention_kernels = 0;     // each with one GeMV unit
  std::int64_t gemv_flops_per_s = 0;      // per kernel
  std::int32_t softmax_units = 0;         // in all kernels together
  std::int64_t softmax_flops_per_s = 0;   // per unit
  std::int64_t top_k_elements_per_s = 0;  // of the single arg-top-k unit
  // Buffer space in pages. Filter: per channel, between its bus and its filter, with the page in
  // the filter and the page on the bus. Kernel: of all kernels together, between filters and
  // kernels.
  std::int32_t filter_buffer_pages = paper_filter_buffer_pages;
  std::int32_t kernel_buffer_pages = paper_kernel_buffer_pages;
  // Release order of loads: so many heads are in work at the same time, and each that ends lets the
  // next one begin. 0: all heads of a batch, so that all first loads queue before any second one,
  // and phases follow each other. With fewer, one head's fold overlaps the scores of others. SparF
  // on pcie5_16ch, 64 heads of 32,768 tokens, tR 20 us: 22.9 ms with all, 21.7 with 8 at once. The
  // gain stays small because the kernels take pages in order. With one head at a time, the dies
  // have too little to read: 39.1 ms.
  std::int32_t heads_at_once = 0;

  constexpr bool present() const { return attention_kernels > 0; }

  // bytes: everything that the channel's bus delivers, wanted or not.
  constexpr std::int64_t filter_ps(std::int64_t bytes) const {
    return work_ps(bytes, filter_bytes_per_s);
  }
  // The work is spread evenly over the kernels, like the heads.
  constexpr std::int64_t gemv_ps(std::int64_t flops) const {
    return work_ps(flops, gemv_flops_per_s * attention_kernels);
  }
  constexpr std::int64_t softmax_ps(std::int64_t scores) const {
    return work_ps(scores * softmax_flops_per_score, softmax_flops_per_s * softmax_units);
  }
  constexpr std::int64_t top_k_ps(std::int64_t elements) const {
    return work_ps(elements, top_k_elements_per_s);
  }

  friend constexpr bool operator==(const accelerator_spec&, const accelerator_spec&) = default;
};

// Throws bad_argument with the name of the field, for units that could not work on any page. Units
// that some attention does not need may be missing.
inline void validate(const accelerator_spec& units) {
  if (!units.present()) {
    return;
  }
  const auto check = [](const char* field, std::int64_t value, std::int64_t least) {
    require(value >= least, [&] {
      return std::string("accelerator: ") + field + " must be " +
             (least > 0 ? "positive" : "0 (no such unit) or positive") + ", got " +
             std::to_string(value);
    });
  };
  check("filter_bytes_per_s", units.filter_bytes_per_s, 1);
  check("gemv_flops_per_s", units.gemv_flops_per_s, 1);
  check("softmax_units", units.softmax_units, 0);
  check("softmax_flops_per_s", units.softmax_flops_per_s, 0);
  check("top_k_elements_per_s", units.top_k_elements_per_s, 0);
  check("filter_buffer_pages", units.filter_buffer_pages, 1);
  check("kernel_buffer_pages", units.kernel_buffer_pages, 1);
  check("heads_at_once", units.heads_at_once, 0);
}

// Rates measured in InstInfer Table I, on the 285 MHz accelerator.
inline constexpr std::int64_t paper_filter_bytes_per_s = 1'850'000'000;
inline constexpr std::int64_t paper_gemv_flops_per_s = 12'700'000'000;
inline constexpr std::int64_t paper_softmax_flops_per_s = 14'200'000;
// One element per cycle at 285 MHz. Assumed: the paper gives the area of the unit (Table II), not
// its rate.
inline constexpr std::int64_t paper_top_k_elements_per_s = 285'000'000;

// An accelerator that keeps up with `kv_bytes_per_s` of fp16 entries, for heads with d_h = 128 and
// `group` query heads on each K and V. filter_bytes_per_s: of each filter.
// GeMV: dense attention takes 512 FLOP (q.k and the weighted v) for the 512 B of a token. At Table
// III's 7.66 GB/s, the two kernels of Fig. 8 have 25.4 GFLOPS for 7.66.
// Softmax: the first pass of SparF scores every token from about half of its K (the page filter
// leaves "about half", §IV-B), so a score comes with 128 B. Calibrated: Table I alone (two units)
// would stall the drive that Table III measured. Six units, enough for dense attention, would make
// SparF slower than dense, against Fig. 14. 59.8 M scores/s x 5 FLOP / 14.2 MFLOPS = 21.1, so 22.
// Each further query head of a group takes the same FLOP and scores again, and no more bytes.
constexpr accelerator_spec accelerator_for(
    std::int64_t kv_bytes_per_s, std::int32_t group = 1,
    std::int64_t filter_bytes_per_s = paper_filter_bytes_per_s) {
  constexpr std::int64_t token_bytes = 2 * 128 * 2;
  const std::int64_t token_flops = std::int64_t{2 * 2 * 128} * group;
  constexpr std::int64_t score_bytes = 128;
  constexpr std::int32_t paper_kernels = 2;  // Fig. 8
  const auto ceil_div = [](std::int64_t a, std::int64_t b) {
    return static_cast<std::int32_t>((a + b - 1) / b);
  };
  const std::int64_t tokens_per_s = ceil_div(kv_bytes_per_s, token_bytes);
  const std::int32_t kernels = ceil_div(tokens_per_s * token_flops, paper_gemv_flops_per_s);
  return {.filter_bytes_per_s = filter_bytes_per_s,
          .attention_kernels = kernels < paper_kernels ? paper_kernels : kernels,
          .gemv_flops_per_s = paper_gemv_flops_per_s,
          .softmax_units = ceil_div(kv_bytes_per_s / score_bytes * group * softmax_flops_per_score,
                                    paper_softmax_flops_per_s),
          .softmax_flops_per_s = paper_softmax_flops_per_s,
          .top_k_elements_per_s = paper_top_k_elements_per_s};
}

}  // namespace instinfer::flash
