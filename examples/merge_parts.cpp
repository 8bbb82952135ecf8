// One context over two drives: each attends to its half, and the results merge by their
// log-sum-exp into what one drive with everything gives.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

#include <instinfer/core/merge_attention.hpp>
#include <instinfer/cpu.hpp>

#include "support/program.hpp"

using namespace instinfer;

using format = kv_format<fp16, 64>;
using drive = cpu::engine<insta, format>;

struct part {
  std::vector<float> out;          // [q_heads, head_dim]
  std::vector<float> log_sum_exp;  // [q_heads]
};

// Attention of q over these tokens alone, on a drive that holds nothing else.
part attend_to(const model_shape& shape, std::span<const fp16> k, std::span<const fp16> v,
               std::span<const float> q) {
  drive one{shape, {.bytes = 64 << 20, .context_tokens = 8192}};
  const auto seq = one.open();
  one.append(seq, 0, k, v);
  part mine{std::vector<float>(q.size()), std::vector<float>(q.size() / 64)};
  const attend_request request{
      .seq = seq, .q = q, .out = mine.out, .log_sum_exp = mine.log_sum_exp};
  drive::scratch scratch;
  one.attend({&request, 1}, 0, scratch, parallel::serial{});
  return mine;
}

int main() {
  return program::run("merge_parts", [] {
    const model_shape shape{.layers = 1, .q_heads = 8, .kv_heads = 2};
    constexpr std::size_t tokens = 4000, row = 2 * 64;  // [tokens, kv_heads, head_dim]

    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<fp16> k(tokens * row), v(k.size());
    for (fp16& x : k) x = from_float<fp16>(normal(random));
    for (fp16& x : v) x = from_float<fp16>(normal(random));
    std::vector<float> q(8 * 64);
    for (float& x : q) x = normal(random);

    const std::size_t cut = 1500 * row;
    const std::span keys(k), values(v);
    part all = attend_to(shape, keys.first(cut), values.first(cut), q);
    const part rest = attend_to(shape, keys.subspan(cut), values.subspan(cut), q);
    merge_attention(all.out, all.log_sum_exp, rest.out, rest.log_sum_exp);

    const part whole = attend_to(shape, k, v, q);
    float largest = 0, error = 0;
    for (std::size_t i = 0; i < whole.out.size(); ++i) {
      largest = std::max(largest, std::abs(whole.out[i]));
      error = std::max(error, std::abs(whole.out[i] - all.out[i]));
    }
    std::printf("1500 and 2500 tokens on two drives, merged: one drive's output within %.1e\n",
                static_cast<double>(error / largest));
    return error <= 1e-5f * largest ? 0 : 1;
  });
}
