#pragma once
// A call with biases, a mask, learned sinks or queries that are not causal, against fp64 by the
// definitions.

#include <functional>
#include <random>
#include <vector>

#include "instinfer/layout/dim_indexed.hpp"
#include "suite.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test {

using called_format = kv_format<fp16, 64>;
using cpu_dense = cpu::engine<insta, called_format>;
using cpu_by_dims = cpu::engine<
    design<attention::dense, layout::dim_indexed<>, flash::instcsd, transfer::in_storage>,
    called_format>;
using cpu_sparf = cpu::engine<insta_sparf, called_format>;
using reference_dense = reference::engine<insta, called_format>;
inline constexpr double lowest = -std::numeric_limits<double>::infinity();

inline std::vector<float> random_values(unsigned seed, std::size_t n, float scale) {
  std::mt19937 random(seed);
  normal_distribution normal;
  std::vector<float> values(n);
  for (float& x : values) {
    x = scale * normal(random);
  }
  return values;
}

// What a call adds to scale, cap and window, as functions of the definition.
struct extras {
  std::function<double(int head, int query, int token)> bias{};  // of positions
  std::function<bool(int token)> shown{};
  std::vector<float> sinks{};  // [q_heads]
  bool causal = true;
};

struct call {
  int tokens = 0;
  int first = 0;  // the oldest live token
  int queries = 1;
  int kv_heads = 2;
  int group = 1;
};

// The logits of query i and head h over tokens [0, tokens), -inf where it sees nothing.
inline row_vector logits_of(const random_cache<called_format>& data, const call& c,
                            std::span<const float> q, int h, int i, const logit_rule& rule,
                            const extras& more) {
  const int at = more.causal ? c.tokens - c.queries + i : c.tokens - 1;
  row_vector query(64);
  for (int d = 0; d < 64; ++d) {
    query[d] =
        static_cast<double>(q[static_cast<std::size_t>((i * c.kv_heads * c.group + h) * 64 + d)]);
  }
  const matrix K = data.K(h / c.group, 0, c.tokens);
  row_vector logits = row_vector::Constant(c.tokens, lowest);
  for (const int t : defined_visible(c.first, at + 1, rule)) {
    if (!more.shown || more.shown(t)) {
      logits[t] =
          defined_logit(query.dot(K.row(t)), 64, rule) + (more.bias ? more.bias(h, at, t) : 0.0);
    }
  }
  return logits;
}

// Attends and compares every row with softmax over the visible tokens and the sink. Returns the
// traffic.
template <class Engine>
traffic check_call(const call& c, const logit_rule& rule, const extras& more,
                   std::span<const float> bias = {}, const index_set* visible = nullptr,
                   const parallel::in_parts<parallel::serial>& workers = {3, {}}) {
  CAPTURE(c.tokens);
  CAPTURE(c.queries);
  CAPTURE(c.group);
  const int q_heads = c.kv_heads * c.group;
  const random_cache<called_format> data(31, c.tokens, q_heads, c.kv_heads);
  const auto values = static_cast<std::size_t>(c.queries * q_heads) * 64;
  const std::vector<float> q = random_values(32, values, 1.0f);
  Engine engine({.layers = 2, .q_heads = q_heads, .kv_heads = c.kv_heads},
                {.bytes = 32 << 20, .context_tokens = 8192}, {}, rule);
  const sequence seq = engine.open();
  for (const int layer : {0, 1}) {
    engine.append(seq, layer, data.k, data.v);
  }
  engine.reclaim(seq, {.tokens_before = static_cast<std::uint32_t>(c.first)});
  std::vector<float> out(values, -1.0f);
  std::vector<float> lse(values / 64);
  const attend_request request{.seq = seq,
                               .q = q,
                               .out = out,
                               .log_sum_exp = lse,
                               .bias = bias,
                               .visible = visible,
                               .causal = more.causal};
  typename Engine::scratch work;
  const traffic moved = engine.attend(std::span(&request, 1), 1, work, workers).traffic;
  for (int i = 0; i < c.queries; ++i) {
    for (int h = 0; h < q_heads; ++h) {
      const row_vector logits = logits_of(data, c, q, h, i, rule, more);
      row_vector with_sink(c.tokens + 1);
      with_sink << logits, more.sinks.empty()
                               ? lowest
                               : static_cast<double>(more.sinks[static_cast<std::size_t>(h)]);
      const row_vector expected =
          defined_softmax(with_sink).head(c.tokens) * data.V(h / c.group, 0, c.tokens);
      const auto row = static_cast<std::size_t>(i * q_heads + h);
      CHECK(relative_error(std::span(out).subspan(row * 64, 64), expected) <=
            2 * tolerance<typename Engine::path>(c.tokens));
      const double all = defined_log_sum_exp(with_sink);
      CHECK((static_cast<double>(lse[row]) == all ||
             std::abs(static_cast<double>(lse[row]) - all) <= 5e-6 * (10 + std::abs(all))));
    }
  }
  return moved;
}

// A bias for each query, head and live token, and the same as a function.
struct token_bias {
  std::vector<float> values;
  extras more;

  explicit token_bias(const call& c, bool causal = true)
      : values{random_values(
            33, static_cast<std::size_t>(c.queries * c.kv_heads * c.group * (c.tokens - c.first)),
            2.0f)} {
    more.causal = causal;
    // Causal queries are told apart by their positions; others must all have the same bias here.
    const int live = c.tokens - c.first;
    const int heads = c.kv_heads * c.group;
    for (std::size_t i = static_cast<std::size_t>(heads * live); !causal && i < values.size();
         ++i) {
      values[i] = values[i - static_cast<std::size_t>(heads * live)];
    }
    more.bias = [this, c, live, heads, causal](int h, int at, int t) {
      const int query = causal ? at - (c.tokens - c.queries) : 0;
      return static_cast<double>(
          values[static_cast<std::size_t>((query * heads + h) * live + t - c.first)]);
    };
  }
  token_bias(const token_bias&) = delete;
};

}  // namespace instinfer::test
