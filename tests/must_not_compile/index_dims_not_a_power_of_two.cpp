// expect: instinfer: index keys need a power of two of dims, at least 16, see summaries/index_keys.hpp
// An indexer of 80 dims: keys are rotated by a Hadamard matrix, which there is for powers of two.
#include "instinfer/methods/dsa.hpp"

#ifdef CONTROL
using mine = instinfer::attention::basic_dsa<64>;
#else
using mine = instinfer::attention::basic_dsa<80>;
#endif

mine::index::state<instinfer::kv_format<>> keys;
