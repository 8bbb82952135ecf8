#pragma once
// One engine for all compute paths, with the paper's commands: config (construction), append, attend, reclaim.

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

// Path supplies the arithmetic (reference::path, cpu::path, flash::random_selection); Store is where sealed pages live.
//
// Attends of one engine may run at the same time, each with a workspace of its own. open, append, build, load and reclaim may
// not run beside anything else on the engine, and end the life of spans and views that it gave out; save reads what attends may
// feed back to.
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

  // config: throws bad_argument where the shape, capacity, layout or logit rule cannot be. `channels` is given where a
  // sweep varies the drive at run time.
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

  // k [new_tokens, kv_heads, k_dim], v [new_tokens, kv_heads, v_dim]; index keys [new_tokens, index_dim] of a trained indexer,
  // for policies that take them (methods/dsa.hpp). Throws unknown_sequence, bad_argument, address_overflow, drive_full; the
  // cache is then as before.
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

  // Brings the index of a layer's heads up to date, for policies that cluster the cache: as much as the policy says is due, which
  // may be nothing. Tokens then change places inside a head, and written() holds the pages. Costs much more than an attend; the
  // time to call it is the caller's. Throws bad_argument, as for a layer without tokens or more clusters than tokens, and
  // drive_full; heads that were done before stay so, and a further call goes on.
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

  // Appends `count` tokens whose values nobody knows; for stores that hold no data.
  receipt append_count(sequence seq, int layer, std::uint64_t count)
    requires(!Store::holds_data)
  {
    written_.clear();
    traffic moved = cache_.append_count(seq, layer, count, written_);
    moved.link_bytes =
        count * static_cast<std::uint64_t>(cache_.shape().kv_heads * Format::open::token_bytes);
    return {moved};
  }

  // Pages that the last append, build or load wrote, in that order.
  std::span<const page_id> written() const { return written_; }

  // Decode attention over the whole cache of a layer, for the newest token of a sequence: q [q_heads, k_dim], out
  // [q_heads, v_dim]; the token has been appended. For the newest n tokens at once, causal among themselves: q [n, q_heads,
  // k_dim], out [n, q_heads, v_dim], oldest first. An empty cache gives zeros. Throws unknown_sequence and bad_argument;
  // out is then untouched.
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out) {
    return attend(seq, layer, q, out, own_, parallel::serial{}, no_observer{});
  }

  template <parallel::Parallel P, class Watch = no_observer>
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out,
                 scratch& work, const P& workers, Watch&& watch = {}) const {
    const attend_request one{seq, q, out};
    return attend({&one, 1}, layer, work, workers, watch);
  }

  // The same for a batch of sequences. Work is dealt by bytes (core/work_split.hpp): where whole heads would leave workers
  // waiting, the longest are cut into page ranges. Should one request throw, all outputs are untouched.
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
    // The longest heads by all workers, one after the other; then the others, each by one.
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
      done.traffic.filtered_bytes = done.traffic.channel_bytes;  // no filter in front of a host
    }
    // q and the output cross the link in the storage type's width.
    const transfer::link_bytes link =
        route::bytes(done.traffic, q_size * sizeof(element), out_size * sizeof(element));
    done.traffic.link_bytes = link.up + link.down;
    return done;
  }

  // Gives up a sequence, or the oldest tokens of some of its layers. Throws unknown_sequence, bad_argument.
  void reclaim(sequence seq) { cache_.reclaim(seq); }
  void reclaim(sequence seq, const store::reclaim_range& range) { cache_.reclaim(seq, range); }

  // Writes a sequence to a binary stream, and takes it up again in an open, empty one, of this engine or another of the same
  // model, format, layout and summaries: attends go on bit by bit. `model`: the caller's name for it. See store/cache_file.hpp.
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

  // Live tokens of a layer, reclaimed ones not counted.
  std::uint32_t tokens(sequence seq, int layer) const {
    const auto& cache = cache_.at(seq, layer);
    return cache.tokens() - cache.first();
  }

  // Tokens ever appended to a layer: the position of the next one, and what reclaim_range::tokens_before counts.
  std::uint32_t positions(sequence seq, int layer) const { return cache_.at(seq, layer).tokens(); }

  const policy& attention() const { return attention_; }
  const logit_rule& logits() const { return logits_; }
  const cache_type& cache() const { return cache_; }
  Store& pages() { return cache_.pages(); }  // for housekeeping of its own; pages are the cache's

 private:
  using arithmetic = typename Path::template arithmetic<Format>;
  // Whether several workers may carry out one operation.
  static constexpr bool can_share = requires(arithmetic& a, const team& t) { a.work_with(t); };

  // Checks the requests and lists their heads, without touching any output.
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

  // One KV head of one request, by one worker or, cut into page ranges, by a team.
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
