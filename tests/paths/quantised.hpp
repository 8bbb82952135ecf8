#pragma once
// What attention over quantised pages is held to: exact arithmetic on the values that are stored,
// read one by one.

#include <doctest/doctest.h>

#include "instinfer/codec/dim_scales.hpp"
#include "suite.hpp"

namespace instinfer::test {

// Live tokens of a stream as stored, [tokens - first, head_dim]: sealed ones decoded, those in the
// group buffer as appended.
template <class Engine>
matrix stored_rows(const Engine& engine, sequence seq, int layer, std::uint32_t h, stream s) {
  const layout::head_pages head = engine.cache().at(seq, layer).head(h);
  const typename Engine::cache_type::page_views pages{engine.cache(), head};
  const layout::tile& tile = head.tiles.of(s);
  const layout::stream_pages& from = head.of(s);
  matrix rows(head.tokens - head.first, from.dim_tiles * tile.dims);
  for (std::uint32_t t = head.first; t < head.tokens; ++t) {
    const std::uint32_t token_tile = t / tile.tokens;
    for (std::uint32_t dim_tile = 0; dim_tile < from.dim_tiles; ++dim_tile) {
      const bool open = t >= from.sealed_tokens;
      const auto page = pages({.kind = s,
                               .token_tile = token_tile,
                               .dim_tile = dim_tile,
                               .page = open ? no_page : from.page(token_tile, dim_tile),
                               .buffered = open,
                               .tokens = {},
                               .dims = {}});
      for (std::uint32_t i = 0; i < tile.dims; ++i) {
        rows(t - head.first, dim_tile * tile.dims + i) =
            static_cast<double>(page(t % tile.tokens, i));
      }
    }
  }
  return rows;
}

template <class Engine>
bool stores(const Engine& engine, stream s) {
  return engine.cache().tiles().of(s).stored();
}

// One attend against fp64 on the stored values. Sparse policies are held to their own selection,
// which must be as good as any.
template <class Engine, class Format>
void check_on_stored_values(Engine& engine, sequence seq, const random_cache<Format>& data,
                            int first) {
  attended mine{std::vector<float>(static_cast<std::size_t>(data.q_heads * Format::v_dim), -1.0f),
                recorder(data.kv_heads),
                {}};
  typename Engine::scratch scratch;
  engine.attend(seq, 0, data.q, mine.out, scratch, parallel::serial{}, mine.seen);
  const int last = static_cast<int>(engine.positions(seq, 0));
  const double bound = tolerance<typename Engine::path>(last - first);
  const auto rows = [&](stream s) {
    std::vector<matrix> of_heads;
    for (int g = 0; g < data.kv_heads; ++g) {
      of_heads.push_back(stored_rows(engine, seq, 0, static_cast<std::uint32_t>(g), s));
    }
    return of_heads;
  };
  const bool by_token = stores(engine, stream::k_by_token);
  const bool by_dim = stores(engine, stream::k_by_dim);
  const exact_cache stored{last - first, data.exact(first, last).Q,
                           rows(by_token ? stream::k_by_token : stream::k_by_dim),
                           rows(stream::v_by_token)};
  if constexpr (is_dense<typename Engine::policy>) {
    check_dense(stored, mine.out, {}, bound);
  } else {
    check_sparse_as_stored(stored, rows(by_dim ? stream::k_by_dim : stream::k_by_token), mine,
                           first, bound);
  }
}

// Prompts and single tokens, reclaim in the middle of tiles, attends between.
template <class Engine, class Format>
void check_life(unsigned seed, int group, const typename Engine::policy& policy = {}) {
  CAPTURE(seed);
  CAPTURE(group);
  const random_cache<Format> data(seed, 900, 2 * group, 2);
  Engine engine({.layers = 1, .q_heads = data.q_heads, .kv_heads = 2}, small_capacity, policy);
  const sequence seq = engine.open();
  int first = 0;
  int last = 0;
  const auto append = [&](int count) {
    engine.append(seq, 0, data.k_tokens(last, last + count), data.v_tokens(last, last + count));
    last += count;
    CAPTURE(last);
    check_on_stored_values<Engine, Format>(engine, seq, data, first);
  };
  const auto reclaim = [&](int before) {
    engine.reclaim(seq, {.tokens_before = static_cast<std::uint32_t>(before)});
    first = before;
    CAPTURE(first);
    check_on_stored_values<Engine, Format>(engine, seq, data, first);
  };
  append(1);
  append(20);
  append(11);  // int8 pages of 31 tokens at head size 128: one sealed, one token open
  reclaim(20);
  append(300);  // ends the open tile, whole tiles, and opens one
  reclaim(130);
  for (int i = 0; i < 5; ++i) {
    append(1);
  }
  append(last % 2 == 0 ? 561 : 560);
  reclaim(last - 3);
}

// Pages that the path reads = pages that the plan names = pages that the receipt counts; entries
// weigh what is stored.
template <class D, class Format, class Path>
traffic check_coded_traffic(int tokens) {
  CAPTURE(tokens);
  const random_cache<Format> data(11, tokens, 6, 2);
  engine<D, Format, Path, watched_store> engine({.layers = 1, .q_heads = 6, .kv_heads = 2},
                                                small_capacity);
  const attended mine = attend_recorded(engine, data);
  using packed = typename Format::packed;
  check_coded_pages(engine.cache().pages().reads, mine,
                    {sizeof(packed), packed_elements<packed>, Format::codec::scale_bytes,
                     sizeof(typename Format::element)});
  return mine.traffic;
}

}  // namespace instinfer::test
