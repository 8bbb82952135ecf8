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
  std::string split;  // empty: KV heads, then sequences
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

template <Design D>
pool pool_of(const model_spec& model, std::int64_t batch, std::int64_t context, int count,
             int hosts, const system::network_spec& network, const system::drive_split& split) {
  server on = h100_server(model);
  on.gpus = pool_gpus;
  on.drives = count;
  const flash::drive_spec drive = with_accelerator(flash::pcie5_16ch, model.shape.group());
  using inside = system::insta_system<D>;
  const system::cluster_system<inside> s(
      inside(model, on, {batch, context, output_tokens}, split, {}, drive), hosts, network);
  const system::decode_step step = s.step(static_cast<double>(context + output_tokens / 2));
  const double network_s = s.network_s(step);
  const system::step_time& t = step.time;
  pool p{.split = {},
         .drives = static_cast<double>(count),
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

inline int hosts_of(int count) { return (count + drives_a_host - 1) / drives_a_host; }

// KV heads first, then sequences.
inline pool pool_of(std::int64_t batch, int count, int hosts, const system::network_spec& network) {
  const model_spec& model = system::llama3_70b;
  return pool_of<insta_sparf>(model, batch, pool_context, count, hosts, network,
                              system::split_over(count, model.shape, batch));
}

inline std::vector<pool> pools_over(const system::network_spec& network) {
  std::vector<pool> all;
  for (const int count : pool_drives) {
    all.push_back(pool_of(pool_batch, count, hosts_of(count), network));
  }
  return all;
}

// A drive in every home: as many sequences as drives, each host one drive.
inline std::vector<pool> homes() {
  std::vector<pool> all;
  for (const int count : {1'000, 10'000, 100'000, 1'000'000}) {
    all.push_back(pool_of(count, count, count, system::home_fibre));
  }
  return all;
}

// One sequence of 1,024 K, all of it read: by heads as far as there are heads, then by tokens, too.
inline constexpr std::int64_t long_context = 1'024 << 10;

inline std::vector<pool> one_long_sequence() {
  const model_spec& model = system::llama3_70b;
  std::vector<pool> all;
  const auto add = [&](const auto& split, int count) {
    all.push_back(pool_of<insta>(model, 1, long_context, count, hosts_of(count),
                                 system::fabric_400g,
                                 system::split_of(split, count, model.shape, 1)));
    all.back().split = split.name();
  };
  for (const int count : {1, 2, 4, 8}) {
    add(cluster::by_heads{}, count);
  }
  for (const int count : {2, 8, 16, 64}) {
    add(cluster::by_tokens{}, count);
  }
  for (const int count : {16, 64, 256, 1'000}) {
    add(cluster::by_heads_and_tokens{.head_groups = 8}, count);
  }
  return all;
}

}  // namespace instinfer::beyond
