// expect: instinfer: the operation needs a summary that is not among the policy's summaries, see summaries/concepts.hpp
// A policy that scores pages by their bounds, but does not have the cache keep them.
#include "instinfer/cpu/engine.hpp"
#include "instinfer/summaries/page_bounds.hpp"

struct forgetful {
  using boxes = instinfer::attention::page_bounds<16>;
#ifdef CONTROL
  using summaries = instinfer::attention::summary_list<boxes>;
#else
  using summaries = instinfer::attention::summary_list<>;
#endif
  template <instinfer::attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto bounds = m.template score_chunks<boxes>(q, m.template all_chunks<boxes>());
    m.fold(q, m.template members<boxes>(m.top_chunks(bounds, 0.125)));
  }
};

using mine = instinfer::design<forgetful, instinfer::layout::token_indexed<>,
                               instinfer::flash::instcsd, instinfer::transfer::in_storage>;

void use(std::span<const float> q, std::span<float> out) {
  instinfer::cpu::engine<mine> engine({}, {});
  engine.attend(engine.open(), 0, q, out);
}
