#pragma once
// Energy by part of what a drive does for a token: array, bus, engine, link, DRAM, program and erase. Values in, values out.

#include <cstdint>

#include "instinfer/core/traffic.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

struct energy_rates {
  // A plane's power while its array reads, programs or erases: 3.3 V x 25 mA, data sheet of Micron's MT29F64G08EBAA as
  // SimpleSSD uses it (pal/old/LatencyTLC.cc). A part of 2009: newer ones are assumed not to need more.
  double array_w = 3.3 * 0.025;
  // Flash bus: 3.69 pJ/bit, a serial NAND interface at 25.6 Gb/s (ISSCC 2018; JSSC, doi 10.1109/JSSC.2021.3138797). Assumed
  // for the parallel bus, too.
  double bus_j_per_byte = 8 * 3.69e-12;
  double link_j_per_byte = 8 * 5e-12;  // PCIe, both ends: 5 pJ/bit, assumed
  // 1.3 nJ for 64 bits, the lower end of the DRAM access in Horowitz, "Computing's energy problem", ISSCC 2014.
  double dram_j_per_byte = 1.3e-9 / 8;
  // 13 W at the 650 GFLOPS that the paper grants a Zynq-7045: power assumed, the paper gives none.
  double accelerator_j_per_flop = 13.0 / 650e9;
};

// What was done. Pages are those of one plane each.
struct drive_work {
  std::uint64_t pages_read = 0;
  std::uint64_t pages_programmed = 0;  // the FTL's moves too
  std::uint64_t blocks_erased = 0;
  std::uint64_t bus_bytes = 0;
  std::uint64_t link_bytes = 0;
  std::uint64_t dram_bytes = 0;
  double accelerator_flops = 0;
};

// Work of an attend or append. DRAM: entries read from the group buffer, and what is written passes it twice. Cleaning and
// erases are the FTL's to add.
constexpr drive_work work_of(const traffic& moved, double accelerator_flops) {
  return {.pages_read = moved.pages_read,
          .pages_programmed = moved.pages_written,
          .bus_bytes = moved.channel_bytes + moved.written_bytes,
          .link_bytes = moved.link_bytes,
          .dram_bytes = moved.buffer_bytes + 2 * moved.written_bytes,
          .accelerator_flops = accelerator_flops};
}

// In joules. Not counted: power that flows whatever the drive does (controller cores, DRAM refresh, leakage), ECC.
struct energy {
  double array_read_j = 0;
  double bus_j = 0;
  double accelerator_j = 0;
  double link_j = 0;
  double dram_j = 0;
  double program_j = 0;
  double erase_j = 0;

  constexpr double total_j() const {
    return array_read_j + bus_j + accelerator_j + link_j + dram_j + program_j + erase_j;
  }
  constexpr energy& operator+=(const energy& e) {
    array_read_j += e.array_read_j;
    bus_j += e.bus_j;
    accelerator_j += e.accelerator_j;
    link_j += e.link_j;
    dram_j += e.dram_j;
    program_j += e.program_j;
    erase_j += e.erase_j;
    return *this;
  }
};

constexpr energy energy_of(const drive_work& work, const timing& t,
                           const energy_rates& rates = {}) {
  const auto array_j = [&](std::uint64_t operations, std::int64_t ps) {
    return static_cast<double>(operations) * rates.array_w * static_cast<double>(ps) /
           static_cast<double>(ps_per_s);
  };
  return {.array_read_j = array_j(work.pages_read, t.mean_read_array_ps()),
          .bus_j = static_cast<double>(work.bus_bytes) * rates.bus_j_per_byte,
          .accelerator_j = work.accelerator_flops * rates.accelerator_j_per_flop,
          .link_j = static_cast<double>(work.link_bytes) * rates.link_j_per_byte,
          .dram_j = static_cast<double>(work.dram_bytes) * rates.dram_j_per_byte,
          .program_j = array_j(work.pages_programmed, t.mean_program_array_ps()),
          .erase_j = array_j(work.blocks_erased, t.erase_ps)};
}

}  // namespace instinfer::flash
