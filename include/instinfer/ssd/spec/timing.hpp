#pragma once
// Durations of flash operations and of the channel bus, and the exact tick of a timeline.

#include <cstdint>
#include <limits>
#include <numeric>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/page_types.hpp"

namespace instinfer::flash {

inline constexpr std::int64_t ps_per_ns = 1'000;
inline constexpr std::int64_t ps_per_us = 1'000'000;
inline constexpr std::int64_t ps_per_s = 1'000'000'000'000;

// Array times have no default, because they are the main property of a part (presets.hpp). Command
// cycles default to those of MQSim (FAST'18, revision 7ec40e3: ONFI NV-DDR2 parameters), for p
// planes of one die that work together:
// - read: RC(p) = 140 ns + 150 ns p + 500 ns (p - 1), the array for read_ps + 20 ns, p transfers
// - program: PC(p) = 361 ns + 816 ns (p - 1), p transfers, the array for program_ps
// - erase: EC(p) = 220 ns + 700 ns (p - 1), the array for erase_ps
struct timing {
  std::int64_t read_ps = 0;          // tR; of the lower pages if `types` has more
  std::int64_t program_ps = 0;       // tPROG; of the lower pages if `types` has more
  std::int64_t erase_ps = 0;         // tBERS
  std::int64_t bus_bytes_per_s = 0;  // of one channel
  // Bus time of one page with its spare bytes; 0: computed from bus_bytes_per_s.
  std::int64_t page_transfer_ps = 0;

  std::int64_t read_command_ps = 140 * ps_per_ns;
  std::int64_t read_address_ps = 150 * ps_per_ns;     // per plane
  std::int64_t read_next_plane_ps = 500 * ps_per_ns;  // per plane after the first
  std::int64_t read_turnaround_ps = 20 * ps_per_ns;   // added to read_ps once; the bus is free
  std::int64_t program_command_ps = 361 * ps_per_ns;
  std::int64_t program_next_plane_ps = 816 * ps_per_ns;
  std::int64_t erase_command_ps = 220 * ps_per_ns;
  std::int64_t erase_next_plane_ps = 700 * ps_per_ns;

  page_types types = {};
  // Cache read: time to move pages from the array register to the cache register, tDCBSYR1 (ONFI:
  // tRCBSY). 3 us is the maximum in Micron's public Verilog models of its 4 Gb SLC and 8 Gb MLC
  // parts.
  std::int64_t cache_move_ps = 3 * ps_per_us;
  // Time from the last byte on the bus to the last decoded codeword. The decoders keep up with the
  // bus, so only the last codeword adds time, and neither bus nor die waits for it. Off by default.
  std::int64_t decode_ps = 0;

  constexpr std::int64_t read_cycles_ps(std::int32_t planes) const {
    return read_command_ps + read_address_ps * planes + read_next_plane_ps * (planes - 1);
  }
  constexpr std::int64_t program_cycles_ps(std::int32_t planes) const {
    return program_command_ps + program_next_plane_ps * (planes - 1);
  }
  constexpr std::int64_t erase_cycles_ps(std::int32_t planes) const {
    return erase_command_ps + erase_next_plane_ps * (planes - 1);
  }
  constexpr std::int64_t read_array_ps(page_type type = page_type::lower) const {
    const std::int64_t tr = type == page_type::lower    ? read_ps
                            : type == page_type::middle ? types.read_middle_ps
                                                        : types.read_upper_ps;
    return tr + read_turnaround_ps;
  }
  constexpr std::int64_t program_array_ps(page_type type = page_type::lower) const {
    const std::int64_t other = type == page_type::middle  ? types.program_middle_ps
                               : type == page_type::upper ? types.program_upper_ps
                                                          : 0;
    return other > 0 ? other : program_ps;
  }

 private:
  template <class Of>
  constexpr std::int64_t mean(Of&& of) const {
    const page_types in_turn{.count = types.count};
    std::int64_t sum = 0;
    for (std::int32_t type = 0; type < types.count; ++type) {
      sum += of(in_turn.of(type));
    }
    return sum / types.count;
  }

 public:
  // Mean over the pages of a word line, rounded down.
  constexpr std::int64_t mean_read_array_ps() const {
    return mean([&](page_type type) { return read_array_ps(type); });
  }
  constexpr std::int64_t mean_program_array_ps() const {
    return mean([&](page_type type) { return program_array_ps(type); });
  }

  friend constexpr bool operator==(const timing&, const timing&) = default;
};

// Longest allowed duration of a field: 1,000 s. With at most max_planes planes, every sum above
// fits in 63 bits.
inline constexpr std::int64_t max_duration_ps = 1'000 * ps_per_s;

constexpr bool valid(const timing& t) {
  const auto within = [](std::int64_t value, std::int64_t least) {
    return value >= least && value <= max_duration_ps;
  };
  return within(t.read_ps, 1) && within(t.program_ps, 1) && within(t.erase_ps, 1) &&
         within(t.page_transfer_ps, 0) && (t.bus_bytes_per_s > 0 || t.page_transfer_ps > 0) &&
         t.bus_bytes_per_s >= 0 && within(t.read_command_ps, 0) && within(t.read_address_ps, 0) &&
         within(t.read_next_plane_ps, 0) && within(t.read_turnaround_ps, 0) &&
         within(t.program_command_ps, 0) && within(t.program_next_plane_ps, 0) &&
         within(t.erase_command_ps, 0) && within(t.erase_next_plane_ps, 0) &&
         within(t.cache_move_ps, 0) && within(t.decode_ps, 0) && t.types.count >= 1 &&
         t.types.count <= max_page_types &&
         (t.types.count == 3 ? within(t.types.read_middle_ps, 1) : t.types.read_middle_ps == 0) &&
         (t.types.count >= 2 ? within(t.types.read_upper_ps, 1) : t.types.read_upper_ps == 0) &&
         (t.types.count == 3 ? within(t.types.program_middle_ps, 0)
                             : t.types.program_middle_ps == 0) &&
         (t.types.count >= 2 ? within(t.types.program_upper_ps, 0) : t.types.program_upper_ps == 0);
}

// Throws bad_argument with the field, its value and its allowed range.
inline void validate(const timing& t) {
  const auto check = [](const char* field, std::int64_t value, std::int64_t least) {
    require(value >= least && value <= max_duration_ps, [&] {
      return std::string("flash timing: ") + field + " must lie in [" + std::to_string(least) +
             ", " + std::to_string(max_duration_ps) + "] ps, got " + std::to_string(value);
    });
  };
  check("read_ps", t.read_ps, 1);
  check("program_ps", t.program_ps, 1);
  check("erase_ps", t.erase_ps, 1);
  check("page_transfer_ps", t.page_transfer_ps, 0);
  check("read_command_ps", t.read_command_ps, 0);
  check("read_address_ps", t.read_address_ps, 0);
  check("read_next_plane_ps", t.read_next_plane_ps, 0);
  check("read_turnaround_ps", t.read_turnaround_ps, 0);
  check("program_command_ps", t.program_command_ps, 0);
  check("program_next_plane_ps", t.program_next_plane_ps, 0);
  check("erase_command_ps", t.erase_command_ps, 0);
  check("erase_next_plane_ps", t.erase_next_plane_ps, 0);
  check("cache_move_ps", t.cache_move_ps, 0);
  check("decode_ps", t.decode_ps, 0);
  require(t.types.count >= 1 && t.types.count <= max_page_types, [&] {
    return "flash timing: types.count must lie in [1, " + std::to_string(max_page_types) +
           "] (bits a cell), got " + std::to_string(t.types.count);
  });
  const auto check_type = [&](const char* field, std::int64_t value, std::int32_t least_count,
                              std::int64_t least) {
    if (t.types.count >= least_count) {
      check(field, value, least);
    } else {
      require(value == 0, [&] {
        return std::string("flash timing: ") + field +
               " needs types.count >= " + std::to_string(least_count) + ", which is " +
               std::to_string(t.types.count) + "; got " + std::to_string(value) + " ps";
      });
    }
  };
  check_type("types.read_middle_ps", t.types.read_middle_ps, 3, 1);
  check_type("types.read_upper_ps", t.types.read_upper_ps, 2, 1);
  check_type("types.program_middle_ps", t.types.program_middle_ps, 3, 0);
  check_type("types.program_upper_ps", t.types.program_upper_ps, 2, 0);
  require(t.bus_bytes_per_s >= 0 && (t.bus_bytes_per_s > 0 || t.page_transfer_ps > 0), [&] {
    return "flash timing: bus_bytes_per_s must be positive (or page_transfer_ps given), got " +
           std::to_string(t.bus_bytes_per_s);
  });
}

// The tick of what never happens.
inline constexpr std::int64_t never_ticks = std::numeric_limits<std::int64_t>::max();

// The bus time of a page is not always a whole number of picoseconds: 4096 B at 1.4 GB/s take
// 2,925,714 2/7 ps. A tick is the fraction of a picosecond in which it is whole: for a rate r and g
// = gcd(r, 10^12), one ps has r/g ticks and one byte takes 10^12/g ticks (1.4 GB/s: 7 and 5000).
// Nothing is rounded until a result is printed.
struct tick_scale {
  std::int64_t ticks_per_ps = 1;
  std::int64_t page_transfer_ticks = 0;

  // Throws error if ticks of `ps` do not fit in 63 bits, because the rate and 10^12 have few common
  // factors (a prime rate near 10^9 leaves 9 ms).
  constexpr std::int64_t from_ps(std::int64_t ps) const {
    require<error>(ps <= std::numeric_limits<std::int64_t>::max() / ticks_per_ps, [&] {
      return "flash ticks: " + std::to_string(ps) + " ps at " + std::to_string(ticks_per_ps) +
             " ticks each overflow 63 bits; choose a rounder bus_bytes_per_s, or give "
             "page_transfer_ps";
    });
    return ps * ticks_per_ps;
  }

  friend constexpr bool operator==(const tick_scale&, const tick_scale&) = default;
};

// A finer scale, in which the transfer of a codeword also takes a whole number of ticks.
constexpr tick_scale split_into_codewords(const tick_scale& page, const geometry& g) {
  const std::int64_t codewords = g.codewords_per_page();
  const std::int64_t finer = codewords / std::gcd(codewords, page.page_transfer_ticks);
  return {.ticks_per_ps = page.ticks_per_ps * finer,
          .page_transfer_ticks = page.page_transfer_ticks * finer};
}

constexpr tick_scale ticks_of(const timing& t, const geometry& g) {
  if (t.page_transfer_ps > 0) {
    return split_into_codewords({.ticks_per_ps = 1, .page_transfer_ticks = t.page_transfer_ps}, g);
  }
  const std::int64_t shared = std::gcd(t.bus_bytes_per_s, ps_per_s);
  const std::int64_t ticks_per_byte = ps_per_s / shared;
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  require<error>(g.bus_bytes() <= most / ticks_per_byte / g.codewords_per_page(), [&] {
    return "flash ticks: a page of " + std::to_string(g.bus_bytes()) + " B at " +
           std::to_string(ticks_per_byte) + " ticks each overflows 63 bits";
  });
  return split_into_codewords({.ticks_per_ps = t.bus_bytes_per_s / shared,
                               .page_transfer_ticks = ticks_per_byte * g.bus_bytes()},
                              g);
}

}  // namespace instinfer::flash
