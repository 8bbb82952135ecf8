#pragma once
// One engine over many drives, each of which is a rank of MPI. docs/cluster.md tells how to use it.

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "instinfer/cluster/storing_engine.hpp"
#include "instinfer/engine/new_tokens.hpp"

namespace instinfer::cluster {

// Every rank of a communicator constructs it with the same arguments. Then rank 0, the host, calls
// it as one engine, while the other ranks are in serve(). Its destructor on rank 0, or close(),
// ends serve() on all. The host's calls are made by one thread, one at a time.
//
// Engine is instinfer::engine over any path and store, or flash::engine. S says which drive has
// what (menu: cluster/splits.hpp). Workers computes the attends of a rank.
//
// An exception of a drive comes to the host as the same type, with the drive's rank in its message;
// of several, that of the lowest rank. All drives are then as before the call, but for build, which
// keeps the heads that it has finished. Of formats with codecs, a page that an append had filled
// before another drive failed opens again with its coded values.
template <class Engine, class S, parallel::Parallel Workers = parallel::serial>
class engine : public storing_engine<Engine, S, Workers> {
  using base = storing_engine<Engine, S, Workers>;
  using base::batch_;
  using base::begin;
  using base::calls_;
  using base::placed_;

 public:
  using base::append;
  using base::positions;
  using base::shape;
  using base::truncate;
  using typename base::element;
  using typename base::format;
  using typename base::policy;
  using typename base::summaries;

  using base::base;

  // post and wait.
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out) {
    const attend_request one{seq, q, out};
    return attend({&one, 1}, layer);
  }
  receipt attend(std::span<const attend_request> batch, int layer) {
    post(layer, batch);
    return wait();
  }

  // Appends the new tokens of a sequence, one or n, and attends for them. If it throws, the layer
  // is as before.
  receipt decode(sequence seq, int layer, std::span<const element> k, std::span<const element> v,
                 std::span<const float> q, std::span<float> out) {
    const auto heads = static_cast<std::size_t>(shape().q_heads);
    const std::size_t n = count_of<format>(new_tokens<element>{k, v}, shape().kv_heads);
    require_query_each(q.size() / (heads * static_cast<std::size_t>(format::k_dim)), n);
    const std::uint64_t before = positions(seq, layer);
    receipt done = append(seq, layer, k, v);
    try {
      return done += attend(seq, layer, q, out);
    } catch (...) {
      back_to(seq, layer, before);
      throw;
    }
  }

  // As one engine's (engine/engine.hpp). If it throws, the layer is as before. Methods with an
  // index work on a fork of the sequence, so that they need its slot and the memory of its open
  // pages, summaries and page tables.
  receipt prefill(sequence seq, int layer, std::span<const element> k,
                  std::span<const element> v = {}, std::span<const float> q = {},
                  std::span<float> out = {}) {
    begin("prefill");
    placed_.layer(seq, layer);
    const new_tokens<element> prompt{k, v};
    const std::size_t count = count_of<format>(prompt, shape().kv_heads);
    prompt_queries<format>(q.size(), out.size(), count, shape());
    attention::check_index_keys<summaries>({}, count, format::is_padded ? 0 : format::k_dim);
    store::storable_tokens<format>(k, v, shape().kv_heads);
    if (out.empty() && !attention::learns_results<summaries>) {
      q = {};  // nobody asks, and nobody learns
    }
    const auto finite = [](float x) { return is_finite(x); };
    if (const auto bad = std::ranges::find_if_not(q, finite); bad != q.end()) [[unlikely]] {
      throw_not_finite({.seq = seq, .q = q, .out = out}, static_cast<std::size_t>(bad - q.begin()),
                       shape(), format::k_dim, {});
    }
    if constexpr (S::splits_tokens) {
      return prefill_tokens(seq, layer, prompt, count, q, out);
    } else {
      return prefill_drives(seq, layer, prompt, count, q, out);
    }
  }

  // Sends the queries of a batch, one message to each drive that has some of its tokens, and
  // returns when they have left. The drives compute meanwhile; a host that is a drive computes in
  // wait(). The outputs must live until then. `visible` counts positions from the sequence's first
  // token on, up to 2^32. Throws what attend throws for bad requests.
  void post(int layer, std::span<const attend_request> batch) {
    begin("attend");
    batch_.post(placed_, layer, batch, calls_);
  }

  // Collects the results of the posted batch. If a drive failed, throws its exception, and all
  // outputs stay as they were. The traffic is that of all drives: by_tokens sends a query to each.
  receipt wait() {
    require(batch_.pending(), [] { return std::string("wait: no attend is posted"); });
    const auto start = std::chrono::steady_clock::now();
    const receipt done = batch_.wait(calls_, placed_);
    waited_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return done;
  }
  // On the host: the seconds that wait() took in all.
  double waited_s() const { return waited_s_; }

 private:
  // Asks the drives, each for its heads.
  receipt prefill_drives(sequence seq, int layer, const new_tokens<element>& prompt,
                         std::size_t count, std::span<const float> q, std::span<float> out) {
    constexpr auto k_dim = static_cast<std::size_t>(format::k_dim);
    constexpr auto v_dim = static_cast<std::size_t>(format::v_dim);
    layer_tokens& to = placed_.layer(seq, layer);
    const std::size_t queries = q.size() / shape().q_values(format::k_dim);
    calls_.begin();
    placed_.for_each_holder(seq.slot, [&](const drive_part& part) {
      message& m = calls_.command_to(part.drive, {.what = operation::prefill,
                                                  .slot = seq.slot,
                                                  .layer = layer,
                                                  .wants_out = out.empty() ? 0u : 1u,
                                                  .queries = queries});
      const token_slice<S> all{placed_.split(), part, to.positions, count};
      const auto [first, heads] = std::pair(part.heads.first, part.heads.size());
      put_rows(m, prompt.k, all, shape().kv_heads, first, heads, format::k_dim);
      put_rows(m, prompt.v, all, shape().kv_heads, first, heads, format::v_dim);
      put_queries(m, q, query_heads::of(part), k_dim);
    });
    const receipt done = calls_.call(true);
    for (const int d : calls_.asked()) {
      if (!out.empty()) {
        const drive_part& part = placed_.parts()[static_cast<std::size_t>(d)];
        take_results(calls_.results_of(d), query_heads::of(part), v_dim, out, {});
      }
    }
    to.positions += count;
    if constexpr (requires { typename policy::indexed_by; }) {
      calls_.begin();
      this->command_all({.what = operation::commit, .slot = seq.slot});
      calls_.call(false);
    }
    return done;
  }

  // A prompt whose tokens lie on several drives: its queries attend as those of a decode do.
  receipt prefill_tokens(sequence seq, int layer, const new_tokens<element>& prompt,
                         std::size_t count, std::span<const float> q, std::span<float> out) {
    const std::size_t q_row = shape().q_values(format::k_dim);
    const std::size_t queries = out.empty() ? 0 : q.size() / q_row;
    const auto append_part = [&](std::size_t first, std::size_t last) {
      const new_tokens<element> part = prompt.part(first, last, count);
      return append(seq, layer, part.k, part.v);
    };
    const std::uint64_t before = positions(seq, layer);
    receipt done = append_part(0, count - queries);
    std::vector<float> results(out.size());
    try {
      for (std::size_t first = 0; first < queries; first += queries_together) {
        const std::size_t n = std::min(queries_together, queries - first);
        const std::size_t row = out.size() / queries;
        done += append_part(count - queries + first, count - queries + first + n);
        attend(seq, layer, q.subspan(first * q_row, n * q_row),
               std::span(results).subspan(first * row, n * row));
      }
    } catch (...) {
      back_to(seq, layer, before);
      throw;
    }
    std::ranges::copy(results, out.begin());
    return done;
  }

  void back_to(sequence seq, int layer, std::uint64_t position) {
    const auto number = static_cast<std::uint32_t>(layer);
    truncate(seq, store::truncate_range{number, number + 1, position});
  }

  double waited_s_ = 0;
};

}  // namespace instinfer::cluster
