#pragma once
// What path tests check of one attend. They take values, not engines: checks.cpp compiles them once
// for all designs, formats and paths.

#include <span>
#include <vector>

#include "instinfer/codec/page_codec.hpp"
#include "instinfer/core/logit_rule.hpp"
#include "instinfer/core/traffic.hpp"
#include "tests/support/definitions.hpp"
#include "watched.hpp"

namespace instinfer::test {

// A cache and its queries in fp64, exactly as stored.
struct exact_cache {
  int tokens = 0;
  std::vector<matrix> Q;  // [kv_heads] of [group, k_dim]
  std::vector<matrix> K;  // [kv_heads] of [tokens, k_dim]
  std::vector<matrix> V;  // [kv_heads] of [tokens, v_dim]
};

// One attend of a cache, and what its machines did.
struct attended {
  std::vector<float> out;  // [q_heads, v_dim]
  recorder seen;           // [kv_heads]
  instinfer::traffic traffic;
};

// |a - b| / |b| in the 2-norm; |a| where b is zero.
double relative_error(std::span<const float> a, const row_vector& b);

// Every output row is exact attention, within `bound`.
void check_dense(const exact_cache& cache, std::span<const float> out, const logit_rule& rule,
                 double bound);

// What SparF and SparQ keep: shares of the dims, of the visible tokens, and of the kept tokens.
struct sparse_rule {
  double dims;
  double tokens;
  double local;
  bool by_logits = false;  // SparQ
};

// Selections are those of Alg. 1 in fp64, or as good; every output row is Alg. 1 with them, within
// `bound`. all_tied: all scores are equal, so that the selection is known.
void check_sparse(const exact_cache& cache, const attended& mine, const sparse_rule& sparse,
                  const logit_rule& rule, bool all_tied, double bound);

// As check_sparse, for tokens from `first` on of a cache as it is stored: K is what is attended,
// and K_scored [kv_heads] of [tokens, k_dim] what is scored, which may be rounded otherwise. The
// selection is the attend's own, which must be as good as any.
void check_sparse_as_stored(const exact_cache& stored, const std::vector<matrix>& K_scored,
                            const attended& mine, int first, double bound);

// Every output row is a mean of the cache's values, of one KV head.
void check_means_of_values(const exact_cache& cache, std::span<const float> out, double bound);

// Every output row is dense attention, or the mean of all values, of one KV head.
void check_end(const exact_cache& cache, std::span<const float> out, bool keep_all, double bound);

// Pages that the path read = pages that the plan named = pages that the receipt counts, of plain
// pages.
void check_pages(const std::map<page_id, int>& read, const attended& mine, std::size_t element,
                 bool filtered);

// The same for pages of codes, which a path may look at more than once: for their scales.
void check_coded_pages(std::map<page_id, int> read, const attended& mine, const entry_size& entry);

}  // namespace instinfer::test
