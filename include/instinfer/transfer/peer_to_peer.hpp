#pragma once
// Peer-to-peer transfer of pages: NVMe commands carry the KV address, no host file system
// (InstInfer §IV-D).

#include "instinfer/transfer/concepts.hpp"

namespace instinfer::transfer {

struct peer_to_peer {
  static constexpr bool computes_in_drive = false;

  static link_bytes bytes(const traffic& pages, std::uint64_t /*query*/, std::uint64_t /*output*/) {
    return detail::whole_pages(pages);
  }

  // Commands are queued while data flows, so only the software cost of the first command is
  // visible.
  static route_time time(link_bytes moved, const route_spec& route) {
    const std::uint64_t all = moved.up + moved.down;
    return {.link_ns = detail::over(all, route.drive_link),
            .latency_ns = route.drive_link.latency_ns,
            .software_ns = all == 0 ? 0.0 : route.nvme_command_ns};
  }
};

}  // namespace instinfer::transfer
