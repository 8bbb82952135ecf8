#pragma once
// Runs one design on random values on the reference, the CPU and the flash path, and compares their
// outputs.

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include <instinfer/cpu.hpp>
#include <instinfer/reference.hpp>

namespace instinfer::examples {

// One attend of a fresh engine; prints what it took. k, v [tokens, kv_heads, head_dim],
// q [q_heads, head_dim].
template <class Engine, class Format>
std::vector<float> attend(const char* path, const model_shape& shape,
                          const std::vector<typename Format::element>& k,
                          const std::vector<typename Format::element>& v,
                          const std::vector<float>& q) {
  Engine engine(shape, {.context_tokens = 4096});
  const sequence seq = engine.open();
  engine.append(seq, 0, k, v);
  std::vector<float> out(static_cast<std::size_t>(shape.q_heads * Format::v_dim));
  const auto receipt = engine.attend(seq, 0, q, out);
  std::printf("%-10s %4.0f pages, %7.1f KB over the link, first output %+.6f", path,
              static_cast<double>(receipt.traffic.pages_read),
              static_cast<double>(receipt.traffic.link_bytes) / 1e3, static_cast<double>(out[0]));
  if constexpr (requires { receipt.total_ns(); }) {
    std::printf(", modelled %.0f us", receipt.total_ns() / 1e3);
  }
  std::printf("\n");
  return out;
}

// Returns whether the paths agree to fp32 rounding.
template <class Design, class Format>
bool on_every_path(const model_shape& shape, int tokens) {
  using element = typename Format::element;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<element> k(static_cast<std::size_t>(tokens * shape.kv_heads * Format::k_dim));
  std::vector<element> v(static_cast<std::size_t>(tokens * shape.kv_heads * Format::v_dim));
  std::vector<float> q(static_cast<std::size_t>(shape.q_heads * Format::k_dim));
  for (element& x : k) x = from_float<element>(normal(random));
  for (element& x : v) x = from_float<element>(normal(random));
  for (float& x : q) x = normal(random);

  const auto exact = attend<reference::engine<Design, Format>, Format>("reference", shape, k, v, q);
  const auto simd = attend<cpu::engine<Design, Format>, Format>("cpu", shape, k, v, q);
  const auto timed =
      attend<flash::engine<Design, Format, cpu::path>, Format>("flash", shape, k, v, q);
  bool agree = simd == timed;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    agree = agree && std::abs(exact[i] - simd[i]) < 1e-5f;
  }
  std::printf("%s\n", agree ? "the paths agree" : "THE PATHS DISAGREE");
  return agree;
}

}  // namespace instinfer::examples
