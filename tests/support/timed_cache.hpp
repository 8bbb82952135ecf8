#pragma once
// What the tests of flash::engine share: an engine without data that holds one sequence, and sums
// over its receipts.

#include <string>
#include <vector>

#include <doctest/doctest.h>
#include "instinfer/flash/engine.hpp"
#include "instinfer/ssd/report/chrome_trace.hpp"
#include "tests/paths/watched.hpp"
#include "tests/support/shared_timelines.hpp"
#include "tests/support/trace_bars.hpp"

namespace instinfer::test {

inline std::uint64_t charged_pages(const flash::receipt& done) {
  std::uint64_t pages = 0;
  for (const flash::phase_ns& phase : done.phases) {
    pages += phase.pages;
  }
  return pages;
}

inline double flash_ns(const flash::receipt& done) {
  double sum = 0;
  for (const flash::phase_ns& phase : done.phases) {
    sum += phase.flash;
  }
  return sum;
}

inline void check_same(const flash::receipt& a, const flash::receipt& b) {
  CHECK(a.traffic == b.traffic);
  CHECK(a.link_ns == b.link_ns);
  CHECK(a.flash_write_ns == b.flash_write_ns);
  REQUIRE(a.phases.size() == b.phases.size());
  for (std::size_t i = 0; i < a.phases.size(); ++i) {
    CHECK(a.phases[i].op == b.phases[i].op);
    CHECK(a.phases[i].pages == b.phases[i].pages);
    CHECK(a.phases[i].total() == b.phases[i].total());
  }
}

// The attend of an engine's own path, watched.
template <class Inner>
recorder watch(const Inner& inner, sequence seq, int layer, std::span<const float> q) {
  recorder seen(inner.cache().shape().kv_heads);
  typename Inner::scratch work;
  std::vector<float> out(q.size());
  inner.attend(seq, layer, q, out, work, parallel::serial{}, seen);
  return seen;
}

inline std::vector<trace_bar> bars_of(const flash::chrome_trace& trace) {
  return read_bars(trace.json());
}

// A drawn engine that holds `tokens` in one sequence of one layer.
template <class D, class Format = kv_format<fp16, 64>>
struct timed_cache {
  using engine_type = flash::engine<D, Format>;
  engine_type engine;
  std::vector<float> q;
  std::vector<float> out;

  explicit timed_cache(const flash::drive_spec& drive = D::drive,
                       const model_shape& heads = {1, 6, 2})
      : engine(heads, {.bytes = 256 << 20, .context_tokens = 2048}, {}, {}, drive),
        q(static_cast<std::size_t>(heads.q_heads * Format::k_dim), 1.0f),
        out(static_cast<std::size_t>(heads.q_heads * Format::v_dim), -1.0f) {}

  sequence filled(std::uint64_t tokens) {
    const sequence seq = engine.open();
    engine.append_count(seq, 0, tokens);
    return seq;
  }
  flash::receipt attend(sequence seq) { return engine.attend(seq, 0, q, out); }
  flash::receipt attend_all(std::span<const sequence> all) {
    std::vector<typename engine_type::request> batch;
    for (const sequence seq : all) {
      batch.push_back({seq, q, out});
    }
    return engine.attend_batch(0, batch);
  }
};

template <class D>
flash::receipt one_attend(std::uint64_t tokens, const flash::drive_spec& drive = D::drive) {
  timed_cache<D> cache(drive);
  return cache.attend(cache.filled(tokens));
}

}  // namespace instinfer::test
