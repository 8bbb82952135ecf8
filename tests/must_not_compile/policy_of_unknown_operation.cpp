// expect: error: .*score_centroids
// A policy that asks for an operation that no machine has: the compiler names it.
#include "instinfer/cpu/engine.hpp"

struct by_centroids {
  using summaries = instinfer::attention::summary_list<>;

  template <instinfer::attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
#ifdef CONTROL
    const auto scores = m.score_dims(q, m.top_dims(q, 0.5));
#else
    const auto scores = m.score_centroids(q);
#endif
    m.fold(q, m.top_tokens(scores, 0.5, 0.0));
  }
};

using mine = instinfer::design<by_centroids, instinfer::layout::token_indexed<>,
                               instinfer::flash::instcsd, instinfer::transfer::in_storage>;

void use(std::span<const float> q, std::span<float> out) {
  instinfer::cpu::engine<mine> engine({}, {});
  engine.attend(engine.open(), 0, q, out);
}
