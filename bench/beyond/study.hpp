#pragma once
// What InstInfer could not ask: grouped-query models with long contexts, newer drives, one-byte KV,
// and the tiers that a drive competes with, by tokens, dollars and joules. Decode only: a prompt
// costs every tier the same arithmetic.

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/system.hpp"
#include "instinfer/system/memory_tier.hpp"
#include "instinfer/system/spec/prices.hpp"

namespace instinfer::beyond {

using system::bill;
using system::model_spec;
using system::server;

inline constexpr std::int64_t sequences = 16;
inline constexpr int drives = 4;
inline constexpr std::int64_t output_tokens = 1'024;
inline const std::vector<std::int64_t> contexts{8 << 10, 32 << 10, 128 << 10, 512 << 10, 1 << 20};

// Memory that every host has for its own work. Assumed.
inline constexpr double base_dram_bytes = 256e9;
// Eight channels of DDR5-4800: 8 x 8 B x 4.8e9. Shared by nothing else: generous.
inline constexpr double dram_bytes_per_s = 307.2e9;
// Micron's CZ120, 256 GB on PCIe 5 x8, is reported with 36 GB/s for mixed traffic; reads are held
// to the link's 32.
inline constexpr double cxl_module_bytes = 256e9;
inline constexpr double cxl_module_bytes_per_s = 32e9;

// A drive whose accelerator keeps up with a group of query heads for each KV head: all rates and
// units times the group. Assumed.
constexpr flash::drive_spec with_accelerator(flash::drive_spec drive, int times) {
  drive.units.filter_bytes_per_s *= times;
  drive.units.attention_kernels *= times;
  drive.units.softmax_units *= times;
  drive.units.top_k_elements_per_s *= times;
  return drive;
}

// One way to keep the KV cache, at one context.
struct answer {
  std::string name;
  double context = 0;
  int gpus = 1;
  double step_s = 0;
  double tokens_per_s = 0;
  bill cost = {};
  double cost_without_drives_usd = 0;
  std::string bottleneck = {};  // of the drive; empty where attention is the GPU's
};

// The fewest GPUs of a kind that hold the weights, with a fifth to spare.
inline int gpus_for(const model_spec& model, const system::gpu_spec& gpu = system::h100_sxm) {
  return static_cast<int>(std::ceil(model.weight_bytes() / (0.8 * gpu.memory_bytes)));
}
inline server h100_server(const model_spec& model) {
  server on{.gpu = system::h100_sxm,
            .gpus = gpus_for(model),
            .gpu_link = system::pcie(5, 16),
            .drives = drives,
            .weights = system::weights_at::gpu};
  on.host.memory_bytes = base_dram_bytes;
  return on;
}
inline bill bill_of(const server& on) {
  return bill{}
      .add(system::server_chassis)
      .add(system::price_of(on.gpu), on.gpus)
      .add(system::dram_64gb, base_dram_bytes / 64e9);
}

namespace detail {

template <class S>
answer measured(std::string name, const S& s, int gpus, const bill& cost) {
  const double context = static_cast<double>(s.job().input_tokens + s.job().output_tokens / 2);
  answer a{.name = std::move(name),
           .context = static_cast<double>(s.job().input_tokens),
           .gpus = gpus,
           .cost = cost,
           .cost_without_drives_usd = cost.usd};
  a.step_s = s.step(context).time.total_s();
  a.tokens_per_s = s.memory().fits() ? static_cast<double>(s.job().batch) / a.step_s : 0.0;
  return a;
}

}  // namespace detail

// As many GPUs as hold weights and the whole cache, splitting both without loss: generous.
inline answer in_hbm(const model_spec& model, const system::workload& job) {
  server on = h100_server(model);
  const double end = static_cast<double>(job.context_tokens());
  const auto all_resident = [&] {
    const system::recomp_system s(model, on, job);
    return s.memory().fits() && s.resident(end) >= static_cast<double>(job.batch);
  };
  while (!all_resident()) {
    ++on.gpus;
  }
  return detail::measured("HBM", system::recomp_system(model, on, job), on.gpus, bill_of(on));
}

enum class tier { dram, cxl, ssd };

// share: of the KV bytes that a step reads; 1/8 is sparse attention that wastes nothing.
inline answer in_tier(tier where, const model_spec& model, const system::workload& job,
                      double share = 1) {
  const server on = h100_server(model);
  bill cost = bill_of(on);
  const double kv =
      static_cast<double>(job.batch * job.context_tokens()) * model.kv_bytes_per_token();
  system::memory_tier memory;
  switch (where) {
    case tier::dram:
      memory = {"DRAM", std::ceil(kv / 64e9) * 64e9, dram_bytes_per_s};
      cost.add(system::dram_64gb, memory.bytes / 64e9);
      break;
    case tier::cxl: {
      const double modules = std::ceil(kv / cxl_module_bytes);
      memory = {"CXL", modules * cxl_module_bytes, modules * cxl_module_bytes_per_s};
      cost.add(system::cxl_256gb, modules);
      break;
    }
    case tier::ssd: {
      const flash::drive_spec& d = flash::pcie5_16ch;
      memory = {"SSD", drives * static_cast<double>(d.geometry.bytes()),
                drives * static_cast<double>(d.link_bytes_per_s)};
      cost.add(system::ssd_pcie5, drives);
      break;
    }
  }
  return detail::measured(std::string(memory.name) + (share < 1 ? ", 1/8" : ""),
                          system::tier_system(model, on, job, memory, share), on.gpus, cost);
}

// Format: that of the model's KV.
template <Design D, class Format = kv_format<>>
answer in_drives(std::string name, const model_spec& model, const system::workload& job,
                 const flash::drive_spec& drive, const system::priced& price, int count = drives) {
  server on = h100_server(model);
  on.drives = count;
  const system::insta_system<D, Format> s(model, on, job, {}, drive);
  answer a = detail::measured(std::move(name), s, on.gpus, bill_of(on));
  a.cost.add(price, count);
  a.bottleneck = s.kv().bottleneck(a.context).name;
  return a;
}

// The tiers of one model at one context, in a fixed order: HBM, DRAM, CXL, SSD, the three with 1/8,
// then drives.
inline std::vector<answer> tiers_at(const model_spec& model, std::int64_t context) {
  const system::workload job{sequences, context, output_tokens};
  std::vector<answer> all{in_hbm(model, job)};
  for (const double share : {1.0, 1.0 / 8}) {
    for (const tier where : {tier::dram, tier::cxl, tier::ssd}) {
      all.push_back(in_tier(where, model, job, share));
    }
  }
  const flash::drive_spec wide = with_accelerator(flash::pcie5_16ch, model.shape.group());
  all.push_back(in_drives<insta>("InstA", model, job, flash::pcie5_16ch, system::csd_pcie5));
  all.push_back(
      in_drives<insta_sparf>("InstA-SparF", model, job, flash::pcie5_16ch, system::csd_pcie5));
  all.push_back(in_drives<insta>("InstA, wide", model, job, wide, system::csd_pcie5));
  all.push_back(in_drives<insta_sparf>("InstA-SparF, wide", model, job, wide, system::csd_pcie5));
  return all;
}

// Answers by context, of one model.
struct ladder {
  model_spec model;
  std::vector<std::vector<answer>> rungs;  // [contexts, tiers]
};
inline ladder climb(const model_spec& model) {
  ladder l{model, {}};
  for (const std::int64_t context : contexts) {
    l.rungs.push_back(tiers_at(model, context));
  }
  return l;
}

// The price of one drive at which the drives' server gives as many tokens for a dollar as `other`;
// below 0 there is none.
inline double break_even_drive_usd(const answer& ours, const answer& other,
                                   const system::running_costs& costs = {}) {
  const double wanted_usd_per_s =
      ours.tokens_per_s / other.cost.tokens_per_usd(other.tokens_per_s, costs);
  bill energy = ours.cost;
  energy.usd = 1e-9;  // a bill of nothing is refused
  const double for_parts = wanted_usd_per_s - energy.usd_per_s(costs);
  const double usd = for_parts * costs.service_years * flash::memory_price::seconds_per_year;
  return (usd - ours.cost_without_drives_usd) / drives;
}

// The context from which `ours` stays ahead of `other` in `value`, straight between contexts on a
// double logarithmic scale; the shortest context where it always is, none where it is not at the
// longest.
template <class Value>
std::optional<double> ahead_from(const ladder& l, std::size_t ours, std::size_t other,
                                 const Value& value) {
  const auto lead = [&](std::size_t i) {
    return std::log(value(l.rungs[i][ours]) / value(l.rungs[i][other]));
  };
  std::size_t i = l.rungs.size() - 1;
  if (lead(i) < 0) {
    return std::nullopt;
  }
  while (i > 0 && lead(i - 1) >= 0) {
    --i;
  }
  if (i == 0) {
    return l.rungs[0][ours].context;
  }
  const double below = std::log(l.rungs[i - 1][ours].context);
  const double above = std::log(l.rungs[i][ours].context);
  return std::exp(below + (above - below) * lead(i - 1) / (lead(i - 1) - lead(i)));
}

}  // namespace instinfer::beyond
