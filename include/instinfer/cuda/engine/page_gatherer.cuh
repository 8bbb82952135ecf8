#pragma once
// For homes whose pages kernels cannot reach (staged_pages): plans what each kernel of an attend
// will read, by the functions that all paths share, and gathers those pages before it starts.

#include <array>
#include <cmath>
#include <span>
#include <vector>

#include "instinfer/attention/planning.hpp"
#include "instinfer/core/top_k.hpp"
#include "instinfer/cuda/engine/call_pages.cuh"

namespace instinfer::cuda {

// Keeps its memory between attends.
template <class Format, class Home>
class page_gatherer {
 public:
  using element = typename Format::element;
  static constexpr std::uint32_t dim = Format::k_dim;

  // The pages of score_dims. q [kv_heads * group, dim]. The dims are those that dim_choice will
  // choose on the device.
  template <class Layer>
  void gather_scored(call_pages<Home>& pages, const Layer& layer, std::uint32_t kv_heads,
                     std::span<const element> q, std::uint32_t keep_dims, index_view visible) {
    for (std::uint32_t h = 0; h < kv_heads; ++h) {
      choose_dims(q.subspan(h * (q.size() / kv_heads), q.size() / kv_heads), keep_dims);
      attention::plan_score_dims(layer.head(h), visible, selection_, plan_);
      pages.gather(plan_, h);
    }
    pages.flush();
  }

  // The pages of fold. tokens_of(h) gives what KV head h folds.
  template <class Layer, class TokensOf>
  void gather_folded(call_pages<Home>& pages, const Layer& layer, std::uint32_t kv_heads,
                     TokensOf&& tokens_of) {
    for (std::uint32_t h = 0; h < kv_heads; ++h) {
      attention::plan_fold(layer.head(h), tokens_of(h), plan_);
      pages.gather(plan_, h);
    }
    pages.flush();
  }

  // An ascending list as a set; valid until the next one.
  index_view as_set(std::span<const std::uint32_t> list) {
    selection_.clear();
    for (const std::uint32_t i : list) {
      selection_.add(i);
    }
    return selection_;
  }

 private:
  void choose_dims(std::span<const element> q, std::uint32_t keep_dims) {
    std::array<float, dim> sums{};
    for (std::size_t i = 0; i < q.size(); ++i) {
      sums[i % dim] += std::abs(to_float(q[i]));
    }
    selection_.clear();
    top_k<float>(sums, keep_dims, selection_, scratch_);
  }

  index_set selection_;
  access_plan plan_;
  std::vector<order_key_t<float>> scratch_;
};

}  // namespace instinfer::cuda
