// A small transformer runs end to end on the CPU path; what its attention reads, link by link and
// page by page, is what the systems charge for it.

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "instinfer/system/flexgen.hpp"
#include "instinfer/system/insta.hpp"
#include "tests/support/shared_attends.hpp"

namespace instinfer::test_small_model {

namespace {

using format = kv_format<fp16, 64>;

constexpr system::model_spec small{.name = "small",
                                   .kind = system::block_kind::llama,
                                   .shape = {.layers = 2, .q_heads = 4, .kv_heads = 2},
                                   .hidden = 96,
                                   .head_dim = 64,
                                   .ffn = 160,
                                   .vocabulary = 61};

// y [n] = W [n, m] x [m].
struct matrix {
  std::size_t n = 0, m = 0;
  std::vector<float> w;
  matrix(std::size_t rows, std::size_t columns, std::mt19937& random)
      : n{rows}, m{columns}, w(rows * columns) {
    std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(columns)));
    for (float& x : w) {
      x = normal(random);
    }
  }
  std::vector<float> operator()(const std::vector<float>& x) const {
    std::vector<float> y(n, 0.0f);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < m; ++j) {
        y[i] += w[i * m + j] * x[j];
      }
    }
    return y;
  }
};

struct block {
  matrix q, k, v, o, gate, up, down;
  explicit block(std::mt19937& random)
      : q(256, 96, random),
        k(128, 96, random),
        v(128, 96, random),
        o(96, 256, random),
        gate(160, 96, random),
        up(160, 96, random),
        down(96, 160, random) {}
};

std::vector<float> normed(std::vector<float> x) {
  float sum = 1e-5f;
  for (const float v : x) {
    sum += v * v;
  }
  const float scale = std::sqrt(static_cast<float>(x.size()) / sum);
  for (float& v : x) {
    v *= scale;
  }
  return x;
}

void add(std::vector<float>& x, const std::vector<float>& y) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] += y[i];
  }
}

std::vector<fp16> stored(const std::vector<float>& x) {
  std::vector<fp16> s(x.size());
  std::ranges::transform(x, s.begin(), [](float v) { return from_float<fp16>(v); });
  return s;
}

// Generates tokens greedily for one sequence; returns what attention moved in each step, all
// layers.
template <class D>
std::vector<traffic> generate(cpu::engine<D, format>& engine, int steps, std::vector<int>& tokens) {
  std::mt19937 random(7);
  const matrix embedding(61, 96, random);
  std::vector<block> blocks;
  for (int l = 0; l < small.shape.layers; ++l) {
    blocks.emplace_back(random);
  }
  const sequence seq = engine.open();
  std::vector<traffic> moved;
  for (int step = 0, token = 1; step < steps; ++step) {
    std::vector<float> x(embedding.w.begin() + token * 96, embedding.w.begin() + (token + 1) * 96);
    x = normed(x);
    traffic step_moved;
    for (int l = 0; l < small.shape.layers; ++l) {
      const block& b = blocks[static_cast<std::size_t>(l)];
      const std::vector<float> in = normed(x);
      engine.append(seq, l, stored(b.k(in)), stored(b.v(in)));
      std::vector<float> attended(256);
      step_moved += engine.attend(seq, l, b.q(in), attended).traffic;
      add(x, b.o(attended));
      const std::vector<float> mid = normed(x);
      std::vector<float> inner = b.gate(mid);
      const std::vector<float> up = b.up(mid);
      for (std::size_t i = 0; i < inner.size(); ++i) {
        inner[i] = inner[i] / (1.0f + std::exp(-inner[i])) * up[i];
      }
      add(x, b.down(inner));
    }
    const std::vector<float> logits = embedding(normed(x));
    token = static_cast<int>(std::ranges::max_element(logits) - logits.begin());
    tokens.push_back(token);
    moved.push_back(step_moved);
  }
  return moved;
}

// The systems' contexts are those at the nodes, so that nothing is interpolated: start, quarters
// and end of the output.
constexpr system::workload job{.batch = 1, .input_tokens = 64, .output_tokens = 64};

template <class D, class System>
std::vector<int> check(const System& charged, const typename D::attention_policy& attention,
                       bool same_pages) {
  cpu::engine<D, format> engine(small.shape, {.bytes = 16 << 20, .context_tokens = 128}, attention);
  std::vector<int> tokens;
  const std::vector<traffic> moved = generate<D>(engine, 128, tokens);
  for (const int context : {64, 80, 96, 112, 128}) {
    CAPTURE(context);
    const traffic& real = moved[static_cast<std::size_t>(context - 1)];
    const system::kv_load load = charged.kv().at(context);
    const double layers = small.shape.layers;
    // Entries that attention uses, from flash and from the group buffer. A host has no filter, so a
    // host's engine counts pages.
    if (D::transfer_policy::computes_in_drive) {
      CHECK(layers * (load.wanted_bytes + load.buffered_bytes) ==
            static_cast<double>(real.filtered_bytes + real.buffer_bytes));
    }
    if (same_pages) {
      CHECK(layers * load.page_bytes == static_cast<double>(real.channel_bytes));
      CHECK(layers * load.buffered_bytes == static_cast<double>(real.buffer_bytes));
    }
    const system::decode_step step = charged.step(context);
    if (D::transfer_policy::computes_in_drive) {
      // The engine's link: q and the output; the system's, beside that, new k and v of one token.
      CHECK(step.bytes.drive_link ==
            static_cast<double>(real.link_bytes) + small.kv_bytes_per_token());
    }
  }
  return tokens;
}

}  // namespace

TEST_CASE("what the systems charge is what the CPU path reads, on a model run end to end") {
  const system::server on = system::paper_server();
  const auto dense = check<insta>(system::insta_system<insta, format>(small, on, job), {}, true);
  // Files, dense: the same pages; and every policy of the same selection, the same tokens.
  const auto files =
      check<flexgen>(system::flexgen_system<flexgen, format>(small, on, job), {}, true);
  CHECK(files == dense);
  // All kept: the pages of a sparse policy are those of its selection, whoever draws it.
  const attention::sparf all{.keep_dims = 1.0, .keep_tokens = 1.0};
  const auto kept =
      check<insta_sparf>(system::insta_system<insta_sparf, format>(small, on, job, all), all, true);
  CHECK(kept == dense);
  // 1/8: as many entries, on other pages.
  const attention::sparf eighth;
  check<insta_sparf>(system::insta_system<insta_sparf, format>(small, on, job, eighth), eighth,
                     false);
}

}  // namespace instinfer::test_small_model
