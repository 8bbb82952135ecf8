#pragma once
// Costs of holding a token's KV for a second, and of writing and generating a token, from the
// caller's prices.

#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/report/endurance.hpp"

namespace instinfer::flash {

// No defaults, because prices change. Use the same struct for flash, DRAM or GPU memory to compare
// them.
struct memory_price {
  double usd = 0;            // per device
  double bytes = 0;          // capacity of the device
  double service_years = 0;  // time to pay it off, in years of 365 days
  double usd_per_kwh = 0;

  static constexpr double seconds_per_year = 365.0 * 86'400.0;

  // Cost of holding one byte for a second, without wear and energy.
  double usd_per_byte_second() const {
    check("usd", usd);
    check("bytes", bytes);
    check("service_years", service_years);
    return usd / bytes / (service_years * seconds_per_year);
  }
  // Cost of holding one token's KV for a second; stored_bytes counts every stored copy of K.
  double usd_per_token_second(double stored_bytes) const {
    return usd_per_byte_second() * stored_bytes;
  }
  // Cost of `joules` of energy.
  double usd_of_energy(double joules) const { return joules / 3.6e6 * usd_per_kwh; }

 private:
  static void check(const char* name, double value) {
    require(value > 0, [&] {
      return std::string("memory_price: ") + name + " must be above 0, got " +
             std::to_string(value);
    });
  }
};

// The part of the drives' price that writing one token wears away. Throws bad_argument as endurance
// does.
inline double usd_of_wear_per_token(const memory_price& drive, const endurance& wear) {
  return drive.usd * wear.drives / wear.lifetime_tokens();
}

// Costs of a generated token that is kept for `seconds`: holding, writing, and `joules` of energy.
struct token_cost {
  double holding_usd = 0;
  double wear_usd = 0;
  double energy_usd = 0;
  constexpr double total_usd() const { return holding_usd + wear_usd + energy_usd; }
};
inline token_cost cost_of_token(const memory_price& drive, const endurance& wear, double seconds,
                                double joules) {
  return {
      .holding_usd = drive.usd_per_token_second(wear.kv_bytes_per_token * wear.footprint) * seconds,
      .wear_usd = usd_of_wear_per_token(drive, wear),
      .energy_usd = drive.usd_of_energy(joules)};
}

}  // namespace instinfer::flash
