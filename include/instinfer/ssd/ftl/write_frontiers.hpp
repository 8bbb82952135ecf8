#pragma once
// The open blocks of all write frontiers: a frontier has `stripe` of them on each channel, written
// in turn.

#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/ssd/ftl/block_table.hpp"

namespace instinfer::flash {

class write_frontiers {
 public:
  struct slot {
    block_number block = no_block;
    std::uint32_t plane = 0;  // plane on which the slot opens its next block
  };

  // If the stripe is narrower than the channel, frontiers start on different planes.
  write_frontiers(std::uint32_t frontiers, std::uint32_t channels, std::uint32_t planes,
                  std::uint32_t stripe)
      : frontiers_{frontiers},
        stripe_{stripe == 0 || stripe > planes ? planes : stripe},
        slots_(std::size_t{frontiers} * channels * stripe_),
        turns_(std::size_t{frontiers} * channels) {
    for (std::uint32_t c = 0; c < channels; ++c) {
      for (std::uint32_t f = 0; f < frontiers; ++f) {
        for (std::uint32_t i = 0; i < stripe_; ++i) {
          of(c, f)[i].plane = static_cast<std::uint32_t>((std::uint64_t{f} * stripe_ + i) % planes);
        }
      }
    }
  }

  std::uint32_t frontiers() const { return frontiers_; }
  std::uint32_t stripe() const { return stripe_; }

  std::span<slot> of(std::uint32_t channel, std::uint32_t frontier) {
    return {slots_.data() + at(channel, frontier) * stripe_, stripe_};
  }
  // The slots of all frontiers on a channel.
  std::span<slot> of(std::uint32_t channel) {
    const std::size_t on_channel = std::size_t{frontiers_} * stripe_;
    return {slots_.data() + channel * on_channel, on_channel};
  }

  // The slot whose turn it is; the next call returns the next slot.
  slot& next(std::uint32_t channel, std::uint32_t frontier) {
    std::uint32_t& turn = turns_[at(channel, frontier)];
    slot& s = of(channel, frontier)[turn];
    turn = turn + 1 == stripe_ ? 0 : turn + 1;
    return s;
  }

 private:
  std::size_t at(std::uint32_t channel, std::uint32_t frontier) const {
    return std::size_t{channel} * frontiers_ + frontier;
  }

  std::uint32_t frontiers_;
  std::uint32_t stripe_;
  std::vector<slot> slots_;           // [channels, frontiers, stripe]
  std::vector<std::uint32_t> turns_;  // [channels, frontiers]
};

}  // namespace instinfer::flash
