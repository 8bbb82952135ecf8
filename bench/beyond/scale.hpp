#pragma once
// From one drive to a million: a pool of computational drives around one server with GPUs, over
// networks.

#include <array>
#include <string>
#include <vector>

#include "beyond/study.hpp"
#include "instinfer/system/cluster.hpp"

namespace instinfer::beyond {

inline constexpr int drives_a_host = 16;
inline constexpr int pool_gpus = 8;

// Where the time of a step goes.
struct shares {
  static constexpr std::array<const char*, 5> names{"GPU", "drives", "PCIe links", "commands",
                                                    "network"};
  std::array<double, 5> seconds{};

  double total_s() const {
    double sum = 0;
    for (const double s : seconds) {
      sum += s;
    }
    return sum;
  }
  std::size_t largest() const {
    return static_cast<std::size_t>(std::ranges::max_element(seconds) - seconds.begin());
  }
};

struct pool {
  double drives = 0;
  double hosts = 0;
  double drives_used = 0;
  std::int64_t batch = 0;
  shares step;
  std::string verdict;  // empty where memory suffices
  bill cost;
  double tokens_per_s() const {
    return verdict.empty() ? static_cast<double>(batch) / step.total_s() : 0.0;
  }
};

inline pool pool_of(const model_spec& model, std::int64_t batch, std::int64_t context, int count,
                    int hosts, const system::network_spec& network) {
  server on = h100_server(model);
  on.gpus = pool_gpus;
  on.drives = count;
  const flash::drive_spec drive = with_accelerator(flash::pcie5_16ch, model.shape.group());
  using inside = system::insta_system<insta_sparf>;
  const system::cluster_system<inside> s(
      inside(model, on, {batch, context, output_tokens}, {}, drive), hosts, network);
  const system::decode_step step = s.step(static_cast<double>(context + output_tokens / 2));
  const double network_s = s.network_s(step);
  const system::step_time& t = step.time;
  pool p{.drives = static_cast<double>(count),
         .hosts = static_cast<double>(hosts),
         .drives_used = static_cast<double>(s.inside().kv().split().drives_used()),
         .batch = batch,
         .step = {{t.weights_s + t.compute_s, t.kv_drive_s + t.kv_write_s, t.qo_link_s - network_s,
                   t.command_s, network_s}},
         .verdict = s.memory().verdict(),
         .cost = bill{}.add(system::price_of(on.gpu), on.gpus)};
  p.cost.add(system::server_chassis, hosts)
      .add(system::dram_64gb, hosts)
      .add(system::csd_pcie5, count)
      .add(system::network_port, hosts > 1 ? hosts : 0);
  return p;
}

// Llama-3-70B, 1,024 sequences of 128 K: 8 KV heads x 1,024 sequences occupy up to 8,192 drives.
inline constexpr std::int64_t pool_batch = 1'024;
inline constexpr std::int64_t pool_context = 128 << 10;
inline const std::vector<int> pool_drives{1, 4, 16, 32, 64, 128, 256, 512, 1'000};

inline std::vector<pool> pools_over(const system::network_spec& network) {
  std::vector<pool> all;
  for (const int count : pool_drives) {
    all.push_back(pool_of(system::llama3_70b, pool_batch, pool_context, count,
                          (count + drives_a_host - 1) / drives_a_host, network));
  }
  return all;
}

// A drive in every home: as many sequences as drives, each host one drive.
inline std::vector<pool> homes() {
  std::vector<pool> all;
  for (const int count : {1'000, 10'000, 100'000, 1'000'000}) {
    all.push_back(
        pool_of(system::llama3_70b, count, pool_context, count, count, system::home_fibre));
  }
  return all;
}

}  // namespace instinfer::beyond
