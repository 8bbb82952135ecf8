#pragma once
// SparQ attention (Ribar et al., ICML 2024): the selection that SparF brings to flash, with its local window.

#include "instinfer/attention/sparf.hpp"

namespace instinfer::attention {

// The same program as SparF. What differs: a quarter of the kept tokens are always the newest (customary l = k/4), and
// the method is defined entry by entry: where no filter sits behind the pages (host routes), whole pages move.
struct sparq {
  budget keep_dims = 1.0 / 8;
  budget keep_tokens = 1.0 / 16;
  budget local = 1.0 / 4;

  using summaries = summary_list<mean_value>;

  static constexpr sparq at_compression(double compression) {
    return {.keep_dims = 1.0 / compression, .keep_tokens = 0.5 / compression};
  }

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    sparf{.keep_dims = keep_dims, .keep_tokens = keep_tokens, .local = local}(m, q);
  }
};

}  // namespace instinfer::attention
