// expect: instinfer: blend_mean needs mean_value among the policy's summaries, see summaries/mean_value.hpp
// A policy that blends the mean of V into its result, but does not have the cache keep it.
#include "instinfer/cpu/engine.hpp"

struct forgetful {
#ifdef CONTROL
  using summaries = instinfer::attention::summary_list<instinfer::attention::mean_value>;
#else
  using summaries = instinfer::attention::summary_list<>;
#endif
  template <instinfer::attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto approx = m.score_dims(q, m.top_dims(q, 0.125));
    const auto tokens = m.top_tokens(approx, 0.125, 0.0);
    m.fold(q, tokens);
    m.blend_mean(approx, tokens);
  }
};

using mine = instinfer::design<forgetful, instinfer::layout::dual<>, instinfer::flash::instcsd,
                               instinfer::transfer::in_storage>;

void use(std::span<const float> q, std::span<float> out) {
  instinfer::cpu::engine<mine> engine({}, {});
  engine.attend(engine.open(), 0, q, out);
}
