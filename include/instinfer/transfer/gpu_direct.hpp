#pragma once
// The route of GPU-direct storage (FlexGen-GDS): DMA from the drive to GPU memory, with requests
// through the host file system.

#include "instinfer/transfer/concepts.hpp"

namespace instinfer::transfer {

struct gpu_direct {
  static constexpr bool computes_in_drive = false;

  static link_bytes bytes(const traffic& pages, std::uint64_t /*query*/, std::uint64_t /*output*/) {
    return detail::whole_pages(pages);
  }

  static route_time time(link_bytes moved, const route_spec& route) {
    const std::uint64_t all = moved.up + moved.down;
    return {.link_ns = detail::over(all, route.drive_link),
            .latency_ns = route.drive_link.latency_ns,
            .software_ns = detail::requests(all, route.request_bytes) * route.file_system_ns};
  }
};

}  // namespace instinfer::transfer
