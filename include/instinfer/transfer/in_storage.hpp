#pragma once
// In-storage attention: only q goes down and only the attention output comes up, peer to peer
// (InstInfer §IV-A).

#include "instinfer/transfer/peer_to_peer.hpp"

namespace instinfer::transfer {

struct in_storage {
  static constexpr bool computes_in_drive = true;

  static link_bytes bytes(const traffic& /*pages*/, std::uint64_t query_bytes,
                          std::uint64_t output_bytes) {
    return {.up = output_bytes, .down = query_bytes};
  }

  static route_time time(link_bytes moved, const route_spec& route) {
    return peer_to_peer::time(moved, route);
  }
};

}  // namespace instinfer::transfer
