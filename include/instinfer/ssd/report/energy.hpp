#pragma once
// Energy of a drive's work for a token, by part: array, bus, accelerator, link, DRAM, program,
// erase, and the constant power of the time that it takes.

#include <cstdint>

#include "instinfer/core/traffic.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

struct energy_rates {
  // Power of a plane while its array reads, programs or erases: 3.3 V x 25 mA, from the data sheet
  // of Micron's MT29F64G08EBAA as used in SimpleSSD (pal/old/LatencyTLC.cc). This part is from
  // 2009; newer parts are assumed to need no more.
  double array_w = 3.3 * 0.025;
  // The page size at which array_w holds. Micron's 64 Gb parts of that time have pages of 8,192 +
  // 448 B (data sheet L74A). Power is assumed proportional to the page: each bit line is charged
  // and sensed, and they take most of it.
  double array_page_bytes = 8192;
  // Flash bus: 3.69 pJ/bit of a serial NAND interface at 25.6 Gb/s (ISSCC 2018; JSSC, doi
  // 10.1109/JSSC.2021.3138797). Assumed for the parallel bus too.
  double bus_j_per_byte = 8 * 3.69e-12;
  double link_j_per_byte = 8 * 5e-12;  // PCIe, both ends: 5 pJ/bit, assumed
  // 1.3 nJ per 64 bits, the lower end for a DRAM access in Horowitz, "Computing's energy problem",
  // ISSCC 2014.
  double dram_j_per_byte = 1.3e-9 / 8;
  // 13 W at the 650 GFLOPS that the paper states for a Zynq-7045. The power is assumed; the paper
  // gives none.
  double accelerator_j_per_flop = 13.0 / 650e9;
  // Constant power while the drive is on: controller cores and DRAM refresh, and for each channel
  // its interface and the standby of its dies. Calibrated together: a plain drive of 8 channels
  // that reads 4 KiB pages at 7 GB/s then takes the 6.2 W that Puget Systems measured as the peak
  // of a Samsung 980 Pro. 3.66 W of them are the array, bus and link of this table. The split
  // between controller and channels is assumed.
  double controller_w = 1.34;
  double channel_w = 0.15;
};

// Work done. A page is a page of one plane.
struct drive_work {
  std::uint64_t pages_read = 0;
  std::uint64_t pages_programmed = 0;  // with pages moved by the FTL
  std::uint64_t blocks_erased = 0;
  std::uint64_t bus_bytes = 0;
  std::uint64_t link_bytes = 0;
  std::uint64_t dram_bytes = 0;
  double accelerator_flops = 0;
  double seconds = 0;  // how long the drive is on for this work
};

// Work of an attend or append of `seconds`. DRAM: entries read from the group buffer; written data
// passes DRAM twice. The caller adds the FTL's garbage collection and erases.
constexpr drive_work work_of(const traffic& moved, double accelerator_flops, double seconds) {
  return {.pages_read = moved.pages_read,
          .pages_programmed = moved.pages_written,
          .bus_bytes = moved.channel_bytes + moved.written_bytes,
          .link_bytes = moved.link_bytes,
          .dram_bytes = moved.buffer_bytes + 2 * moved.written_bytes,
          .accelerator_flops = accelerator_flops,
          .seconds = seconds};
}

// In joules. Not counted: ECC, and leakage of the accelerator.
struct energy {
  double array_read_j = 0;
  double bus_j = 0;
  double accelerator_j = 0;
  double link_j = 0;
  double dram_j = 0;
  double program_j = 0;
  double erase_j = 0;
  double static_j = 0;

  constexpr double total_j() const {
    return array_read_j + bus_j + accelerator_j + link_j + dram_j + program_j + erase_j + static_j;
  }
  constexpr energy& operator+=(const energy& e) {
    array_read_j += e.array_read_j;
    bus_j += e.bus_j;
    accelerator_j += e.accelerator_j;
    link_j += e.link_j;
    dram_j += e.dram_j;
    program_j += e.program_j;
    erase_j += e.erase_j;
    static_j += e.static_j;
    return *this;
  }
};

constexpr energy energy_of(const drive_work& work, const geometry& g, const timing& t,
                           const energy_rates& rates = {}) {
  const double array_w = rates.array_w * g.page_bytes / rates.array_page_bytes;
  const auto array_j = [&](std::uint64_t operations, std::int64_t ps) {
    return static_cast<double>(operations) * array_w * static_cast<double>(ps) /
           static_cast<double>(ps_per_s);
  };
  return {.array_read_j = array_j(work.pages_read, t.mean_read_array_ps()),
          .bus_j = static_cast<double>(work.bus_bytes) * rates.bus_j_per_byte,
          .accelerator_j = work.accelerator_flops * rates.accelerator_j_per_flop,
          .link_j = static_cast<double>(work.link_bytes) * rates.link_j_per_byte,
          .dram_j = static_cast<double>(work.dram_bytes) * rates.dram_j_per_byte,
          .program_j = array_j(work.pages_programmed, t.mean_program_array_ps()),
          .erase_j = array_j(work.blocks_erased, t.erase_ps),
          .static_j = work.seconds * (rates.controller_w + g.channels * rates.channel_w)};
}

}  // namespace instinfer::flash
