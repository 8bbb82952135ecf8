#pragma once
// A cache whose K and V are of no interest, with the index of a sample: what DSA and MISA choose
// from.

#include "instinfer/methods/dsa.hpp"
#include "instinfer/methods/misa.hpp"
#include "tests/support/decoder.hpp"

namespace instinfer::test {

using attention::index_query;

// An index of the model's own, as the synthetic indexer gives it, and one that takes the keys of 64
// dims themselves.
using dsa = attention::basic_dsa<128>;
using misa = attention::basic_misa<128, 128>;
using own_dsa = attention::basic_dsa<64>;
using own_misa = attention::basic_misa<64, 16>;

template <class Policy, class Path = cpu::path>
struct indexed {
  indexed(const workload::index_sample& s, const Policy& policy) : sample{s}, d{policy} {
    const auto tokens = static_cast<int>(s.keys.size()) / s.dim;
    const random_cache<method_format> data(7, tokens, 1, 1);
    q = data.q;
    d.append(data.k, data.v, s.keys);
  }
  index_query query(std::size_t i) const {
    const auto heads = static_cast<std::size_t>(sample.heads);
    const auto dim = static_cast<std::size_t>(sample.dim);
    return {std::span(sample.q).subspan(i * heads * dim, heads * dim),
            std::span(sample.weights).subspan(i * heads, heads)};
  }
  token_list tokens(std::size_t i) {
    d.attend(q, query(i));
    return d.folded();
  }
  const workload::index_sample& sample;
  decoder<Policy, Path> d;
  std::vector<float> q;
};

}  // namespace instinfer::test
