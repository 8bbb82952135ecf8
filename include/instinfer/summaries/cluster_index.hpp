#pragma once
// Summaries of cluster methods: the clusters of a head's keys, and a coarser level of clusters.
// The tokens of a cluster are consecutive in the cache.

#include <vector>

#include "instinfer/core/index_set.hpp"
#include "instinfer/summaries/clustering.hpp"
#include "instinfer/summaries/concepts.hpp"

namespace instinfer::attention {

// The common part of both levels: the mean key of each chunk, stored as it is scored. Appending and
// forgetting tokens change nothing; only engine::build does.
template <class Format>
class centroid_rows {
 public:
  using element = typename Format::element;
  static constexpr std::size_t row_dim = Format::k_dim;
  static constexpr std::size_t row_bytes = row_dim * sizeof(float);
  static constexpr bool only_built = true;

  void append(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {}
  void forget(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {}

  bool has_values() const { return !centroids_.empty(); }
  std::span<const float> row(std::uint32_t chunk, std::span<float> /*scratch*/) const {
    return std::span(centroids_).subspan(chunk * row_dim, row_dim);
  }
  static void prepare(std::span<const float> q, std::span<float> out) {
    std::ranges::copy(q, out.begin());
  }

 protected:
  std::vector<float> centroids_;  // [chunks, k_dim]
};

// The coarse level: the members of a chunk are chunks of the head's cluster_index.
struct cluster_tree {
  template <class Format>
  class state : public centroid_rows<Format> {
    using base = centroid_rows<Format>;
    using base::centroids_;

   public:
    using base::row_dim;
    std::uint64_t bytes() const {
      return chunks_.size() * (base::row_bytes + sizeof(coarse_chunk));
    }

    std::uint32_t chunks() const { return static_cast<std::uint32_t>(chunks_.size()); }
    index_run members(std::uint32_t chunk) const { return chunks_[chunk].members; }
    std::uint32_t weight(std::uint32_t chunk) const { return chunks_[chunk].tokens; }

    template <class States>
    void truncate(std::uint32_t n, const States& all) noexcept;
    void rebase(std::uint32_t /*n*/) noexcept {}  // it numbers no tokens

    // Adds coarse chunks over the chunks [first, ...) that the fine index already has. parent_ends
    // counts from `first`. Without values, if the fine index has none.
    template <class Fine>
    void add(const Fine& fine, std::uint32_t first, std::span<const std::uint32_t> parent_ends) {
      state next = *this;
      std::vector<double> sum(row_dim);
      for (std::uint32_t begin = first; const std::uint32_t end : parent_ends) {
        coarse_chunk chunk{{begin, first + end}, 0};
        std::ranges::fill(sum, 0.0);
        for (; begin < first + end; ++begin) {
          const std::uint32_t n = fine.weight(begin);
          chunk.tokens += n;
          if (fine.has_values()) {
            std::ranges::transform(sum, fine.row(begin, {}), sum.begin(), [n](double a, float b) {
              return a + n * static_cast<double>(b);
            });
          }
        }
        if (chunk.members.size() > 0) {
          next.chunks_.push_back(chunk);
          for (std::size_t i = 0; i < sum.size() && fine.has_values(); ++i) {
            const double x = sum[i];
            next.centroids_.push_back(static_cast<float>(x / chunk.tokens));
          }
        }
      }
      *this = std::move(next);
    }

    static constexpr const char* name() { return "cluster_tree"; }
    void each_part(auto&& file) { file(centroids_, chunks_); }
    template <class States>
    bool fits(std::uint32_t first, std::uint32_t tokens, const States& all) const;

   private:
    struct coarse_chunk {
      index_run members;
      std::uint32_t tokens;
    };
    std::vector<coarse_chunk> chunks_;
  };
};

// Attention does not depend on the order of tokens, because positions are encoded in the keys. So
// engine::build puts the tokens of an indexed run in cluster order: a cluster is then a run of
// tokens, and reading it takes few pages. Indexed tokens stay until the sequence is reclaimed. Rows
// are fp32.
struct cluster_index {
  template <class Format>
  class state : public centroid_rows<Format> {
    using base = centroid_rows<Format>;
    using base::centroids_;

   public:
    using base::row_dim;
    bool may_forget(std::uint32_t /*before*/) const { return indexed_.size() == 0; }
    // The order of indexed tokens is no longer that in which they came: they go together, or stay.
    bool may_truncate(std::uint32_t tokens) const {
      return tokens >= indexed_.last || tokens <= indexed_.first;
    }
    void truncate(std::uint32_t n, const auto& /*all*/) noexcept {
      if (n < indexed_.last) {
        indexed_ = {};
        centroids_.clear();
        starts_.clear();
        positions_.clear();
        value_means_.clear();
      }
    }
    void rebase(std::uint32_t n) noexcept {
      if (indexed_.size() > 0) {
        indexed_ = {indexed_.first - n, indexed_.last - n};
        const auto less = [n](std::uint32_t x) { return x - n; };
        std::transform(starts_.begin(), starts_.end(), starts_.begin(), less);
        std::transform(positions_.begin(), positions_.end(), positions_.begin(), less);
      }
    }
    std::uint64_t bytes() const {
      return starts_.size() * ((row_dim + v_dim) * sizeof(float)) +
             (starts_.size() + positions_.size()) * sizeof(std::uint32_t);
    }

    index_run indexed() const { return indexed_; }
    // The position at which the token that is now at `token` was appended.
    std::uint32_t position(std::uint32_t token) const {
      return token >= indexed_.first && token < indexed_.last ? positions_[token - indexed_.first]
                                                              : token;
    }

    std::uint32_t chunks() const { return static_cast<std::uint32_t>(starts_.size()); }
    index_run members(std::uint32_t chunk) const {
      return {starts_[chunk], chunk + 1 < chunks() ? starts_[chunk + 1] : indexed_.last};
    }
    std::uint32_t weight(std::uint32_t chunk) const { return members(chunk).size(); }
    std::span<const float> value_mean(std::uint32_t chunk) const {
      return std::span(value_means_).subspan(chunk * v_dim, v_dim);
    }

    // Adds the clusters of a run that begins where the index ends. k [run, k_dim] and v [run,
    // v_dim] are in append order; both are empty where there are no values. Skips empty clusters.
    // May throw std::bad_alloc, and then changes nothing.
    void add(index_run run, const cluster_order& order, std::span<const float> k,
             std::span<const float> v) {
      state next = *this;
      next.indexed_ = {indexed_.size() == 0 ? run.first : indexed_.first, run.last};
      for (const std::uint32_t row : order.rows) {
        next.positions_.push_back(run.first + row);
      }
      for (std::size_t c = 0; c + 1 < order.offsets.size(); ++c) {
        const std::span<const std::uint32_t> rows = order.members(c);
        if (rows.empty()) {
          continue;
        }
        next.starts_.push_back(run.first + order.offsets[c]);
        append_mean(next.centroids_, k, rows, row_dim);
        append_mean(next.value_means_, v, rows, v_dim);
      }
      *this = std::move(next);
    }

    static constexpr const char* name() { return "cluster_index"; }
    void each_part(auto&& file) { file(indexed_, centroids_, starts_, positions_, value_means_); }
    bool fits(std::uint32_t first, std::uint32_t tokens, const auto& /*all*/) const {
      const auto outside = [&](std::uint32_t x) {
        return x < indexed_.first || x >= indexed_.last;
      };
      return (starts_.empty()
                  ? indexed_.size() == 0
                  : indexed_.first >= first && indexed_.last <= tokens &&
                        starts_[0] == indexed_.first && starts_.back() < indexed_.last) &&
             std::ranges::is_sorted(starts_, std::ranges::less_equal{}) &&
             positions_.size() == indexed_.size() && std::ranges::none_of(positions_, outside) &&
             centroids_.size() == starts_.size() * row_dim &&
             value_means_.size() == starts_.size() * v_dim;
    }

   private:
    static constexpr std::size_t v_dim = Format::v_dim;

    static void append_mean(std::vector<float>& to, std::span<const float> x,
                            std::span<const std::uint32_t> rows, std::size_t dim) {
      for (std::size_t i = 0; i < dim && !x.empty(); ++i) {
        double sum = 0.0;
        for (const std::uint32_t row : rows) {
          sum += static_cast<double>(x[row * dim + i]);
        }
        to.push_back(static_cast<float>(sum / static_cast<double>(rows.size())));
      }
    }

    index_run indexed_;
    std::vector<std::uint32_t> starts_;     // [chunks]
    std::vector<std::uint32_t> positions_;  // [indexed]
    std::vector<float> value_means_;        // [chunks, v_dim]
  };

  // Adds the clusters of a run to the states of a head: to the cluster_index, and to the
  // cluster_tree if the head has one. For engine::build.
  template <class Format, class States>
  static void add_to(States& states, index_run run, const cluster_levels& levels,
                     std::span<const float> k, std::span<const float> v) {
    auto& index = std::get<state<Format>>(states);
    const std::uint32_t first = index.chunks();
    index.add(run, levels.fine, k, v);
    if constexpr (keeps<cluster_tree::state<Format>, States>) {
      std::get<cluster_tree::state<Format>>(states).add(index, first, levels.parent_ends);
    }
  }
};

// The tree goes with the index that it stands on.
template <class Format>
template <class States>
void cluster_tree::state<Format>::truncate(std::uint32_t n, const States& all) noexcept {
  if constexpr (keeps<cluster_index::state<Format>, States>) {
    const index_run indexed = std::get<cluster_index::state<Format>>(all).indexed();
    if (indexed.size() == 0 || n < indexed.last) {
      centroids_.clear();
      chunks_.clear();
    }
  }
}

// Coarse chunks follow one another over all chunks of the cluster_index beside them, and stand for
// their tokens.
template <class Format>
template <class States>
bool cluster_tree::state<Format>::fits(std::uint32_t /*first*/, std::uint32_t /*tokens*/,
                                       const States& all) const {
  std::uint32_t fine = 0;
  if constexpr (keeps<cluster_index::state<Format>, States>) {
    const auto& index = std::get<cluster_index::state<Format>>(all);
    for (const coarse_chunk& c : chunks_) {
      if (c.members.first != fine || c.members.last <= fine || c.members.last > index.chunks() ||
          c.tokens != index.members(c.members.last - 1).last - index.members(fine).first) {
        return false;
      }
      fine = c.members.last;
    }
    if (!chunks_.empty() && fine != index.chunks()) {
      return false;
    }
  }
  return centroids_.size() == chunks_.size() * row_dim;
}

}  // namespace instinfer::attention
