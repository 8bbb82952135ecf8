#pragma once
// The engine of the CUDA path: attention over pages that a GPU reads. engine_base has everything
// but attend, as for the other paths. Two things differ here: where sealed pages live
// (cuda/engine/page_homes.cuh), and who computes (cuda/engine/machine.cuh).

#include <limits>
#include <memory>

#include "instinfer/core/softmax_state.hpp"
#include "instinfer/cuda/engine/machine.cuh"
#include "instinfer/engine/attend_check.hpp"
#include "instinfer/engine/engine_base.hpp"
#include "instinfer/engine/head_attend.hpp"

namespace instinfer::cuda {

// One thread at a time may use an engine: it has one stream and one set of buffers.
template <Design D, class Format = kv_format<>,
          class Home = typename home_of<typename D::transfer_policy>::type>
class engine : public engine_base<D, Format, Home> {
  using base = engine_base<D, Format, Home>;
  using base::attention_;
  using base::cache_;
  using base::logits_;

  static_assert(
      Format::plain,
      "instinfer: the CUDA engine's open pages and sealed pages hold the same elements; pages of codes are for cuda::attend, see cuda/kernels/page_codes.hpp");
  static_assert(
      Format::k_dim == Format::v_dim &&
          (Format::k_dim == 64 || Format::k_dim == 128 || Format::k_dim == 256) &&
          !std::same_as<typename Format::element, fp32>,
      "instinfer: the CUDA path stores fp16 or bf16 with head sizes 64, 128 or 256, K and V alike, see cuda/engine/engine.cuh");

  static_assert(
      D::layout_policy::template tiles<Format>(4096).v_shares == sharing::nothing,
      "instinfer: the CUDA path has no kernel for fused or latent rows; use a layout with V in pages of its own, see layout/concepts.hpp");
  static_assert(
      attention::shares_selection<typename base::policy>,
      "instinfer: on a GPU the query heads of a group select together, see methods/per_query_head.hpp");

 public:
  using typename base::element;
  using typename base::policy;

  // config: throws what engine_base does; bad_argument for groups above 16, and for layouts that do
  // not store K and V by token in rows; no_device; device_error where the pages do not fit.
  engine(const model_shape& shape, const store::capacity& capacity, const policy& attention = {},
         const logit_rule& logits = {},
         std::uint32_t channels = static_cast<std::uint32_t>(D::drive.geometry.channels))
      : base{shape, capacity, attention, logits, channels} {
    require(!logits.biased(), [] {
      return std::string(
          "cuda::engine: the kernels add no biases, logit_rule must have no slopes and no distance_bias");
    });
    require(shape.group() <= static_cast<int>(largest_group), [&] {
      return "cuda::engine: at most " + std::to_string(largest_group) +
             " query heads may share a KV head, got " + std::to_string(shape.group());
    });
    for (const stream s : {stream::k_by_token, stream::v_by_token}) {
      const layout::tile& tile = cache_.tiles().of(s);
      require(tile == layout::by_token(tile.tokens, Format::k_dim) &&
                  D::layout_policy::page_bytes % (Format::k_dim * sizeof(element)) == 0,
              [&] {
                return std::string("cuda::engine: the layout must store ") + stream_name(s) +
                       " in rows of whole heads, in pages of a whole number of rows";
              });
    }
    memory_ = std::make_unique<machine_memory<Format, Home>>();
    cache_.pages().place(call_pages<Home>::template open_pages<Format>(
        cache_.tiles(), static_cast<std::uint32_t>(shape.kv_heads)));
  }

  // As engine_base::append. Pages are written in host memory; device_pages copies them before this
  // returns.
  receipt append(sequence seq, int layer, std::span<const element> k, std::span<const element> v) {
    const auto rows = cache_.shape().kv_values(Format::k_dim);
    cache_.pages().prepare_writes(
        cache_.at(seq, layer).pages_to_append(static_cast<std::uint32_t>(k.size() / rows)));
    const receipt done = base::append(seq, layer, k, v);
    cache_.pages().finish_writes();
    return done;
  }

  // Decode attention of one query over the cache of a layer: q [q_heads, k_dim], rounded to the
  // storage type for the tensor cores; out [q_heads, v_dim]. An empty cache gives zeros. Throws
  // unknown_sequence, bad_argument, device_error; out is then untouched.
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out) {
    return attend(seq, layer, q, out, no_observer{});
  }

  template <class Watch>
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out,
                 Watch&& watch) {
    return attend(attend_request{seq, q, out}, layer, watch);
  }

  // The same as a request, which may ask for the log-sum-exp.
  template <class Watch = no_observer>
  receipt attend(const attend_request& request, int layer, Watch&& watch = {}) {
    const auto& cache = cache_.at(request.seq, layer);
    check_request<policy, Format, element>(request, cache_.shape(), cache.tokens() - cache.first());
    require(queries_of<Format>(request, cache_.shape()) == 1, [&] {
      return "cuda::engine: one query a call, got " +
             std::to_string(queries_of<Format>(request, cache_.shape()));
    });
    require(request.bias.empty() && request.visible == nullptr, [] {
      return std::string("cuda::engine: the kernels take no bias and no visible set");
    });
    const auto q_heads = static_cast<std::uint32_t>(cache_.shape().q_heads);
    const std::span<const float> sinks =
        logits_.sink_logits_of(static_cast<std::uint32_t>(layer), 0, q_heads, q_heads);
    out_.resize(request.out.size());
    log_sum_exp_.resize(request.log_sum_exp.empty() ? sinks.size() : q_heads);
    traffic moved;
    if (cache.tokens() == cache.first()) {
      std::ranges::fill(out_, 0.0f);
      std::ranges::fill(log_sum_exp_, -std::numeric_limits<float>::infinity());
    } else {
      moved = attend_cached(cache, static_cast<std::uint32_t>(layer), request, watch);
    }
    for (std::size_t h = 0; h < sinks.size(); ++h) {
      const float left = add_sink(log_sum_exp_[h], sinks[h]);
      for (float& x : std::span(out_).subspan(h * Format::v_dim, Format::v_dim)) {
        x *= left;
      }
    }
    std::ranges::copy(out_, request.out.begin());
    std::copy_n(log_sum_exp_.begin(), request.log_sum_exp.size(), request.log_sum_exp.begin());
    return base::receipt_of(moved, {&request, 1});
  }

 private:
  // Leaves the results in out_ and log_sum_exp_.
  template <class Watch>
  traffic attend_cached(const typename base::cache_type::layer& cache, std::uint32_t layer,
                        const attend_request& request, Watch& watch) {
    using machine_type =
        machine<Format, Home, typename base::cache_type::layer, typename base::summaries>;
    static_assert(attention::AttentionMachine<machine_type>);
    const model_shape& shape = cache_.shape();
    const attention::query_group query{request.q, static_cast<std::uint32_t>(shape.q_heads),
                                       logits_};
    machine_type machine(*memory_, cache_.pages(), cache, shape, layer, query);
    attention_(machine, query);
    machine.finish(out_, log_sum_exp_);
    traffic moved;
    for (std::uint32_t h = 0; h < static_cast<std::uint32_t>(shape.kv_heads); ++h) {
      head_.arithmetic.set(machine.chosen_dims(h), machine.chosen_tokens(h));
      auto&& observer = head_watch(watch, 0, h);
      const head_attend head(attention_, logits_, cache_, cache, layer, h, request, head_, moved);
      head(1, out_, log_sum_exp_, observer);
    }
    return moved;
  }

  std::unique_ptr<machine_memory<Format, Home>> memory_;
  typename workspace<device_choices_path, Format>::worker head_;
  std::vector<float> out_;
  std::vector<float> log_sum_exp_;
};

}  // namespace instinfer::cuda
