#pragma once
// Computational drives in many hosts around one host with the GPUs.
// Heads and sequences are split over all drives. q, k, v and the outputs cross a network.

#include <cmath>
#include <limits>
#include <string>
#include <string_view>

#include "instinfer/system/insta.hpp"

namespace instinfer::system {

// A star network: every host has its own link, and the host with the GPUs has one link for all of
// them.
struct network_spec {
  std::string_view name;
  double host_bytes_per_s = 0;  // one direction
  double head_bytes_per_s = 0;  // of the host with the GPUs
  double one_way_ns = 0;        // of one message, with software

  void validate() const {
    require(host_bytes_per_s > 0 && head_bytes_per_s > 0 && one_way_ns >= 0, [&] {
      return "network_spec " + std::string(name) +
             ": rates must be positive and one_way_ns not negative";
    });
  }
};

// Rates are line rates. Latencies are assumed: a switched fabric with remote DMA, TCP in a data
// centre, homes on one continent.
inline constexpr network_spec fabric_400g{"400 Gb/s fabric", 50e9, 50e9, 5'000};
inline constexpr network_spec ethernet_100g{"100 Gb/s Ethernet", 12.5e9, 12.5e9, 30'000};
inline constexpr network_spec home_fibre{"home fibre, 1 Gb/s", 0.125e9, 50e9, 15'000'000};
inline constexpr network_spec no_network{"a network that costs nothing",
                                         std::numeric_limits<double>::infinity(),
                                         std::numeric_limits<double>::infinity(), 0};

// A system with drives: kv() has the split of the work among them, gpu() has the server.
template <class S>
concept DriveSystem = System<S> && requires(const S& s) {
  { s.kv().split() } -> std::convertible_to<drive_split>;
  { s.kv().footprint() } -> std::convertible_to<double>;
  { s.gpu() } -> std::convertible_to<gpu_side>;
};

// server::drives counts the drives of all hosts. All hosts send the commands of their own drives at
// the same time. q, k and v cross the network before a drive starts, and outputs after it has
// finished, so network time adds to drive time. The first host has the GPUs and pays no network
// time. With one host this is Insta itself.
template <class Insta = insta_system<>>
class cluster_system {
  static_assert(
      DriveSystem<Insta>,
      "instinfer: cluster_system spreads a system's drives over hosts; the system lacks kv() or gpu(), see system/cluster.hpp");

 public:
  static constexpr std::string_view name = Insta::name;

  // Throws bad_argument if hosts is not positive or is larger than the number of drives.
  cluster_system(Insta inside, int hosts, const network_spec& network)
      : inside_{std::move(inside)}, network_{(network.validate(), network)} {
    const int drives = inside_.gpu().on().drives;
    require(hosts > 0 && hosts <= drives, [&] {
      return "cluster_system: hosts must be positive and at most the " + std::to_string(drives) +
             " drives, got " + std::to_string(hosts);
    });
    const int drives_a_host = (drives + hosts - 1) / hosts;
    hosts_used_ =
        std::ceil(static_cast<double>(inside_.kv().split().drives_used()) / drives_a_host);
  }

  const workload& job() const { return inside_.job(); }
  // Number of hosts with work for their drives.
  double hosts_used() const { return hosts_used_; }

  // Network time of a step: the slower of the link of the host with the GPUs and the link of one
  // other host.
  double network_s(const decode_step& s) const {
    if (hosts_used_ <= 1) {
      return 0;
    }
    const double of_one = s.bytes.drive_link / hosts_used_;
    return std::max(of_one * (hosts_used_ - 1) / network_.head_bytes_per_s,
                    of_one / network_.host_bytes_per_s) +
           layers() * 2 * network_.one_way_ns * 1e-9;
  }

  decode_step step(double context) const {
    decode_step s = inside_.step(context);
    // Per layer.
    const double commands = static_cast<double>(job().batch) * inside_.kv().split().results();
    s.time.command_s *= std::ceil(commands / hosts_used_) / commands;
    s.time.qo_link_s += network_s(s);
    return s;
  }

  // KV of the prompts crosses the network once; a drive that stores K twice writes the second copy
  // itself.
  prefill_time prefill() const {
    prefill_time alone = inside_.prefill();
    if (hosts_used_ <= 1) {
      return alone;
    }
    const double crossing_s =
        alone.kv_written_bytes / inside_.kv().footprint() *
        std::max((hosts_used_ - 1) / network_.head_bytes_per_s, 1 / network_.host_bytes_per_s) /
        hosts_used_;
    return inside_.gpu().prefill(alone.kv_written_bytes,
                                 alone.kv_written_bytes / std::max(alone.kv_write_s, crossing_s));
  }

  memory_use memory() const { return inside_.memory(); }
  const Insta& inside() const { return inside_; }

 private:
  double layers() const { return inside_.gpu().model().shape.layers; }

  Insta inside_;
  network_spec network_;
  double hosts_used_ = 1;
};

}  // namespace instinfer::system
