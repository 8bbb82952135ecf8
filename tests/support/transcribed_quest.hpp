#pragma once
// Quest in fp64 on whole matrices: pages by the upper bound of their box.

#include <algorithm>
#include <limits>
#include <vector>

#include "tests/support/token_lists.hpp"

namespace instinfer::test {

// U [pages] = max over heads of sum_i max(q_i min_i, q_i max_i), the largest product that a key in
// the page's box can have.
inline row_vector quest_bounds(const matrix& Q, const matrix& K, int per_page) {
  const auto tokens = static_cast<int>(K.rows());
  row_vector bounds((tokens + per_page - 1) / per_page);
  for (int p = 0; p < bounds.size(); ++p) {
    const matrix page = K.middleRows(p * per_page, std::min(per_page, tokens - p * per_page));
    const row_vector low = page.colwise().minCoeff();
    const row_vector high = page.colwise().maxCoeff();
    double most = -std::numeric_limits<double>::infinity();
    for (Eigen::Index h = 0; h < Q.rows(); ++h) {
      const auto q = Q.row(h).array();
      most = std::max(most, (q * low.array()).max(q * high.array()).sum());
    }
    bounds[p] = most;
  }
  return bounds;
}

// The newest page, full or not, and the best pages - 1 of the others.
inline token_list quest_tokens(const row_vector& bounds, int tokens, int per_page, int pages) {
  const auto last = static_cast<int>(bounds.size()) - 1;
  std::vector<int> chosen = largest(bounds.head(last), std::min(pages - 1, last));
  chosen.push_back(last);
  token_list all;
  for (const int p : chosen) {
    for (int t = p * per_page; t < std::min(tokens, (p + 1) * per_page); ++t) {
      all.push_back(t);
    }
  }
  return all;
}

}  // namespace instinfer::test
