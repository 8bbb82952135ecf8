// expect: instinfer: fold_chunks needs a summary with value_mean(chunk), see summaries/chunks.hpp
// A policy that estimates pages by their bounds, which say nothing of the values inside.
#include "instinfer/cpu/engine.hpp"
#include "instinfer/summaries/cluster_index.hpp"
#include "instinfer/summaries/page_bounds.hpp"

struct estimating {
#ifdef CONTROL
  using kept = instinfer::attention::cluster_index;
#else
  using kept = instinfer::attention::page_bounds<16>;
#endif
  using summaries = instinfer::attention::summary_list<kept>;
  template <instinfer::attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto all = m.template all_chunks<kept>();
    m.template fold_chunks<kept>(m.template score_chunks<kept>(q, all), all);
  }
};

using mine = instinfer::design<estimating, instinfer::layout::token_indexed<>,
                               instinfer::flash::instcsd, instinfer::transfer::in_storage>;

void use(std::span<const float> q, std::span<float> out) {
  instinfer::cpu::engine<mine> engine({}, {});
  engine.attend(engine.open(), 0, q, out);
}
