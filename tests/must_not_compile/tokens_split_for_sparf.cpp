// expect: instinfer: splits by tokens merge results over parts of a context, but this method selects tokens by the whole context; use by_heads or by_sequences, see cluster/splits.hpp
// A context over several drives, for a method whose choice needs all of it.
#include "instinfer/cluster/splits.hpp"
#include "instinfer/methods/dense.hpp"
#include "instinfer/methods/sparf.hpp"

#ifdef CONTROL
using method = instinfer::attention::dense;
#else
using method = instinfer::attention::sparf;
#endif

void split_context() {
  instinfer::cluster::split_rules<instinfer::cluster::by_tokens, method>::check({});
}
