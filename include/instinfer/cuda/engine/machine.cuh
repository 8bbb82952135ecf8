#pragma once
// The attention machine of the CUDA path: it works on all KV heads of a layer at once, chooses on the device, and defers the
// fold to the end, so that dense attention is one kernel and SparF three. The plans are made by the functions that all paths
// share, from the selections that the device made.

#include <algorithm>
#include <vector>

#include "instinfer/attention/machine.hpp"
#include "instinfer/cuda/engine/machine_memory.cuh"
#include "instinfer/cuda/engine/machine_operands.hpp"

namespace instinfer::cuda {

// Layer is the engine's layer_cache.
template <class Format, class Home, class Layer, class Summaries>
class machine {
 public:
  using element = typename Format::element;
  static constexpr std::uint32_t dim = Format::k_dim;

  using query = machine_query;
  using dims = machine_dims;
  using scores = machine_scores;
  using tokens = machine_tokens;

  machine(machine_memory<Format, Home>& memory, const Home& home, const Layer& layer,
          const model_shape& shape, std::uint32_t layer_index, const query& q)
      : m_{memory},
        layer_{layer},
        layer_index_{layer_index},
        head_{layer.head(0)},
        kv_heads_(static_cast<std::uint32_t>(shape.kv_heads)),
        group_(static_cast<std::uint32_t>(shape.group())) {
    m_.host_q.resize(q.values.size());
    std::ranges::transform(q.values, m_.host_q.begin(),
                           [](float x) { return from_float<element>(x); });
    m_.q.grow(m_.host_q.size());
    copy_in(m_.q, m_.host_q);
    m_.words.grow(4);
    const std::vector<std::uint32_t> words{head_.tokens, head_.first, 0, 0};
    copy_in(m_.words, words);
    m_.visible.clear();
    q.logits.visible(head_.first, head_.tokens, m_.visible);
    m_.pages.begin(home, head_, m_.stream);
    sizes_ = {1, kv_heads_, group_, m_.visible.count()};
    if (m_.workspace.size() == 0) {
      m_.workspace = m_.fold.workspace(sizes_);
    }
    check(cudaStreamSynchronize(m_.stream), "cudaStreamSynchronize");  // `words` goes
  }

  std::uint32_t layer() const { return layer_index_; }

  tokens all_tokens(const query&) { return {false, m_.visible.count()}; }

  dims top_dims(const query&, budget keep) { return {keep.of(dim, "keep_dims")}; }

  scores score_dims(const query& q, dims chosen) {
    const stream s = score_stream();
    const std::int64_t stride =
        (std::int64_t{head_.tokens} - head_.first + 7 + score_chunk) / score_chunk * score_chunk;
    const std::size_t n = static_cast<std::size_t>(stride);
    m_.dims.grow(std::max<std::size_t>(std::size_t{kv_heads_} * chosen.count, 1));
    m_.logits.grow(std::size_t{kv_heads_} * group_ * n);
    m_.states.grow(std::size_t{kv_heads_} * group_ * (n / score_chunk));
    m_.keys.grow(kv_heads_ * n);
    m_.kept.grow(std::size_t{kv_heads_} * group_);
    if constexpr (Home::gathers) {
      for_each_head([&](std::uint32_t h, const layout::head_pages& head) {
        choose_dims_on_host(h, chosen.count);
        attention::plan_score_dims(head, m_.visible, m_.selection, m_.plan);
        m_.pages.gather(m_.plan, h);
      });
      m_.pages.flush();
    }
    sparse_ =
        sparse_arguments<element>{.q = m_.q.data(),
                                  .k = m_.pages.template tiles<element>(s),
                                  .tokens = m_.words.data(),
                                  .first = m_.words.data() + 1,
                                  .sizes = sizes_,
                                  .scale = q.logits.scale_for(dim),
                                  .soft_cap = q.logits.soft_cap,
                                  .window = q.logits.window,
                                  .sinks = q.logits.sinks,
                                  .keep_dims = chosen.count,
                                  .dims = m_.dims.data(),
                                  .logits = m_.logits.data(),
                                  .logit_stride = stride,
                                  .states = m_.states.data(),
                                  .keys = m_.keys.data(),
                                  .listed_counts = m_.words.data() + 2,
                                  .kept = m_.kept.data(),
                                  .status = reinterpret_cast<std::uint32_t*>(m_.workspace.data())};
    return {};
  }

  // The kernels have both; what is ranked tells which is meant.
  scores softmax(scores) { return {true}; }

  // Scores and selection are one call of kernels; k is known here, as the lengths are.
  tokens top_tokens(scores s, budget keep, budget local = 0.0,
                    attention::group_reduction over = attention::group_reduction::sum) {
    require(over == attention::group_reduction::sum, [] {
      return std::string("cuda::machine: top_tokens ranks by sums over the group only");
    });
    sparse_.rank_by_logits = !s.probabilities;
    const std::uint32_t k = keep.of(m_.visible.count(), "keep_tokens");
    sparse_.keep = {
        .share = 1.0, .local_share = 1.0, .most = k, .most_local = local.of(k, "local")};
    m_.listed.grow(std::max<std::size_t>(std::size_t{kv_heads_} * k, 1));
    sparse_.listed = m_.listed.data();
    sparse_.list_stride = std::max(k, 1u);
    m_.select(sparse_, m_.stream);
    m_.host_dims.resize(std::size_t{kv_heads_} * sparse_.keep_dims);
    m_.host_listed.resize(std::size_t{kv_heads_} * k);
    copy_out(m_.host_dims, m_.dims);
    copy_out(m_.host_listed, m_.listed);
    if constexpr (Home::gathers) {
      check(cudaStreamSynchronize(m_.stream), "cudaStreamSynchronize");
    }
    return {true, k};
  }

  // Throws bad_argument on a second fold: partial results of one query are not merged on this path yet.
  void fold(const query& q, tokens chosen, residence = residence::flash) {
    require(!folded_, [] {
      return std::string("cuda::machine: this path folds once a query, the policy folds again");
    });
    folded_ = true;
    chosen_ = chosen;
    if constexpr (Home::gathers) {
      for_each_head([&](std::uint32_t h, const layout::head_pages& head) {
        plan_fold_of(h, head);
        m_.pages.gather(m_.plan, h);
      });
      m_.pages.flush();
    }
    m_.out.grow(q.values.size());
    attend_ = attend_arguments<element, float>{
        .q = m_.q.data(),
        .out = m_.out.data(),
        .k = m_.pages.template rows<element>(stream::k_by_token, dim),
        .v = m_.pages.template rows<element>(stream::v_by_token, dim),
        .tokens = m_.words.data(),
        .first = m_.words.data() + 1,
        .sizes = sizes_,
        .scale = q.logits.scale_for(dim),
        .soft_cap = q.logits.soft_cap,
        .window = q.logits.window,
        .sinks = q.logits.sinks,
        .listed = chosen.listed ? m_.listed.data() : nullptr,
        .listed_counts = chosen.listed ? m_.words.data() + 2 : nullptr,
        .list_stride = chosen.listed ? std::max(chosen.n, 1u) : 0};
    if (chosen.listed) {
      attend_.sizes.most_positions = std::max(chosen.n, 1u);
    }
  }

  // Nothing happens where a window hides live tokens, see attention/machine.hpp.
  void blend_mean(scores, tokens) {
    using mean = typename attention::mean_value::template state<Format>;
    static_assert(
        attention::keeps<mean, Summaries>,
        "instinfer: blend_mean needs mean_value among the policy's summaries, see summaries/mean_value.hpp");
    if (m_.visible.count() != head_.tokens - head_.first) {
      return;
    }
    m_.host_mean.resize(std::size_t{kv_heads_} * dim);
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      for (std::uint32_t i = 0; i < dim; ++i) {
        m_.host_mean[h * dim + i] = static_cast<float>(std::get<mean>(layer_.summaries(h))[i]);
      }
    }
    m_.mean_v.grow(m_.host_mean.size());
    copy_in(m_.mean_v, m_.host_mean);
    blends_ = true;
  }

  // Runs the fold; `out` [q_heads, dim] is complete when this returns. Throws device_error.
  void finish(std::span<float> out) {
    require(folded_, [] { return std::string("cuda::machine: the policy folded nothing"); });
    if (blends_) {
      attend_.kept = m_.kept.data();
      attend_.mean_v = m_.mean_v.data();
    }
    m_.fold(attend_, m_.workspace, m_.stream);
    check(cudaMemcpyAsync(out.data(), m_.out.data(), out.size_bytes(), cudaMemcpyDeviceToHost,
                          m_.stream),
          "cudaMemcpyAsync of the output");
    std::uint32_t status = 0;
    check(cudaMemcpyAsync(&status, m_.workspace.data(), sizeof(status), cudaMemcpyDeviceToHost,
                          m_.stream),
          "cudaMemcpyAsync of the status");
    check(cudaStreamSynchronize(m_.stream), "cudaStreamSynchronize");
    if (status != 0) {
      check(cudaMemsetAsync(m_.workspace.data(), 0, sizeof(status), m_.stream), "cudaMemsetAsync");
    }
    require<device_error>(status == 0, [&] {
      return "cuda::machine: the kernels met " + std::string((status & page_out_of_range) != 0
                                                                 ? "a page table entry out of range"
                                                                 : "a token beyond its page table");
    });
  }

  // The plans of what was done, for one KV head: watch(operation, chosen), accessed(operation, plan).
  template <class Watch>
  void replay(std::uint32_t h, traffic& moved, Watch& watch) {
    using attention::operation;
    const layout::head_pages head = layer_.head(h);
    if (chosen_.listed) {
      m_.selection.clear();
      for (std::uint32_t i = 0; i < sparse_.keep_dims; ++i) {
        m_.selection.add(m_.host_dims[std::size_t{h} * sparse_.keep_dims + i]);
      }
      watch.chose(operation::top_dims, m_.selection);
      watch.chose(operation::all_tokens, m_.visible);
      attention::plan_score_dims(head, m_.visible, m_.selection, m_.plan);
      account(operation::score_dims, head, moved, watch);
    }
    plan_fold_of(h, head);
    watch.chose(chosen_.listed ? operation::top_tokens : operation::all_tokens,
                chosen_.listed ? m_.selection.view() : m_.visible.view());
    account(operation::fold, head, moved, watch);
  }

 private:
  stream score_stream() const {
    return head_.tiles.k_by_dim.stored() ? stream::k_by_dim : stream::k_by_token;
  }
  template <class F>
  void for_each_head(F&& f) {
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      f(h, layer_.head(h));
    }
  }
  template <class T>
  void copy_in(const array<T>& to, const std::vector<T>& from) {
    check(cudaMemcpyAsync(to.data(), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice,
                          m_.stream),
          "cudaMemcpyAsync to the device");
  }
  template <class T>
  void copy_out(std::vector<T>& to, const array<T>& from) {
    check(cudaMemcpyAsync(to.data(), from.data(), to.size() * sizeof(T), cudaMemcpyDeviceToHost,
                          m_.stream),
          "cudaMemcpyAsync from the device");
  }
  // As dim_choice.
  void choose_dims_on_host(std::uint32_t h, std::uint32_t r) {
    std::array<float, dim> sums{};
    for (std::uint32_t g = 0; g < group_; ++g) {
      for (std::uint32_t i = 0; i < dim; ++i) {
        sums[i] += std::abs(to_float(m_.host_q[(std::size_t{h} * group_ + g) * dim + i]));
      }
    }
    m_.selection.clear();
    top_k<float>(sums, r, m_.selection, m_.scratch);
  }
  // Leaves the head's listed tokens in m_.selection.
  void plan_fold_of(std::uint32_t h, const layout::head_pages& head) {
    m_.selection.clear();
    for (std::uint32_t i = 0; chosen_.listed && i < chosen_.n; ++i) {
      m_.selection.add(m_.host_listed[std::size_t{h} * chosen_.n + i]);
    }
    attention::plan_fold(head, chosen_.listed ? m_.selection.view() : m_.visible.view(), m_.plan);
  }
  template <class Watch>
  void account(attention::operation op, const layout::head_pages& head, traffic& moved,
               Watch& watch) {
    moved += m_.plan.bytes(head.page_bytes, head.entry);
    watch.accessed(op, m_.plan);
  }

  machine_memory<Format, Home>& m_;
  const Layer& layer_;
  std::uint32_t layer_index_;
  layout::head_pages head_;
  std::uint32_t kv_heads_;
  std::uint32_t group_;
  attend_sizes sizes_;
  sparse_arguments<element> sparse_;
  attend_arguments<element, float> attend_;
  tokens chosen_;
  bool folded_ = false;
  bool blends_ = false;
};

}  // namespace instinfer::cuda
