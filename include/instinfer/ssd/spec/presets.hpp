#pragma once
// Named drives, each number with its source or marked assumed (InstInfer, experimental set-up).

#include <algorithm>
#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/spec/accelerator.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// One drive. A structural type: usable as a template argument, and as a run-time value in sweeps.
struct drive_spec {
  flash::geometry geometry;
  flash::timing timing;
  flash::accelerator_spec units;      // units.present() is false for a plain SSD
  std::int64_t link_bytes_per_s = 0;  // external link, one direction
  std::int64_t dram_bytes = 0;        // of the drive's own DRAM
  // Of the drive's DRAM, which holds the group buffer. 64 bits of DDR4-2400; assumed, because the
  // paper gives only its size.
  std::int64_t dram_bytes_per_s = 19'200'000'000;

  constexpr std::int64_t bus_bytes_per_s() const {
    return geometry.channels * timing.bus_bytes_per_s;
  }

  friend constexpr bool operator==(const drive_spec&, const drive_spec&) = default;
};

constexpr bool valid(const drive_spec& drive) {
  return valid(drive.geometry) && valid(drive.timing) && drive.link_bytes_per_s > 0 &&
         drive.dram_bytes >= 0 && drive.dram_bytes_per_s > 0;
}

inline void validate(const drive_spec& drive) {
  validate(drive.geometry);
  validate(drive.timing);
  require(drive.link_bytes_per_s > 0, [&] {
    return "drive_spec: link_bytes_per_s must be positive, got " +
           std::to_string(drive.link_bytes_per_s);
  });
  require(drive.dram_bytes >= 0, [&] {
    return "drive_spec: dram_bytes must not be negative, got " + std::to_string(drive.dram_bytes);
  });
  require(drive.dram_bytes_per_s > 0, [&] {
    return "drive_spec: dram_bytes_per_s must be positive, got " +
           std::to_string(drive.dram_bytes_per_s);
  });
  validate(drive.units);
}

// Rate of a long sequential read. Each channel repeats rounds in which all its planes read one
// page. The rate is this share of the bus rate:
//   W P T / (max(RC(P) + tR + 20 ns, W RC(P)) + W P T)
// with W dies, P planes, page time T. The bus is idle until the first array has finished, unless
// the commands of the round fill that time. With several page types, it is the mean of their
// rounds. The timeline gives the exact value; this formula explains a preset.
constexpr double sequential_read_bytes_per_s(const drive_spec& drive) {
  const geometry& g = drive.geometry;
  const timing& t = drive.timing;
  const tick_scale scale = ticks_of(t, g);
  const double planes = static_cast<double>(g.dies_per_channel()) * g.planes;
  const double transfer_ps =
      static_cast<double>(scale.page_transfer_ticks) / static_cast<double>(scale.ticks_per_ps);
  const std::int64_t cycles_ps = t.read_cycles_ps(g.planes);
  double rounds_ps = 0;  // sum over one page of each type
  for (std::int32_t type = 0; type < t.types.count; ++type) {
    const page_types in_turn{.count = t.types.count};
    const std::int64_t before_data_ps =
        std::max(cycles_ps + t.read_array_ps(in_turn.of(type)), g.dies_per_channel() * cycles_ps);
    rounds_ps += static_cast<double>(before_data_ps) + planes * transfer_ps;
  }
  const double round_ps = rounds_ps / t.types.count;
  return g.channels * planes * g.page_bytes / round_ps * static_cast<double>(ps_per_s);
}

// No arbitration reads faster: the lower of what the arrays of all planes deliver, and what all
// buses carry with the cycles of one command a page.
constexpr double most_read_bytes_per_s(const drive_spec& drive) {
  const geometry& g = drive.geometry;
  const timing& t = drive.timing;
  const tick_scale scale = ticks_of(t, g);
  const double transfer_ps =
      static_cast<double>(scale.page_transfer_ticks) / static_cast<double>(scale.ticks_per_ps);
  std::int64_t cycles_ps = t.read_cycles_ps(1);  // the fewest for a page
  for (std::int32_t planes = 2; planes <= g.planes; ++planes) {
    cycles_ps = std::min(cycles_ps, t.read_cycles_ps(planes) / planes);
  }
  const double bus_ps = static_cast<double>(cycles_ps) + transfer_ps;
  const double array_ps = static_cast<double>(t.mean_read_array_ps()) /
                          (static_cast<double>(g.dies_per_channel()) * g.planes);
  return g.channels * static_cast<double>(g.page_bytes) / std::max(bus_ps, array_ps) *
         static_cast<double>(ps_per_s);
}

// An accelerator that never holds up the flash of a drive in dense attention, for `group` query
// heads a KV head. Its filters take each bus at its full rate.
constexpr accelerator_spec accelerator_for(const drive_spec& drive, std::int32_t group = 1) {
  const auto rate = static_cast<std::int64_t>(most_read_bytes_per_s(drive) + 0.5);
  return accelerator_for(rate, group,
                         std::max(paper_filter_bytes_per_s, drive.timing.bus_bytes_per_s));
}

// Samsung's sixth-generation V-NAND (980 Pro, the paper's flash). Its announcement of August 2019
// gives reads "below" 45 us and writes "below" 450 us, used here as the values. It is TLC, but only
// one read time is given, so it has one page type. Erase 3.5 ms: assumed. Bus 1.4 GB/s: InstInfer's
// set-up.
inline constexpr timing vnand_v6_timing{.read_ps = 45 * ps_per_us,
                                        .program_ps = 450 * ps_per_us,
                                        .erase_ps = 3'500 * ps_per_us,
                                        .bus_bytes_per_s = 1'400'000'000};

// TLC with different times per page type: tR and tPROG of SimpleSSD's TLC as used in FEMU
// (hw/femu/nand/nand.h); erase 3 ms, also from FEMU. Consecutive pages of a word line and the bus
// are assumed, as for vnand_v6_timing.
inline constexpr timing tlc_by_type_timing{.read_ps = 56'500 * ps_per_ns,
                                           .program_ps = 820'500 * ps_per_ns,
                                           .erase_ps = 3'000 * ps_per_us,
                                           .bus_bytes_per_s = 1'400'000'000,
                                           .types = {.count = 3,
                                                     .read_middle_ps = 77'500 * ps_per_ns,
                                                     .read_upper_ps = 106'000 * ps_per_ns,
                                                     .program_middle_ps = 2'225 * ps_per_us,
                                                     .program_upper_ps = 5'734 * ps_per_us}};

// MLC with different times per page type: Micron L95B as profiled for FEMU (same file); order and
// bus as above.
inline constexpr timing mlc_by_type_timing{
    .read_ps = 48'000 * ps_per_ns,
    .program_ps = 850 * ps_per_us,
    .erase_ps = 3'000 * ps_per_us,
    .bus_bytes_per_s = 1'400'000'000,
    .types = {
        .count = 2, .read_upper_ps = 64'000 * ps_per_ns, .program_upper_ps = 2'300 * ps_per_us}};

// 8 channels and 4 KiB pages: InstInfer §IV-C and set-up. Chips, dies and planes: calibrated on the
// 7.66 GB/s decode read of Table III. With 2 planes, the formula above gives 5.65, 7.51 and 8.99
// GB/s for 8, 16 and 32 dies per channel, so 16, which is 2 % too low (dies per chip: assumed).
// Blocks and pages: an assumed split of 2 TiB raw. 9 % of it is spare, beyond the 2 TB sold.
inline constexpr geometry vnand_v6_2tb{.channels = 8,
                                       .chips = 4,
                                       .dies = 4,
                                       .planes = 2,
                                       .blocks = 2048,
                                       .pages = 1024,
                                       .page_bytes = 4096,
                                       .spare_bytes = 0,
                                       .codeword_bytes = 4096};

// The CSD that the paper evaluates. Link 7 GB/s: InstInfer's set-up. DRAM 2 GB: as on the real
// board. Units: accelerator.hpp.
inline constexpr drive_spec instcsd{.geometry = vnand_v6_2tb,
                                    .timing = vnand_v6_timing,
                                    .units = accelerator_for(7'660'000'000),
                                    .link_bytes_per_s = 7'000'000'000,
                                    .dram_bytes = 2'000'000'000};

// The SSD of the paper's host-side systems, class Samsung 980 Pro 2 TB: the same array, PCIe 4 x4,
// no accelerator. DRAM 2 GB: assumed, 1 GB per TB as usual for a page-level table.
inline constexpr drive_spec pcie4_ssd{.geometry = vnand_v6_2tb,
                                      .timing = vnand_v6_timing,
                                      .units = {},
                                      .link_bytes_per_s = 7'000'000'000,
                                      .dram_bytes = 2'000'000'000};

// The same drive with slower flash that has page types: 6.01 GB/s by the formula above. 768 pages
// per block make whole word lines, with correspondingly more blocks: assumed.
inline constexpr drive_spec tlc_ssd{.geometry = {.channels = 8,
                                                 .chips = 4,
                                                 .dies = 4,
                                                 .planes = 2,
                                                 .blocks = 2731,
                                                 .pages = 768,
                                                 .page_bytes = 4096,
                                                 .spare_bytes = 0,
                                                 .codeword_bytes = 4096},
                                    .timing = tlc_by_type_timing,
                                    .units = {},
                                    .link_bytes_per_s = 7'000'000'000,
                                    .dram_bytes = 2'000'000'000};

// The real board, DaisyPlus OpenSSD: PCIe 3 x4 and 2 GB DRAM (InstInfer's set-up). 4 channels x 2
// ways, as in its vendor's public project for Micron flash (CRZ Technology,
// daisyplus_openssd_micron_4c2w). Link 3.5 GB/s: PCIe 3 x4 without packet overhead, assumed. Bus
// 0.8 GB/s, array times (60 us, 700 us, 5 ms), planes and capacity (256 GiB): assumed.
inline constexpr drive_spec daisyplus{.geometry = {.channels = 4,
                                                   .chips = 2,
                                                   .dies = 1,
                                                   .planes = 2,
                                                   .blocks = 4096,
                                                   .pages = 1024,
                                                   .page_bytes = 4096,
                                                   .spare_bytes = 0,
                                                   .codeword_bytes = 4096},
                                      .timing = {.read_ps = 60 * ps_per_us,
                                                 .program_ps = 700 * ps_per_us,
                                                 .erase_ps = 5'000 * ps_per_us,
                                                 .bus_bytes_per_s = 800'000'000},
                                      // Table I's accelerator was synthesised for this board
                                      .units = accelerator_for(7'660'000'000),
                                      .link_bytes_per_s = 3'500'000'000,
                                      .dram_bytes = 2'000'000'000};

// A drive of the next generation, all assumed: 16 channels x 2.4 GB/s, V6 reads and writes, 8 dies
// x 4 planes per channel (20.6 GB/s by the formula above), 2 TiB, PCIe 5 x4 at 14 GB/s, and an
// accelerator that keeps up with the array.
inline constexpr drive_spec pcie5_16ch{.geometry = {.channels = 16,
                                                    .chips = 4,
                                                    .dies = 2,
                                                    .planes = 4,
                                                    .blocks = 1024,
                                                    .pages = 1024,
                                                    .page_bytes = 4096,
                                                    .spare_bytes = 0,
                                                    .codeword_bytes = 4096},
                                       .timing = {.read_ps = 45 * ps_per_us,
                                                  .program_ps = 450 * ps_per_us,
                                                  .erase_ps = 3'500 * ps_per_us,
                                                  .bus_bytes_per_s = 2'400'000'000},
                                       .units = accelerator_for(20'600'000'000),
                                       .link_bytes_per_s = 14'000'000'000,
                                       .dram_bytes = 4'000'000'000};

// SLC flash like Samsung's Z-NAND: 3 us reads, 100 us writes, 4 KB pages, 64 Gb dies (ISSCC 2018,
// as reported in AnandTech's 983 ZET review). Erase 1 ms: assumed. Bus, dies, planes, DRAM and link
// are those of instcsd, to isolate the array times: assumed. 1 TiB.
inline constexpr drive_spec slc_low_latency{
    .geometry = {.channels = 8,
                 .chips = 4,
                 .dies = 4,
                 .planes = 2,
                 .blocks = 4096,
                 .pages = 256,
                 .page_bytes = 4096,
                 .spare_bytes = 0,
                 .codeword_bytes = 4096},
    .timing = {.read_ps = 3 * ps_per_us,
               .program_ps = 100 * ps_per_us,
               .erase_ps = 1'000 * ps_per_us,
               .bus_bytes_per_s = 1'400'000'000},
    .units = accelerator_for(9'650'000'000),  // by the formula above the bus is never idle
    .link_bytes_per_s = 7'000'000'000,
    .dram_bytes = 2'000'000'000};

static_assert(valid(instcsd) && valid(pcie4_ssd) && valid(tlc_ssd) && valid(daisyplus) &&
              valid(pcie5_16ch) && valid(slc_low_latency) && valid(mlc_by_type_timing));

}  // namespace instinfer::flash
