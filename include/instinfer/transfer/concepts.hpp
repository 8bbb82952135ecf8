#pragma once
// Transfer policies: where decode attention runs, and the route of the bytes between the drive and
// the GPU.
//
//   host_bounce    pages through the host's file system and memory (FlexGen)    host_bounce.hpp
//   gpu_direct     pages by DMA to the GPU, with the host's file system (GDS)   gpu_direct.hpp
//   peer_to_peer   pages by DMA to the GPU, with NVMe commands only             peer_to_peer.hpp
//   in_storage     attention in the drive: q goes down, the output comes up     in_storage.hpp

#include <concepts>
#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/traffic.hpp"

namespace instinfer::transfer {

// One link of the route: bandwidth in bytes per second, latency of one request in nanoseconds.
struct link_spec {
  double bytes_per_s = 0;
  double latency_ns = 0;
};

// The links and software costs of a route. Defaults: InstInfer §VI-A, with the stated assumptions.
struct route_spec {
  link_spec drive_link{7.0e9, 2'000};  // PCIe 4 x4, 7 GB/s (paper §3); latency assumed
  link_spec gpu_link{32.0e9, 2'000};   // PCIe 4 x16, 32 GB/s (paper §3); latency assumed
  double request_bytes = 128 * 1024;   // the kernel's usual largest block request
  // Host file system per request. Calibrated: Fig. 14 (InstA = 6.85x FlexGen at batch 64) with the
  // KV shares of Fig. 18 (98.9 % and 80.7 %) gives FlexGen a KV rate of 7.66 GB/s / (6.85 * 0.989 /
  // 0.807) = 0.91 GB/s. Subtracting the two links from 1/0.91 leaves 0.92 ns a byte, 121 us a
  // request. GDS is as slow (Fig. 14), so it has the same cost.
  // Whole systems take host_software::cached_request_ns instead (system/spec/host_spec.hpp). That
  // constant excludes the drive's part of a request, which a system adds on a page cache miss.
  double file_system_ns = 121'000;
  double nvme_command_ns = 10'000;  // assumed: submission and completion without a file system
};

// Throws bad_argument for a rate that is not positive or a negative time.
inline void validate(const route_spec& m) {
  const auto check = [](bool ok, const char* rule) {
    require(ok, [&] { return std::string("route_spec: ") + rule; });
  };
  check(m.drive_link.bytes_per_s > 0 && m.gpu_link.bytes_per_s > 0,
        "links need a positive bytes_per_s");
  check(m.request_bytes > 0, "request_bytes must be positive");
  check(m.drive_link.latency_ns >= 0 && m.gpu_link.latency_ns >= 0 && m.file_system_ns >= 0 &&
            m.nvme_command_ns >= 0,
        "latencies and software times must not be negative");
}

// Bytes of one call, up (drive to GPU) and down.
struct link_bytes {
  std::uint64_t up = 0;
  std::uint64_t down = 0;
};

// Transfer time by part, in nanoseconds. The parts add up, because a request passes one hop after
// the other.
struct route_time {
  double link_ns = 0;      // bytes over bandwidth, both links
  double latency_ns = 0;   // first byte
  double software_ns = 0;  // host file system, or NVMe commands

  double total_ns() const { return link_ns + latency_ns + software_ns; }
};

// A route is stateless. computes_in_drive: attention runs in the drive, behind the entry filters of
// its flash channel controllers. Otherwise whole pages go to the GPU. bytes(pages, query, output)
// and time(bytes, route) are pure functions.
template <class T>
concept Transfer = requires(const traffic& pages, std::uint64_t query_bytes,
                            std::uint64_t output_bytes, link_bytes moved, const route_spec& route) {
  { T::computes_in_drive } -> std::convertible_to<bool>;
  { T::bytes(pages, query_bytes, output_bytes) } -> std::same_as<link_bytes>;
  { T::time(moved, route) } -> std::same_as<route_time>;
};

namespace detail {

inline double seconds_to_ns(double s) { return s * 1e9; }

inline double requests(std::uint64_t bytes, double request_bytes) {
  const double whole = static_cast<double>(bytes) / request_bytes;
  return bytes == 0 ? 0.0 : whole < 1.0 ? 1.0 : whole;
}

inline double over(std::uint64_t bytes, const link_spec& link) {
  return seconds_to_ns(static_cast<double>(bytes) / link.bytes_per_s);
}

// Every page that a plan reads goes up, and nothing goes down because the query is already on the
// GPU. The group buffer of such a system is in host memory, and its entries take the same route.
inline link_bytes whole_pages(const traffic& pages) {
  return {.up = pages.channel_bytes + pages.buffer_bytes, .down = 0};
}

}  // namespace detail
}  // namespace instinfer::transfer
