#pragma once
// What all engines share, whoever computes: the cache of a design, the calls open, append and
// reclaim, the counts of tokens, and the receipt of an attend.

#include <string>
#include <vector>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/core/logit_rule.hpp"
#include "instinfer/engine/attend_call.hpp"
#include "instinfer/engine/design.hpp"
#include "instinfer/engine/new_tokens.hpp"
#include "instinfer/store/sequences/commit.hpp"
#include "instinfer/store/sequences/kv_cache.hpp"

namespace instinfer {

// Store is where sealed pages live. An engine derives from this class and adds attend.
template <Design D, class Format, class Store>
class engine_base {
 public:
  using element = typename Format::element;
  using design_type = D;
  using format = Format;
  using policy = typename D::attention_policy;
  using summaries = typename policy::summaries::template states<typename Format::padded>;
  using cache_type = store::kv_cache<Format, typename D::layout_policy, summaries, Store>;

  // config: throws bad_argument if the shape, capacity, layout or logit rule is not valid. Pass
  // `channels` if a sweep varies the drive at run time.
  engine_base(const model_shape& shape, const store::capacity& capacity,
              const policy& attention = {}, const logit_rule& logits = {},
              std::uint32_t channels = static_cast<std::uint32_t>(D::drive.geometry.channels))
      : attention_{attention},
        logits_{(check_logits(shape, logits), scaled_for_true_size(logits))},
        cache_{shape, capacity, channels} {}
  // The same over a given store; its pages have the layout's size. It replaces `capacity.bytes`. A
  // drive that was committed is reopened: throws bad_file if it has another cache.
  engine_base(const model_shape& shape, const store::capacity& capacity, Store pages,
              const policy& attention = {}, const logit_rule& logits = {})
      : attention_{attention},
        logits_{(check_logits(shape, logits), scaled_for_true_size(logits))},
        cache_{shape, capacity, std::move(pages)} {
    if constexpr (store::LastingStore<Store> && store::savable<summaries>) {
      if (cache_.pages().to_reopen()) {
        cache_.pages().reopen(
            [&](auto& in) { store::read_state(cache_, cache_.pages().name(), in); });
      }
    }
  }

  // The open sequences, by slot. In an engine over a drive that was committed, these are at first
  // the sequences of the last commit, in the slots that they had.
  std::vector<sequence> sequences() const { return cache_.sequences(); }

  // Makes all that the engine holds last: when it returns, an engine over the same drive has the
  // same sequences, whatever happens. A commit takes time and space for 20 bytes of each sealed
  // page, for open pages and for summaries (docs/storage.md). Throws as the store's commit, and the
  // drive then has the commit before, or this one as a whole.
  void commit()
    requires store::LastingStore<Store>
  {
    cache_.pages().commit(
        [&](auto& out) { store::write_state(cache_, cache_.pages().name(), out); });
  }
  // The part of an engine that shares its drive (engine/layered_engine.hpp) in a commit.
  template <class Out>
  void write_state(std::string_view name, Out& out) const {
    store::write_state(cache_, name, out);
  }
  template <class In>
  void read_state(std::string_view name, In& in, store::page_owners& owners) {
    store::read_state(cache_, name, in, owners);
  }

  sequence open() { return cache_.open(); }

  // A sequence with the same tokens in all layers, which goes on for itself: one prompt, many
  // conversations. The two share their sealed pages, each of which is freed when its last owner
  // lets it go. Open pages, summaries and page tables (4 bytes a page) are copied. Throws
  // unknown_sequence; address_overflow where the address has no room for another sequence;
  // drive_full if the group buffer has no room for the open pages.
  sequence fork(sequence seq) { return cache_.fork(seq); }

  // k [new_tokens, kv_heads, k_dim], v [new_tokens, kv_heads, v_dim], latent rows: k alone; index
  // keys [new_tokens, index_dim] of a trained indexer, for policies that take them
  // (methods/dsa.hpp). Throws unknown_sequence, bad_argument, address_overflow or drive_full, and
  // then leaves the cache unchanged.
  receipt append(sequence seq, int layer, std::span<const element> k,
                 std::span<const element> v = {}, std::span<const float> index_keys = {}) {
    written_.clear();
    return {append_rows(seq, layer, {k, v, index_keys})};
  }

  // Pages that the last append, decode, prefill, build or load wrote, in this order.
  std::span<const page_id> written() const { return written_; }

  // Frees a sequence, or the oldest tokens of some of its layers. Throws unknown_sequence or
  // bad_argument.
  void reclaim(sequence seq) { cache_.reclaim(seq); }
  void reclaim(sequence seq, const store::reclaim_range& range) { cache_.reclaim(seq, range); }
  // Throws what reclaim would, and changes nothing.
  void check_reclaim(sequence seq, const store::reclaim_range& range) const {
    cache_.check_reclaim(seq, range);
  }
  // Throws what load would for a sequence with tokens.
  void check_load(sequence seq) const { cache_.require_empty(seq); }

  // Takes back the newest tokens of all layers, or of some, so that the first `tokens` positions
  // stay: rejected drafts, edits, retries. A token is taken back from all heads. Where it cuts a
  // sealed page, the page is read, its tokens wait in the group buffer, and a new page is written
  // when the tile is full again (docs/storage.md). Throws unknown_sequence; bad_argument for
  // positions that are reclaimed or were never appended, and where a summary cannot go back: h2o
  // and hgca beyond a token that a query saw, an index that holds the token; drive_full if the
  // group buffer has no room for reopened pages.
  receipt truncate(sequence seq, std::uint64_t tokens) {
    return truncate(seq, store::truncate_range{.tokens = tokens});
  }
  receipt truncate(sequence seq, const store::truncate_range& range) {
    return truncate(seq, range, [](std::span<const page_id>) {});
  }
  // Throws the bad_argument that truncate would, and changes nothing.
  void check_truncate(sequence seq, const store::truncate_range& range) const {
    cache_.check_truncate(seq, range);
  }
  // Calls reads(pages) with the sealed pages that it will read, before it changes anything.
  template <class Reads>
  receipt truncate(sequence seq, const store::truncate_range& range, Reads&& reads) {
    written_.clear();
    return {cache_.truncate(seq, range, read_, reads)};
  }

  // Live tokens of a layer, without reclaimed tokens.
  std::uint32_t tokens(sequence seq, int layer) const {
    const auto& cache = cache_.at(seq, layer);
    return cache.tokens() - cache.first();
  }

  // Tokens ever appended to a layer, without those taken back. This is the position of the next
  // token; reclaim_range::tokens_before counts in the same way, without an end.
  std::uint64_t positions(sequence seq, int layer) const {
    return cache_.at(seq, layer).positions();
  }

  // The position of token number 0 of a layer. Plans, observers and attend_request::visible number
  // tokens from it on. It moves on where an endless stream runs out of numbers.
  std::uint64_t numbered_from(sequence seq, int layer) const {
    return cache_.at(seq, layer).base();
  }

  const policy& attention() const { return attention_; }
  // Other settings of the policy, for all later calls: a budget, a threshold, a window. What the
  // summaries hold stays, so h2o and hgca cannot get back what they dropped under smaller ones.
  // Throws bad_argument if a sequence has an index that build() would now make in another way, and
  // then keeps the old settings.
  void set_policy(const policy& attention) {
    if constexpr (requires { policy::same_index(attention_, attention); }) {
      using index = typename policy::indexed_by::template state<typename Format::padded::decoded>;
      require(policy::same_index(attention_, attention) || !cache_.any_layer([](const auto& layer) {
        return layer.summaries().any_head(
            [](const auto& states) { return std::get<index>(states).indexed().size() > 0; });
      }),
              [] {
                return std::string("set_policy: a sequence has an index of other settings; keep ") +
                       policy::index_settings + ", or reclaim the sequence";
              });
    }
    attention_ = attention;
  }
  const logit_rule& logits() const { return logits_; }
  const cache_type& cache() const { return cache_; }

 protected:
  // append, without forgetting which pages were written before.
  traffic append_rows(sequence seq, int layer, const new_tokens<element>& rows) {
    attention::check_index_keys<typename policy::summaries>(
        rows.index_keys, rows.k.size() / cache_.shape().kv_values(Format::k_dim),
        Format::padded::k_dim == Format::k_dim ? Format::k_dim : 0);
    traffic moved = cache_.append(seq, layer, rows.k, rows.v, rows.index_keys, written_);
    moved.link_bytes = rows.k.size_bytes() + rows.v.size_bytes() + rows.index_keys.size_bytes();
    return moved;
  }

  // The arithmetic sees padded rows, so the default scale is set here for the true head size.
  static logit_rule scaled_for_true_size(logit_rule logits) {
    if (Format::is_padded) {
      logits.scale = logits.scale_for(Format::k_dim);
    }
    return logits;
  }

  // The receipt of attends that moved `moved` of pages and summaries. Adds what the route decides:
  // whether a filter works in front of the reader, and the bytes that cross the link.
  static receipt receipt_of(traffic moved, std::span<const attend_request> batch) {
    using route = typename D::transfer_policy;
    if (!route::computes_in_drive) {
      moved.filtered_bytes = moved.channel_bytes;  // a host or a GPU reads whole pages
    }
    // q and the output cross the link as `element`, the type that append takes.
    std::uint64_t q_bytes = 0;
    std::uint64_t out_bytes = 0;
    for (const attend_request& r : batch) {
      q_bytes += r.query_bytes(sizeof(element));
      out_bytes += r.output_bytes(sizeof(element));
    }
    const transfer::link_bytes link = route::bytes(moved, q_bytes, out_bytes);
    moved.link_bytes = link.up + link.down;
    return {moved};
  }

  static void check_logits(const model_shape& shape, const logit_rule& logits) {
    static_assert(
        D::layout_policy::page_bytes == D::drive.geometry.page_bytes,
        "instinfer: the layout's page size is not the drive's, see layout/concepts.hpp and ssd/spec/presets.hpp");
    shape.validate();
    logits.validate();
    logits.validate_arrays(static_cast<std::size_t>(shape.layers),
                           static_cast<std::size_t>(shape.q_heads));
    require(!attention::own_window<policy> || !logits.biased(), [] {
      return std::string(
          "engine: the attention policy keeps a window or an order of tokens of its own, logit_rule must have no slopes and no distance_bias");
    });
    require(!attention::own_window<policy> || logits.window == 0, [] {
      return std::string(
          "engine: the attention policy keeps a window of its own, logit_rule.window must be 0");
    });
  }

  policy attention_;
  logit_rule logits_;
  cache_type cache_;
  std::vector<page_id> written_;
  std::vector<page_id> read_;  // scratch of truncate
};

}  // namespace instinfer
