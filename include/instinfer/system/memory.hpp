#pragma once
// Memory that a run needs in each tier, and the verdict if a tier is too small: a value, not an
// exception.

#include <optional>
#include <string>

namespace instinfer::system {

enum class tier { gpu, host, drive };

constexpr const char* name_of(tier t) {
  return t == tier::gpu ? "GPU memory" : t == tier::host ? "host memory" : "drive";
}

struct tier_use {
  double needed_bytes = 0;
  double available_bytes = 0;
  constexpr bool fits() const { return needed_bytes <= available_bytes; }
};

// Needs at the peak of the run. host_may_overflow: the system can run with less host memory
// (swapping, page cache).
struct memory_use {
  tier_use gpu;
  tier_use host;
  tier_use drive;  // all drives together
  // Group buffer and page tables. Reported, but not part of the verdict: see docs/reproduction.md.
  tier_use drive_dram;
  bool host_may_overflow = false;

  constexpr std::optional<tier> overflows() const {
    if (!gpu.fits()) {
      return tier::gpu;
    }
    if (!host.fits() && !host_may_overflow) {
      return tier::host;
    }
    if (!drive.fits()) {
      return tier::drive;
    }
    return std::nullopt;
  }
  constexpr bool fits() const { return !overflows(); }

  // Empty if the run fits.
  std::string verdict() const {
    const std::optional<tier> full = overflows();
    if (!full) {
      return {};
    }
    const tier_use& use = *full == tier::gpu ? gpu : *full == tier::host ? host : drive;
    const auto gb = [](double bytes) {
      return std::to_string(static_cast<long long>(bytes / 1e8 + 0.5) / 10) + "." +
             std::to_string(static_cast<long long>(bytes / 1e8 + 0.5) % 10) + " GB";
    };
    return std::string("out of ") + name_of(*full) + ": needs " + gb(use.needed_bytes) + " of " +
           gb(use.available_bytes);
  }
};

}  // namespace instinfer::system
