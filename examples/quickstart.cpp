// The README's program: SparF in the drive, computed on the CPU and timed on the paper's drive,
// with the same calls.

#include <cstdio>
#include <random>
#include <vector>

#include <instinfer/cpu.hpp>

int main() {
  using namespace instinfer;
  using format = kv_format<fp16, 128>;
  const model_shape shape{.layers = 1, .q_heads = 32, .kv_heads = 8};
  constexpr int tokens = 4096;

  const store::capacity capacity{.bytes = 64 << 20, .context_tokens = tokens};

  cpu::engine<insta_sparf, format> cpu_engine{shape, capacity};
  flash::engine<insta_sparf, format> flash_engine{shape, capacity};

  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<fp16> k(tokens * 8 * 128), v(k.size());  // [tokens, kv_heads, head_dim]
  for (fp16& x : k) x = from_float<fp16>(normal(random));
  for (fp16& x : v) x = from_float<fp16>(normal(random));
  std::vector<float> q(32 * 128, 0.5f), out(q.size());  // [q_heads, head_dim]

  const auto seq = cpu_engine.open();
  cpu_engine.append(seq, 0, k, v);
  const receipt done = cpu_engine.attend(seq, 0, q, out);

  const auto timed = flash_engine.open();
  flash_engine.append(timed, 0, k, v);
  const flash::receipt time = flash_engine.attend(timed, 0, q, out);

  std::printf("%s: %llu pages, %llu KB filtered, %llu KB over the link, %.0f us on the drive\n",
              cpu::target_name(), static_cast<unsigned long long>(done.traffic.pages_read),
              static_cast<unsigned long long>(done.traffic.filtered_bytes / 1000),
              static_cast<unsigned long long>(done.traffic.link_bytes / 1000),
              time.total_ns() / 1e3);
  if (std::fflush(stdout) != 0) return std::perror("quickstart"), 1;
}
