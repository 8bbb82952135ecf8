// expect: instinfer: the transfer policy lacks `computes_in_drive`, bytes() or time(), see transfer/concepts.hpp
// A route that counts bytes, but does not say how long they take.
#include "instinfer/cpu/engine.hpp"
#include "instinfer/flash/engine.hpp"

struct timeless {
  static constexpr bool computes_in_drive = true;
  static instinfer::transfer::link_bytes bytes(const instinfer::traffic&, std::uint64_t query,
                                               std::uint64_t output) {
    return {.up = output, .down = query};
  }
#ifdef CONTROL
  static instinfer::transfer::route_time time(instinfer::transfer::link_bytes moved,
                                              const instinfer::transfer::route_spec& machine) {
    return instinfer::transfer::in_storage::time(moved, machine);
  }
#endif
};

using mine = instinfer::design<instinfer::attention::dense, instinfer::layout::token_indexed<>,
                               instinfer::flash::instcsd, timeless>;

void use(std::span<const float> q, std::span<float> out) {
  instinfer::flash::engine<mine> engine({}, {});
  engine.attend(engine.open(), 0, q, out);
}
