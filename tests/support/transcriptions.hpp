#pragma once
// Selection methods in fp64 on whole matrices, line by line from their definitions, without machine, pages or plan: what the
// policies of every path are compared with. Q is [group, dim], K [tokens, dim], V [tokens, v_dim]; token lists ascend.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "instinfer/reference/exact.hpp"
#include "instinfer/summaries/clustering.hpp"
#include "tests/paths/transcription.hpp"

namespace instinfer::test {

using token_list = std::vector<int>;

inline token_list tokens_from_to(int first, int last) {
  token_list tokens(static_cast<std::size_t>(std::max(0, last - first)));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

inline token_list joined(const token_list& a, const token_list& b) {
  token_list all;
  std::ranges::set_union(a, b, std::back_inserter(all));
  return all;
}

// Exact attention within the listed tokens, [group, v_dim].
inline matrix attention_over(const matrix& Q, const matrix& K, const matrix& V,
                             const token_list& tokens) {
  const matrix keys = K(tokens, Eigen::all);
  const matrix values = V(tokens, Eigen::all);
  matrix out(Q.rows(), V.cols());
  for (Eigen::Index h = 0; h < Q.rows(); ++h) {
    out.row(h) = reference::exact_attention(Q.row(h), keys, values);
  }
  return out;
}

// Share of the softmax over all tokens that the listed ones hold.
inline double mass_of(const row_vector& weights, const token_list& tokens) {
  double mass = 0;
  for (const int t : tokens) {
    mass += weights[t];
  }
  return mass;
}

// ---- Quest: pages by the upper bound of their box ----

// U [pages] = max over heads of sum_i max(q_i min_i, q_i max_i), the largest product that a key in the page's box can have.
inline row_vector quest_bounds(const matrix& Q, const matrix& K, int page_tokens) {
  const auto tokens = static_cast<int>(K.rows());
  row_vector bounds((tokens + page_tokens - 1) / page_tokens);
  for (int p = 0; p < bounds.size(); ++p) {
    const matrix page =
        K.middleRows(p * page_tokens, std::min(page_tokens, tokens - p * page_tokens));
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
inline token_list quest_tokens(const row_vector& bounds, int tokens, int page_tokens, int pages) {
  const auto last = static_cast<int>(bounds.size()) - 1;
  std::vector<int> chosen = largest(bounds.head(last), std::min(pages - 1, last));
  chosen.push_back(last);
  token_list all;
  for (const int p : chosen) {
    for (int t = p * page_tokens; t < std::min(tokens, (p + 1) * page_tokens); ++t) {
      all.push_back(t);
    }
  }
  return all;
}

// ---- clusters ----

struct cluster_index {
  matrix centroids;                 // [clusters, dim]: mean key; zero for an empty cluster
  matrix value_sums;                // [clusters, v_dim]
  row_vector sizes;                 // [clusters]
  row_vector radii;                 // [clusters]: largest distance of a member from the centroid
  std::vector<token_list> members;  // [clusters]

  int clusters() const { return static_cast<int>(members.size()); }
};

// Row i of the clustering is token first + i.
inline cluster_index index_of(const matrix& K, const matrix& V,
                              const attention::clustering& clustering, int first = 0) {
  const auto count = static_cast<Eigen::Index>(clustering.sizes.size());
  cluster_index index{matrix::Zero(count, K.cols()), matrix::Zero(count, V.cols()),
                      row_vector::Zero(count), row_vector::Zero(count),
                      std::vector<token_list>(clustering.sizes.size())};
  for (std::size_t i = 0; i < clustering.cluster_of.size(); ++i) {
    const int token = first + static_cast<int>(i);
    const std::uint32_t c = clustering.cluster_of[i];
    index.members[c].push_back(token);
    index.centroids.row(c) += K.row(token);
    index.value_sums.row(c) += V.row(token);
    index.sizes[c] += 1;
  }
  for (Eigen::Index c = 0; c < count; ++c) {
    index.centroids.row(c) /= std::max(1.0, index.sizes[c]);
    for (const int token : index.members[static_cast<std::size_t>(c)]) {
      index.radii[c] = std::max(index.radii[c], (K.row(token) - index.centroids.row(c)).norm());
    }
  }
  return index;
}

inline token_list members_of(const cluster_index& index, const std::vector<int>& clusters) {
  token_list tokens;
  for (const int c : clusters) {
    const token_list& members = index.members[static_cast<std::size_t>(c)];
    tokens.insert(tokens.end(), members.begin(), members.end());
  }
  std::ranges::sort(tokens);
  return tokens;
}

// ---- RetroInfer: steady, retrieval and estimation zones ----

struct retro_result {
  std::vector<int> retrieved;  // clusters, ascending
  std::vector<int> estimated;
  token_list tokens;  // attended exactly: steady ones and members of the retrieved clusters
  matrix out;         // [group, v_dim]
};

// `steady` are the tokens that are always attended and in no cluster.
inline retro_result transcribed_retro(const matrix& Q, const matrix& K, const matrix& V,
                                      const cluster_index& index, const token_list& steady, int r,
                                      int e) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(K.cols()));
  row_vector distance = row_vector::Zero(index.clusters());
  for (Eigen::Index h = 0; h < Q.rows(); ++h) {
    row_vector logits = Q.row(h) * index.centroids.transpose() * scale;
    for (int c = 0; c < index.clusters(); ++c) {
      logits[c] = index.sizes[c] > 0 ? logits[c] : -std::numeric_limits<double>::infinity();
    }
    distance += reference::softmax(logits);
  }
  int filled = 0;
  for (int c = 0; c < index.clusters(); ++c) {
    filled += index.sizes[c] > 0 ? 1 : 0;
    distance[c] = index.sizes[c] > 0 ? distance[c] : -1.0;
  }
  retro_result result;
  result.retrieved = largest(distance, std::min(r, filled));
  const std::vector<int> both = largest(distance, std::min(r + e, filled));
  std::ranges::set_difference(both, result.retrieved, std::back_inserter(result.estimated));
  result.tokens = joined(steady, members_of(index, result.retrieved));

  result.out = matrix::Zero(Q.rows(), V.cols());
  for (Eigen::Index h = 0; h < Q.rows(); ++h) {
    const row_vector exact = Q.row(h) * K(result.tokens, Eigen::all).transpose() * scale;
    const row_vector estimate =
        Q.row(h) * index.centroids(result.estimated, Eigen::all).transpose() * scale;
    double max = -std::numeric_limits<double>::infinity();
    max = exact.size() > 0 ? std::max(max, exact.maxCoeff()) : max;
    max = estimate.size() > 0 ? std::max(max, estimate.maxCoeff()) : max;
    double sum = 0;
    row_vector values = row_vector::Zero(V.cols());
    for (Eigen::Index i = 0; i < exact.size(); ++i) {
      const double p = std::exp(exact[i] - max);
      sum += p;
      values += p * V.row(result.tokens[static_cast<std::size_t>(i)]);
    }
    for (Eigen::Index i = 0; i < estimate.size(); ++i) {
      const int c = result.estimated[static_cast<std::size_t>(i)];
      const double p = std::exp(estimate[i] - max);
      sum += p * index.sizes[c];
      values += p * index.value_sums.row(c);
    }
    if (sum > 0) {
      result.out.row(h) = values / sum;
    }
  }
  return result;
}

// ---- Squeezed Attention: clusters above a probability ----

// exp(q.c_i / sqrt d) / sum_r n_r exp(q.c_r / sqrt d): the estimated probability of one key of cluster i, mean over the rows of
// Q. `counted` has the clusters that are evaluated; the others get -1, and no part in the denominator.
inline row_vector key_probability(const matrix& Q, const cluster_index& index,
                                  const std::vector<bool>& counted) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(Q.cols()));
  row_vector mean = row_vector::Constant(index.clusters(), -1.0);
  for (Eigen::Index h = 0; h < Q.rows(); ++h) {
    const row_vector logits = Q.row(h) * index.centroids.transpose() * scale;
    double max = -std::numeric_limits<double>::infinity();
    for (int c = 0; c < index.clusters(); ++c) {
      max = counted[static_cast<std::size_t>(c)] ? std::max(max, logits[c]) : max;
    }
    double sum = 0;
    for (int c = 0; c < index.clusters(); ++c) {
      sum += counted[static_cast<std::size_t>(c)] ? index.sizes[c] * std::exp(logits[c] - max) : 0;
    }
    for (int c = 0; c < index.clusters(); ++c) {
      if (counted[static_cast<std::size_t>(c)]) {
        mean[c] = std::max(mean[c], 0.0) +
                  std::exp(logits[c] - max) / sum / static_cast<double>(Q.rows());
      }
    }
  }
  return mean;
}
inline row_vector key_probability(const matrix& Q, const cluster_index& index) {
  return key_probability(Q, index, std::vector<bool>(index.members.size(), true));
}

// Appends the probability of every key, as estimated, to the pool from which the threshold is drawn.
inline void pool_key_probabilities(const row_vector& probability, const cluster_index& index,
                                   std::vector<double>& pool) {
  for (int c = 0; c < index.clusters(); ++c) {
    pool.insert(pool.end(), index.members[static_cast<std::size_t>(c)].size(), probability[c]);
  }
}

// The value that a share z of the pool does not exceed, linear between neighbours.
inline double quantile(std::vector<double> pool, double z) {
  std::ranges::sort(pool);
  const double at = z * static_cast<double>(pool.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, pool.size() - 1);
  return pool[below] + (at - static_cast<double>(below)) * (pool[above] - pool[below]);
}

// Clusters whose probability, mean over the queries of a block, exceeds the threshold.
inline std::vector<int> above(const row_vector& probability, double threshold) {
  std::vector<int> kept;
  for (int c = 0; c < probability.size(); ++c) {
    if (probability[c] > threshold) {
      kept.push_back(c);
    }
  }
  return kept;
}

// Two levels: parent [fine clusters] is the coarse cluster of each fine one. Fine clusters whose parent passed coarse_threshold are
// evaluated among themselves.
inline std::vector<int> transcribed_two_level(const matrix& Q, const cluster_index& coarse,
                                              const cluster_index& fine,
                                              const std::vector<std::uint32_t>& parent,
                                              double coarse_threshold, double fine_threshold) {
  const row_vector of_parent = key_probability(Q, coarse);
  std::vector<bool> counted;
  for (const std::uint32_t p : parent) {
    counted.push_back(of_parent[p] > coarse_threshold);
  }
  return above(key_probability(Q, fine, counted), fine_threshold);
}

// The coarse level's index: a key belongs to the coarse cluster of its fine one.
inline attention::clustering composed(const attention::clustering& fine,
                                      const attention::clustering& of_centroids) {
  attention::clustering coarse{{}, std::vector<std::uint32_t>(of_centroids.sizes.size())};
  for (const std::uint32_t c : fine.cluster_of) {
    coarse.cluster_of.push_back(of_centroids.cluster_of[c]);
  }
  coarse.count_sizes();
  return coarse;
}

// ---- HGCA: window by recency, context by a moving average of past weights ----

struct hgca_settings {
  int window = 1024;
  int block = 64;
  int least = 10;  // kept of an evicted block, at least
  double alpha = 0.5;
  double beta = 0.5;
  bool global = false;  // weights relative to window and context, not to the window alone
};

// One query head over its own K and V.
class transcribed_hgca {
 public:
  explicit transcribed_hgca(const hgca_settings& how) : how_{how} {}

  struct step_result {
    row_vector out;
    token_list tokens;  // attended: context and window
  };

  // Attends token t, the newest row of K and V that counts.
  step_result step(const row_vector& q, const matrix& K, const matrix& V, int t) {
    const int length = t - first_;
    if (length + 1 > how_.window) {
      evict((length + 1 - how_.window + how_.block) / how_.block * how_.block, length);
    }
    weight_.push_back(0);
    const token_list window = tokens_from_to(first_, t + 1);
    step_result result{row_vector::Zero(V.cols()), joined(context_, window)};
    row_vector logits(static_cast<Eigen::Index>(result.tokens.size()));
    for (Eigen::Index i = 0; i < logits.size(); ++i) {
      logits[i] = q.dot(K.row(result.tokens[static_cast<std::size_t>(i)])) /
                  std::sqrt(static_cast<double>(q.size()));
    }
    const row_vector all = reference::softmax(logits);
    const row_vector local =
        reference::softmax(logits.tail(static_cast<Eigen::Index>(window.size())));
    for (Eigen::Index i = 0; i < all.size(); ++i) {
      result.out += all[i] * V.row(result.tokens[static_cast<std::size_t>(i)]);
    }
    const auto context = static_cast<Eigen::Index>(context_.size());  // all of it is older
    for (std::size_t i = 0; i < window.size(); ++i) {
      const auto at = static_cast<Eigen::Index>(i);
      const double p = how_.global ? all[context + at] : local[at];
      const bool newest = window[i] == t;
      weight_[i] = newest ? p : how_.alpha * p + (1 - how_.alpha) * weight_[i];
    }
    return result;
  }

  const token_list& context() const { return context_; }
  int evicted() const { return first_; }
  const std::vector<double>& weights() const { return weight_; }  // of the window's tokens

 private:
  void evict(int count, int attended) {
    const row_vector weight =
        Eigen::Map<const row_vector>(weight_.data(), static_cast<Eigen::Index>(count));
    const auto salient = static_cast<int>((weight.array() >= how_.beta / attended).count());
    for (const int i : largest(weight, std::min(count, std::max(how_.least, salient)))) {
      context_.push_back(first_ + i);
    }
    weight_.erase(weight_.begin(), weight_.begin() + count);
    first_ += count;
  }

  hgca_settings how_;
  int first_ = 0;  // oldest token of the window
  token_list context_;
  std::vector<double> weight_;  // moving averages, of the window's tokens
};

// ---- DSA and MISA: tokens by an indexer's score ----

// I [tokens] = sum over `heads` of w_h ReLU(qI_h . kI_s); qI is [heads, dim], kI [tokens, dim].
inline row_vector index_scores(const matrix& qI, const row_vector& w, const matrix& kI,
                               const std::vector<int>& heads) {
  row_vector score = row_vector::Zero(kI.rows());
  for (const int h : heads) {
    score += w[h] * (qI.row(h) * kI.transpose()).cwiseMax(0.0);
  }
  return score;
}

// Means of blocks of kI, the last over what it has, [blocks, dim].
inline matrix block_means(const matrix& kI, int block) {
  matrix means((kI.rows() + block - 1) / block, kI.cols());
  for (Eigen::Index b = 0; b < means.rows(); ++b) {
    const Eigen::Index first = b * block;
    means.row(b) =
        kI.middleRows(first, std::min<Eigen::Index>(block, kI.rows() - first)).colwise().mean();
  }
  return means;
}

// The h heads with the largest mean of |w_h ReLU(qI_h . kbar_b)| over the blocks.
inline std::vector<int> misa_heads(const matrix& qI, const row_vector& w, const matrix& means,
                                   int h) {
  row_vector energy(qI.rows());
  for (Eigen::Index head = 0; head < qI.rows(); ++head) {
    energy[head] = (w[head] * (qI.row(head) * means.transpose()).cwiseMax(0.0)).cwiseAbs().mean();
  }
  return largest(energy, h);
}

// The k best tokens by all heads.
inline token_list dsa_tokens(const matrix& qI, const row_vector& w, const matrix& kI, int k) {
  const std::vector<int> all = tokens_from_to(0, static_cast<int>(qI.rows()));
  return largest(index_scores(qI, w, kI, all), std::min(k, static_cast<int>(kI.rows())));
}

// The k best tokens by h heads; with candidates > 0 (MISA's hierarchical form) the best `candidates` of these by all heads.
inline token_list misa_tokens(const matrix& qI, const row_vector& w, const matrix& kI, int block,
                              int h, int k, int candidates = 0) {
  const auto tokens = static_cast<int>(kI.rows());
  const row_vector few = index_scores(qI, w, kI, misa_heads(qI, w, block_means(kI, block), h));
  if (candidates == 0) {
    return largest(few, std::min(k, tokens));
  }
  const token_list kept = largest(few, std::min(candidates, tokens));
  token_list chosen;
  for (const int at : dsa_tokens(qI, w, kI(kept, Eigen::all), k)) {
    chosen.push_back(kept[static_cast<std::size_t>(at)]);
  }
  return chosen;
}

// Share of `wanted` that is in `found`.
inline double recall(const token_list& wanted, const token_list& found) {
  token_list both;
  std::ranges::set_intersection(wanted, found, std::back_inserter(both));
  return wanted.empty() ? 1.0
                        : static_cast<double>(both.size()) / static_cast<double>(wanted.size());
}

}  // namespace instinfer::test
