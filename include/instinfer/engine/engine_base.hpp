#pragma once
// What all engines share, whoever computes: the cache of a design, the calls open, append and
// reclaim, the counts of tokens, and the receipt of an attend.

#include <string>
#include <vector>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/core/logit_rule.hpp"
#include "instinfer/engine/attend_call.hpp"
#include "instinfer/engine/design.hpp"
#include "instinfer/store/kv_cache.hpp"

namespace instinfer {

// Store is where sealed pages live. An engine derives from this class and adds attend.
template <Design D, class Format, class Store>
class engine_base {
 public:
  using element = typename Format::element;
  using design_type = D;
  using format = Format;
  using policy = typename D::attention_policy;
  using summaries = typename policy::summaries::template states<Format>;
  using cache_type = store::kv_cache<Format, typename D::layout_policy, summaries, Store>;

  // config: throws bad_argument if the shape, capacity, layout or logit rule is not valid. Pass
  // `channels` if a sweep varies the drive at run time. `options` are those of a store that has
  // some, like the folder of store::drive_files.
  engine_base(const model_shape& shape, const store::capacity& capacity,
              const policy& attention = {}, const logit_rule& logits = {},
              std::uint32_t channels = static_cast<std::uint32_t>(D::drive.geometry.channels),
              const store::options_of<Store>& options = {})
      : attention_{attention},
        logits_{(logits.validate(), logits)},
        cache_{shape, capacity, channels, options} {
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
        index_keys, v.size() / cache_.shape().kv_values(Format::v_dim), Format::k_dim);
    written_.clear();
    traffic moved = cache_.append(seq, layer, k, v, index_keys, written_);
    moved.link_bytes = k.size_bytes() + v.size_bytes() + index_keys.size_bytes();
    return {moved};
  }

  // Pages that the last append, build or load wrote, in this order.
  std::span<const page_id> written() const { return written_; }

  // Frees a sequence, or the oldest tokens of some of its layers. Throws unknown_sequence or
  // bad_argument.
  void reclaim(sequence seq) { cache_.reclaim(seq); }
  void reclaim(sequence seq, const store::reclaim_range& range) { cache_.reclaim(seq, range); }

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

 protected:
  // The receipt of attends that moved `moved` of pages and summaries, with q and outputs of so many
  // elements. Adds what the route decides: whether a filter works in front of the reader, and the
  // bytes that cross the link.
  static receipt receipt_of(traffic moved, std::size_t q_size, std::size_t out_size) {
    using route = typename D::transfer_policy;
    if (!route::computes_in_drive) {
      moved.filtered_bytes = moved.channel_bytes;  // a host or a GPU reads whole pages
    }
    // q and the output cross the link as `element`, the type that append takes.
    const transfer::link_bytes link =
        route::bytes(moved, q_size * sizeof(element), out_size * sizeof(element));
    moved.link_bytes = link.up + link.down;
    return {moved};
  }

  policy attention_;
  logit_rule logits_;
  cache_type cache_;
  std::vector<page_id> written_;
};

}  // namespace instinfer
