#pragma once
// The engine of the compute paths: attends (engine/attending_engine.hpp), and the calls that change
// a sequence. engine/engine_base.hpp has those that it shares with the GPU's.

#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "instinfer/engine/attending_engine.hpp"
#include "instinfer/engine/concepts.hpp"
#include "instinfer/methods/dense.hpp"
#include "instinfer/store/pages/memory.hpp"
#include "instinfer/store/sequences/cache_file.hpp"

namespace instinfer {

// Path is the arithmetic (reference::path, cpu::path, flash::random_selection); Store holds sealed
// pages.
//
// Attends of one engine may run at the same time, each with its own workspace; those of a policy
// that learns (h2o, hgca, retro_infer) not on the same layer of the same sequence. Reads of counts
// may run beside them. save, and reads of summaries, must not run beside attends of a policy that
// learns. open, fork, append, prefill, decode, truncate, build, load, reclaim and set_policy must
// not run at the same time as any other call on the engine, and invalidate the spans and views that
// it returned.
template <Design D, class Format, class Path, class Store = store::memory>
class engine : public attending_engine<D, Format, Path, Store> {
  using base = attending_engine<D, Format, Path, Store>;
  using base::attention_;
  using base::cache_;
  using base::own_;
  using base::written_;
  using typename base::before;

 public:
  using typename base::element;
  using typename base::policy;
  using typename base::scratch;

  using base::base;

  // Updates the index of a layer's heads, for policies that cluster the cache, as far as the policy
  // says it is due; this may be nothing. Tokens then change places inside a head, and written() has
  // the new pages. It costs much more than an attend; the caller decides when to call it. Throws
  // bad_argument, for example for a layer without tokens or for more clusters than tokens, and
  // drive_full. Heads finished before the exception keep their index, and a further call continues.
  receipt build(sequence seq, int layer)
    requires requires { typename policy::indexed_by; }
  {
    written_.clear();
    const auto& cache = cache_.at(seq, layer);
    require(cache.tokens() > cache.first(), [&] {
      return "build: layer " + std::to_string(layer) + " has no tokens; append the prompt first";
    });
    return {build_heads(seq, layer)};
  }

  // The prompt of a sequence, or the next part of it: appends it, teaches methods that learn from
  // past queries (h2o, hgca) with its queries, and builds the index of methods that need one, as
  // far as it is due. q [n, q_heads, k_dim] are the queries of its n newest tokens; without them
  // nothing is taught. The first token that is taught sees a cache of all tokens before it.
  // Unless it is empty, `out` [n, q_heads, v_dim] gets the attention of these queries, causal and
  // exact: models attend to their prompts densely, whatever the method decodes with.
  // Throws what append, attend and build do. The layer is then as before, but if build() of a later
  // part fails: the part then stays, and a further build() continues.
  receipt prefill(sequence seq, int layer, std::span<const element> k,
                  std::span<const element> v = {}, std::span<const float> q = {},
                  std::span<float> out = {}) {
    return prefill(seq, layer, {k, v}, q, out, own_, parallel::serial{});
  }
  template <parallel::Parallel P>
  receipt prefill(sequence seq, int layer, const new_tokens<element>& prompt,
                  std::span<const float> q, std::span<float> out, scratch& work, const P& workers) {
    written_.clear();
    before undo(cache_, seq, layer);
    return undone_on_failure({&undo, 1}, [&] {
      traffic moved = append_and_teach(seq, layer, prompt, q, out, work, workers);
      if constexpr (requires { typename policy::indexed_by; }) {
        moved += build_heads(seq, layer);
      }
      return receipt{moved};
    });
  }

  // A step of decoding: appends the new token of a sequence, and attends for it, as append() and
  // attend() do. k [kv_heads, k_dim], v [kv_heads, v_dim], q [q_heads, k_dim], out [q_heads,
  // v_dim]; for n tokens each [n, ...]. Throws what they do, and then leaves the layer as it was,
  // unless a drive cannot be read while the tokens are taken back.
  receipt decode(sequence seq, int layer, std::span<const element> k, std::span<const element> v,
                 std::span<const float> q, std::span<float> out) {
    const new_tokens<element> one{k, v};
    const attend_request queries{seq, q, out};
    return decode({&one, 1}, {&queries, 1}, layer, own_, parallel::serial{});
  }
  // The same for a batch of different sequences: batch[i] has the queries of tokens[i]. If one
  // fails, none has the new tokens.
  template <parallel::Parallel P, class Watch = no_observer>
  receipt decode(std::span<const new_tokens<element>> tokens, std::span<const attend_request> batch,
                 int layer, scratch& work, const P& workers, Watch&& watch = {}) {
    check_decode(tokens, batch, layer, work);
    written_.clear();
    std::vector<before> undo;
    undo.reserve(batch.size());
    for (const attend_request& r : batch) {
      undo.emplace_back(cache_, r.seq, layer);
    }
    return undone_on_failure(undo, [&] {
      traffic moved;
      for (std::size_t i = 0; i < batch.size(); ++i) {
        moved += base::append_rows(batch[i].seq, layer, tokens[i]);
      }
      moved += base::attend(batch, layer, work, workers, watch).traffic;
      return receipt{moved};
    });
  }

  // Appends `count` tokens without values, for stores that hold no data.
  receipt append_count(sequence seq, int layer, std::uint64_t count)
    requires(!Store::holds_data)
  {
    written_.clear();
    traffic moved = cache_.append_count(seq, layer, count, written_);
    moved.link_bytes =
        count * static_cast<std::uint64_t>(cache_.shape().kv_heads * Format::appended_bytes);
    return {moved};
  }

  // Writes a sequence to a binary stream, and loads it into an open, empty sequence of this engine
  // or of another with the same model, format, layout and summaries. Attends then give the same
  // bits. `model` is the caller's name of the model. See store/sequences/cache_file.hpp.
  void save(sequence seq, std::ostream& out, std::string_view model = {}) const
    requires Store::holds_data
  {
    store::save(cache_, seq, model, out);
  }
  receipt load(sequence seq, std::istream& in, std::string_view model = {})
    requires Store::holds_data
  {
    written_.clear();
    return {store::load(cache_, seq, model, in, written_)};
  }

  const Store& pages() const { return cache_.pages(); }

  // The translation layer under the pages, for housekeeping (idle, refresh). The cache owns its
  // pages.
  auto& translation()
    requires requires(Store& store) { store.translation(); }
  {
    return cache_.pages().translation();
  }

 private:
  // f(). If it throws, puts back what the layers were.
  template <class F>
  receipt undone_on_failure(std::span<before> undo, F&& f) {
    try {
      return f();
    } catch (...) {
      for (before& b : undo) {
        b.put_back(*this);
      }
      throw;
    }
  }

  // Throws what a decode can know before it appends.
  void check_decode(std::span<const new_tokens<element>> tokens,
                    std::span<const attend_request> batch, int layer, scratch& work) const {
    require(tokens.size() == batch.size(), [&] {
      return "decode: every request needs the rows of its new tokens, got " +
             std::to_string(tokens.size()) + " and " + std::to_string(batch.size()) + " requests";
    });
    require_distinct(batch, work.slots, "decode", "its new tokens go into one request");
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const auto count = count_of<Format>(tokens[i], cache_.shape().kv_heads);
      const std::uint32_t live = base::tokens(batch[i].seq, layer);
      check_request<policy, Format>(batch[i], cache_.shape(),
                                    live + static_cast<std::uint32_t>(count));
      require_query_each(queries_of<Format>(batch[i], cache_.shape()), count);
    }
  }

  // A prompt without its index.
  template <parallel::Parallel P>
  traffic append_and_teach(sequence seq, int layer, const new_tokens<element>& prompt,
                           std::span<const float> q, std::span<float> out, scratch& work,
                           const P& workers) {
    constexpr bool teaches = attention::learns_results<typename base::summaries>;
    const model_shape& shape = cache_.shape();
    const std::size_t count = count_of<Format>(prompt, shape.kv_heads);
    const std::size_t q_row = shape.q_values(Format::k_dim);
    const std::size_t out_row = shape.q_values(Format::v_dim);
    const std::size_t queries = prompt_queries<Format>(q.size(), out.size(), count, shape);
    if (queries == 0 || (out.empty() && !teaches)) {
      return base::append_rows(seq, layer, prompt);
    }
    traffic moved = base::append_rows(seq, layer, prompt.part(0, count - queries, count));
    std::vector<float> results(out.size());  // `out` is written last
    std::vector<float> unused;
    for (std::size_t first = 0; first < queries; first += queries_together) {
      const std::size_t n = std::min(queries_together, queries - first);
      const std::size_t at = count - queries + first;
      moved += base::append_rows(seq, layer, prompt.part(at, at + n, count));
      const auto attend_to = [&](const auto& by, std::span<float> to) {
        const attend_request r{seq, q.subspan(first * q_row, n * q_row), to};
        this->attend_by(by, {&r, 1}, layer, work, workers, no_observer{});
      };
      if constexpr (teaches) {
        unused.resize(n * out_row);
        attend_to(attention_, unused);
      }
      if (!out.empty()) {
        attend_to(attention::dense{}, std::span(results).subspan(first * out_row, n * out_row));
      }
    }
    std::ranges::copy(results, out.begin());
    return moved;
  }

  traffic build_heads(sequence seq, int layer) {
    using index_type = typename policy::indexed_by;
    const auto& cache = cache_.at(seq, layer);
    traffic moved;
    for (std::uint32_t h = 0; h < static_cast<std::uint32_t>(cache_.shape().kv_heads); ++h) {
      for (;;) {
        const auto& index =
            std::get<typename index_type::template state<typename Format::padded::decoded>>(
                cache.summaries(h));
        const index_run run = attention_.to_index(index.indexed(), cache.first(), cache.tokens());
        if (run.size() == 0) {
          break;
        }
        moved += cache_.template build<index_type>(
            seq, layer, h, run,
            [&](std::span<const float> keys, int dim) { return attention_.group(keys, dim); },
            written_);
      }
    }
    return moved;
  }
};

}  // namespace instinfer
