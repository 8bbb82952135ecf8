#pragma once
// The suite that every design runs through on the reference and the CPU path: against fp64 on the
// stored values, at all group sizes and the lengths around a page, and plan against access.

#include <doctest/doctest.h>

#include <string>

#include "random_cache.hpp"
#include "support/shared_attends.hpp"

namespace instinfer::test {

// fp32 accumulation over n products in any order: relative error of a well-scaled sum grows as
// sqrt(n) eps in practice, n eps at worst. Logits here reach |10|, and exp turns their absolute
// error into a relative one, hence 10 logits * 4.
template <class Path>
double tolerance(int tokens) {
  const double eps = 0x1p-24;
  return std::is_same_v<Path, reference::path> ? 2 * eps : 40 * eps * std::sqrt(64.0 + tokens);
}

template <class P>
constexpr bool is_dense = std::is_same_v<P, attention::dense>;

// A policy, and what it keeps by its paper: r = d/8 and k = S/16 for 1/8 of the traffic, and
// SparQ's local window of k/4.
template <class P>
struct setting {
  static constexpr bool by_logits = std::is_same_v<P, attention::sparq>;
  P policy = {};
  sparse_rule kept = {1.0 / 8, 1.0 / 16, by_logits ? 0.25 : 0.0, by_logits};
};
template <class P>
setting<P> keeping(double dims, double tokens) {
  setting<P> s{{.keep_dims = dims, .keep_tokens = tokens}};
  s.kept.dims = dims;
  s.kept.tokens = tokens;
  return s;
}
// 1/c of dense attention's 2 S d: r = d/c dims of S keys, and k = S/2c rows of K and V.
template <class P>
setting<P> compressed(double c) {
  setting<P> s{P::at_compression(c)};
  s.kept.dims = 1 / c;
  s.kept.tokens = 1 / (2 * c);
  return s;
}

// The output of an engine that holds one sequence, the cache.
template <class Engine>
std::vector<float> attend_once(const random_cache<typename Engine::format>& data,
                               const typename Engine::policy& policy = {},
                               const logit_rule& rule = {}) {
  Engine engine({.layers = 1, .q_heads = data.q_heads, .kv_heads = data.kv_heads}, small_capacity,
                policy, rule);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  std::vector<float> out(static_cast<std::size_t>(data.q_heads * Engine::format::v_dim));
  engine.attend(seq, 0, data.q, out);
  return out;
}

// The same, and what its machines did.
template <class Engine>
attended attend_recorded(Engine& engine, const random_cache<typename Engine::format>& data) {
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  if constexpr (requires { engine.cache().pages().reads; }) {
    engine.cache().pages().reads.clear();
  }
  attended mine{
      std::vector<float>(static_cast<std::size_t>(data.q_heads * Engine::format::v_dim), -1.0f),
      recorder(data.kv_heads),
      {}};
  typename Engine::scratch scratch;
  mine.traffic =
      engine.attend(seq, 0, data.q, mine.out, scratch, parallel::serial{}, mine.seen).traffic;
  return mine;
}

// One attend of a cache, compared with the fp64 transcription.
template <class Engine, class Format>
void check_cache(const random_cache<Format>& data, const setting<typename Engine::policy>& set = {},
                 const logit_rule& rule = {}, bool all_tied = false) {
  Engine engine({.layers = 1, .q_heads = data.q_heads, .kv_heads = data.kv_heads}, small_capacity,
                set.policy, rule);
  const attended mine = attend_recorded(engine, data);
  const double bound = tolerance<typename Engine::path>(data.tokens);
  if constexpr (is_dense<typename Engine::policy>) {
    check_dense(data.exact(), mine.out, rule, bound);
  } else {
    check_sparse(data.exact(), mine, set.kept, rule, all_tied, bound);
  }
}

// The same of a random cache.
template <class Engine, class Format>
void check_against_transcription(unsigned seed, int tokens, int kv_heads, int group,
                                 const setting<typename Engine::policy>& set = {},
                                 const logit_rule& rule = {}) {
  CAPTURE(seed);
  CAPTURE(tokens);
  CAPTURE(group);
  check_cache<Engine, Format>(random_cache<Format>(seed, tokens, kv_heads * group, kv_heads), set,
                              rule);
}

// Every tail of a block of rows, of a vector and of a page, in turn for groups of 1 to 9 heads:
// plain, and under a mask or cap.
template <class Engine, class Format>
void check_every_length(unsigned seed, const setting<typename Engine::policy>& set = {}) {
  const logit_rule rules[] = {{.window = 7, .sinks = 2}, {.soft_cap = 3.0f}, {.window = 33}};
  const int page = static_cast<int>(layout::group_tokens<Format>(4096));
  const auto check = [&](int tokens) {
    check_against_transcription<Engine, Format>(seed, tokens, 1, 1 + tokens % 9, set);
    check_against_transcription<Engine, Format>(seed + 1, tokens, 1, 1 + (tokens / 2 + 4) % 9, set,
                                                rules[tokens % 3]);
  };
  for (int tokens = 1; tokens <= 70; ++tokens) {
    check(tokens);
  }
  for (int pages = 1; pages <= 3; ++pages) {
    for (const int beyond : {-17, -1, 0, 1, 15}) {
      check(std::max(1, pages * page + beyond));
    }
  }
}

// Small integers in K, multiples of 256 in q: all dot products are exact in fp32 and many of them
// tied, and the logits, up to thousands, differ by 32 at least where they differ at all.
template <class Format>
void make_extreme(random_cache<Format>& data, const std::string& what) {
  using element = typename Format::element;
  std::mt19937 random(91);
  for (element& x : data.k) {
    x = from_float<element>(static_cast<float>(random() % 5) - 2.0f);
  }
  for (float& x : data.q) {
    x = 256.0f * (static_cast<float>(random() % 5) - 2.0f);
  }
  const auto row = [&](int t) {
    return std::span(data.k).subspan(static_cast<std::size_t>(t * data.kv_heads * Format::k_dim),
                                     static_cast<std::size_t>(data.kv_heads * Format::k_dim));
  };
  if (what == "equal keys" || what == "one-hot") {
    for (int t = 1; t < data.tokens; ++t) {
      std::ranges::copy(row(0), row(t).begin());
    }
  }
  if (what == "one-hot") {  // for all heads: their queries are alike but for their length
    const std::size_t hot = static_cast<std::size_t>(data.tokens) * 2 / 3;
    for (std::size_t i = 0; i < data.q.size(); ++i) {
      const bool negative = i % Format::k_dim % 3 == 0;
      data.q[i] = (negative ? -256.0f : 256.0f) * static_cast<float>(1 + i / Format::k_dim % 2);
    }
    for (std::size_t i = 0; i < row(0).size(); ++i) {
      row(static_cast<int>(hot))[i] =
          from_float<element>(i % Format::k_dim % 3 == 0 ? -100.0f : 100.0f);
    }
  }
  if (what == "zero queries") {
    std::ranges::fill(data.q, 0.0f);
  }
  if (what == "denormals") {  // of fp16, in K and V; K's least one of the other types
    const float least = std::is_same_v<element, fp16> ? 0x1p-24f : 0x1p-133f;
    for (std::size_t i = 0; i < data.k.size(); ++i) {
      data.k[i] = from_float<element>(least * static_cast<float>(i % 5));
    }
    for (std::size_t i = 0; i < data.v.size(); ++i) {
      data.v[i] = from_float<element>(0x1p-24f * static_cast<float>(i % 7));
    }
  }
}

template <class Engine, class Format>
void check_extreme_values() {
  for (const std::string what :
       {"large logits", "equal keys", "one-hot", "zero queries", "denormals"}) {
    CAPTURE(what);
    for (const int tokens : {1, 17, 64, 333}) {
      CAPTURE(tokens);
      for (const int group : {1, 5}) {
        CAPTURE(group);
        random_cache<Format> data(13, tokens, 2 * group, 2);
        make_extreme(data, what);
        const bool tied = what == "equal keys" || what == "zero queries";
        check_cache<Engine, Format>(data, {}, {}, tied);
        check_cache<Engine, Format>(data, {}, {.soft_cap = 4.0f}, tied);
      }
    }
  }
}

// Dot products beyond fp32's range, of both signs and with sums of both infinities: outputs stay
// means of values.
template <class Engine, class Format>
void check_overflow() {
  using element = typename Format::element;
  const bool wide = !std::is_same_v<element, fp16>;
  for (const float cap : {0.0f, 5.0f}) {
    for (const int tokens : {1, 40, 333}) {
      CAPTURE(cap);
      CAPTURE(tokens);
      random_cache<Format> data(14, tokens, 5, 1);
      std::mt19937 random(92);
      for (element& x : data.k) {
        x = from_float<element>((random() % 2 == 0 ? 1.0f : -1.0f) * (wide ? 3e38f : 65504.0f));
      }
      for (float& x : data.q) {
        x = (random() % 2 == 0 ? 1.0f : -1.0f) * (wide ? 1e3f : 1e35f);
      }
      check_means_of_values(data.exact(), attend_once<Engine>(data, {}, {.soft_cap = cap}),
                            tolerance<typename Engine::path>(tokens));
    }
  }
}

// V near the largest number: the sum of a few values is beyond it, their mean is not.
template <class Engine, class Format>
void check_large_values(const setting<typename Engine::policy>& set = {}) {
  for (const int tokens : {1, 4, 333, 1024}) {
    random_cache<Format> data(15, tokens, 6, 2);
    data.multiply_v(near_largest);
    check_cache<Engine, Format>(data, set);
    std::ranges::fill(data.q, 0.0f);  // equal weights
    check_cache<Engine, Format>(data, set, {}, true);
  }
}

// Full selection is exact attention, empty selection the mean of V.
template <class Engine, class Format>
void check_ends(int tokens, const typename Engine::policy& all,
                const typename Engine::policy& none) {
  const random_cache<Format> data(12, tokens, 3, 1);
  for (const bool keep_all : {true, false}) {
    check_end(data.exact(), attend_once<Engine>(data, keep_all ? all : none), keep_all,
              tolerance<typename Engine::path>(tokens));
  }
}

// Pages that the path reads = pages that the plan names = pages that the receipt counts.
template <class D, class Format, class Path>
void check_plan_is_access(int tokens) {
  CAPTURE(tokens);
  const random_cache<Format> data(11, tokens, 6, 2);
  engine<D, Format, Path, watched_store> engine({.layers = 1, .q_heads = 6, .kv_heads = 2},
                                                small_capacity);
  const attended mine = attend_recorded(engine, data);
  check_pages(engine.cache().pages().reads, mine, sizeof(typename Format::element),
              D::transfer_policy::computes_in_drive);
  // Pages at any address give the same bits.
  CHECK((mine.out == attend_once<instinfer::engine<D, Format, Path>>(data)));
}

template <class D, class Format>
void run_suite() {
  using on_reference = reference::engine<D, Format>;
  using on_cpu = cpu::engine<D, Format>;
  using policy = typename D::attention_policy;
  const int page = static_cast<int>(layout::group_tokens<Format>(4096));
  SUBCASE("group sizes and lengths") {
    for (const int group : {1, 3, 4, 8}) {
      for (const int tokens : {0, 1, page - 1, page, page + 1, 700}) {
        check_against_transcription<on_reference, Format>(1, tokens, 2, group);
        check_against_transcription<on_cpu, Format>(2, tokens, 2, group);
      }
    }
  }
  SUBCASE("every length") {
    check_every_length<on_cpu, Format>(14);
    if constexpr (!is_dense<policy>) {
      // Most tokens kept, so that the kept ones end in every tail, too.
      check_every_length<on_cpu, Format>(16, keeping<policy>(0.5, 0.75));
    }
  }
  SUBCASE("extreme values") {
    check_extreme_values<on_reference, Format>();
    check_extreme_values<on_cpu, Format>();
    check_overflow<on_cpu, Format>();
    if constexpr (!std::is_same_v<typename Format::element, fp16>) {
      check_large_values<on_reference, Format>();
      check_large_values<on_cpu, Format>();
    }
  }
  SUBCASE("soft cap, scale, window and sinks") {
    for (const logit_rule rule :
         {logit_rule{.soft_cap = 5.0f}, logit_rule{.scale = 0.05f}, logit_rule{.window = 100},
          logit_rule{.window = 100, .sinks = 4}, logit_rule{.window = 1},
          logit_rule{.window = 10'000}, logit_rule{.soft_cap = 2.0f, .window = 65, .sinks = 400}}) {
      check_against_transcription<on_reference, Format>(3, 300, 1, 3, {}, rule);
      check_against_transcription<on_cpu, Format>(4, 300, 1, 3, {}, rule);
    }
  }
  if constexpr (!is_dense<policy>) {
    SUBCASE("all kept is dense, none kept is the mean value") {
      const setting<policy> all = keeping<policy>(1.0, 1.0);
      const setting<policy> none = keeping<policy>(0.0, 0.0);
      for (const int tokens : {1, page, 333}) {
        check_against_transcription<on_reference, Format>(5, tokens, 1, 4, all);
        check_against_transcription<on_cpu, Format>(6, tokens, 1, 4, all);
        check_against_transcription<on_reference, Format>(7, tokens, 1, 4, none);
        check_against_transcription<on_cpu, Format>(8, tokens, 1, 4, none);
        check_ends<on_reference, Format>(tokens, all.policy, none.policy);
        check_ends<on_cpu, Format>(tokens, all.policy, none.policy);
      }
    }
    SUBCASE("compressions") {
      for (const double c : {2.0, 4.0, 8.0, 16.0}) {
        check_against_transcription<on_reference, Format>(9, 600, 1, 3, compressed<policy>(c));
        check_against_transcription<on_cpu, Format>(10, 600, 1, 3, compressed<policy>(c));
      }
    }
  }
  SUBCASE("plan = access") {
    for (const int tokens : {0, 1, page, page + 1, 700}) {
      check_plan_is_access<D, Format, reference::path>(tokens);
      check_plan_is_access<D, Format, cpu::path>(tokens);
    }
  }
}

}  // namespace instinfer::test
