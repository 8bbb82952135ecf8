#pragma once
// The engine of the compute paths that attend one KV head at a time. engine/engine_base.hpp has the
// calls that it shares with the GPU's.

#include <exception>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "instinfer/core/team.hpp"
#include "instinfer/engine/attend_call.hpp"
#include "instinfer/engine/attend_check.hpp"
#include "instinfer/engine/concepts.hpp"
#include "instinfer/engine/engine_base.hpp"
#include "instinfer/engine/head_attend.hpp"
#include "instinfer/store/cache_file.hpp"
#include "instinfer/store/memory.hpp"

namespace instinfer {

// Path is the arithmetic (reference::path, cpu::path, flash::random_selection); Store holds sealed
// pages.
//
// Attends of one engine may run at the same time, each with its own workspace; those of a policy
// that learns (h2o, hgca, retro_infer) not on the same layer of the same sequence. Reads of counts
// may run beside them. save, and reads of summaries, must not run beside attends of a policy that
// learns. open, fork, append, truncate, build, load and reclaim must not run at the same time as
// any other call on the engine, and invalidate the spans and views that it returned.
template <Design D, class Format, class Path, class Store = store::memory>
class engine : public engine_base<D, Format, Store> {
  using base = engine_base<D, Format, Store>;
  using base::attention_;
  using base::cache_;
  using base::logits_;
  using base::written_;

 public:
  using typename base::element;
  using typename base::policy;
  using path = Path;
  using scratch = workspace<Path, Format>;

  using base::base;

  // Updates the index of a layer's heads, for policies that cluster the cache, as far as the policy
  // says it is due; this may be nothing. Tokens then change places inside a head, and written() has
  // the new pages. It costs much more than an attend; the caller decides when to call it. Throws
  // bad_argument, for example for a layer without tokens or for more clusters than tokens, and
  // drive_full. Heads finished before the exception keep their index, and a further call continues.
  receipt build(sequence seq, int layer)
    requires requires { typename policy::indexed_by; }
  {
    using index_type = typename policy::indexed_by;
    written_.clear();
    traffic moved;
    const auto& cache = cache_.at(seq, layer);
    require(cache.tokens() > cache.first(), [&] {
      return "build: layer " + std::to_string(layer) + " has no tokens; append the prompt first";
    });
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
    return {moved};
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

  // Decode attention over the whole cache of a layer.
  // For the newest token of a sequence: q [q_heads, k_dim], out [q_heads, v_dim]. The token must be
  // appended before.
  // For the newest n tokens at once, causal among themselves: q [n, q_heads, k_dim], out [n,
  // q_heads, v_dim], oldest first.
  // An empty cache gives zeros. Throws unknown_sequence or bad_argument, and then leaves out
  // unchanged. What else a call may ask for is in a request: engine/attend_request.hpp.
  // Uses the engine's own workspace, so two such calls must not run at the same time.
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out) {
    return attend(seq, layer, q, out, own_, parallel::serial{}, no_observer{});
  }

  template <parallel::Parallel P, class Watch = no_observer>
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out,
                 scratch& work, const P& workers, Watch&& watch = {}) const {
    const attend_request one{seq, q, out};
    return attend({&one, 1}, layer, work, workers, watch);
  }

  // The same for a batch of sequences. Work is divided by bytes (core/work_split.hpp): if whole
  // heads would leave workers idle, the longest heads are split into page ranges. Under
  // parallel::in_parts all long heads are, so that a sequence has the same bits in every batch. If
  // one request throws, all outputs stay unchanged.
  template <parallel::Parallel P, class Watch = no_observer>
  receipt attend(std::span<const attend_request> batch, int layer, scratch& work, const P& workers,
                 Watch&& watch = {}) const {
    const std::uint32_t parts = parallel::parts_of(workers);
    list_jobs(batch, layer, work, workers.workers());
    const auto job = [&](std::size_t j, typename scratch::worker& worker, const team& with) {
      try {
        const head_job& of = work.jobs[j];
        auto&& observer = head_watch(watch, of.request, of.kv_head);
        attend_job(batch[of.request], layer, j, work, worker, with, observer);
      } catch (...) {
        work.failed[j] = std::current_exception();
      }
    };
    // First the longest heads, one after the other, each by all workers; then the others, each by
    // one worker, with a fixed number of parts in the same parts.
    const team alone = parallel::fixes_parts<P> ? team{parts} : team{};
    const auto sharing = static_cast<std::uint32_t>(workers.workers());
    const std::size_t cut = deal(work.jobs, can_share ? sharing : 1, work.loads);
    for (std::size_t j = 0; j < cut; ++j) {
      job(j, work.workers.front(), team{workers, parts, work.part_failures});
    }
    workers.for_each(work.jobs.size() - cut,
                     [&](std::size_t j, std::size_t w) { job(cut + j, work.workers[w], alone); });
    return base::receipt_of(work.finish(batch), batch);
  }

  // Writes a sequence to a binary stream, and loads it into an open, empty sequence of this engine
  // or of another with the same model, format, layout and summaries. Attends then give the same
  // bits. `model` is the caller's name of the model. See store/cache_file.hpp.
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
  using arithmetic = typename Path::template arithmetic<typename Format::padded>;
  // Whether several workers can share one operation.
  static constexpr bool can_share = requires(arithmetic& a, const team& t) { a.work_with(t); };

  // Checks the requests and lists their heads. Writes no output.
  void list_jobs(std::span<const attend_request> batch, int layer, scratch& work,
                 std::size_t workers) const {
    if constexpr (attention::learns<typename base::summaries>) {
      require_distinct(batch, work.slots);
    }
    work.clear_jobs();
    for (const attend_request& r : batch) {
      const auto& cache = cache_.at(r.seq, layer);
      const std::uint32_t tokens = cache.tokens() - cache.first();
      check_request<policy, Format>(r, cache_.shape(), tokens);
      work.add_heads(r, cache_.shape().kv_heads, tokens, Format::token_bytes, logits_);
    }
    work.make_room();
    if (work.workers.size() < workers) {
      work.workers.resize(workers);
    }
  }

  // Computes one KV head of one request: by one worker, or split into page ranges by a team.
  void attend_job(const attend_request& r, int layer, std::size_t j, scratch& work,
                  typename scratch::worker& worker, const team& with,
                  attention::observer_ref watch) const {
    if constexpr (can_share) {
      worker.arithmetic.work_with(with);
    }
    const head_attend head(attention_, logits_, cache_, cache_.at(r.seq, layer),
                           static_cast<std::uint32_t>(layer), work.jobs[j].kv_head, r, worker,
                           work.traffic_of[j]);
    head(queries_of<Format>(r, cache_.shape()), work.out_of(j, r), work.log_sum_exp_of(j, r),
         watch);
  }

  scratch own_;
};

}  // namespace instinfer
