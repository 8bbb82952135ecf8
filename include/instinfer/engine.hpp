#pragma once
// One engine for all compute paths, with the paper's commands: config (construction), append, attend, reclaim.

#include <exception>
#include <string>
#include <vector>

#include "instinfer/attention/machine.hpp"
#include "instinfer/core/parallel.hpp"
#include "instinfer/design.hpp"
#include "instinfer/store/kv_cache.hpp"
#include "instinfer/store/memory.hpp"

namespace instinfer {

// What a call moved.
struct receipt {
  traffic moved;
};

// Scratch of attend: one machine and one arithmetic a worker. Keeps its memory; two attends that run at the same time
// need two workspaces.
template <class Path, class Format>
struct workspace {
  struct worker {
    typename Path::template arithmetic<Format> arithmetic;
    attention::machine_scratch machine;
  };
  std::vector<worker> workers;
  std::vector<traffic> moved;              // [kv_heads]
  std::vector<std::exception_ptr> failed;  // [kv_heads]
  std::vector<float> out;                  // [q_heads, v_dim]
};

// Watches nothing; what attend takes when nobody looks. An observer of an engine gives one observer a KV head, which
// run at the same time when the parallel policy does.
struct watch_nothing {
  attention::no_observer head(std::uint32_t /*kv_head*/) { return {}; }
};

// An engine of any path answers to this: the paper's commands (config is construction) and the tokens that are there.
template <class E>
concept Engine =
    requires(E& e, const E& c, sequence seq, std::span<const typename E::element> kv,
             std::span<const float> q, std::span<float> out, const store::reclaim_range& range) {
      { e.open() } -> std::same_as<sequence>;
      { e.append(seq, 0, kv, kv) } -> std::convertible_to<receipt>;
      { e.attend(seq, 0, q, out) } -> std::convertible_to<receipt>;
      e.reclaim(seq);
      e.reclaim(seq, range);
      { c.tokens(seq, 0) } -> std::convertible_to<std::uint32_t>;
      { c.positions(seq, 0) } -> std::convertible_to<std::uint32_t>;
    };

// Path supplies the arithmetic (reference::path, cpu::path, flash::drawn); Store is where sealed pages live.
//
// Attends of one engine may run at the same time, each with a workspace of its own. open, append and reclaim may not run
// beside anything else on the engine, and end the life of spans and views that it gave out.
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
        "instinfer: the layout's page size is not the drive's, see layout/concepts.hpp and flash/presets.hpp");
  }

  sequence open() { return cache_.open(); }

  // k [new_tokens, kv_heads, k_dim], v [new_tokens, kv_heads, v_dim]. Throws unknown_sequence, bad_argument,
  // address_overflow, drive_full; the cache is then as before.
  receipt append(sequence seq, int layer, std::span<const element> k, std::span<const element> v) {
    written_.clear();
    traffic moved = cache_.append(seq, layer, k, v, written_);
    moved.link_bytes = k.size_bytes() + v.size_bytes();
    return {moved};
  }

  // Appends `count` tokens whose values nobody knows; for stores that hold no data.
  receipt append_count(sequence seq, int layer, std::uint64_t count)
    requires(!Store::holds_data)
  {
    written_.clear();
    traffic moved = cache_.append_count(seq, layer, count, written_);
    moved.link_bytes =
        count * static_cast<std::uint64_t>(cache_.shape().kv_heads * Format::token_bytes);
    return {moved};
  }

  // Pages that the last append sealed, in the order they were written.
  std::span<const page_id> written() const { return written_; }

  // Decode attention of one query over the whole cache of a layer. q [q_heads, k_dim], out [q_heads, v_dim]; the token
  // that q belongs to has been appended. An empty cache gives zeros. Throws unknown_sequence and bad_argument; out is
  // then untouched.
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out) {
    return attend(seq, layer, q, out, own_, parallel::serial{}, watch_nothing{});
  }

  template <parallel::Parallel P>
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out,
                 scratch& work, const P& workers) const {
    return attend(seq, layer, q, out, work, workers, watch_nothing{});
  }

  template <parallel::Parallel P, class Watch>
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out,
                 scratch& work, const P& workers, Watch&& watch) const {
    const auto& cache = cache_.at(seq, layer);
    check_spans(q, out);
    require(workers.workers() > 0,
            [] { return std::string("attend: the parallel policy has no worker"); });
    const auto kv_heads = static_cast<std::size_t>(cache_.shape().kv_heads);
    const auto group = static_cast<std::size_t>(cache_.shape().group());
    if (work.workers.size() < workers.workers()) {
      work.workers.resize(workers.workers());
    }
    work.moved.assign(kv_heads, {});
    work.failed.assign(kv_heads, nullptr);
    work.out.resize(out.size());

    workers.for_each(kv_heads, [&](std::size_t h, std::size_t w) {
      try {
        const std::span<float> head_out =
            std::span(work.out).subspan(h * group * Format::v_dim, group * Format::v_dim);
        attend_head(cache, static_cast<std::uint32_t>(h),
                    q.subspan(h * group * Format::k_dim, group * Format::k_dim), head_out,
                    work.workers[w], work.moved[h], watch);
      } catch (...) {
        work.failed[h] = std::current_exception();
      }
    });
    for (const std::exception_ptr& failure : work.failed) {
      if (failure) {
        std::rethrow_exception(failure);
      }
    }
    std::ranges::copy(work.out, out.begin());
    receipt done;
    for (const traffic& head : work.moved) {
      done.moved += head;
    }
    using route = typename D::transfer_policy;
    if (!route::computes_in_drive) {
      done.moved.filtered_bytes = done.moved.channel_bytes;  // no filter in front of a host
    }
    // q and the output cross the link in the storage type's width.
    const transfer::link_bytes link =
        route::bytes(done.moved, q.size() * sizeof(element), out.size() * sizeof(element));
    done.moved.link_bytes = link.up + link.down;
    return done;
  }

  // Gives up a sequence, or the oldest tokens of some of its layers. Throws unknown_sequence, bad_argument.
  void reclaim(sequence seq) { cache_.reclaim(seq); }
  void reclaim(sequence seq, const store::reclaim_range& range) { cache_.reclaim(seq, range); }

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
  template <class Watch>
  void attend_head(const typename cache_type::layer& cache, std::uint32_t h,
                   std::span<const float> q, std::span<float> out, typename scratch::worker& worker,
                   traffic& moved, Watch& watch) const {
    const layout::head_pages head = cache.head(h);
    const typename cache_type::page_views pages{cache_, head};
    auto&& head_watch = watch.head(h);
    const attention::query_group query{q, static_cast<std::uint32_t>(cache_.shape().group()),
                                       logits_};
    worker.arithmetic.begin(query, head);
    attention::machine machine(worker.arithmetic, head, pages, cache.summaries(h), worker.machine,
                               moved, head_watch);
    static_assert(attention::AttentionMachine<decltype(machine)>);
    attention_(machine, query);
    worker.arithmetic.finish(out);
  }

  void check_spans(std::span<const float> q, std::span<float> out) const {
    const auto q_heads = static_cast<std::size_t>(cache_.shape().q_heads);
    require(q.size() == q_heads * Format::k_dim && out.size() == q_heads * Format::v_dim, [&] {
      return "attend: q must be [" + std::to_string(q_heads) + ", " +
             std::to_string(Format::k_dim) + "] and out [" + std::to_string(q_heads) + ", " +
             std::to_string(Format::v_dim) + "], got " + std::to_string(q.size()) + " and " +
             std::to_string(out.size()) + " elements";
    });
    for (std::size_t i = 0; i < q.size(); ++i) {
      require(is_finite(q[i]), [&] {
        return "attend: q must be finite, is not at [head " + std::to_string(i / Format::k_dim) +
               ", dim " + std::to_string(i % Format::k_dim) + "]";
      });
    }
  }

  policy attention_;
  logit_rule logits_;
  cache_type cache_;
  scratch own_;
  std::vector<page_id> written_;
};

}  // namespace instinfer
