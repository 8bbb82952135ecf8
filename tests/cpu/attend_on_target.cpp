// Compiled once for each target, with ATTEND the name of the function that this unit defines.

#include "attend_on_target.hpp"

#include <random>
#include <typeinfo>

#include "instinfer/cpu.hpp"

namespace instinfer::test {

namespace {

using format = kv_format<fp16, 64>;
constexpr int q_heads = 6;
constexpr int kv_heads = 2;

template <class D>
std::vector<float> attend(const std::vector<fp16>& k, const std::vector<fp16>& v,
                          const std::vector<float>& q) {
  cpu::engine<D, format> engine({.layers = 1, .q_heads = q_heads, .kv_heads = kv_heads}, {});
  const sequence seq = engine.open();
  engine.append(seq, 0, k, v);
  std::vector<float> out(q.size());
  engine.attend(seq, 0, q, out);
  return out;
}

}  // namespace

attended ATTEND(unsigned seed, int tokens) {
  // Sums of two dice, so that all targets and standard libraries make the same values.
  std::mt19937 random(seed);
  const auto value = [&] {
    return static_cast<float>(random() % 1024 + random() % 1024) / 512.0f - 2.0f;
  };
  std::vector<fp16> k(static_cast<std::size_t>(tokens * kv_heads * format::k_dim));
  std::vector<fp16> v(k.size());
  for (std::size_t i = 0; i < k.size(); ++i) {
    k[i] = from_float<fp16>(value() * (i % 64 % 7 == 0 ? 3.0f : 0.5f));
    v[i] = from_float<fp16>(value() + 0.3f);
  }
  std::vector<float> q(q_heads * format::k_dim);
  for (float& x : q) {
    x = value();
  }
  return {.target = cpu::target_name(),
          .path_name = typeid(cpu::path).name(),
          .engine_name = typeid(cpu::engine<insta, format>).name(),
          .dense = attend<insta>(k, v, q),
          .sparf = attend<insta_sparf>(k, v, q)};
}

}  // namespace instinfer::test
