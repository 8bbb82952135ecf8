// expect: instinfer: a cluster that splits tokens cannot save or load summaries, since those of two drives do not merge; use by_heads or by_sequences, see cluster/splits.hpp
// A file of a method with a summary, whose tokens lie on several drives.
#include "instinfer/cluster/file.hpp"
#include "instinfer/engine/design.hpp"
#include "instinfer/summaries/mean_value.hpp"

#ifdef CONTROL
using instinfer::cluster::by_heads;
#else
using by_heads = instinfer::cluster::by_tokens;
#endif

struct drive {
  using design_type = instinfer::insta_sparf;
  using format = instinfer::kv_format<instinfer::fp16, 64>;
  struct cache_type {
    using summary_states =
        instinfer::attention::summary_list<instinfer::attention::mean_value>::states<format>;
  };
};

instinfer::cluster::split_file<drive, by_heads> file(const by_heads& split) {
  return {split, {}, {}, {}};
}
