#pragma once
// The location of a page on the flash: the six coordinates that a geometry counts.

#include <cstdint>
#include <string>

#include "instinfer/ssd/spec/geometry.hpp"

namespace instinfer::flash {

struct location {
  std::int32_t channel = 0;
  std::int32_t chip = 0;   // within the channel
  std::int32_t die = 0;    // within the chip
  std::int32_t plane = 0;  // within the die
  std::int32_t block = 0;  // within the plane
  std::int32_t page = 0;   // within the block

  friend constexpr bool operator==(const location&, const location&) = default;
};

constexpr bool inside(const location& at, const geometry& g) {
  // A negative coordinate becomes a large unsigned number.
  const auto below = [](std::int32_t value, std::int32_t count) {
    return static_cast<std::uint32_t>(value) < static_cast<std::uint32_t>(count);
  };
  return below(at.channel, g.channels) && below(at.chip, g.chips) && below(at.die, g.dies) &&
         below(at.plane, g.planes) && below(at.block, g.blocks) && below(at.page, g.pages);
}

inline std::string to_string(const location& at) {
  return "channel " + std::to_string(at.channel) + ", chip " + std::to_string(at.chip) + ", die " +
         std::to_string(at.die) + ", plane " + std::to_string(at.plane) + ", block " +
         std::to_string(at.block) + ", page " + std::to_string(at.page);
}

}  // namespace instinfer::flash
