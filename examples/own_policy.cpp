// A selection method of your own: one struct over the attention machine, and it runs on every path.
//
// This one, "two looks", takes half of its tokens by a look through the query's strongest dims, as
// SparF does, and half by recency; and it does not make up for what it left out.

#include "support/on_every_path.hpp"
#include "support/program.hpp"

using namespace instinfer;

struct two_looks {
  budget keep_dims = 1.0 / 8;
  budget keep_tokens = 1.0 / 8;

  using summaries = attention::summary_list<>;  // nothing kept in fast memory

  template <attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto dims = m.top_dims(q, keep_dims);
    const auto scores = m.score_dims(q, dims);
    m.fold(q, m.top_tokens(scores, keep_tokens, 1.0 / 2));  // half of the kept are the newest
  }
};

// A policy that lacks something is told so here, in a sentence.
static_assert(attention::AttentionPolicy<two_looks>);

int main() {
  return program::run("own_policy", [] {
    using mine = design<two_looks, layout::dual<>, flash::instcsd, transfer::in_storage>;
    const model_shape shape{.layers = 1, .q_heads = 4, .kv_heads = 2};
    return examples::on_every_path<mine, kv_format<fp16, 64>>(shape, 3000) ? 0 : 1;
  });
}
