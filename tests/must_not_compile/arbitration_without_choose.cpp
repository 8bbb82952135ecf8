// expect: instinfer: a bus arbitration needs choose() -> bus_turn and must be copyable, see ssd/channel/arbitration.hpp
// A bus arbitration that never says whose turn it is.
#include "instinfer/cpu/engine.hpp"
#include "instinfer/flash/engine.hpp"

struct undecided {
#ifdef CONTROL
  instinfer::flash::bus_turn choose() const { return instinfer::flash::bus_turn::command; }
#endif
};

using format = instinfer::kv_format<>;
using engine = instinfer::flash::engine<instinfer::insta, format,
                                        instinfer::flash::random_selection, undecided>;

void use(std::span<const float> q, std::span<float> out) {
  engine timed({}, {});
  timed.attend(timed.open(), 0, q, out);
}
