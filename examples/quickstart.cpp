// The README's program: SparF in the drive, computed on the CPU and timed on the paper's drive, with the same calls.

#include <cstdio>
#include <random>
#include <vector>

#include <instinfer/cpu.hpp>

int main() {
  using namespace instinfer;
  using format = kv_format<fp16, 128>;
  const model_shape shape{.layers = 1, .q_heads = 32, .kv_heads = 8};
  constexpr int tokens = 4096;

  cpu::engine<insta_sparf, format> drive{shape, {.bytes = 64 << 20, .context_tokens = tokens}};
  flash::engine<insta_sparf, format> clock{shape, {.bytes = 64 << 20, .context_tokens = tokens}};

  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<fp16> k(tokens * 8 * 128), v(k.size());  // [tokens, kv_heads, head_dim]
  for (fp16& x : k) x = from_float<fp16>(normal(random));
  for (fp16& x : v) x = from_float<fp16>(normal(random));
  std::vector<float> q(32 * 128, 0.5f), out(q.size());  // [q_heads, head_dim]

  const auto seq = drive.open();
  drive.append(seq, 0, k, v);
  const receipt moved = drive.attend(seq, 0, q, out);

  const auto timed = clock.open();
  clock.append(timed, 0, k, v);
  const flash::receipt time = clock.attend(timed, 0, q, out);

  std::printf("%s: %llu pages, %llu KB filtered, %llu KB over the link, %.0f us on the drive\n",
              cpu::target_name(), static_cast<unsigned long long>(moved.traffic.pages_read),
              static_cast<unsigned long long>(moved.traffic.filtered_bytes / 1000),
              static_cast<unsigned long long>(moved.traffic.link_bytes / 1000),
              time.total_ns() / 1e3);
}
