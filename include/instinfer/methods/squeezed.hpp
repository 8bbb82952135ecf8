#pragma once
// Squeezed Attention (Hooper et al., 2024): a fixed prompt is clustered once.
// A query attends to the clusters whose keys have more than a calibrated probability, and to all
// tokens after the prompt.

#include <string>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/cluster_index.hpp"
#include "instinfer/summaries/kmeans.hpp"

namespace instinfer::attention {

// One threshold serves a whole model, so heads with flat weights keep many tokens and heads with
// peaked weights few. With coarse clusters, only the fine clusters of the coarse clusters above
// their threshold are scored. Thresholds come from methods/threshold_calibration.hpp; 0 keeps
// everything. engine::build makes the clusters, once; it does not cluster the last `window` tokens
// of the prompt.
struct squeezed {
  double threshold = 0.0;
  double coarse_threshold = 0.0;
  budget clusters = 0.05;        // share of the clustered tokens
  budget coarse_clusters = 0.0;  // share of the clustered tokens: 0 for one level, 0.01 for two
  std::uint32_t window = 100;
  std::uint64_t seed = 1;

  using summaries = summary_list<cluster_index, cluster_tree>;
  using indexed_by = cluster_index;
  // The settings by which build() makes the index.
  static constexpr const char* index_settings = "clusters, coarse_clusters, window and seed";
  static bool same_index(const squeezed& a, const squeezed& b) {
    return a.clusters == b.clusters && a.coarse_clusters == b.coarse_clusters &&
           a.window == b.window && a.seed == b.seed;
  }
  static constexpr bool own_window = true;

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const index_run prompt = m.template summary<cluster_index>().indexed();
    // What follows the clustered prompt lies in fast memory. Before build() nothing does: all
    // tokens are read from flash.
    m.fold(q, m.subtract(m.all_tokens(q), m.run(prompt)),
           prompt.size() > 0 ? residence::fast : residence::flash);

    auto candidates = m.template all_chunks<cluster_index>();
    if (m.template summary<cluster_tree>().chunks() > 0) {
      const auto coarse = m.template all_chunks<cluster_tree>();
      const auto p =
          m.template softmax<cluster_tree>(m.template score_chunks<cluster_tree>(q, coarse));
      candidates = m.template members<cluster_tree>(passing(m, p, coarse_threshold));
    }
    const auto p =
        m.template softmax<cluster_index>(m.template score_chunks<cluster_index>(q, candidates));
    m.fold(q, m.template members<cluster_index>(passing(m, p, threshold)));
  }

  // The whole prompt without its window, once.
  index_run to_index(index_run indexed, std::uint32_t first, std::uint32_t tokens) const {
    const std::uint32_t end = tokens - std::min(window, tokens);
    return indexed.size() > 0 || end <= first ? index_run{end, end} : index_run{first, end};
  }

  // keys [n, dim]. Throws bad_argument for more clusters than keys.
  cluster_levels group(std::span<const float> keys, int dim) const {
    const auto n = static_cast<std::uint32_t>(keys.size() / static_cast<std::size_t>(dim));
    const clustering fine =
        cosine_kmeans{.clusters = clusters.of(n, "clusters"), .seed = seed}(keys, dim);
    const std::uint32_t coarse = coarse_clusters.of(n, "coarse_clusters");
    if (coarse == 0) {
      return {cluster_major(fine)};
    }
    const clustering parents =
        cosine_kmeans{.clusters = coarse, .seed = seed}(cluster_means(keys, dim, fine), dim);
    return nested(fine, parents);
  }

 private:
  template <class M, class Scores>
  static auto passing(M& m, const Scores& p, double least) {
    require(least >= 0.0 && least < 1.0, [&] {
      return "squeezed: a threshold is a probability in [0, 1), got " + std::to_string(least);
    });
    return m.chunks_above(p, least > 0.0 ? least : -1.0, group_reduction::max);
  }
};

}  // namespace instinfer::attention
