#pragma once
// The clusters of a cache that was built, as the transcriptions have them.

#include "instinfer/summaries/cluster_index.hpp"
#include "tests/support/decoder.hpp"
#include "tests/support/transcribed_clusters.hpp"

namespace instinfer::test {

// The clusters of a head as a built cache holds them, by the positions of their tokens.
template <class Decoder>
attention::clustering clustering_of(const Decoder& d, std::uint32_t kv_head = 0) {
  const auto& index = d.template summary<attention::cluster_index>(kv_head);
  const index_run run = index.indexed();
  attention::clustering c{std::vector<std::uint32_t>(run.size(), index.chunks()),
                          std::vector<std::uint32_t>(index.chunks())};
  for (std::uint32_t u = 0; u < index.chunks(); ++u) {
    for (std::uint32_t t = index.members(u).first; t < index.members(u).last; ++t) {
      std::uint32_t& cluster = c.cluster_of.at(index.position(t) - run.first);
      CHECK(cluster == index.chunks());  // each position once
      cluster = u;
      ++c.sizes[u];
    }
  }
  CHECK(std::ranges::count(c.cluster_of, index.chunks()) == 0);
  return c;
}

template <class Decoder>
cluster_index index_of(const Decoder& d, const matrix& K, const matrix& V,
                       std::uint32_t kv_head = 0) {
  const auto first = d.template summary<attention::cluster_index>(kv_head).indexed().first;
  return index_of(K, V, clustering_of(d, kv_head), static_cast<int>(first));
}

}  // namespace instinfer::test
