#pragma once
// Costs to buy and run servers: prices in dollars and powers in watts of parts, each with its
// source or marked assumed.

#include <iterator>
#include <string>
#include <string_view>

#include "instinfer/ssd/report/cost.hpp"
#include "instinfer/system/spec/gpu_spec.hpp"

namespace instinfer::system {

// Prices are per part and change quickly. Give a conclusion together with the price at which it no
// longer holds.
struct priced {
  std::string_view part;
  double usd = 0;
  double watts = 0;  // under load
  std::string_view source;
};

// Powers: the data sheets in gpu_spec.hpp.
inline constexpr priced priced_gpus[] = {
    {rtx_a6000.name, 4'650, rtx_a6000.watts, "price at launch; power: data sheet"},
    {a100_80gb.name, 15'000, a100_80gb.watts, "price assumed; power: data sheet"},
    {h100_sxm.name, 30'000, h100_sxm.watts,
     "price assumed, within the $25,000 to $40,000 that trade reports give; power: data sheet"},
    {t4.name, 2'000, t4.watts, "price assumed; power: data sheet"},
    {rtx_4090.name, 1'599, rtx_4090.watts, "price at launch; power: data sheet"}};

// Drives of 2 TB each.
inline constexpr priced ssd_pcie4{"SSD, 2 TB, PCIe 4", 170, 6.2,
                                  "price assumed; power: Samsung 980 Pro's peak (Puget Systems)"};
inline constexpr priced ssd_pcie5{"SSD, 2 TB, PCIe 5", 250, 11, "assumed"};
// energy.hpp assumes 13 W for the accelerator of a PCIe 4 drive; the larger accelerator has 2.7
// times its units.
inline constexpr priced csd_pcie4{
    "computational drive, 2 TB, PCIe 4", 400, 19.2,
    "price assumed; power: the SSD's, and 13 W assumed of the accelerator"};
inline constexpr priced csd_pcie5{
    "computational drive, 2 TB, 16 channels, PCIe 5", 700, 46,
    "price assumed; power: the SSD's, and 35 W assumed of the accelerator"};

inline constexpr priced server_chassis{"server without GPU, memory and drives", 8'000, 400,
                                       "assumed"};
inline constexpr priced dram_64gb{"64 GB of DDR5", 300, 6, "assumed"};
inline constexpr priced cxl_256gb{"256 GB of CXL memory", 1'500, 30, "assumed"};
inline constexpr priced network_port{"400 Gb/s port, card and switch", 2'500, 40, "assumed"};

inline constexpr priced other_parts[] = {ssd_pcie4,      ssd_pcie5, csd_pcie4, csd_pcie5,
                                         server_chassis, dram_64gb, cxl_256gb, network_port};

// Throws bad_argument for a GPU without a price.
inline const priced& price_of(const gpu_spec& gpu) {
  for (const priced& p : priced_gpus) {
    if (p.part == gpu.name) {
      return p;
    }
  }
  throw bad_argument("price_of: no price of " + std::string(gpu.name) +
                     ", see system/spec/prices.hpp");
}

// All assumed.
struct running_costs {
  double service_years = 4;  // after this time the parts are paid off
  double usd_per_kwh = 0.10;
  double facility = 1.3;  // watts drawn per watt of the parts: cooling, conversion
};

// The cost of parts that always run at full power.
struct bill {
  double usd = 0;
  double watts = 0;

  constexpr bill& add(const priced& part, double count = 1) {
    usd += count * part.usd;
    watts += count * part.watts;
    return *this;
  }
  double usd_per_s(const running_costs& costs = {}) const {
    const flash::memory_price price{.usd = usd,
                                    .bytes = 1,
                                    .service_years = costs.service_years,
                                    .usd_per_kwh = costs.usd_per_kwh};
    return price.usd_per_byte_second() + price.usd_of_energy(watts * costs.facility);
  }
  double tokens_per_usd(double tokens_per_s, const running_costs& costs = {}) const {
    return tokens_per_s / usd_per_s(costs);
  }
  double joules_per_token(double tokens_per_s, const running_costs& costs = {}) const {
    return watts * costs.facility / tokens_per_s;
  }
};

}  // namespace instinfer::system
