#pragma once
// Products of q and K by dim on a GPU. A warp multiplies the chosen columns of K with all heads of
// the group, some tokens at a time.
//
// Elements go from registers to tensor cores. K lies by dim: a column's tokens are neighbours. A
// register of operand A, however, has two dims of one token. So lane l loads eight tokens, from 8
// (l / 4) on, of columns 2c, 2c + 1, 2c + 8 and 2c + 9, with c = l % 4: 16 bytes of each. Tokens j
// and j + 4 of all lanes make one mma.m16n8k16. A lane's accumulators are then its eight tokens, of
// heads 2c and 2c + 1. For 16 dims and 8 heads, 64 tokens take 4 loads, 16 byte permutations and 4
// mma.
// Codes have one scale a page. fp16 could not hold it together with q without rounding, so they use
// fp32 arithmetic, 8 tokens a lane.

#include "instinfer/cuda/kernels/dim_choice.hpp"
#include "instinfer/cuda/kernels/page_codes.hpp"
#include "instinfer/cuda/kernels/unrolled.hpp"

namespace instinfer::cuda {

template <class Lane, class E, std::uint32_t Dim, class Code>
class column_scores {
 public:
  using choice = dim_choice<Lane, E, Dim, Code>;
  using arguments = sparse_arguments<E, Code>;
  static constexpr std::uint32_t code_heads = 4;  // at a time, of codes

  constexpr column_scores(Lane& lane, const arguments& a, const choice& chosen,
                          std::uint32_t sequence, std::uint32_t head)
      : lane_{lane},
        a_{a},
        chosen_{chosen},
        last_{a.tokens[sequence]},
        entries_{a.k.table + sequence * a.k.table_sequence_stride +
                 std::int64_t{head} * a.k.dim_tiles} {}

  // Scores tokens [first, last). This warp takes every `warps`-th 256 of them, from the `warp`-th
  // on.
  //   sink.open(g, token)                  begins 256 tokens of head g; returns `scored`
  //   sink.take(scored, token, from, x)    takes the products x [8] of a lane's eight tokens, which
  //                                        begin `from` tokens after `token`
  //   sink.close(spread, g, token, scored) ends the 256 tokens; they are spread over lanes whose
  //                                        numbers differ in bits of `spread`
  // All lanes call them. g may be beyond the group, tokens beyond `last`.
  template <class Sink>
  constexpr void score(std::uint32_t first, std::uint32_t last, std::uint32_t warp,
                       std::uint32_t warps, Sink& sink) {
    const std::uint32_t begin = first + warp * segment;
    const std::uint32_t stride = warps * segment;
    if constexpr (is_coded<Code>) {
      for (std::uint32_t t = begin; t < last; t += stride) {
        score_codes(t, sink);
      }
    } else {
      const bool whole_segments = a_.keep_dims <= 16 && a_.k.token_stride == 1 &&
                                  first % segment == 0 && a_.k.tile_tokens.value % segment == 0;
      for (std::uint32_t octet = 0; octet * 8 < a_.sizes.group; ++octet) {
        whole_segments ? score_segments(octet, begin, last, stride, sink)
                       : score_batches(octet, begin, last, stride, sink);
      }
    }
  }

  constexpr std::uint32_t status() const { return status_; }

 private:
  static constexpr std::uint32_t segment = score_segment;  // tokens
  static constexpr std::uint32_t batch = 64;               // of one mma for eight tokens a lane

  // Eight tokens of a column, from `values` on, if their page is known.
  struct column {
    const Code* values;
    bool known;
  };

  // The page that holds a token of chosen dim j. It is no_page after the last dim, unless `live`,
  // and where the table ends before the token, which the status reports. This only starts the load:
  // column_at() is the first to use the loaded value.
  static constexpr std::uint32_t no_page = 0xFFFF'FFFFu;
  constexpr std::uint32_t page_of(std::uint32_t token, bool live, std::uint32_t j) {
    const std::uint32_t tile = a_.k.tile_tokens(token);
    const bool in_table = tile < a_.k.table_tiles;
    status_ |= live && !in_table ? std::uint32_t{token_beyond_table} : 0;
    return live && in_table && j < a_.keep_dims
               ? entries_[std::int64_t{tile} * a_.k.table_tile_stride + chosen_.places()[j].tile]
               : no_page;
  }
  constexpr column column_at(std::uint32_t page, std::uint32_t token, std::uint32_t j) {
    const std::uint32_t in_tile = token - a_.k.tile_tokens(token) * a_.k.tile_tokens.value;
    const bool known = page < a_.k.page_count;
    status_ |= !known && page != no_page ? std::uint32_t{page_out_of_range} : 0;
    return {a_.k.pages +
                (known ? std::int64_t{page} * a_.k.page_elements + chosen_.places()[j].element +
                             std::int64_t{in_tile} * a_.k.token_stride
                       : 0),
            known};
  }

  struct pages {
    std::uint32_t of[4];
  };
  struct columns {
    std::uint32_t tokens[4][4];  // eight of a column
  };

  // For sixteen dims or fewer, and segments that lie in one tile. Pages are looked up once a
  // segment. Two batches are on their way while one is multiplied, 4 KB a warp.
  template <class Sink>
  constexpr void score_segments(std::uint32_t octet, std::uint32_t first, std::uint32_t last,
                                std::uint32_t stride, Sink& sink) {
    const std::uint32_t q[2] = {chosen_.fragment(octet, 0)[0], chosen_.fragment(octet, 0)[1]};
    source from = locate(first, 0, find_pages(first, 0, last));
    columns k[2];
    unrolled<2>([&](auto b) { k[b] = load<true>(from, first, b, last); });
    pages next = find_pages(first + stride, 0, last);
    for (std::uint32_t t = first; t < last; t += stride) {
      typename Sink::scored heads[2] = {sink.open(head_of(octet, 0), t),
                                        sink.open(head_of(octet, 1), t)};
      unrolled<segment / batch>([&](auto b) {
        if constexpr (b == 2) {
          from = locate(t + stride, 0, next);
          next = find_pages(t + 2 * stride, 0, last);
        }
        float s[4][4] = {};
        multiply(s, k[b % 2], q);
        k[b % 2] = load<true>(from, b < 2 ? t : t + stride, (b + 2) % 4, last);
        give(sink, heads, octet, t, b * batch, s);
      });
      close(sink, heads, octet, t);
    }
  }

  // For any number of dims, any tiles and strides: one batch after the other.
  template <class Sink>
  constexpr void score_batches(std::uint32_t octet, std::uint32_t first, std::uint32_t last,
                               std::uint32_t stride, Sink& sink) {
    for (std::uint32_t t = first; t < last; t += stride) {
      typename Sink::scored heads[2] = {sink.open(head_of(octet, 0), t),
                                        sink.open(head_of(octet, 1), t)};
      for (std::uint32_t b = t; b < t + segment && b < last; b += batch) {
        float s[4][4] = {};
        for (std::uint32_t step = 0; step * 16 < a_.keep_dims; ++step) {
          const columns k = load<false>(locate(b, step, find_pages(b, step, last)), b, 0, last);
          const std::uint32_t* q = chosen_.fragment(octet, step);
          multiply(s, k, {q[0], q[1]});
        }
        give(sink, heads, octet, t, b - t, s);
      }
      close(sink, heads, octet, t);
    }
  }

  // The heads of a lane's accumulators: 2c and 2c + 1 of an octet.
  constexpr std::uint32_t head_of(std::uint32_t octet, std::uint32_t h) const {
    return octet * 8 + lane_id() % 4 * 2 + h;
  }
  template <class Sink, class Scored>
  constexpr void give(Sink& sink, Scored (&heads)[2], std::uint32_t octet, std::uint32_t token,
                      std::uint32_t from, const float (&s)[4][4]) {
    unrolled<2>([&](auto h) {
      if (octet * 8 + h < a_.sizes.group) {
        float x[8];
        unrolled<8>([&](auto i) { x[i] = s[i % 4][h + i / 4 * 2]; });
        sink.take(heads[h], token, from + lane_id() / 4 * 8, x);
      }
    });
  }
  template <class Sink, class Scored>
  constexpr void close(Sink& sink, const Scored (&heads)[2], std::uint32_t octet,
                       std::uint32_t token) {
    unrolled<2>([&](auto h) {
      if (octet * 8 + h < a_.sizes.group) {
        sink.close(28, head_of(octet, h), token, heads[h]);
      }
    });
  }

  static constexpr std::uint32_t column_of(std::uint32_t step, std::uint32_t lane,
                                           std::uint32_t n) {
    return step * 16 + lane % 4 * 2 + n % 2 + n / 2 * 8;
  }
  // Where this lane's first token of a batch lies, for each of its columns.
  struct source {
    column of[4];
  };

  constexpr pages find_pages(std::uint32_t batch_token, std::uint32_t step, std::uint32_t last) {
    const std::uint32_t token = batch_token + lane_id() / 4 * 8;
    pages found;
    unrolled<4>([&](auto n) {
      found.of[n] = page_of(token, token < last && token < last_, column_of(step, lane_id(), n));
    });
    return found;
  }
  constexpr source locate(std::uint32_t batch_token, std::uint32_t step, const pages& from) {
    const std::uint32_t token = batch_token + lane_id() / 4 * 8;
    source s;
    unrolled<4>(
        [&](auto n) { s.of[n] = column_at(from.of[n], token, column_of(step, lane_id(), n)); });
    return s;
  }
  // Loads batch b of the segment that `from` locates.
  template <bool Neighbours>
  constexpr columns load(const source& from, std::uint32_t segment_token, std::uint32_t b,
                         std::uint32_t last) const {
    const std::uint32_t token = segment_token + b * batch + lane_id() / 4 * 8;
    columns c;
    unrolled<4>([&](auto n) {
      lane_.load_8(from.of[n].values + b * batch, Neighbours ? 1 : a_.k.token_stride,
                   from.of[n].known && token < last, c.tokens[n]);
    });
    return c;
  }
  constexpr void multiply(float (&s)[4][4], const columns& k, const std::uint32_t (&q)[2]) const {
    const auto pair = [&](std::uint32_t n, std::uint32_t j) {  // token j of columns n and n + 1
      const std::uint32_t x = k.tokens[n][j / 2];
      const std::uint32_t y = k.tokens[n + 1][j / 2];
      return j % 2 == 0 ? (x & 0xFFFFu) | y << 16 : x >> 16 | (y & 0xFFFF'0000u);
    };
    unrolled<4>([&](auto j) {
      const std::uint32_t tokens[4] = {pair(0, j), pair(0, j + 4), pair(2, j), pair(2, j + 4)};
      lane_.template multiply_add<E>(s[j], tokens, q[0], q[1]);
    });
  }

  // Scores eight tokens a lane, for each head, with `columns_at_once` columns on their way.
  template <class Sink>
  constexpr void score_codes(std::uint32_t first, Sink& sink) {
    constexpr std::uint32_t at_once = choice::columns_at_once;
    const std::uint32_t token = first + lane_id() * 8;
    for (std::uint32_t g = 0; g < a_.sizes.group; g += code_heads) {
      float sums[code_heads][8] = {};
      for (std::uint32_t j = 0; j < a_.keep_dims; j += at_once) {
        std::uint32_t packed[at_once][2];
        float scales[at_once];
        unrolled<at_once>([&](auto c) {
          const std::uint32_t page = page_of(token, token < last_, j + c);
          const column from = column_at(page, token, j + c);
          lane_.load_8(from.values, a_.k.token_stride, from.known, packed[c]);
          scales[c] = from.known ? a_.k.scales[std::int64_t{page} * a_.k.scale_page_stride] *
                                       page_code<Code>::factor
                                 : 0.0f;
        });
        unrolled<at_once>([&](auto c) {
          float x[8];
          unrolled<2>([&](auto i) {
            std::uint32_t even = 0;
            std::uint32_t odd = 0;
            page_code<Code>::widen(lane_, packed[c][i], even, odd);
            lane_.template widen<fp16>(even, x[4 * i], x[4 * i + 2]);
            lane_.template widen<fp16>(odd, x[4 * i + 1], x[4 * i + 3]);
          });
          unrolled<code_heads>([&](auto h) {
            const float weight = chosen_.weights()[(j + c) * largest_group + g + h] * scales[c];
            unrolled<8>([&](auto t) { sums[h][t] += weight * x[t]; });
          });
        });
      }
      unrolled<code_heads>([&](auto h) {
        auto scored = sink.open(g + h, first);
        sink.take(scored, first, lane_id() * 8, sums[h]);
        sink.close(31, g + h, first, scored);
      });
    }
  }

  constexpr std::uint32_t lane_id() const { return lane_.thread() % 32; }

  Lane& lane_;
  const arguments& a_;
  const choice& chosen_;
  std::uint32_t last_;
  const std::uint32_t* entries_;  // of the head's first tile
  std::uint32_t status_ = 0;
};

}  // namespace instinfer::cuda
