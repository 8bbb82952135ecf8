#pragma once
// long because: every call keeps pages and summaries in step.
// The cache of one layer of one sequence: the pages of its three streams and the summaries of its
// heads.

#include <algorithm>
#include <array>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "instinfer/core/traffic.hpp"
#include "instinfer/store/layer/extents.hpp"
#include "instinfer/store/layer/layer_rows.hpp"
#include "instinfer/store/layer/layer_summaries.hpp"
#include "instinfer/store/layer/token_rows.hpp"

namespace instinfer::store {

// Tokens are appended in order. Summaries get the values as stored. With a codec these are the
// decoded values of a sealed page; before a page is sealed, the appended values.
template <class Format, class SummaryStates>
class layer_cache {
 public:
  using element = typename Format::element;

  // An empty cache, or one that load() fills with the content of `holds`
  // (store/sequences/cache_file.hpp).
  layer_cache(const layout::tiling& tiles, std::uint32_t page_bytes, std::uint32_t kv_heads,
              const layer_extent& holds = {})
      : tiles_{tiles},
        page_bytes_{page_bytes},
        kv_heads_{kv_heads},
        base_{holds.base},
        first_{holds.first},
        tokens_{holds.tokens},
        streams_{stream_of(stream::k_by_token), stream_of(stream::k_by_dim),
                 stream_of(stream::v_by_token)},
        summaries_(kv_heads) {}

  // Live tokens have the numbers [first(), tokens()). Token 0 is at position base() of the
  // sequence, a multiple of all tiles, which moves on as old tokens go: so numbers last for endless
  // streams.
  std::uint32_t first() const { return first_; }
  std::uint32_t tokens() const { return tokens_; }
  std::uint64_t base() const { return base_; }
  std::uint64_t positions() const { return base_ + tokens_; }
  layer_extent extent() const {
    return {first_, tokens_, sum_of([](const auto& s) { return s.live_pages(); }), base_};
  }

  // Sealed pages that hold its tokens, also before they are loaded.
  std::uint64_t pages_holding() const {
    return sum_of([&](const auto& s) { return s.grid().pages_holding(first_, tokens_); });
  }
  // Pages that appending `count` more tokens seals.
  std::uint64_t pages_to_append(std::uint32_t count) const {
    return sum_of([&](const auto& s) { return s.pages_to_append(tokens_, count); });
  }

  // Bytes of the open pages, now and after appending `count` more tokens.
  std::uint64_t open_bytes() const {
    return sum_of([](const auto& s) { return s.open().bytes().size(); });
  }
  std::uint64_t open_bytes_after(std::uint32_t count) const {
    return sum_of(
        [&](const auto& s) { return s.open().bytes_after(tokens_ % s.tile().tokens, count); });
  }

  // Allocates all memory that append(count) needs, so that append cannot fail half-way.
  void reserve(std::uint32_t count, bool holds_data, std::vector<page_id>& written) {
    reserve_scratch(written, written.size() + pages_to_append(count));
    for_each_stream([&](stream_cache<Format>& s) { s.reserve(tokens_, count, holds_data); });
    if (holds_data) {
      summaries_.reserve(count);
    } else {
      summaries_.reserve_count(count);
    }
  }

  // Appends k [count, kv_heads, k_dim] and v [count, kv_heads, v_dim] (both empty for a store
  // without data, v for latent rows), and index keys [count, any] for the summaries that take them.
  // The caller must have called reserve(count), and checked that pages_to_append(count) pages are
  // free. `start_channel` shifts the striping.
  template <PageStore Store>
  traffic append(Store& store, std::uint32_t start_channel, std::span<const element> k,
                 std::span<const element> v, std::span<const float> index_keys, std::uint32_t count,
                 std::vector<page_id>& written) {
    const std::size_t pages_before = written.size();
    for_each_stream([&](stream_cache<Format>& s) {
      s.append(store, start_channel, {s.kind() == stream::v_by_token ? v : k, v}, tokens_, count,
               written, [&] {
                 if constexpr (summarises<Store> && !Format::plain) {
                   restate(store, s, {s.sealed_tokens() - s.tile().tokens, tokens_}, true);
                 }
               });
    });
    if constexpr (summarises<Store>) {
      summarise(store, k, v, index_keys, count);
    } else if constexpr (!Store::holds_data) {
      summaries_.append_count(count);
    }
    tokens_ += count;
    const std::uint64_t pages = written.size() - pages_before;
    return {.pages_written = pages, .written_bytes = pages * page_bytes_};
  }

  bool may_forget(std::uint32_t new_first) const { return summaries_.may_forget(new_first); }

  // Forgets the tokens before `new_first`: in summaries at once, in pages when all tokens of a page
  // are forgotten.
  template <PageStore Store>
  void reclaim(Store& store, std::uint32_t new_first) {
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      forget(store, h, {first_, new_first}, summaries_.of(h));
    }
    if constexpr (!Store::holds_data) {
      summaries_.forget_count(new_first - first_);
    }
    first_ = new_first;
    for_each_stream([&](stream_cache<Format>& s) { s.reclaim(store, new_first); });
  }

  // Token n gets the number 0: a multiple of all tiles and groups, at most first(). What reserve()
  // allocated stays enough.
  void rebase(std::uint32_t n) {
    for_each_stream([&](stream_cache<Format>& s) { s.rebase(n); });
    summaries_.for_each([&](auto& state) { attention::rebase(state, n); });
    base_ += n;
    first_ -= n;
    tokens_ -= n;
  }

  bool may_truncate(std::uint32_t tokens) const { return summaries_.may_truncate(tokens); }

  // The sealed pages that truncate(tokens) reads: those of cut tiles; for the summaries, those of
  // tokens that are taken back, and of those that a group of tokens is summarised again from.
  void list_truncated(std::uint32_t tokens, std::vector<page_id>& pages) const {
    const std::uint32_t whole = summaries_.whole_before(tokens);
    for_each_stream([&](const stream_cache<Format>& s) {
      index_run read{tokens - s.reopened(tokens), tokens};
      if (&s == &k_stream() || &s == &v_stream()) {
        read.first = std::min(read.first, whole);
        if (&s == &v_stream() ? forgets_newest : forgets_newest_keys) {
          read.last = tokens_;
        }
      }
      s.list_pages(read, pages);
    });
  }

  // Bytes of the open pages after truncate(tokens).
  std::uint64_t open_bytes_truncated(std::uint32_t tokens) const {
    return sum_of([&](const auto& s) { return s.open().bytes_with_first(s.reopened(tokens)); });
  }
  // Allocates all memory that truncate(tokens) needs.
  void reserve_truncate(std::uint32_t tokens, bool holds_data) {
    for_each_stream(
        [&](stream_cache<Format>& s) { s.reserve_truncate(tokens_, tokens, holds_data); });
  }

  // Takes the newest tokens back, so that the first `tokens` stay. The caller must have called
  // reserve_truncate, and checked may_truncate.
  template <PageStore Store>
  void truncate(Store& store, std::uint32_t tokens) {
    const index_run gone{tokens, tokens_};
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      forget_newest(store, h, gone, summaries_.of(h));
    }
    for_each_stream([&](stream_cache<Format>& s) {
      s.truncate(store, tokens, [&] {
        if constexpr (summarises<Store> && !Format::plain) {
          restate(store, s, {tokens - s.reopened(tokens), tokens}, false);
        }
      });
    });
    tokens_ = tokens;
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      go_back(store, h, gone, summaries_.of(h));
    }
  }

  // For queries of tokens that are not the newest. States of head h, its own or a copy, that know
  // the tokens before gone.last, go back to gone.first. The caller must have checked may_truncate.
  void take_back(layout::page_source pages, std::uint32_t h, index_run gone,
                 SummaryStates& states) const {
    forget_newest(pages, h, gone, states);
    go_back(pages, h, gone, states);
  }
  // They get a token again.
  void give_again(layout::page_source pages, std::uint32_t h, std::uint32_t token,
                  SummaryStates& states) const {
    summaries_.for_each(states, [&](auto& state) {
      attention::reserve_summary(state, 1);
      append_again(pages, h, {token, token + 1}, state);
    });
  }

  // The rows of a run of one head's tokens.
  token_rows<element> read_rows(layout::page_source pages, std::uint32_t h, index_run run) const {
    token_rows<element> rows;
    token_row<Format> row;
    for (std::uint32_t token = run.first; token < run.last; ++token) {
      this->rows().read(pages, h, token, row);
      rows.k.insert(rows.k.end(), row.k.begin(), row.k.end());
      rows.v.insert(rows.v.end(), row.v.begin(), row.v.end());
    }
    return rows;
  }

  // Sealed pages of one head with tokens of a run.
  std::uint64_t pages_of(index_run run) const {
    return sum_of([&](const auto& s) { return s.pages_of(run); });
  }

  // Reorders a run of one head's tokens, so that the tokens of a cluster are consecutive. Attention
  // does not depend on the order of tokens, because positions are encoded in the keys. See
  // stream_cache::reorder.
  template <PageStore Store>
  void reorder(Store& store, std::uint32_t start_channel, std::uint32_t h, index_run run,
               const token_rows<element>& rows, std::span<const std::uint32_t> order,
               std::vector<page_id>& written) {
    for_each_stream([&](stream_cache<Format>& s) {
      s.reorder(store, start_channel, h, run,
                {s.kind() == stream::v_by_token ? std::span(rows.v) : std::span(rows.k), rows.v},
                order, written);
    });
  }

  // A layer with the same tokens: its own open pages and summaries, and the same sealed pages,
  // which the caller must share.
  layer_cache forked() const {
    layer_cache copy = *this;
    copy.for_each_stream([&](stream_cache<Format>& s) { s.trim_open(tokens_); });
    return copy;
  }

  // Releases every page. Do not use the object afterwards.
  template <PageStore Store>
  void release_all(Store& store) {
    for_each_stream([&](stream_cache<Format>& s) { s.release_all(store); });
  }

  layout::head_pages head(std::uint32_t h) const {
    layout::stream_pages v = v_stream().head(h);
    v.open_tile = streams_[2].stored() ? v.open_tile : tiles_.v_by_token;
    return {.tiles = tiles_,
            .page_bytes = page_bytes_,
            .entry = entry_size_of<typename Format::codec>,
            .first = first_,
            .tokens = tokens_,
            .streams = {streams_[0].head(h), streams_[1].head(h), v}};
  }

  SummaryStates& summaries(std::uint32_t h) const { return summaries_.of(h); }
  const layer_summaries<SummaryStates>& summaries() const { return summaries_; }

  // Calls f for every stored stream.
  template <class F>
  void for_each_stream(F&& f) {
    for (stream_cache<Format>& s : streams_) {
      if (s.stored()) {
        f(s);
      }
    }
  }
  template <class F>
  void for_each_stream(F&& f) const {
    for (const stream_cache<Format>& s : streams_) {
      if (s.stored()) {
        f(s);
      }
    }
  }

  // Fast memory of the summaries of all heads; DRAM of group buffer, L2P entries and summaries.
  std::uint64_t summary_bytes() const { return summaries_.bytes(); }
  std::uint64_t resident_bytes() const {
    return summary_bytes() + sum_of([](const auto& s) { return s.resident_bytes(); });
  }

 private:
  // The sum of f(stream) over the stored streams.
  template <class F>
  std::uint64_t sum_of(F&& f) const {
    std::uint64_t sum = 0;
    for_each_stream([&](const stream_cache<Format>& s) { sum += f(s); });
    return sum;
  }

  using stored_element = typename stream_cache<Format>::stored_element;

  template <class Store>
  static constexpr bool summarises = Store::holds_data && (std::tuple_size_v<SummaryStates> > 0);

  // Whether a summary is told of V, or also of K, of tokens that are taken back.
  static constexpr bool forgets_newest =
      []<class... State>(std::type_identity<std::tuple<State...>>) {
        return (attention::forgets_in_any_order<State> || ...);
      }(std::type_identity<SummaryStates>{});
  static constexpr bool forgets_newest_keys =
      []<class... State>(std::type_identity<std::tuple<State...>>) {
        return ((attention::forgets_in_any_order<State> && !attention::ignores_keys<State>) || ...);
      }(std::type_identity<SummaryStates>{});

  stream_cache<Format> stream_of(stream s) const {
    return {s,
            tiles_.has_pages(s) ? tiles_.of(s) : layout::tile{},
            page_bytes_,
            kv_heads_,
            tiles_.guest_of(s),
            base_};
  }

  // The streams of K and V that summaries read; one stream if V lies in the pages of K.
  const stream_cache<Format>& k_stream() const { return streams_[streams_[0].stored() ? 0 : 1]; }
  const stream_cache<Format>& v_stream() const { return streams_[streams_[2].stored() ? 2 : 0]; }

  layer_rows<Format> rows() const { return {k_stream(), v_stream(), tiles_.v_shares}; }

  void forget(layout::page_source pages, std::uint32_t h, index_run gone,
              SummaryStates& states) const {
    if (std::tuple_size_v<SummaryStates> > 0 && pages.holds_data()) {
      token_row<Format> row;
      for (std::uint32_t token = gone.first; token < gone.last; ++token) {
        rows().read(pages, h, token, row);
        std::apply([&](auto&... s) { (s.forget(row.k, row.v), ...); }, states);
      }
    }
  }

  // The states that forget in any order forget the newest tokens.
  void forget_newest(layout::page_source pages, std::uint32_t h, index_run gone,
                     SummaryStates& states) const {
    if constexpr (forgets_newest) {
      token_row<Format> row;
      for (std::uint32_t token = gone.first; pages.holds_data() && token < gone.last; ++token) {
        rows().read(pages, h, token, row);
        summaries_.for_each(states, [&]<class State>(State& state) {
          if constexpr (attention::forgets_in_any_order<State>) {
            state.forget(row.k, row.v);
          }
        });
      }
    }
  }
  // The other states go back, as far as they can without rows, and get the tokens from there again.
  void go_back(layout::page_source pages, std::uint32_t h, index_run gone,
               SummaryStates& states) const {
    summaries_.for_each(states, [&]<class State>(State& state) {
      if constexpr (!attention::forgets_in_any_order<State>) {
        const std::uint32_t whole = attention::whole_before(state, gone.first);
        state.truncate(whole, states);
        append_again(pages, h, {whole, gone.first}, state);
      } else if (!pages.holds_data()) {
        attention::forget_count(state, gone.size());
      }
    });
  }
  template <class State>
  void append_again(layout::page_source pages, std::uint32_t h, index_run run, State& state) const {
    if (!pages.holds_data()) {
      attention::append_count(state, run.size());
      return;
    }
    token_row<Format> row;
    for (std::uint32_t token = run.first; token < run.last; ++token) {
      rows().read(pages, h, token, row);
      attention::append_to(state, std::span<const stored_element>(row.k),
                           std::span<const stored_element>(row.v), {});
    }
  }

  // Reports `count` newly stored tokens to the summaries: k [count, kv_heads, k_dim], v [count,
  // kv_heads, v_dim].
  void summarise(layout::page_source pages, std::span<const element> k, std::span<const element> v,
                 std::span<const float> index_keys, std::uint32_t count) {
    token_row<Format> row;
    const std::size_t index_dims = index_keys.size() / count;
    for (std::uint32_t t = 0; t < count; ++t) {
      const auto index_key = index_keys.subspan(t * index_dims, index_dims);
      for (std::uint32_t h = 0; h < kv_heads_; ++h) {
        if constexpr (Format::plain) {
          const auto of = [&](std::span<const element> x, std::size_t dim) {
            return x.subspan((std::size_t{t} * kv_heads_ + h) * dim, dim);
          };
          summaries_.for_each(summaries_.of(h), [&](auto& state) {
            attention::append_to(
                state, of(k, Format::k_dim),
                Format::latent ? of(k, Format::k_dim).first(Format::v_dim) : of(v, Format::v_dim),
                index_key);
          });
        } else {
          rows().read(pages, h, tokens_ + t, row);
          summaries_.for_each(summaries_.of(h), [&](auto& state) {
            attention::append_to(state, std::span<const stored_element>(row.k),
                                 std::span<const stored_element>(row.v), index_key);
          });
        }
      }
    }
  }

  // Reports the stored values of a tile's live tokens in a run to the summaries, when it was sealed
  // or opened again. Its sealed pages and its open ones hold them at this time.
  void restate(layout::page_source pages, const stream_cache<Format>& s, index_run run,
               bool was_open) {
    const bool keys = &s == &k_stream();
    const bool values = &s == &v_stream();
    token_row<Format> before;
    token_row<Format> after;
    for (std::uint32_t h = 0; h < kv_heads_ && (values || keys); ++h) {
      for (std::uint32_t token = std::max(run.first, first_); token < run.last; ++token) {
        rows().read_parts(pages, s, h, token, was_open, before);
        rows().read_parts(pages, s, h, token, !was_open, after);
        summaries_.for_each(summaries_.of(h), [&](auto& state) {
          if (values) {
            attention::restate_v<stored_element>(state, before.v, after.v);
          }
          if (keys) {
            attention::restate_k<stored_element>(state, before.k, after.k);
          }
        });
      }
    }
  }

  layout::tiling tiles_;
  std::uint32_t page_bytes_;
  std::uint32_t kv_heads_;
  std::uint64_t base_;
  std::uint32_t first_;
  std::uint32_t tokens_;
  std::array<stream_cache<Format>, stream_count> streams_;  // in the order of `stream`
  layer_summaries<SummaryStates> summaries_;
};

}  // namespace instinfer::store
