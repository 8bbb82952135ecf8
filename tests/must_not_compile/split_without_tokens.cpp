// expect: instinfer: a split lacks heads, holds, tokens_of, splits_tokens, name or validate, see cluster/splits.hpp
// A split that does not say which tokens a drive has.
#include "instinfer/cluster/splits.hpp"
#include "instinfer/methods/dense.hpp"

#ifdef CONTROL
using whole_sequences = instinfer::cluster::by_sequences;
#else
struct whole_sequences {
  static constexpr bool splits_tokens = false;
  bool holds(std::uint32_t home, int drive, int drives) const {
    return home % static_cast<std::uint32_t>(drives) == static_cast<std::uint32_t>(drive);
  }
};
#endif

void split() {
  instinfer::cluster::split_rules<whole_sequences, instinfer::attention::dense>::check({});
}
