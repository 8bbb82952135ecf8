#pragma once
// The mapping between (channel, slot of the channel) and a location.
// Consecutive slots go round the chips of a channel first, as KV pages go round the channels
// (InstInfer §IV-C).

#include <cassert>
#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

// slot = chip + chips (die + dies (plane + planes (page + pages block)))
//
// So neighbours are on different chips, then on different dies. The planes of a die hold the same
// page of the same block in slots that are chips x dies apart, and one multi-plane command reads
// them. Blocks fill one after the other in each plane. With channels striped outermost (page n is
// on channel n % channels in slot n / channels, the rule of page_id), the whole drive is striped by
// channel, way (chip), die, plane: the order called CWDP.
//
// Bijective over slots [0, pages_per_channel) of each channel. A constexpr placement divides by
// constants.
class placement {
 public:
  constexpr explicit placement(const geometry& g) : geometry_{g} {
    if (!valid(g)) {
      validate(g);  // throws with the broken rule
    }
  }

  constexpr const geometry& shape() const { return geometry_; }
  constexpr std::int64_t slots() const { return geometry_.pages_per_channel(); }

  // Precondition: 0 <= channel < channels, 0 <= slot < slots().
  constexpr location operator()(std::int32_t channel, std::int64_t slot) const {
    assert(channel >= 0 && channel < geometry_.channels && slot >= 0 && slot < slots());
    location at{.channel = channel};
    at.chip = take(slot, geometry_.chips);
    at.die = take(slot, geometry_.dies);
    at.plane = take(slot, geometry_.planes);
    at.page = take(slot, geometry_.pages);
    at.block = static_cast<std::int32_t>(slot);
    return at;
  }

  // page_id numbers the pages of the whole drive; the channel changes fastest.
  constexpr location operator()(page_id page) const {
    const auto channels = static_cast<std::uint32_t>(geometry_.channels);
    return (*this)(static_cast<std::int32_t>(channel_of(page, channels)), slot_of(page, channels));
  }

  // Precondition: inside(at, shape()).
  constexpr std::int64_t slot(const location& at) const {
    assert(inside(at, geometry_));
    return at.chip +
           geometry_.chips * (at.die + geometry_.dies * (at.plane + geometry_.planes * row(at)));
  }

  // Page n of the whole drive in CWDP order, 0 <= n < pages_total(). sequence() is the inverse.
  constexpr location striped(std::int64_t n) const {
    return (*this)(static_cast<std::int32_t>(n % geometry_.channels), n / geometry_.channels);
  }
  constexpr std::int64_t sequence(const location& at) const {
    return at.channel + geometry_.channels * slot(at);
  }

  // Checked versions: throw bad_argument with the allowed range.
  location at(std::int32_t channel, std::int64_t slot) const {
    require(channel >= 0 && channel < geometry_.channels, [&] {
      return "flash placement: channel must lie in [0, " + std::to_string(geometry_.channels) +
             "), got " + std::to_string(channel);
    });
    require(slot >= 0 && slot < slots(), [&] {
      return "flash placement: slot must lie in [0, " + std::to_string(slots()) + "), got " +
             std::to_string(slot);
    });
    return (*this)(channel, slot);
  }
  std::int64_t slot_at(const location& at) const {
    require(inside(at, geometry_), [&] {
      return "flash placement: " + to_string(at) + " lies outside of " + to_string(geometry_);
    });
    return slot(at);
  }

 private:
  constexpr std::int64_t row(const location& at) const {
    return at.page + std::int64_t{geometry_.pages} * at.block;
  }

  // Removes the fastest coordinate from `rest`.
  static constexpr std::int32_t take(std::int64_t& rest, std::int32_t count) {
    const auto digit = static_cast<std::int32_t>(rest % count);
    rest /= count;
    return digit;
  }

  geometry geometry_;
};

}  // namespace instinfer::flash
