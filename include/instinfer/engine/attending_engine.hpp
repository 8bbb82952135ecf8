#pragma once
// The attends of the compute paths, one KV head at a time, by the engine's policy or another one.

#include <algorithm>
#include <exception>
#include <vector>

#include "instinfer/core/team.hpp"
#include "instinfer/engine/attend_call.hpp"
#include "instinfer/engine/attend_check.hpp"
#include "instinfer/engine/engine_base.hpp"
#include "instinfer/engine/head_attend.hpp"

namespace instinfer {

// engine/engine.hpp says which calls may run at the same time.
template <Design D, class Format, class Path, class Store>
class attending_engine : public engine_base<D, Format, Store> {
  using base = engine_base<D, Format, Store>;

 public:
  using typename base::element;
  using typename base::policy;
  using path = Path;
  using scratch = workspace<Path, Format>;

  using base::base;

  // Decode attention over the whole cache of a layer.
  // For the newest token of a sequence: q [q_heads, k_dim], out [q_heads, v_dim]. The token must be
  // appended before.
  // For the newest n tokens at once, causal among themselves: q [n, q_heads, k_dim], out [n,
  // q_heads, v_dim], oldest first. Every method can: dense folds the tokens that all queries see
  // for all of them together, others attend for one query after the other. So the cache must be
  // able to go back to the oldest query's token, as by truncate: no query of h2o or hgca may have
  // seen a later token, and no index may hold one.
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
    if constexpr (attention::learns<typename base::summaries>) {
      require_distinct(batch, work.slots);
      std::vector<before> undo;
      undo.reserve(batch.size());
      for (const attend_request& r : batch) {
        undo.emplace_back(cache_, r.seq, layer);
      }
      try {
        return attend_by(attention_, batch, layer, work, workers, watch);
      } catch (...) {
        std::ranges::for_each(undo, [](before& b) { b.put_back_learned(); });
        throw;
      }
    } else {
      return attend_by(attention_, batch, layer, work, workers, watch);
    }
  }

 protected:
  using base::attention_;
  using base::cache_;
  using base::logits_;
  using before = layer_before<typename base::cache_type>;

  // Attends by a policy: the engine's own, or dense.
  template <class By, parallel::Parallel P, class Watch>
  receipt attend_by(const By& by, std::span<const attend_request> batch, int layer, scratch& work,
                    const P& workers, Watch&& watch) const {
    const std::uint32_t parts = parallel::parts_of(workers);
    list_jobs<By>(batch, layer, work, workers.workers());
    const auto job = [&](std::size_t j, typename scratch::worker& worker, const team& with) {
      try {
        const head_job& of = work.jobs[j];
        auto&& observer = head_watch(watch, of.request, of.kv_head);
        attend_job(by, batch[of.request], layer, j, work, worker, with, observer);
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

  scratch own_;

 private:
  using arithmetic = typename Path::template arithmetic<typename Format::padded>;
  // Whether several workers can share one operation.
  static constexpr bool can_share = requires(arithmetic& a, const team& t) { a.work_with(t); };

  // Checks the requests and lists their heads. Writes no output.
  template <class By>
  void list_jobs(std::span<const attend_request> batch, int layer, scratch& work,
                 std::size_t workers) const {
    work.clear_jobs();
    for (const attend_request& r : batch) {
      const auto& cache = cache_.at(r.seq, layer);
      const std::uint32_t tokens = cache.tokens() - cache.first();
      check_request<By, Format>(r, cache_.shape(), tokens, [&](std::uint32_t n) {
        return cache.may_truncate(cache.tokens() - n);
      });
      work.add_heads(r, cache_.shape().kv_heads, tokens, Format::token_bytes, logits_);
    }
    work.make_room();
    if (work.workers.size() < workers) {
      work.workers.resize(workers);
    }
  }

  // Computes one KV head of one request: by one worker, or split into page ranges by a team.
  template <class By>
  void attend_job(const By& by, const attend_request& r, int layer, std::size_t j, scratch& work,
                  typename scratch::worker& worker, const team& with,
                  attention::observer_ref watch) const {
    if constexpr (can_share) {
      worker.arithmetic.work_with(with);
    }
    const head_attend head(by, logits_, cache_, cache_.at(r.seq, layer),
                           static_cast<std::uint32_t>(layer), work.jobs[j].kv_head, r, worker,
                           work.traffic_of[j]);
    head(queries_of<Format>(r, cache_.shape()), work.out_of(j, r), work.log_sum_exp_of(j, r),
         watch);
  }
};

}  // namespace instinfer
