#pragma once
// The engine of the CUDA path: the paper's calls over pages that a GPU reads. Books, group buffer and layouts are those of
// the other paths; what differs is where sealed pages live (cuda/engine/page_homes.cuh) and who computes.

#include <memory>

#include "instinfer/cuda/engine/machine.cuh"
#include "instinfer/engine/engine.hpp"

namespace instinfer::cuda {

// Not for two threads at a time: an engine has one stream and one set of buffers.
template <Design D, class Format = kv_format<>,
          class Home = typename home_of<typename D::transfer_policy>::type>
class engine {
  static_assert(
      Format::plain,
      "instinfer: the CUDA engine's open pages and sealed pages hold the same elements; pages of codes are for cuda::attend, see cuda/kernels/page_codes.hpp");
  static_assert(
      Format::k_dim == Format::v_dim &&
          (Format::k_dim == 64 || Format::k_dim == 128 || Format::k_dim == 256) &&
          !std::same_as<typename Format::element, fp32>,
      "instinfer: the CUDA path stores fp16 or bf16 with head sizes 64, 128 or 256, K and V alike, see cuda/engine/engine.cuh");

 public:
  using element = typename Format::element;
  using design_type = D;
  using format = Format;
  using policy = typename D::attention_policy;
  using summaries = typename policy::summaries::template states<Format>;
  using cache_type = store::kv_cache<Format, typename D::layout_policy, summaries, Home>;

  // config: throws no_device; bad_argument as instinfer::engine does, for groups above 16, and for layouts without K and V by
  // token in rows; device_error where the pages do not fit.
  engine(const model_shape& shape, const store::capacity& capacity, const policy& attention = {},
         const logit_rule& logits = {},
         std::uint32_t channels = static_cast<std::uint32_t>(D::drive.geometry.channels))
      : attention_{attention},
        logits_{(logits.validate(), logits)},
        cache_{shape, capacity, channels} {
    static_assert(
        D::layout_policy::page_bytes == D::drive.geometry.page_bytes,
        "instinfer: the layout's page size is not the drive's, see layout/concepts.hpp and ssd/spec/presets.hpp");
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

  sequence open() { return cache_.open(); }

  // As instinfer::engine::append. Pages are written in host memory; device_pages copies them before this returns.
  receipt append(sequence seq, int layer, std::span<const element> k, std::span<const element> v) {
    const auto rows = static_cast<std::size_t>(cache_.shape().kv_heads * Format::k_dim);
    cache_.pages().prepare_writes(
        cache_.at(seq, layer).pages_to_append(static_cast<std::uint32_t>(k.size() / rows)));
    written_.clear();
    traffic moved = cache_.append(seq, layer, k, v, written_);
    cache_.pages().finish_writes();
    moved.link_bytes = k.size_bytes() + v.size_bytes();
    return {moved};
  }

  std::span<const page_id> written() const { return written_; }

  // Decode attention of one query over the cache of a layer: q [q_heads, k_dim], rounded to the storage type for the tensor
  // cores; out [q_heads, v_dim]. Throws unknown_sequence, bad_argument, device_error; out is then untouched.
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out) {
    return attend(seq, layer, q, out, no_observer{});
  }

  template <class Watch>
  receipt attend(sequence seq, int layer, std::span<const float> q, std::span<float> out,
                 Watch&& watch) {
    const auto& cache = cache_.at(seq, layer);
    check_spans(q, out);
    out_.resize(out.size());
    receipt done;
    if (cache.tokens() == cache.first()) {
      std::ranges::fill(out_, 0.0f);
    } else {
      using machine_type = machine<Format, Home, typename cache_type::layer, summaries>;
      const typename machine_type::query query{q, logits_};
      machine_type machine(*memory_, cache_.pages(), cache, cache_.shape(),
                           static_cast<std::uint32_t>(layer), query);
      attention_(machine, query);
      machine.finish(out_);
      for (int h = 0; h < cache_.shape().kv_heads; ++h) {
        auto&& head_watch = watch.head(static_cast<std::uint32_t>(h));
        machine.replay(static_cast<std::uint32_t>(h), done.traffic, head_watch);
      }
    }
    std::ranges::copy(out_, out.begin());
    using route = typename D::transfer_policy;
    if (!route::computes_in_drive) {
      done.traffic.filtered_bytes = done.traffic.channel_bytes;  // no filter in front of a GPU
    }
    const transfer::link_bytes link =
        route::bytes(done.traffic, q.size() * sizeof(element), out.size() * sizeof(element));
    done.traffic.link_bytes = link.up + link.down;
    return done;
  }

  void reclaim(sequence seq) { cache_.reclaim(seq); }
  void reclaim(sequence seq, const store::reclaim_range& range) { cache_.reclaim(seq, range); }

  std::uint32_t tokens(sequence seq, int layer) const {
    const auto& cache = cache_.at(seq, layer);
    return cache.tokens() - cache.first();
  }
  std::uint32_t positions(sequence seq, int layer) const { return cache_.at(seq, layer).tokens(); }
  const policy& attention() const { return attention_; }
  const logit_rule& logits() const { return logits_; }
  const cache_type& cache() const { return cache_; }

 private:
  void check_spans(std::span<const float> q, std::span<float> out) const {
    const auto elements = static_cast<std::size_t>(cache_.shape().q_heads * Format::k_dim);
    require(q.size() == elements && out.size() == elements, [&] {
      return "attend: q and out must be [" + std::to_string(cache_.shape().q_heads) + ", " +
             std::to_string(Format::k_dim) + "], got " + std::to_string(q.size()) + " and " +
             std::to_string(out.size()) + " elements";
    });
    for (std::size_t i = 0; i < q.size(); ++i) {
      require(is_finite(from_float<element>(q[i])), [&] {
        return "attend: q must be finite as " + std::string(element_name<element>) +
               ", is not at [head " + std::to_string(i / Format::k_dim) + ", dim " +
               std::to_string(i % Format::k_dim) + "]";
      });
    }
  }

  policy attention_;
  logit_rule logits_;
  cache_type cache_;
  std::unique_ptr<machine_memory<Format, Home>> memory_;
  std::vector<float> out_;
  std::vector<page_id> written_;
};

}  // namespace instinfer::cuda
