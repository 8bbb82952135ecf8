#pragma once
// The contract of a fault model: it decides which programs and erases fail.
//
//   no_faults       none fails
//   random_faults   each fails with its own probability, from a seed

#include <concepts>
#include <cstdint>

#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

// Called once per operation, when the operation is executed.
template <class F>
concept FaultModel = std::copyable<F> && requires(F& f, const location& at) {
  { f.program_fails(at) } -> std::same_as<bool>;
  { f.erase_fails(at) } -> std::same_as<bool>;
};

struct no_faults {
  constexpr bool program_fails(const location& /*at*/) const { return false; }
  constexpr bool erase_fails(const location& /*at*/) const { return false; }
};

// A structural type: usable as a template argument. Probabilities are multiples of 2^-32.
struct random_faults {
  double program = 0;
  double erase = 0;
  std::uint64_t seed = 1;

  constexpr bool program_fails(const location& /*at*/) { return drawn_below(program); }
  constexpr bool erase_fails(const location& /*at*/) { return drawn_below(erase); }

 private:
  // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
  constexpr bool drawn_below(double probability) {
    seed += 0x9E37'79B9'7F4A'7C15u;
    std::uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9u;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EBu;
    z ^= z >> 31;
    return static_cast<double>(z >> 32) < probability * 4294967296.0;
  }
};

}  // namespace instinfer::flash
