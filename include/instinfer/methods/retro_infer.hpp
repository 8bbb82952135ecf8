#pragma once
// RetroInfer (Chen et al., 2025): clusters of keys in three zones.
// The steady zone and the best clusters are attended exactly, the next best clusters by their
// centroids, the others not at all.

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/cluster_index.hpp"
#include "instinfer/summaries/kmeans.hpp"
#include "instinfer/summaries/wave_buffer.hpp"

namespace instinfer::attention {

// The estimate replaces every member of a cluster by its centroid. By Jensen's inequality it never
// overestimates the weight of a cluster. engine::build makes the clusters, first of the prompt,
// then of each `update_tokens` tokens that leave the window.
struct retro_infer {
  std::uint32_t sinks = 4;
  std::uint32_t window = 64;
  budget retrieved = 0.018;  // share of the clusters
  budget estimated = 0.232;  // share of the clusters
  std::uint32_t cluster_tokens = 16;
  std::uint32_t segment_tokens = 8192;
  std::uint32_t update_tokens = 1024;
  budget cached = 0.05;  // share of the indexed tokens: the wave buffer

  using summaries = summary_list<cluster_index, wave_buffer>;
  using indexed_by = cluster_index;
  // The settings by which build() makes clusters; it decides when by the others.
  static constexpr const char* index_settings = "cluster_tokens and segment_tokens";
  static bool same_index(const retro_infer& a, const retro_infer& b) {
    return a.cluster_tokens == b.cluster_tokens && a.segment_tokens == b.segment_tokens;
  }
  static constexpr bool own_window = true;

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const index_run indexed = m.template summary<cluster_index>().indexed();
    // The steady zone lies in fast memory. Without an index nothing is steady: all tokens are read
    // from flash.
    m.fold(q, m.subtract(m.all_tokens(q), m.run(indexed)),
           indexed.size() > 0 ? residence::fast : residence::flash);

    const auto clusters = m.template all_chunks<cluster_index>();
    const auto logits = m.template score_chunks<cluster_index>(q, clusters);
    const auto weights = m.softmax(logits);
    const std::uint32_t r = retrieved.of(clusters.count(), "retrieved");
    const std::uint32_t e = estimated.of(clusters.count(), "estimated");
    const auto best = m.top_chunks(weights, budget::at_most(r));
    const auto better = m.top_chunks(weights, budget::at_most(std::int64_t{r} + e));
    m.template fold_chunks<cluster_index>(logits, m.subtract(better, best));

    m.template summary<wave_buffer>().hold(cached.of(indexed.size(), "cached"));
    m.template fold_through<wave_buffer>(q, m.template members<cluster_index>(best));
  }

  // The tokens of [first, tokens) that engine::build must index next; an empty run if they are
  // still too few.
  index_run to_index(index_run indexed, std::uint32_t first, std::uint32_t tokens) const {
    const std::uint32_t begin = indexed.size() == 0 ? first + sinks : indexed.last;
    const std::uint32_t end = tokens - std::min(window, tokens);
    if (end < begin + update_tokens) {
      return {begin, begin};
    }
    return {begin, indexed.size() == 0 ? end : begin + update_tokens};
  }

  // keys [n, dim]. Throws bad_argument as segmented_kmeans does.
  cluster_levels group(std::span<const float> keys, int dim) const {
    const auto n = static_cast<std::uint32_t>(keys.size() / static_cast<std::size_t>(dim));
    return {
        cluster_major(segmented_kmeans::for_rows(n, cluster_tokens, segment_tokens)(keys, dim))};
  }
};

}  // namespace instinfer::attention
