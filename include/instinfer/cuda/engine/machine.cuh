#pragma once
// The attention machine that policies meet on a GPU. The library has one machine,
// attention/machine.hpp, which works on one KV head at a time. This class is the exception, for
// speed: it works on all KV heads of a layer at once, leaves choices on the device, and defers the
// fold to the end. So dense attention is one kernel, and SparF three.
// Both machines share the contract (attention/concepts.hpp), the query, budgets, mask, the rule of
// blend_mean, and the planning functions. This one makes no receipts and has no observers: after
// the kernels, the engine runs the policy on the other with the device's choices
// (cuda/engine/device_choices.hpp).

#include <algorithm>
#include <vector>

#include "instinfer/core/softmax_state.hpp"
#include "instinfer/cuda/engine/device_choices.hpp"
#include "instinfer/cuda/engine/machine_memory.cuh"
#include "instinfer/cuda/engine/machine_operands.hpp"

namespace instinfer::cuda {

// Layer is the engine's layer_cache. One launch of each kernel serves a query, so a policy that
// scores, chooses tokens or folds a second time gets bad_argument.
template <class Format, class Home, class Layer, class Summaries>
class machine {
 public:
  using element = typename Format::element;
  static constexpr std::uint32_t dim = Format::k_dim;

  using query = attention::query_group;
  using dims = machine_dims;
  using scores = machine_scores;
  using tokens = machine_tokens;

  machine(machine_memory<Format, Home>& memory, const Home& home, const Layer& layer,
          const model_shape& shape, std::uint32_t layer_index, const query& q)
      : m_{memory},
        layer_{layer},
        layer_index_{layer_index},
        layers_(static_cast<std::uint32_t>(shape.layers)),
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
    check(cudaStreamSynchronize(m_.stream), "cudaStreamSynchronize");  // `words` is a local
  }

  std::uint32_t layer() const { return layer_index_; }
  std::uint32_t layers() const { return layers_; }

  tokens all_tokens(const query&) { return {false, m_.visible.count()}; }

  dims top_dims(const query&, budget keep,
                attention::group_reduction over = attention::group_reduction::sum) {
    require(over == attention::group_reduction::sum, [] {
      return std::string("cuda::machine: top_dims ranks by sums over the group only");
    });
    return {keep.of(dim, "keep_dims")};
  }

  scores score_dims(const query& q, dims chosen) {
    once(scored_, "scores by dims");
    const std::int64_t stride = (std::int64_t{head_.tokens} - head_.first + 7 + score_segment) /
                                score_segment * score_segment;
    const std::size_t n = static_cast<std::size_t>(stride);
    m_.dims.grow(std::max<std::size_t>(std::size_t{kv_heads_} * chosen.count, 1));
    m_.logits.grow(std::size_t{kv_heads_} * group_ * n);
    m_.states.grow(std::size_t{kv_heads_} * group_ * (n / score_segment));
    m_.keys.grow(kv_heads_ * n);
    m_.kept.grow(std::size_t{kv_heads_} * group_);
    if constexpr (Home::gathers) {
      m_.gatherer.gather_scored(m_.pages, layer_, kv_heads_, m_.host_q, chosen.count, m_.visible);
    }
    sparse_ = sparse_arguments<element>{
        .q = m_.q.data(),
        .k = m_.pages.template tiles<element>(attention::keys_by_dim(head_)),
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

  // The kernels compute logits and probabilities. top_tokens tells them which to rank.
  scores softmax(scores) { return {true}; }

  // Starts the kernels that score and select. k is known here, because the host knows the lengths.
  tokens top_tokens(scores s, budget keep, budget newest = 0.0,
                    attention::group_reduction over = attention::group_reduction::sum) {
    once(chose_, "chooses tokens");
    require(over == attention::group_reduction::sum, [] {
      return std::string("cuda::machine: top_tokens ranks by sums over the group only");
    });
    sparse_.rank_by_logits = !s.probabilities;
    const std::uint32_t k = keep.of(m_.visible.count(), "keep_tokens");
    sparse_.keep = {
        .share = 1.0, .local_share = 1.0, .most = k, .most_local = newest.of(k, "newest")};
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

  void fold(const query& q, tokens chosen, residence = residence::flash) {
    once(folded_, "folds");
    if constexpr (Home::gathers) {
      m_.gatherer.gather_folded(m_.pages, layer_, kv_heads_, [&](std::uint32_t h) {
        return chosen.listed ? m_.gatherer.as_set(chosen_tokens(h)) : m_.visible.view();
      });
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

  // A policy without the mean among its summaries is refused where the shared machine runs it.
  void blend_mean(scores, tokens) {
    using mean = typename attention::mean_value::template state<Format>;
    if constexpr (attention::keeps<mean, Summaries>) {
      if (attention::mean_applies(head_, m_.visible.count())) {
        bring_mean<mean>();
      }
    }
  }

  // Runs the fold; `out` [q_heads, dim], and log_sum_exp [q_heads] if it is not empty, are complete
  // when this returns. Throws device_error.
  void finish(std::span<float> out, std::span<float> log_sum_exp) {
    require(folded_, [] { return std::string("cuda::machine: the policy folded nothing"); });
    if (blends_) {
      attend_.kept = m_.kept.data();
      attend_.mean_v = m_.mean_v.data();
    }
    if (!log_sum_exp.empty()) {
      m_.log_sum_exp.grow(log_sum_exp.size());
      attend_.lse_base_e = m_.log_sum_exp.data();
    }
    m_.fold(attend_, m_.workspace, m_.stream);
    bring_log_sum_exp(log_sum_exp);
    check(cudaMemcpyAsync(out.data(), m_.out.data(), out.size_bytes(), cudaMemcpyDeviceToHost,
                          m_.stream),
          "cudaMemcpyAsync of the output");
    std::uint32_t status = 0;
    check(cudaMemcpyAsync(&status, m_.workspace.data(), sizeof(status), cudaMemcpyDeviceToHost,
                          m_.stream),
          "cudaMemcpyAsync of the status");
    check(cudaStreamSynchronize(m_.stream), "cudaStreamSynchronize");
    if (blends_) {  // the kernel's is that of the kept tokens
      for (std::size_t h = 0; h < log_sum_exp.size(); ++h) {
        log_sum_exp[h] = log_sum_exp_of_all(log_sum_exp[h], m_.host_kept[h]);
      }
    }
    if (status != 0) {
      check(cudaMemsetAsync(m_.workspace.data(), 0, sizeof(status), m_.stream), "cudaMemsetAsync");
    }
    require<device_error>(status == 0, [&] {
      return "cuda::machine: the kernels met " + std::string((status & page_out_of_range) != 0
                                                                 ? "a page table entry out of range"
                                                                 : "a token beyond its page table");
    });
  }

  // What the device chose for one KV head. Complete when finish() has returned.
  std::span<const std::uint32_t> chosen_dims(std::uint32_t h) const {
    return of_head(m_.host_dims, h, chose_);
  }
  std::span<const std::uint32_t> chosen_tokens(std::uint32_t h) const {
    return of_head(m_.host_listed, h, chose_);
  }

 private:
  static void once(bool& done, const char* what) {
    require(!done, [&] {
      return std::string("cuda::machine: this path ") + what +
             " once a query, the policy does it again";
    });
    done = true;
  }
  // Row h of values [kv_heads, n]; empty where the device did not choose.
  std::span<const std::uint32_t> of_head(const std::vector<std::uint32_t>& values, std::uint32_t h,
                                         bool present) const {
    const std::size_t n = present ? values.size() / kv_heads_ : 0;
    return std::span(values).subspan(h * n, n);
  }
  // Starts the copies of the kernel's log-sum-exp, and of the kept shares if results are blended.
  void bring_log_sum_exp(std::span<float> log_sum_exp) {
    if (log_sum_exp.empty()) {
      return;
    }
    check(cudaMemcpyAsync(log_sum_exp.data(), m_.log_sum_exp.data(), log_sum_exp.size_bytes(),
                          cudaMemcpyDeviceToHost, m_.stream),
          "cudaMemcpyAsync of log_sum_exp");
    if (blends_) {
      m_.host_kept.resize(log_sum_exp.size());
      copy_out(m_.host_kept, m_.kept);
    }
  }
  template <class Mean>
  void bring_mean() {
    m_.host_mean.resize(std::size_t{kv_heads_} * dim);
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      for (std::uint32_t i = 0; i < dim; ++i) {
        m_.host_mean[h * dim + i] = static_cast<float>(std::get<Mean>(layer_.summaries(h))[i]);
      }
    }
    m_.mean_v.grow(m_.host_mean.size());
    copy_in(m_.mean_v, m_.host_mean);
    blends_ = true;
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

  machine_memory<Format, Home>& m_;
  const Layer& layer_;
  std::uint32_t layer_index_;
  std::uint32_t layers_;  // of the model
  layout::head_pages head_;
  std::uint32_t kv_heads_;
  std::uint32_t group_;
  attend_sizes sizes_;
  sparse_arguments<element> sparse_;
  attend_arguments<element, float> attend_;
  bool scored_ = false;
  bool chose_ = false;
  bool folded_ = false;
  bool blends_ = false;
};

}  // namespace instinfer::cuda
