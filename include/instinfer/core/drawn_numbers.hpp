#pragma once
// Numbers drawn from a seed, in place of data that is not there. The same on every machine, up to
// the last bits of log and cos.

#include <cstdint>
#include <numbers>

#include "instinfer/core/math.hpp"

namespace instinfer {

// The output function of splitmix64 (Steele et al., OOPSLA 2014).
constexpr std::uint64_t mixed_bits(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9u;
  z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EBu;
  return z ^ (z >> 31);
}

// splitmix64.
class drawn_numbers {
 public:
  explicit constexpr drawn_numbers(std::uint64_t seed = 0) : state_{seed} {}

  constexpr std::uint64_t next() { return mixed_bits(state_ += 0x9E37'79B9'7F4A'7C15u); }

  // A standard normal number (Box and Muller).
  double normal() {
    const std::uint64_t bits = next();
    const double u = (static_cast<double>(bits >> 32) + 0.5) * 0x1p-32;  // in (0, 1)
    const double turn = static_cast<double>(bits & 0xFFFF'FFFFu) * 0x1p-32;
    return math::sqrt(-2.0 * math::log(u)) * math::cos(2.0 * std::numbers::pi * turn);
  }

 private:
  std::uint64_t state_;
};

}  // namespace instinfer
