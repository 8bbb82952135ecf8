#pragma once
// One engine for all compute paths, with the paper's commands: config (construction), append,
// attend, reclaim.

#include <exception>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "instinfer/core/team.hpp"
#include "instinfer/engine/attend_call.hpp"
#include "instinfer/engine/attend_check.hpp"
#include "instinfer/engine/concepts.hpp"
#include "instinfer/engine/design.hpp"
#include "instinfer/engine/head_attend.hpp"
#include "instinfer/store/cache_file.hpp"
#include "instinfer/store/kv_cache.hpp"
#include "instinfer/store/memory.hpp"

namespace instinfer {

// Path is the arithmetic (reference::path, cpu::path, flash::random_selection); Store holds sealed
// pages.
//
// Attends of one engine may run at the same time, each with its own workspace. open, append, build,
// load and reclaim must not run at the same time as any other call on the engine, and invalidate
// the spans and views that it returned. save must not run at the same time as attends, because
// attends may change summaries.
template <Design D, class Format, class Path, class Store = store::memory>
class engine {
 public:
  using element = typename Format::element;
  using design_type = D;
  using format = Format;
  using path = Path;
  using policy = typename D::attention_policy;
  using scratch = workspace<Path, Format>;
  using summaries = typename policy::summaries::template states<Format>;
  using cache_type = store::kv_cache<Format, typename D::layout_policy, summaries, Store>;

  // config: throws bad_argument if the shape, capacity, layout or logit rule is not valid. Pass
  // `channels` if a sweep varies the drive at run time.
  engine(const model_shape& shape, const store::capacity& capacity, const policy& attention = {},
         const logit_rule& logits = {},
         std::uint32_t channels = static_cast<std::uint32_t>(D::drive.geometry.channels))
      : attention_{attention},
        logits_{(logits.validate(), logits)},
        cache_{shape, capacity, channels} {
    static_assert(
        D::layout_policy::page_bytes == D::drive.geometry.page_bytes,
        "instinfer: the layout's page size is not the drive's, see layout/concepts.hpp and ssd/spec/presets.hpp");
    require(!attention::own_window<policy> || logits.window == 0, [] {
      return std::string(
          "engine: the attention policy keeps a window of its own, logit_rule.window must be 0");
    });
  }

  sequence open() { return cache_.open(); }

  // k [new_tokens, kv_heads, k_dim], v [new_tokens, kv_heads, v_dim]; index keys [new_tokens,
  // index_dim] of a trained indexer, for policies that take them (methods/dsa.hpp). Throws
  // unknown_sequence, bad_argument, address_overflow or drive_full, and then leaves the cache
  // unchanged.
  receipt append(sequence seq, int layer, std::span<const element> k, std::span<const element> v,
                 std::span<const float> index_keys = {}) {
    attention::check_index_keys<typename policy::summaries>(
        index_keys, v.size() / static_cast<std::size_t>(cache_.shape().kv_heads * Format::v_dim),
        Format::k_dim);
    written_.clear();
    traffic moved = cache_.append(seq, layer, k, v, index_keys, written_);
    moved.link_bytes = k.size_bytes() + v.size_bytes() + index_keys.size_bytes();
    return {moved};
  }

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
        const auto& index = std::get<typename index_type::template state<typename Format::decoded>>(
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
        count * static_cast<std::uint64_t>(cache_.shape().kv_heads * Format::open::token_bytes);
    return {moved};
  }

  // Pages that the last append, build or load wrote, in this order.
  std::span<const page_id> written() const { return written_; }

  // Decode attention over the whole cache of a layer.
  // For the newest token of a sequence: q [q_heads, k_dim], out [q_heads, v_dim]. The token must be
  // appended before.
  // For the newest n tokens at once, causal among themselves: q [n, q_heads, k_dim], out [n,
  // q_heads, v_dim], oldest first.
  // An empty cache gives zeros. Throws unknown_sequence or bad_argument, and then leaves out
  // unchanged.
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
  // heads would leave workers idle, the longest heads are split into page ranges. If one request
  // throws, all outputs stay unchanged.
  template <parallel::Parallel P, class Watch = no_observer>
  receipt attend(std::span<const attend_request> batch, int layer, scratch& work, const P& workers,
                 Watch&& watch = {}) const {
    const std::uint32_t parts = parallel::parts_of(workers);
    require(workers.workers() > 0 && parts > 0,
            [] { return std::string("attend: the parallel policy has no worker or no part"); });
    list_jobs(batch, layer, work);
    if (work.workers.size() < workers.workers()) {
      work.workers.resize(workers.workers());
    }
    // First the longest heads, one after the other, each by all workers; then the others, each by
    // one worker.
    const std::size_t cut = deal(work.jobs, can_share ? parts : 1, work.loads);
    for (std::size_t j = 0; j < cut; ++j) {
      attend_job(batch, layer, j, work, work.workers.front(),
                 team{workers, parts, work.part_failures}, watch);
    }
    workers.for_each(work.jobs.size() - cut, [&](std::size_t j, std::size_t w) {
      attend_job(batch, layer, cut + j, work, work.workers[w], team{}, watch);
    });
    for (const std::exception_ptr& failure : work.failed) {
      if (failure) {
        std::rethrow_exception(failure);
      }
    }
    receipt done;
    for (const traffic& head : work.traffic_of) {
      done.traffic += head;
    }
    std::size_t q_size = 0;
    std::size_t out_size = 0;
    for (const attend_request& r : batch) {
      std::copy_n(work.out.begin() + static_cast<std::ptrdiff_t>(out_size), r.out.size(),
                  r.out.begin());
      q_size += r.q.size();
      out_size += r.out.size();
    }
    using route = typename D::transfer_policy;
    if (!route::computes_in_drive) {
      done.traffic.filtered_bytes = done.traffic.channel_bytes;  // the host has no filter
    }
    // q and the output cross the link as `element`, the type that append takes.
    const transfer::link_bytes link =
        route::bytes(done.traffic, q_size * sizeof(element), out_size * sizeof(element));
    done.traffic.link_bytes = link.up + link.down;
    return done;
  }

  // Frees a sequence, or the oldest tokens of some of its layers. Throws unknown_sequence or
  // bad_argument.
  void reclaim(sequence seq) { cache_.reclaim(seq); }
  void reclaim(sequence seq, const store::reclaim_range& range) { cache_.reclaim(seq, range); }

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

  // Live tokens of a layer, without reclaimed tokens.
  std::uint32_t tokens(sequence seq, int layer) const {
    const auto& cache = cache_.at(seq, layer);
    return cache.tokens() - cache.first();
  }

  // Tokens ever appended to a layer. This is the position of the next token;
  // reclaim_range::tokens_before counts in the same way.
  std::uint32_t positions(sequence seq, int layer) const { return cache_.at(seq, layer).tokens(); }

  const policy& attention() const { return attention_; }
  const logit_rule& logits() const { return logits_; }
  const cache_type& cache() const { return cache_; }
  // for the store's own housekeeping; the cache owns the pages
  Store& pages() { return cache_.pages(); }

 private:
  using arithmetic = typename Path::template arithmetic<Format>;
  // Whether several workers can share one operation.
  static constexpr bool can_share = requires(arithmetic& a, const team& t) { a.work_with(t); };

  // Checks the requests and lists their heads. Writes no output.
  void list_jobs(std::span<const attend_request> batch, int layer, scratch& work) const {
    work.jobs.clear();
    work.out_at.clear();
    std::size_t out_size = 0;
    for (std::uint32_t r = 0; r < batch.size(); ++r) {
      const auto& cache = cache_.at(batch[r].seq, layer);
      check_request<policy, Format>(batch[r], cache_.shape(), cache.tokens() - cache.first());
      work.out_at.push_back(out_size);
      out_size += batch[r].out.size();
      std::uint64_t tokens = cache.tokens() - cache.first();
      if (logits_.window > 0) {
        tokens = std::min(tokens, std::uint64_t{logits_.window} + logits_.sinks);
      }
      for (std::uint32_t h = 0; h < static_cast<std::uint32_t>(cache_.shape().kv_heads); ++h) {
        work.jobs.push_back({r, h, tokens * Format::token_bytes});
      }
    }
    work.traffic_of.assign(work.jobs.size(), {});
    work.failed.assign(work.jobs.size(), nullptr);
    resize_scratch(work.out, out_size);
  }

  // Computes one KV head of one request: by one worker, or split into page ranges by a team.
  template <class Watch>
  void attend_job(std::span<const attend_request> batch, int layer, std::size_t j, scratch& work,
                  typename scratch::worker& worker, const team& with, Watch& watch) const {
    try {
      const head_job& job = work.jobs[j];
      const attend_request& r = batch[job.request];
      if constexpr (can_share) {
        worker.arithmetic.work_with(with);
      }
      auto&& observer = head_watch(watch, job.request, job.kv_head);
      const head_attend head(attention_, logits_, cache_, cache_.at(r.seq, layer),
                             static_cast<std::uint32_t>(layer), job.kv_head, r.index, worker,
                             work.traffic_of[j]);
      head(queries_of<Format>(r, cache_.shape()), r.q,
           std::span(work.out).subspan(work.out_at[job.request], r.out.size()), observer);
    } catch (...) {
      work.failed[j] = std::current_exception();
    }
  }

  policy attention_;
  logit_rule logits_;
  cache_type cache_;
  scratch own_;
  std::vector<page_id> written_;
};

}  // namespace instinfer
