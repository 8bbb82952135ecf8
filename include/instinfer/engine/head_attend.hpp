#pragma once
// The queries of a request on one KV head: one by one, or those of several new tokens together.

#include <algorithm>
#include <cstdint>
#include <span>

#include "instinfer/attention/machine.hpp"
#include "instinfer/core/index_algebra.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/engine/attend_request.hpp"

namespace instinfer {

// Rows of a KV head's group in an array [queries, kv_heads, group, dims], and as a path takes them:
// [group, row], with zeros after the dims.
struct rows_of_heads {
  std::size_t dims;
  std::size_t row;
  std::size_t group;

  bool padded() const { return dims != row; }
  std::size_t size() const { return group * row; }

  // `at`: query * kv_heads + kv_head.
  void copy_in(std::span<const float> from, std::size_t at, float* to) const {
    for (std::size_t h = 0; h < group; ++h, to += row) {
      std::fill(std::copy_n(from.data() + (at * group + h) * dims, dims, to), to + row, 0.0f);
    }
  }
  void copy_out(const float* from, std::size_t at, std::span<float> to) const {
    for (std::size_t h = 0; h < group; ++h, from += row) {
      std::copy_n(from, dims, to.data() + (at * group + h) * dims);
    }
  }
};

// One KV head of one layer on one worker. Layer: a store::layer_cache. Layouts, drives, routes,
// stores and observers are values here, so that a policy is compiled once per path and format.
template <class Policy, class Layer, class Worker>
class head_attend {
 public:
  template <class Cache>
  head_attend(const Policy& policy, const logit_rule& logits, const Cache& cache,
              const Layer& layer, std::uint32_t layer_number, std::uint32_t kv_head,
              const attend_request& request, Worker& worker, traffic& moved)
      : policy_{policy},
        logits_{logits},
        source_{cache.pages()},
        layer_{layer},
        layer_number_{layer_number},
        layers_{static_cast<std::uint32_t>(cache.shape().layers)},
        kv_heads_{static_cast<std::uint32_t>(cache.shape().kv_heads)},
        kv_head_{kv_head},
        group_{static_cast<std::uint32_t>(cache.shape().group())},
        request_{request},
        worker_{worker},
        moved_{moved} {}

  // Writes this head's rows of out [n, q_heads, v_dim] for the n queries of the request, and of
  // log_sum_exp [n, q_heads] unless it is empty. The request's own spans for them are not used.
  // Rows that are shorter than those of the cache are copied, with zeros after them.
  void operator()(std::uint32_t n, std::span<float> out, std::span<float> log_sum_exp,
                  attention::observer_ref watch) const;

 private:
  using format = typename decltype(Worker::arithmetic)::format;

  // The rows of n queries with their biases, mask and sinks.
  attention::query_group queries_of(std::uint32_t n, std::span<const float> values,
                                    std::uint32_t true_dims) const {
    const layout::head_pages head = layer_.head(kv_head_);
    const std::uint32_t q_heads = group_ * kv_heads_;
    return {
        .values = values,
        .group = n * group_,
        .logits = logits_,
        .index = request_.index,
        .true_dims = true_dims,
        .bias = {.slopes = logits_.slopes,
                 .by_distance = logits_.distance_bias,
                 .by_token = request_.bias,
                 .q_heads = q_heads,
                 .first_head = kv_head_ * group_,
                 .heads = group_,
                 .first = head.first,
                 .tokens = head.tokens,
                 .queries = n,
                 .causal = request_.causal},
        .shown = request_.visible,
        .sink_logits = logits_.sink_logits_of(layer_number_, kv_head_ * group_, group_, q_heads)};
  }
  // The `size` rows of `all` from `row` on. `first_head` is their first row in the group that the
  // arithmetic began with.
  static attention::query_group rows_of(const attention::query_group& all, std::uint32_t row,
                                        std::uint32_t size, std::uint32_t first_head) {
    const std::size_t k_dim = all.values.size() / all.group;
    attention::query_group some = all;
    some.values = all.values.subspan(row * k_dim, size * k_dim);
    some.group = size;
    some.first_head = first_head;
    some.bias = all.bias.from(row);
    if (size < all.sink_logits.size()) {
      some.sink_logits = all.sink_logits.subspan(row, size);
    }
    return some;
  }

  // Part i of `size` elements; empty if `all` is.
  static std::span<float> part(std::span<float> all, std::size_t i, std::size_t size) {
    return all.empty() ? all : all.subspan(i * size, size);
  }

  // Results of all rows: out [rows, v_dim], log_sum_exp [rows] or empty.
  struct results {
    std::span<float> out;
    std::span<float> log_sum_exp;
  };

  // Query i of `all`: the whole group together, or its heads one by one if each has its own
  // selection.
  template <class Summaries>
  void run_query(const attention::query_group& all, std::uint32_t i, const layout::head_pages& head,
                 Summaries& summaries, const results& to, attention::observer_ref& watch) const {
    const std::uint32_t together = attention::shares_selection<Policy> ? group_ : 1;
    const std::size_t out_size = to.out.size() / all.group * together;
    for (std::uint32_t row = i * group_; row < (i + 1) * group_; row += together) {
      attention::query_group query = rows_of(all, row, together, 0);
      query.index = all.index.of(i, all.group / group_);
      run_program(query, head, summaries, to.out.subspan(row / together * out_size, out_size),
                  part(to.log_sum_exp, row / together, together), watch);
    }
  }

  // n queries one after the other, each as if the tokens after its own had not come yet. Summaries
  // that learn do so from each query in turn. From others, whose layer other attends may read, the
  // newest tokens are taken from a copy, so the newest query is first.
  void run_each(const attention::query_group& all, std::uint32_t n, const results& to,
                attention::observer_ref& watch) const {
    layout::head_pages head = layer_.head(kv_head_);
    auto& own = layer_.summaries(kv_head_);
    if (!request_.causal || n == 1) {
      for (std::uint32_t i = 0; i < n; ++i) {
        run_query(all, i, head, own, to, watch);
      }
    } else if constexpr (attention::learns<std::remove_cvref_t<decltype(own)>>) {
      const std::uint32_t first = head.tokens - (n - 1);
      layer_.take_back(source_, kv_head_, {first, head.tokens}, own);
      head.tokens = first;
      for (std::uint32_t i = 0;; ++i) {
        run_query(all, i, head, own, to, watch);
        if (i + 1 == n) {
          return;
        }
        layer_.give_again(source_, kv_head_, head.tokens++, own);
      }
    } else if constexpr (attention::takes_back<std::remove_cvref_t<decltype(own)>>) {
      auto states = own;
      for (std::uint32_t i = n; i-- > 0;) {
        run_query(all, i, head, states, to, watch);
        if (i > 0) {
          layer_.take_back(source_, kv_head_, {head.tokens - 1, head.tokens}, states);
          --head.tokens;
        }
      }
    }
  }

  template <class Summaries>
  void run_program(const attention::query_group& query, const layout::head_pages& head,
                   Summaries& summaries, std::span<float> out, std::span<float> log_sum_exp,
                   attention::observer_ref& watch) const {
    const layout::page_reader<format> pages{source_, head};
    worker_.arithmetic.begin(query, head);
    attention::machine machine(worker_.arithmetic, head, pages, summaries, worker_.machine, moved_,
                               watch, layer_number_, layers_);
    static_assert(attention::AttentionMachine<decltype(machine)>);
    policy_(machine, query);
    worker_.arithmetic.finish(out, log_sum_exp);
  }

  // Folds the tokens that all n queries see, once for all rows; then, for each query, the other
  // tokens it sees. So no kernel needs a mask.
  void fold_together(std::uint32_t n, std::uint32_t true_dims,
                     attention::observer_ref& watch) const {
    const layout::head_pages head = layer_.head(kv_head_);
    const layout::page_reader<format> pages{source_, head};
    const attention::query_group all = queries_of(n, worker_.q, true_dims);
    worker_.arithmetic.begin(all, head);
    attention::machine machine(worker_.arithmetic, head, pages, layer_.summaries(kv_head_),
                               worker_.machine, moved_, watch);
    const auto selection = [&](auto&& fill) -> index_view {
      index_set& set = worker_.machine.next_selection();
      fill(set);
      return set;
    };
    const auto seen_by = [&](std::uint32_t i) {
      const std::uint32_t later = request_.causal ? n - 1 - i : 0;
      return selection(
          [&](index_set& seen) { all.visible(head.first, head.tokens - later, seen); });
    };
    const auto fold = [&](const attention::query_group& query, index_view tokens) {
      if (!tokens.empty()) {
        machine.fold(query, tokens);
      }
    };
    // Windows move with the queries, like the end of the cache. So the tokens that both the first
    // and the last query see are those that all queries see. Other masks are the same for all.
    const index_view first_sees = seen_by(0);
    const index_view last_sees = seen_by(n - 1);
    const index_view common =
        selection([&](index_set& set) { add_intersection(first_sees, last_sees, set); });
    fold(all, common);
    for (std::uint32_t i = 0; i < n; ++i) {
      const index_view seen = seen_by(i);
      fold(rows_of(all, i * group_, group_, i * group_),
           selection([&](index_set& set) { add_difference(seen, common, set); }));
    }
    worker_.arithmetic.finish(worker_.out, worker_.log_sum_exp);
  }

  const Policy& policy_;
  const logit_rule& logits_;
  layout::page_source source_;
  const Layer& layer_;
  std::uint32_t layer_number_;
  std::uint32_t layers_;  // of the model
  std::uint32_t kv_heads_;
  std::uint32_t kv_head_;
  std::uint32_t group_;
  const attend_request& request_;
  Worker& worker_;
  traffic& moved_;
};

// Not inline: programs that instantiate it in one unit and declare it extern in others compile the
// policy, the machine and the kernels once.
template <class Policy, class Layer, class Worker>
void head_attend<Policy, Layer, Worker>::operator()(std::uint32_t n, std::span<float> out,
                                                    std::span<float> log_sum_exp,
                                                    attention::observer_ref watch) const {
  const std::span<const float> q = request_.q;
  const std::size_t rows = std::size_t{kv_heads_} * n * group_;
  const auto true_dims = static_cast<std::uint32_t>(q.size() / rows);
  const rows_of_heads q_rows{q.size() / rows, format::k_dim, group_};
  const rows_of_heads out_rows{out.size() / rows, format::v_dim, group_};
  if (n == 1 && !q_rows.padded() && !out_rows.padded()) {
    run_each(queries_of(1, q.subspan(kv_head_ * q_rows.size(), q_rows.size()), true_dims), 1,
             {out.subspan(kv_head_ * out_rows.size(), out_rows.size()),
              part(log_sum_exp, kv_head_, group_)},
             watch);
    return;
  }
  const std::size_t out_size = out_rows.size();
  resize_scratch(worker_.q, n * q_rows.size());
  resize_scratch(worker_.out, n * out_size);
  resize_scratch(worker_.log_sum_exp, log_sum_exp.empty() ? 0 : std::size_t{n} * group_);
  for (std::size_t i = 0; i < n; ++i) {
    q_rows.copy_in(q, i * kv_heads_ + kv_head_, worker_.q.data() + i * q_rows.size());
  }
  if constexpr (attention::folds_all_visible<Policy>) {
    fold_together(n, true_dims, watch);
  } else {
    run_each(queries_of(n, worker_.q, true_dims), n, {worker_.out, worker_.log_sum_exp}, watch);
  }
  for (std::size_t i = 0; i < n; ++i) {
    out_rows.copy_out(worker_.out.data() + i * out_size, i * kv_heads_ + kv_head_, out);
    if (!log_sum_exp.empty()) {
      std::ranges::copy(part(worker_.log_sum_exp, i, group_),
                        part(log_sum_exp, i * kv_heads_ + kv_head_, group_).begin());
    }
  }
}

}  // namespace instinfer
