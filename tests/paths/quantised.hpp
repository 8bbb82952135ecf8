#pragma once
// What attention over quantised pages is held to: exact arithmetic on the values that are stored, read one by one.

#include <doctest/doctest.h>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/cpu.hpp"
#include "instinfer/reference.hpp"
#include "suite.hpp"

namespace instinfer::test {

// Live tokens of a stream as stored, [tokens - first, head_dim]: sealed ones decoded, those in the group buffer as appended.
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

// One attend against fp64 on the stored values. Sparse policies are held to their own selection, which must be as good as
// any. Returns the largest distance of a head's output from attention over `data` as it was appended, relative.
template <class Engine, class Format>
double check_on_stored_values(Engine& engine, sequence seq, const random_cache<Format>& data,
                              int first) {
  std::vector<float> out(static_cast<std::size_t>(data.q_heads * Format::v_dim), -1.0f);
  typename Engine::scratch scratch;
  recorder seen(data.kv_heads);
  engine.attend(seq, 0, data.q, out, scratch, parallel::serial{}, seen);
  const int last = static_cast<int>(engine.positions(seq, 0));
  const double bound = tolerance<typename Engine::path>(last - first);
  double worst_loss = 0;
  for (int g = 0; g < data.kv_heads; ++g) {
    const auto rows = [&](stream s) {
      return stored_rows(engine, seq, 0, static_cast<std::uint32_t>(g), s);
    };
    const matrix V = rows(stream::v_by_token);
    const matrix K =
        rows(stores(engine, stream::k_by_token) ? stream::k_by_token : stream::k_by_dim);
    for (int h = g * data.group(); h < (g + 1) * data.group(); ++h) {
      const row_vector q = data.Q(h);
      row_vector expected;
      if constexpr (is_dense<typename Engine::policy>) {
        expected = reference::exact_attention(q, K, V);
      } else {
        const head_record& head = seen.heads[static_cast<std::size_t>(g)];
        const auto& dims = head.chosen[static_cast<int>(attention::operation::top_dims)].at(0);
        const auto& tokens = head.chosen[static_cast<int>(attention::operation::top_tokens)].at(0);
        const matrix K_scored =
            rows(stores(engine, stream::k_by_dim) ? stream::k_by_dim : stream::k_by_token);
        const auto scores = [&](const row_vector& query) {
          row_vector products = row_vector::Zero(K.rows());
          double norm = 0;
          for (const int i : dims) {
            products += query[i] * K_scored.col(i).transpose();
            norm += std::abs(query[i]);
          }
          return reference::softmax(products /
                                    std::sqrt(Format::k_dim * norm / query.cwiseAbs().sum()));
        };
        row_vector rank = row_vector::Zero(K.rows());
        for (int other = g * data.group(); other < (g + 1) * data.group(); ++other) {
          rank += scores(data.Q(other));
        }
        double kept = 0;
        double worst_chosen = 1e300;
        matrix K_chosen(static_cast<Eigen::Index>(tokens.size()), K.cols());
        matrix V_chosen(static_cast<Eigen::Index>(tokens.size()), V.cols());
        for (std::size_t i = 0; i < tokens.size(); ++i) {
          const Eigen::Index at = tokens[i] - first;
          kept += scores(q)[at];
          worst_chosen = std::min(worst_chosen, rank[at]);
          rank[at] = 0;
          K_chosen.row(static_cast<Eigen::Index>(i)) = K.row(at);
          V_chosen.row(static_cast<Eigen::Index>(i)) = V.row(at);
        }
        CHECK(rank.maxCoeff() <= worst_chosen * (1 + 1e-4));
        expected = kept * reference::exact_attention(q, K_chosen, V_chosen) +
                   (1 - kept) * V.colwise().mean();
      }
      const auto mine =
          std::span(out).subspan(static_cast<std::size_t>(h * Format::v_dim), Format::v_dim);
      CHECK(relative_error(mine, expected) <= bound);
      const row_vector exact =
          reference::exact_attention(q, data.K(g, first, last), data.V(g, first, last));
      worst_loss = std::max(worst_loss, relative_error(mine, exact));
    }
  }
  return worst_loss;
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

// Pages that the path reads = pages that the plan names = pages that the receipt counts; entries weigh what is stored.
template <class D, class Format, class Path>
traffic check_coded_traffic(int tokens) {
  CAPTURE(tokens);
  const random_cache<Format> data(11, tokens, 6, 2);
  engine<D, Format, Path, watched_store> engine({.layers = 1, .q_heads = 6, .kv_heads = 2},
                                                small_capacity);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  std::vector<float> out(6 * Format::v_dim);
  typename decltype(engine)::scratch scratch;
  recorder seen(2);
  const auto& store = engine.cache().pages();
  store.reads.clear();
  const receipt done = engine.attend(seq, 0, data.q, out, scratch, parallel::serial{}, seen);
  // A path may look at a page more than once, for its scale.
  const auto planned = seen.pages();
  CHECK(store.reads.size() == planned.size());
  for (const auto& [page, times] : planned) {
    CHECK(store.reads[page] >= times);
  }
  std::uint64_t pages = 0;
  std::uint64_t wanted = 0;
  std::uint64_t buffered = 0;
  for (const head_record& head : seen.heads) {
    for (const access_plan& plan : head.plans) {
      std::uint64_t elements = 0;
      for (const page_read& read : plan.reads()) {
        (read.buffered ? buffered : elements) += read.wanted_elements();
        pages += read.buffered ? 0 : 1;
      }
      using packed = typename Format::packed;
      const std::uint64_t group = packed_elements<packed>;
      wanted += (elements * sizeof(packed) + group - 1) / group;
    }
  }
  CHECK(done.traffic.pages_read == pages);
  CHECK(done.traffic.array_bytes == pages * 4096);
  CHECK(done.traffic.buffer_bytes == buffered * sizeof(typename Format::element));
  CHECK(done.traffic.filtered_bytes == wanted + pages * Format::codec::scale_bytes);
  return done.traffic;
}

}  // namespace instinfer::test
