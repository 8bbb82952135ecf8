// expect: instinfer: the attention policy lacks `summaries` or operator()(machine, query), see attention/concepts.hpp
// A policy that does not say what the cache keeps for it.
#include "instinfer/cpu/engine.hpp"

struct everything {
#ifdef CONTROL
  using summaries = instinfer::attention::summary_list<>;
#endif
  template <instinfer::attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    m.fold(q, m.all_tokens(q));
  }
};

using mine = instinfer::design<everything, instinfer::layout::token_indexed<>,
                               instinfer::flash::instcsd, instinfer::transfer::in_storage>;

void use(std::span<const float> q, std::span<float> out) {
  instinfer::cpu::engine<mine> engine({}, {});
  engine.attend(engine.open(), 0, q, out);
}
